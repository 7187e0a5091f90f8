"""The focal length Delta of the Staeckel fudge, for each star.

A Delta that does not depend on theta, computed once from the fiducial mass model, is what both inference paths use: it
moves the actions by less than the fudge's own error, and keeps them smooth in theta.

The default is that of the star's shell orbit: the orbit of the same L_z and vertical motion that has no radial
oscillation. Shells are integrated on a grid of guiding radii and vertical speeds, and a polynomial through their focal
lengths serves all stars.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ..base.constants import V_CIRC
from .frame import PhaseSpace
from .potential import MassModel
from .staeckel import momentum_in_plane

__all__ = ["local_delta", "orbit_delta", "shell_deltas", "shell_polynomials"]

_NEAR_PLANE = 1e-5  # of R: the formula is 0 / 0 at the plane, and even in z
_LEAST, _MOST = 0.02, 10.0  # of the radius: where the potential is spherical, or not prolate at all, Delta^2 <= 0
_PERIODS, _STEPS = 4, 512
_RADII = (1.0, 30.0)  # kpc: guiding radii of shells; a star beyond has the Delta of the nearest shell
_FASTEST, _SLOW = 0.6, 0.05  # vertical speeds of shells; they are even in the logarithm beyond the slow one
_SHELLS, _DEGREE = 16, 10  # shells along each coordinate; degree of the polynomial
_QUARTER = 64  # steps of a quarter of a vertical oscillation
_PASSES = 10  # by the secant rule, to a shell
_LEAST_L = 1e-3  # kpc km/s: a radial orbit has no guiding radius
_ROUND = 0.45  # Delta / guiding radius by which a star's vertical speed is told


def _delta_squared(R: Any, z: Any, theta: Any, model: MassModel) -> Any:
    """Delta^2 [kpc^2] at one point: Sanders 2012, eq. 9, with galpy's sign."""
    z = jnp.maximum(jnp.abs(z), _NEAR_PLANE * R)
    (phi_R, phi_z), ((phi_RR, phi_Rz), (_, phi_zz)) = (
        d(model.potential, (0, 1))(R, z, theta) for d in (jax.grad, jax.hessian)
    )
    return z**2 - R**2 + (3 * (z * phi_R - R * phi_z) + R * z * (phi_RR - phi_zz)) / phi_Rz


def _within_limits(delta_squared: Any, R: Any, z: Any) -> Any:
    r2 = R**2 + z**2
    return jnp.sqrt(jnp.clip(delta_squared, _LEAST**2 * r2, _MOST**2 * r2))


def local_delta(w: PhaseSpace, theta: Any, model: MassModel) -> ArrayLike:
    """Delta [kpc] from the potential's second derivatives at one star's position (scalars)."""
    return _within_limits(_delta_squared(w.R, w.z, theta, model), w.R, w.z)


def _radial_period(w: PhaseSpace, theta: Any, model: MassModel) -> Any:
    """Radial period [kpc/(km/s)], as that of a nearly circular orbit of the same energy: within 1% for disk stars."""
    E = model.potential(w.R, w.z, theta) + 0.5 * (w.vR**2 + w.vT**2 + w.vz**2)

    def force(R: Any) -> Any:
        return jax.grad(model.potential)(R, jnp.zeros_like(R), theta)

    def excess(R: Any) -> Any:
        return model.potential(R, jnp.zeros_like(R), theta) + 0.5 * R * force(R) - E

    def newton(_: int, R: Any) -> Any:
        value, slope = jax.jvp(excess, (R,), (jnp.ones_like(R),))
        return jnp.clip(R - value / slope, 0.3 * R, 3 * R)

    R = jax.lax.fori_loop(0, 6, newton, w.R)
    value, slope = jax.jvp(force, (R,), (jnp.ones_like(R),))
    return 2 * jnp.pi / jnp.sqrt(slope + 3 * value / R)


def orbit_delta(w: PhaseSpace, theta: Any, model: MassModel) -> ArrayLike:
    """Delta [kpc]: the median along one star's orbit over four radial periods (PW21, section 4).

    The orbit is integrated in the meridional plane by leapfrog. Points where Delta^2 is negative do not count, as in
    gala.
    """
    L, step = w.R * w.vT, _PERIODS * _radial_period(w, theta, model) / _STEPS

    def effective(R: Any, z: Any) -> Any:
        return model.potential(R, z, theta) + 0.5 * (L / R) ** 2

    force = jax.grad(effective, (0, 1))

    def drift_kick_drift(state: tuple, _: Any) -> tuple[tuple, Any]:
        R, z, vR, vz = state
        R, z = R + 0.5 * step * vR, z + 0.5 * step * vz
        fR, fz = force(R, z)
        vR, vz = vR - step * fR, vz - step * fz
        R, z = R + 0.5 * step * vR, z + 0.5 * step * vz
        return (R, z, vR, vz), _delta_squared(R, z, theta, model)

    _, squared = jax.lax.scan(drift_kick_drift, (w.R, w.z, w.vR, w.vz), None, length=_STEPS)
    return _within_limits(jnp.nanmedian(jnp.where(squared > 0, squared, jnp.nan)), w.R, w.z)


# ---- shell orbits


def _guiding_radius(L: Any, theta: Any, model: MassModel) -> Any:
    """Radius [kpc] of the circular orbit of angular momentum L > 0 [kpc km/s], by Newton's method in ln R."""

    def excess(log_R: Any) -> Any:
        R = jnp.exp(log_R)
        return 3 * log_R + jnp.log(jax.grad(model.potential)(R, jnp.zeros_like(R), theta)) - 2 * jnp.log(L)

    def newton(_: int, log_R: Any) -> Any:
        value, slope = jax.jvp(excess, (log_R,), (jnp.ones_like(log_R),))
        return log_R - jnp.clip(value / slope, -1.0, 1.0)

    return jnp.exp(jax.lax.fori_loop(0, 4, newton, jnp.log(L / V_CIRC)))


def _shell_of(w: PhaseSpace, theta: Any, model: MassModel) -> Any:
    """Coordinates (2,) of one star's shell, each within -1 and 1: of guiding radius and vertical speed.

    The vertical speed is that with which the star crosses the plane at its guiding radius, in units of the circular
    speed: it follows from the third integral of a Staeckel potential (Binney 2012, eq. 8).
    """
    L = jnp.maximum(jnp.abs(w.R * w.vT), _LEAST_L)
    R_g = _guiding_radius(L, theta, model)
    D = _ROUND * R_g
    v_z2 = momentum_in_plane(w, D, theta, model.potential) / (1 + (R_g / D) ** 2)
    speed2 = v_z2 / (L / R_g) ** 2
    return _shell_coordinates(R_g, jnp.maximum(speed2, 0.0))


def _shell_coordinates(R_g: Any, speed2: Any) -> Any:
    low, high = np.log(_RADII)
    fast = np.log1p((_FASTEST / _SLOW) ** 2)
    place = jnp.stack([(jnp.log(R_g) - low) / (high - low), jnp.log1p(speed2 / _SLOW**2) / fast])
    return jnp.clip(2 * place - 1, -1.0, 1.0)


def _shell(R_g: Any, speed: Any, theta: Any, model: MassModel) -> Any:
    """The shell with that guiding radius [kpc] and vertical speed in the plane, in circular speeds: its coordinates
    (2,), and ln Delta^2 (2,) of J_R and of the rest.

    A shell leaves the plane with v_R = 0, at the radius from which v_R is 0 again at its highest point. On a quarter of
    its oscillation, Delta is the median of the local one, in time. Where the orbit is an ellipse of the coordinates,
    a line in R^2 and z^2, that ellipse has a Delta too: the fudge's J_R is most nearly constant along orbits with
    ellipse^2 / median (docs/actions.md).
    """
    zero = jnp.zeros_like(R_g)
    v_c = jnp.sqrt(R_g * jax.grad(model.potential)(R_g, zero, theta))
    L, vz = R_g * v_c, speed * v_c
    force = jax.grad(lambda R, z: model.potential(R, z, theta) + 0.5 * (L / R) ** 2, (0, 1))

    def path(R: Any, step: Any) -> tuple:
        """R, z, v_R and v_z (steps,) of an orbit that leaves the plane at R."""

        def drift_kick_drift(state: tuple, _: Any) -> tuple[tuple, tuple]:
            R, z, vR, vz = state
            R, z = R + 0.5 * step * vR, z + 0.5 * step * vz
            fR, fz = force(R, z)
            vR, vz = vR - step * fR, vz - step * fz
            state = R + 0.5 * step * vR, z + 0.5 * step * vz, vR, vz
            return state, state

        return jax.lax.scan(drift_kick_drift, (R, zero, zero, vz), None, length=_QUARTER)[1]

    def secant(number: int, state: tuple) -> tuple:
        (before, v_before), (last, v_last), step, _ = state
        new = last - v_last * (last - before) / jnp.where(v_last == v_before, jnp.inf, v_last - v_before)
        new = jnp.where(number < 2, R_g * (1 + 0.02 * number), jnp.clip(new, 0.9 * last, 1.1 * last))
        orbit = path(new, step)
        *_, v_R, v_z = orbit
        top = jnp.maximum(jnp.argmax(v_z < 0), 1)
        part = v_z[top - 1] / (v_z[top - 1] - v_z[top])
        step *= jnp.where(number < 1, 1.0, 1.3 * (top + part) / _QUARTER)
        return (last, v_last), (new, v_R[top - 1] + part * (v_R[top] - v_R[top - 1])), step, (*orbit, top)

    step = 1.6 * jnp.pi * R_g / v_c / _QUARTER  # a quarter of a vertical oscillation is shorter than 0.8 of a circle
    none, orbit = (R_g, zero), (*jnp.zeros((4, _QUARTER)), 0)
    _, (start, _), _, (R, z, _, _, top) = jax.lax.fori_loop(0, _PASSES, secant, (none, none, step, orbit))

    rising = jnp.arange(_QUARTER) < top
    squared = jax.vmap(lambda R, z: _delta_squared(R, z, theta, model))(R, z)
    median = _within_limits(jnp.nanmedian(jnp.where(rising, squared, jnp.nan)), start, zero)
    x, y = (a**2 - jnp.sum(jnp.where(rising, a**2, 0)) / top for a in (R, z))
    slope = -jnp.sum(jnp.where(rising, x * y, 0)) / jnp.sum(jnp.where(rising, x**2, 0))  # of z^2 against R^2
    height2 = z[0] ** 2 - y[0] + slope * (R[0] ** 2 - x[0])
    ellipse = _within_limits(height2 * (1 - 1 / slope), start, zero)
    own = _shell_of(PhaseSpace(start, zero, zero, zero, L / start, vz), theta, model)
    return own, jnp.stack([4 * jnp.log(ellipse) - 2 * jnp.log(median), 2 * jnp.log(median)])


@partial(jax.jit, static_argnames="model")
def shell_polynomials(theta: Any, model: MassModel) -> jax.Array:
    """Coefficients (terms, 2) of ln Delta^2 of shells, for J_R and for the rest, in the coordinates of `_shell_of`."""
    from ..base.response_surface import chebyshev  # imports SciPy, which reading stars does not need

    nodes = np.cos(np.pi * (np.arange(_SHELLS) + 0.5) / _SHELLS)  # Chebyshev's
    low, high = np.log(_RADII)
    R_g, speed = np.exp(low + (high - low) * (nodes + 1) / 2), np.log1p((_FASTEST / _SLOW) ** 2) * (nodes + 1) / 2
    grid = np.stack(np.meshgrid(R_g, _SLOW * np.sqrt(np.expm1(speed)), indexing="ij"), -1).reshape(-1, 2)
    places, values = jax.vmap(lambda R_g, speed: _shell(R_g, speed, theta, model))(*jnp.asarray(grid).T)
    good = jnp.isfinite(values).all(1)
    basis = jax.vmap(lambda place: chebyshev(place, _DEGREE))(places)
    return jnp.linalg.lstsq(jnp.where(good[:, None], basis, 0.0), jnp.where(good[:, None], values, 0.0))[0]


def shell_deltas(w: PhaseSpace, polynomials: Any, theta: Any, model: MassModel) -> Any:
    """Delta [kpc] (2,) of one star's shell, by `shell_polynomials`: for J_R, and for all else."""
    from ..base.response_surface import chebyshev

    return jnp.exp(0.5 * chebyshev(_shell_of(w, theta, model), _DEGREE) @ polynomials)
