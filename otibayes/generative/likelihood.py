"""The likelihood that a model is given: the abundances' density as a function of theta and hyperparameters."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ..base.errors import InputError
from ..dynamics.trend import inputs
from .data import Data
from .density import dense_log_likelihood, hilbert_log_likelihood
from .statistic import Statistic, condensed

__all__ = ["LIKELIHOODS", "Call", "Likelihood", "Recorder"]

LIKELIHOODS = ("hilbert", "dense")
DENSE_MOST = 2000  # stars: beyond, N^3 is hopeless
_DENSE_VALUES = 4000  # the same for abundances that do not separate


@dataclass(frozen=True, eq=False)
class Likelihood:
    """ln p(abundances | theta, hyperparameters) of the stars in `data`: what a model in `models/` is given.

    Computed by the `kind` "hilbert" or "dense" ("none" is 0: the prior alone). `source`, a function of theta, replaces
    the stars as where the statistic of "hilbert" comes from: a response surface; it also returns a term to add to the
    logarithm, 0 where the surface holds. -inf where a star's actions are undefined or leave the basis' box, or a Gram
    matrix is not positive definite.
    """

    data: Data
    kind: str = "hilbert"
    source: Callable[[Any], tuple[Statistic, Any]] | None = None

    def __post_init__(self) -> None:
        if self.kind not in (*LIKELIHOODS, "none"):
            raise InputError(f"unknown likelihood {self.kind!r}; choose one of {', '.join(LIKELIHOODS)}")
        if self.kind == "dense":
            self._check_size()

    def _check_size(self) -> None:
        if len(self.data) > DENSE_MOST:
            raise InputError(
                f"likelihood 'dense' is for at most {DENSE_MOST} stars; got {len(self.data)}; use likelihood='hilbert'"
            )
        values = int(np.isfinite(self.data.variance).sum())
        if not self.data.classes.common and values > _DENSE_VALUES:
            raise InputError(
                f"likelihood 'dense' with missing abundances or errors by star is for at most {_DENSE_VALUES}"
                f" abundances; got {values}; use likelihood='hilbert'"
            )

    @property
    def elements(self) -> tuple[str, ...]:
        """Names of the elements, in the order of amplitude and scatter."""
        return self.data.elements

    def __call__(self, theta: Any, kernel: str, lengths: Any, amplitude: Any, scatter_cholesky: Any) -> Any:
        """Natural logarithm, for theta (`Parameters`) and the arguments of `hilbert_log_likelihood`.

        amplitude (E,) and scatter_cholesky (E, E) in units of `data.scale`, the elements' standard deviations.
        """
        data, hyper = self.data, (kernel, lengths, amplitude, scatter_cholesky)
        if self.kind == "none":
            return 0.0
        if self.kind == "dense":
            own = None if data.classes.common else data.variance
            value = dense_log_likelihood(inputs(data.actions(theta)), data.Y, *hyper, data.linear, own)
        else:
            if data.basis is None:
                raise InputError("likelihood 'hilbert' needs a basis: Data.resolving")
            found, extra = self.source(theta) if self.source else (self._statistic(theta), 0.0)
            value = hilbert_log_likelihood(found, data.basis, *hyper, data.classes) + extra
        return jnp.where(jnp.isfinite(value), value, -jnp.inf)

    def _statistic(self, theta: Any) -> Statistic:
        return condensed(self.data.basis, self.data.moments(theta), len(self.elements))


class Call(NamedTuple):
    """What a model calls its likelihood with, at S draws: lengths (S, 3), amplitude (S, E), Cholesky factor of Sigma
    (S, E, E), in the units of `Likelihood`."""

    lengths: Any
    amplitude: Any
    scatter_cholesky: Any


@dataclass(frozen=True, eq=False)
class Recorder(Likelihood):
    """A likelihood that keeps what it is called with."""

    called: list[tuple[str, Call]] = field(default_factory=list)

    def __call__(self, theta: Any, kernel: str, lengths: Any, amplitude: Any, scatter_cholesky: Any) -> Any:
        self.called.append((kernel, Call(jnp.broadcast_to(lengths, (3,)), amplitude, scatter_cholesky)))
        return 0.0
