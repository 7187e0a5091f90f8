"""Distances that stars have on average, given their parallaxes and where stars are.

1 / parallax is biased: more stars lie behind than before a place, and a star that moves fast for its kind is rather one
whose distance was taken too large. With p the density of the stars as observed, a parallax with error sigma has the
expectation (Tweedie's formula; Efron 2011)

    E[parallax] = parallax + sigma^2 d ln p / d parallax.

Only the slope of ln p along the line of sight is needed, at fixed direction, proper motion and radial velocity. Score
matching (Hyvarinen 2005) finds it by linear equations: of s = sum_k c_k g_k, the mean square difference from the slope
D ln p is, but for a constant, the mean of s^2 + 2 D s. No model of the Galaxy has a part in it.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..base.constants import R0, V_CIRC
from ..base.errors import InputError
from ..base.parallel import in_blocks
from ..base.parameters import Parameters
from ..dynamics.frame import galactocentric, heliocentric
from .stars import Stars

__all__ = ["expected_distances"]

_EDGE = 0.3  # of ln distance: the slope is not learned from the farthest stars, beyond which a cut may lie
_RIDGE = 1e-6  # relative to the variance of each term
_LEAST_STARS = 300


def expected_distances(stars: Stars) -> Stars:
    """The stars with distances of the mean ln(distance) that parallaxes leave, for N stars read with a parallax.

    Give it all stars of a survey, and cut in place or distance afterwards: the density must be smooth along the line
    of sight, but for an end at the largest distance. A star without an error keeps its distance. The provenance says
    how far distances moved. To second order in the relative error.

    Raises `InputError` if distances are not 1 / parallax, there are no errors, or fewer than 300 stars.
    """
    settings = dict(stars.provenance.settings)
    if "parallax_zero_point" not in settings or "distances" in settings:
        raise InputError("expected_distances needs distances that are 1 / parallax, as read_stars takes them; these are"
                         " not")  # fmt: skip
    if "distance" not in stars.astrometric_errors:
        raise InputError("expected_distances needs the column parallax_error; the stars have none")
    if len(stars) < _LEAST_STARS:
        raise InputError(f"expected_distances needs {_LEAST_STARS} stars or more, got {len(stars)}")
    distance = np.asarray(stars.distance)
    relative = np.nan_to_num(np.asarray(stars.astrometric_errors["distance"]) / distance)
    # of a normal parallax: (slope + 1) from the change of variables, 1/2 from the mean of its logarithm
    moved = relative**2 * (_slope(stars) + 1.5)
    note = f"distances are expectations given the parallaxes: ln distance moved by {np.sqrt(np.mean(moved**2)):.2g} rms"
    recorded = (*stars.provenance.settings, ("distances", "expected"))
    provenance = replace(stars.provenance, settings=recorded, notes=(*stars.provenance.notes, note))
    return replace(stars, distance=distance * np.exp(moved), provenance=provenance)


def _slope(stars: Stars) -> np.ndarray:
    """d ln p / d ln distance (N,) of the stars' density over ln distance, direction, proper motion and radial
    velocity."""
    g, slope = in_blocks(_terms, *stars.sky.values())
    distance = np.asarray(stars.distance)
    inward = np.log(distance.max() / distance) / _EDGE
    weight = np.minimum(inward, 1.0)
    change = np.where(inward < 1, -1 / _EDGE, 0.0)
    A = (weight[:, None] * g).T @ g
    b = -(change[:, None] * g + weight[:, None] * slope).sum(0)
    return g @ np.linalg.solve(A + _RIDGE * np.diag(np.diag(A)), b)


@jax.jit
def _terms(*sky: Any) -> tuple[Any, Any]:
    """Terms g (n, K) of the slope, one constant and those of `_log_density`, and their slopes, at `Stars.sky` (n,)."""

    def of(ra: Any, dec: Any, distance: Any, *motion: Any) -> tuple[Any, Any]:
        def density(t: Any) -> Any:
            return _log_density(heliocentric(ra, dec, distance * jnp.exp(t), *motion))

        def along(t: Any) -> Any:
            return jax.jvp(density, (t,), (1.0,))[1]

        g, slope = jax.jvp(along, (0.0,), (1.0,))
        return jnp.append(g, 1.0), jnp.append(slope, 0.0)

    return jax.vmap(of)(*sky)


def _log_density(star: Any) -> Any:
    """Terms (K - 1,) that a survey's ln density of a disk is made of, at a heliocentric vector (6,)."""
    R, _, z, v_R, v_phi, v_z = galactocentric(star, Parameters())
    distance, height = jnp.linalg.norm(star[:3]), jnp.sqrt(z**2 + 0.1**2)
    outward, v_phi = R - R0, v_phi - V_CIRC

    def tails(v: Any, *scales: float) -> list[Any]:  # quadratic within a scale, linear beyond
        return [jnp.sqrt(1 + (v / scale) ** 2) for scale in scales]

    of_R, of_phi, of_z = tails(v_R, 20.0, 60.0), tails(v_phi, 15.0, 40.0), tails(v_z, 8.0, 20.0, 45.0)
    place = [R, R**2, height, height**2, jnp.sqrt(height), jnp.log(distance), distance, distance**2]
    speed = [v_phi, v_phi**2, v_R**2, v_z**2, *of_R, *of_phi, *of_z]
    both = [one * where for one in (v_phi, of_R[0], of_z[1]) for where in (height, outward)]
    both += [v_z**2 * height, v_R**2 * outward, of_R[0] * of_z[1], of_phi[1] * of_z[1], height * outward]
    return jnp.stack([*place, *speed, *both])
