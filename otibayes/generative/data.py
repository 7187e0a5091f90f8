"""The stars as the likelihood sees them: abundances in fixed units, how stars weigh, and the basis of the field."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..base.errors import InputError
from ..base.parallel import BLOCK
from ..dynamics import MassModel
from ..dynamics.trend import inputs
from ..stars.preparation import PreparedStars
from .basis import Basis, make_basis, reduced, spectrum
from .density import variance_ratio
from .model import GaussianField, Requirements
from .relabelling import Reference, Terms, degree_for, relabelled
from .statistic import Moments, gram
from .sums import inputs_at
from .weights import Classes, classify, student_weights

__all__ = ["Data", "likelihood_data"]

_LEAST_STARS = 30
_COPY = 1e-6  # least eigenvalue of the abundances' correlations
_SHORT = 0.05  # quantile of the length scales that a basis must resolve
# Variance left out, field's over noise's, summed over the stars: ln L changes by less than half of it, and nearly the
# same for every theta; `StarPotential.basis_shift` tells how far a mean would move.
_DROPPED = 1.0


@dataclass(frozen=True, eq=False)
class Data:
    """N stars with E elements, in fixed units.

    `stars` (N, 6) heliocentric vectors; `delta` (N,) [kpc]; `Y` (N, E) abundances less `centre` (E,), over `scale` (E,)
    [dex], 0 where missing; `variance` (N, E) of each one's error in the same units, infinite where missing; `members`,
    the stars (indices) of each of the `classes`; `extent` (2, 3), least and largest inputs over the prior; `kept` (N,)
    indices into the given stars; `weight` (N,), of mean 1: a star scatters by Sigma over its weight; `linear` (N, L),
    columns besides the actions that abundances may depend on linearly, or None; `tails`, degrees of freedom of the t
    that weights are of, or None. The relabelling's polynomials are of a `degree`, and its `reference` comes from
    `relabelled`; the `basis` of "hilbert", and a `finer` one to check it by, from `on_box` and `resolving`.
    """

    stars: jax.Array
    delta: jax.Array
    Y: jax.Array
    variance: np.ndarray
    elements: tuple[str, ...]
    centre: np.ndarray
    scale: np.ndarray
    classes: Classes
    members: tuple[np.ndarray, ...]
    extent: np.ndarray
    kept: np.ndarray
    weight: np.ndarray
    model: MassModel
    degree: int
    linear: jax.Array | None = None
    tails: float | None = None
    reference: Reference | None = None
    basis: Any = None
    finer: Any = None

    def __len__(self) -> int:
        return self.Y.shape[0]

    @property
    def unlike(self) -> Classes | None:
        """The classes; None where all stars weigh alike, and have all elements."""
        return None if self.classes.common else self.classes

    @property
    def block(self) -> int:
        """Stars at once, in all that is done star by star: one shape, so that one program serves."""
        return min(BLOCK, len(self))

    @property
    def terms(self) -> Terms | None:
        """What inputs are relabelled by; None where they keep their labels."""
        return None if self.reference is None else self.reference.terms

    @property
    def columns(self) -> jax.Array:
        """What the basis' products are summed with, besides the trend terms: (N, L + E)."""
        return self.Y if self.linear is None else jnp.concatenate([self.linear, self.Y], 1)

    def some(self, number: int, seed: int) -> "Data":
        """A random subset of `number` stars, in their order; these if there are no more."""
        if len(self) <= number:
            return self
        chosen = np.sort(np.random.default_rng([seed, 0x736F6D65]).choice(len(self), number, replace=False))
        member = np.full(len(self), -1)
        for c, rows in enumerate(self.members):
            member[rows] = c
        members = [np.flatnonzero(member[chosen] == c) for c in range(len(self.members))]
        present = [c for c, rows in enumerate(members) if len(rows)]
        return replace(
            self,
            stars=self.stars[chosen],
            delta=self.delta[chosen],
            Y=self.Y[chosen],
            variance=self.variance[chosen],
            classes=Classes(self.classes.observed[present], self.classes.variance[present]),
            members=tuple(members[c] for c in present),
            kept=self.kept[chosen],
            weight=self.weight[chosen],
            linear=None if self.linear is None else self.linear[chosen],
            reference=None,
        )

    def relabelled(self, theta: np.ndarray) -> "Data":
        """With inputs relabelled to keep, in the mean over the stars, the labels that they have at theta (d,)."""
        x = inputs_at(theta, self.stars, self.delta, self.model, self.block)
        return replace(self, reference=Reference.of(theta, x, self.degree))

    def labels(self, x: jax.Array, change: Any) -> jax.Array:
        """Labels (n, 3) of inputs x (n, 3), by coefficients of the relabelling; see `relabelled`."""
        return relabelled(x, change, self.terms)

    def on_box(self, fields: GaussianField, size: int | None = None) -> "Data":
        """With all cosines (`size` of them, or as many as short lengths of S `fields` ask for), and twice as many."""
        lengths = np.quantile(fields.lengths, _SHORT, axis=0)
        basis = make_basis(self.extent, lengths, size)
        return replace(self, basis=basis, finer=make_basis(self.extent, lengths, 2 * len(basis.degrees)))

    def resolving(self, fields: GaussianField, sums: Sequence[Moments]) -> "Data":
        """With the bases reduced to what the stars can tell for S `fields`, by sums at a few thetas over these stars or
        over a random part of them."""
        if np.ndim(sums[0].count):
            sums = [jax.tree.map(lambda leaf: leaf.sum(0), one) for one in sums]
        share = len(self) / float(sums[0].count)
        mean = jax.tree.map(lambda *leaves: share * np.mean(leaves, 0), *sums)
        ratios = np.asarray(jax.jit(jax.vmap(variance_ratio))(fields.amplitude, fields.scatter_cholesky))

        def reduce(basis: Basis, dropped: float) -> Basis:
            spectra = jax.jit(jax.vmap(lambda lengths: spectrum(basis, fields.kernel, lengths)))(fields.lengths)
            envelope = (ratios[:, :1] * spectra).mean(0)
            return reduced(basis, gram(basis, mean), envelope, dropped, (ratios / ratios[:, :1]).max(0))

        return replace(self, basis=reduce(self.basis, _DROPPED), finer=reduce(self.finer, _DROPPED / 100))


def likelihood_data(
    prepared: PreparedStars,
    error_classes: int = 0,
    requirements: Requirements = Requirements(),
) -> Data:
    """What the likelihood needs of `prepare_stars`' stars, which have all `extra` columns that the model requires.

    Where an abundance is NaN, the star's others still serve. `error_classes` 0 takes all stars for equally well
    measured, errors being a part of the scatter; a positive number adds the errors of each to the scatter, in as many
    classes of like errors.

    Raises `InputError` for fewer than 30 stars, an element or extra column that does not vary or that few have,
    elements that determine one another, or one star that makes most of an element's scatter.
    """
    extra, tails = requirements.extra, requirements.tails
    stars, elements, model = prepared.stars, prepared.elements, prepared.model
    vectors, delta, Y = jnp.asarray(stars.heliocentric), jnp.asarray(prepared.delta), prepared.labels
    variance = np.nan_to_num(prepared.errors) ** 2 if error_classes else None
    member, classes = classify(np.isfinite(Y), variance, error_classes)
    kept = np.flatnonzero(member >= 0)
    if len(kept) < _LEAST_STARS:
        raise InputError(f"only {len(kept)} stars can be used, of {len(Y)}; the model needs {_LEAST_STARS} or more")
    member = member[kept]
    seen = classes.observed[member]
    columns = dict(zip(elements, np.where(seen, Y[kept], np.nan).T, strict=True))
    Y, centre, scale = _standard(columns, robust=tails is not None)
    if tails is None:
        _refuse_outliers(elements, Y, kept)
    _refuse_copies(elements, Y)
    own = np.zeros_like(Y) if variance is None else variance[kept] / scale**2
    present = np.unique(member)
    linear = _standard({name: np.asarray(stars.extra[name])[kept] for name in extra})[0] if extra else None
    weight = np.ones(len(kept))
    if tails is not None:
        points = inputs_at(model.Parameters(), vectors[kept], delta[kept], model)
        weight = student_weights(points, linear, np.where(seen, Y, 0.0), seen, tails)
    return Data(
        vectors[kept],
        delta[kept],
        jnp.asarray(np.where(seen, Y, 0.0)),
        np.where(seen, own, np.inf),
        elements,
        centre,
        scale,
        Classes(classes.observed[present], classes.variance[present] / scale**2),
        tuple(np.flatnonzero(member == c) for c in present),
        np.asarray(inputs(jnp.asarray(prepared.extent))),
        kept,
        weight,
        model,
        degree_for(len(kept)),
        None if linear is None else jnp.asarray(linear),
        tails,
    )


def _refuse_outliers(elements: Sequence[str], Y: np.ndarray, kept: np.ndarray) -> None:
    """`InputError` where one star makes more than half of an element's variance: the scatter would be that star's."""
    share = np.nanmax(Y**2, 0) / np.nansum(Y**2, 0)
    for e in map(int, np.flatnonzero(share > 0.5)):
        star = int(kept[np.nanargmax(Y[:, e] ** 2)])
        raise InputError(
            f"one star makes {share[e]:.0%} of the scatter in {elements[e]} (star {star}, from 0): set its abundance to"
            " NaN if it is bad, or sample with the model heavy_tails"
        )


def _refuse_copies(elements: Sequence[str], Y: np.ndarray) -> None:
    """`InputError` where elements determine one another, for which a residual covariance has no inverse."""
    whole = Y[np.isfinite(Y).all(1)]
    if len(elements) == 1 or len(whole) <= len(elements):
        return
    values, vectors = np.linalg.eigh(np.corrcoef(whole.T))
    if values[0] < _COPY:
        involved = [e for e, share in zip(elements, np.abs(vectors[:, 0]), strict=True) if share > 0.05]
        raise InputError(
            f"{' and '.join(involved)} determine one another (copies, or one the difference of others), so that they"
            f" count as one less; leave {involved[-1]} out"
        )


def _standard(columns: Mapping[str, Any], robust: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns (N,), NaN where missing, less their mean and over their standard deviation, and these two; `robust`:
    the median, and the median deviation from it in a Gaussian's standard deviations."""
    values = np.stack([np.asarray(column, float) for column in columns.values()], 1)
    number = np.isfinite(values).sum(0)
    for name, n in zip(columns, number, strict=True):
        if n < _LEAST_STARS:
            raise InputError(f"only {n} stars that can be used have {name}; the model needs {_LEAST_STARS} or more")
    centre, scale = np.nanmean(values, 0), np.nanstd(values, 0)
    for name, sd, n in zip(columns, scale, number, strict=True):
        if not sd > 1e-9:
            raise InputError(f"{name} is the same for all {n} stars, which can tell nothing; leave it out")
    if robust:
        centre = np.nanmedian(values, 0)
        scale = np.maximum(1.4826 * np.nanmedian(np.abs(values - centre), 0), 1e-3 * scale)
    return (values - centre) / scale, centre, scale
