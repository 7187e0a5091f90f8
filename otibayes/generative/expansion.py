"""The density of all stars on one basis and one response surface, both renewed where they are not good enough."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..base import response_surface as response
from ..base.parallel import cores
from ..base.progress import Stages
from ..base.store import Store
from .basis import Basis
from .data import Data
from .settings import SampleSettings
from .statistic import Statistic
from .surface import (
    NEGLIGIBLE,
    SHIFT_MOST,
    StarPotential,
    SurfaceReport,
    from_surface,
    light,
    pareto_k,
    passes,
    shift,
)
from .unconstrained import Gaussian, Unconstrained

__all__ = ["FEW", "WIDER", "Expansion", "Run"]

FEW = 4000  # stars that show which combinations of a basis matter, and where the maximum is about
_SIGMAS = 6.0  # least radius of the surface's region
_ROOM = 1.15  # least radius of the surface's region, in units of the distance of the outermost draw that is known
_DEGREES = (3, 4, 5, 6)
_ERROR_MOST = 0.05  # of a surface, in ln L, rms over draws: no posterior shows it
_FIRST, _GUIDED = 12, 32  # draws at which a surface is checked before it is used: by a pilot, and by a run
_BASIS_DRAWS = 200  # of the model's hyperparameters, for which a basis is made
_BASIS_THETAS = 8  # at which stars show which combinations of a basis matter
_CHECKED = (32, 100)  # posterior draws at which the surface is compared with the plain likelihood: if clear, or else
_HELD_OUT = 12  # points
WIDER = 1.5  # than the curvature at the maximum says, hyperparameters may be


class Run(NamedTuple):
    """What is the same all along a run."""

    unconstrained: Unconstrained
    settings: SampleSettings = SampleSettings()
    seed: int = 0
    store: Store = Store()
    passes: Store = Store(threads=cores())
    stage: Stages = Stages()

    def on_basis(
        self, data: Data, about: Gaussian, size: int | None, name: str, thetas: np.ndarray | None = None
    ) -> StarPotential:
        """The likelihood on bases of `size` cosines (None: as many as it takes), for the fields of draws from `about`,
        with inputs that keep the labels of its mean. Passes over few stars at `thetas` (T, d), by default at draws,
        show which combinations of the cosines matter.

        Bases are kept in the store under a name: another number of cores could turn their vectors about.
        """
        draws = about.draws(np.random.default_rng([self.seed, 0x6261736973]), _BASIS_DRAWS)
        fields = self.unconstrained.fields(draws)
        thetas = self.unconstrained.thetas(draws[:_BASIS_THETAS]) if thetas is None else thetas
        data = data.relabelled(self.unconstrained.thetas(about.mean)).on_box(fields, size)

        def bases() -> tuple[Basis, Basis]:
            few = replace(data.some(FEW, self.seed), basis=data.basis, finer=data.finer)
            resolved = data.resolving(fields, passes(self.passes, few, list(thetas), finer=True))
            return resolved.basis, resolved.finer

        like = Basis._make([0] * len(Basis._fields))
        with self.stage("basis"):
            basis, finer = self.store.keep(f"basis-{name}", bases, (like, like))
        return StarPotential(self.unconstrained, replace(data, basis=basis, finer=finer), self.passes)


@dataclass
class Expansion:
    """The density of all stars on one basis, `plain`, and the surface in use, of a `degree`, over its `region`."""

    run: Run
    plain: StarPotential
    region: Any = None
    surface: Any = None
    degree: int = 0

    @property
    def data(self) -> Data:
        """The stars, on the basis in use."""
        return self.plain.data

    @property
    def density(self) -> tuple[Callable[[Any, Any], Any], Any]:
        """The potential on the surface in use, and its context."""
        return self.plain.on_surface, self.plain.context(self.surface)

    def place(self, guide: np.ndarray) -> None:
        """A new region, of six sigmas of draws (S, P) or as far as they go."""
        region = self.plain.region(guide, 1.0)
        reach = _ROOM * float(response.distance(region, self.plain.theta(guide)).max())
        self.region, self.surface = replace(region, size=max(_SIGMAS, reach)), None

    def improve(self, draws: np.ndarray, exact: np.ndarray, degrees: Sequence[int] = _DEGREES) -> None:
        """Surfaces of higher and higher degree over the region, until one agrees with potentials `exact` (S,) at draws
        (S, P)."""
        done = 0 if self.surface is None else self.degree
        for degree in [d for d in degrees if d > done]:
            if self.surface is not None:
                error = self.plain.potentials_on(self.surface, draws) - exact
                if np.isfinite(error).all() and error.std() < _ERROR_MOST:
                    return
            self.plain.known.cover(self.region, degree, seed=self.run.seed)
            self.surface = self.plain.known.surface(self.region, degree).lean(NEGLIGIBLE / len(self.data))
            self.degree = degree

    def begin(self, guide: np.ndarray) -> None:
        """A surface for a pilot, about a Gaussian's draws (S, P)."""
        self.place(guide)
        few = guide[:_FIRST]
        self.improve(few, self.plain.potentials(few)[0], _DEGREES[:2])

    def suit(self, guide: np.ndarray, name: str) -> None:
        """Basis and surface that are good enough at draws (S, P) of the run before; those in use, if they are."""
        rng = np.random.default_rng([self.run.seed, 0x6775696465])
        chosen = rng.choice(guide, min(_GUIDED, len(guide)), replace=False)
        if self.run.settings.basis_size is None and self.plain.basis_shift(guide) > SHIFT_MOST:
            self.refine(guide, name)
        exact = self.plain.potentials(chosen)[0]
        if self.surface is None or _ROOM * response.distance(self.region, self.plain.theta(guide)).max() > 1:
            self.place(guide)
        self.improve(chosen, exact)

    def statistic(self, theta: np.ndarray) -> Statistic:
        """Of the stars, from the surface."""
        return from_surface(self.surface, theta)[0]

    def refine(self, guide: np.ndarray, name: str) -> None:
        """A basis of twice as many cosines, for the draws' own hyperparameters."""
        about = Gaussian(guide.mean(0), np.cov(guide.T)).wider(WIDER)
        self.plain = self.run.on_basis(self.data, about, 2 * len(self.data.basis.degrees), name)
        self.surface = None

    def holds(self, draws: np.ndarray, lp: np.ndarray) -> bool:
        """Whether draws (S, P) of exp(lp) (S,) can stand for those of the surface in use."""
        change = self.plain.potentials_on(self.surface, draws) + lp
        return light(-change) and shift(self.plain.theta(draws), change) < SHIFT_MOST

    def against_likelihood(self, draws: np.ndarray, lp: np.ndarray, attempts: int) -> SurfaceReport:
        """The density lp (S,) of draws (S, P), from the surface in use, against the plain one at up to 100 of them, and
        the basis against a finer one."""
        plain, region, seed = self.plain, self.region, self.run.seed
        chosen = np.random.default_rng([seed, 0x636865636B]).permutation(len(draws))[: _CHECKED[-1]]
        theta, error = plain.theta(draws[chosen]), np.empty(0)
        for number in _CHECKED:
            some = chosen[len(error) : number]
            error = np.concatenate([error, plain.potentials(draws[some])[0] + lp[some]])
            moved = shift(theta[: len(error)], error)
            good = moved + 2 * error.std() / np.sqrt(len(error)) < SHIFT_MOST and np.ptp(error) < 1
            if good or len(error) == len(chosen):
                break
        distance = response.distance(region, plain.theta(draws))
        size = float(region.size)
        points = response.draw(region, _HELD_OUT, seed + 1, even_radius=True)
        there = np.stack([plain.with_theta(draws.mean(0), theta) for theta in points])
        return SurfaceReport(
            degree=self.degree,
            size=size,
            farthest=float(distance.max()) * size,
            attempts=attempts,
            radius=response.distance(region, points) * size,
            held_out=plain.potentials(there)[0] - plain.potentials_on(self.surface, there),
            posterior=error - error.mean(),
            khat=pareto_k(-error),
            shift=moved,
            basis_size=len(plain.data.basis.degrees),
            combinations=plain.data.basis.size,
            basis_shift=plain.basis_shift(draws),
        )
