"""The Staeckel fudge (Binney 2012; Sanders 2012) for one star, differentiable to any order.

In prolate spheroidal coordinates R = D sinh u sin v, z = D cosh u cos v of focal length D, the squared momenta of a
star at (u0, v0) are taken to be, in units of D^2,

    p_u^2(u) = 2 [E - Phi(u, pi/2)] cosh^2 u - L_z^2 / (D sinh u)^2 - const               zero at u_min, u_max
    p_v^2(v) = 2 [E - Phi(u0, v)] (sinh^2 u0 + sin^2 v) - L_z^2 / (D sin v)^2 - const     zero at +-t_max, t = cos v

exact where Phi is a Staeckel potential. Three things make this fast and well behaved:

- With u = u_mid - u_half cos(phi) and t = t_max sin(psi) every integral over an orbit is that of a smooth periodic
  function, for which the midpoint rule converges geometrically; its Fourier series gives the integral up to the
  star's own phase too, so actions, frequencies and angles all come from the same few evaluations of Phi.
- Displacements u - u0 and y - y0, y = cos^2 v, from the star are the variables. Where they are small the momenta come
  from their Taylor series at the star, so circular and planar orbits and turning points lose no digits.
- Turning points are found without gradient and differentiated as implicit functions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .frame import PhaseSpace

__all__ = ["FAR", "NODES_U", "NODES_V", "actions", "actions_angles"]

NODES_U = 10
NODES_V = 18

# Displacements within which momenta come from a Taylor series; in u, and in cos^2 v
_SERIES_U, _SERIES_V = 3e-4, 2e-8
# Least momentum squared, (km/s)^2: keeps a circular or planar orbit's turning points apart, where its actions (below
# 1e-20 kpc km/s) and their gradients are zero to rounding.
_FLOOR = 1e-20
FAR = 1e5  # kpc: an orbit that reaches beyond is not solved
_LEAST_BARRIER = 1e-8  # (km/s)^2, of (L_z / D)^2: a star on a radial orbit turns just short of the axis
_NEAR_PLANE = 1e-10  # of cos^2 v
_NEWTON_MAX = 60
_NEWTON_NOISE = 1e-3
_NEWTON_TOLERANCE = 1e-7  # of the last step, relative; the error after it is its square

Function = Callable[[Any], Any]
Potential = Callable[[Any, Any], Any]


class _Orbit(NamedTuple):
    """One star's separable motion. Momenta are in units of D; turning points are displacements from the star."""

    L: Any
    exp_u: Any
    p_u: Any
    p_t: Any  # of t = cos v, towards larger t; both as in the mirror image above the plane
    t: Any
    y: Any  # t^2
    momentum_u: Function  # p_u^2 of the displacement u - u0
    momentum_y: Function  # p_v^2 of the displacement y - y0
    u_peri: Any
    u_apo: Any
    y_max: Any
    slope: Any  # -d p_v^2 / dy at the plane


def _derivatives(f: Function, order: int, x: Any) -> list[Any]:
    """f(x), f'(x), ... f^(order)(x) of a scalar function."""

    def derivative(g: Function) -> Function:
        return lambda x: jax.jvp(g, (x,), (jnp.ones_like(x),))[1]

    derivatives = [f]
    for _ in range(order):
        derivatives.append(derivative(derivatives[-1]))
    return [g(x) for g in derivatives]


def _root(f: Function, guess: Any, outside: Any) -> Any:
    """Root of an elementwise f between 0, where f >= 0, and `outside`, where f < 0: Newton's method in a bracket.

    Differentiable to any order as an implicit function. NaN where it does not converge.
    """

    def solve(f: Function, guess: Any) -> Any:
        def step(state: tuple) -> tuple:
            x, inside, outside, last, _, count = state
            value, slope = jax.jvp(f, (x,), (jnp.ones_like(x),))
            inside, outside = jnp.where(value >= 0, x, inside), jnp.where(value >= 0, outside, x)
            newton = x - value / slope
            safe = (newton - inside) * (newton - outside) < 0
            change = jnp.abs(newton - x)
            # small, or small enough and shrinking no more: at the rounding error of Phi
            done = (change <= _NEWTON_TOLERANCE * jnp.abs(x)) | (value == 0)
            done |= (change <= _NEWTON_NOISE * jnp.abs(x)) & (change >= last)
            new = jnp.where(safe, newton, jnp.where(done, x, 0.5 * (inside + outside)))
            return new, inside, outside, change, done, count + 1

        def unfinished(state: tuple) -> Any:
            return ~jnp.all(state[4]) & (state[5] < _NEWTON_MAX)

        x = jnp.where(guess * (guess - outside) < 0, guess, 0.5 * outside)
        start = (x, jnp.zeros_like(x), outside, jnp.full_like(x, jnp.inf), jnp.zeros_like(x, bool), 0)
        x, _, _, _, done, _ = jax.lax.while_loop(unfinished, step, start)
        return jnp.where(done, x, jnp.nan)

    outside = jax.lax.stop_gradient(outside)
    return jax.lax.custom_root(f, jax.lax.stop_gradient(guess), solve, lambda g, y: y / g(jnp.ones_like(y)))


def _orbit(w: PhaseSpace, D: Any, potential: Potential) -> _Orbit:
    """Coordinates, momenta and turning points of one bound star (scalars throughout)."""
    side = jnp.where(w.z < 0, -1.0, 1.0)  # the mirror image above the plane
    R, z, vR, vT, vz = w.R, side * w.z, w.vR, w.vT, side * w.vz
    rho = jnp.sqrt(R**2 + (z + D) ** 2) + jnp.sqrt(R**2 + (z - D) ** 2)  # 2 D cosh u
    cosh_u, t = rho / (2 * D), 2 * z / rho
    sinh_u, sin_v = _sinh_u_sin_v(R, z, D)
    p_u = vR * cosh_u * sin_v + vz * sinh_u * t
    p_t = vz * cosh_u * sin_v - vR * sinh_u * t
    two_E = 2 * potential(R, z) + vR**2 + vT**2 + vz**2
    L = R * vT
    barrier, exp_u, y = (L / D) ** 2 + _LEAST_BARRIER, sinh_u + cosh_u, t**2
    p2_u, p2_t = p_u**2 + _FLOOR, p_t**2 + _FLOOR

    def f_u(d: Any) -> Any:
        sinh = _sinh(exp_u, d)
        kinetic = two_E - 2 * potential(D * sinh, jnp.zeros_like(d))
        return kinetic * (1 + sinh**2) - barrier / sinh**2

    def f_y(d: Any) -> Any:
        y_there = jnp.maximum(y + d, _NEAR_PLANE**2)
        sin2 = 1 - y_there
        kinetic = two_E - 2 * potential(D * sinh_u * jnp.sqrt(sin2), D * cosh_u * jnp.sqrt(y_there))
        return kinetic * (sinh_u**2 + sin2) - barrier / sin2

    f0, f1, f2, f3 = _derivatives(f_u, 3, jnp.zeros_like(L))
    # f_y is smooth in y, but at the plane itself its derivatives by way of z are 0 / 0
    off = jnp.maximum(_NEAR_PLANE - y, 0.0)
    _, g1, g2 = _derivatives(f_y, 2, off)
    g0, g1 = f_y(jnp.zeros_like(L)), g1 - off * g2
    slope = -_derivatives(f_y, 1, _NEAR_PLANE - y)[1]

    def momentum_u(d: Any) -> Any:
        return p2_u + jnp.where(jnp.abs(d) < _SERIES_U, d * (f1 + d * (f2 / 2 + d * f3 / 6)), f_u(d) - f0)

    def momentum_y(d: Any) -> Any:
        return p2_t + jnp.where(jnp.abs(d) < _SERIES_V, d * (g1 + d * g2 / 2), f_y(d) - g0)

    root = jnp.sqrt(jnp.maximum(f1**2 - 2 * p2_u * f2, 0.0))
    u0 = jnp.log(exp_u)
    guesses, outside = (
        jnp.stack([-1 / (root + f1), 1 / (root - f1)]),
        jnp.stack([-u0 * (1 - 1e-9), jnp.log(2 * FAR / D) - u0]),
    )
    u_peri, u_apo = _root(momentum_u, 2 * p2_u * guesses, outside)
    y_max = _root(momentum_y, 2 * p2_t / (jnp.sqrt(jnp.maximum(g1**2 - 2 * p2_t * g2, 0.0)) - g1), (1 - 1e-12) - y)
    return _Orbit(L, exp_u, p_u, p_t, t, y, momentum_u, momentum_y, u_peri, u_apo, y_max, slope)


def _sinh(exp_u: Any, d: Any) -> Any:
    """sinh(u + d), given exp(u)."""
    grown = exp_u * jnp.exp(d)
    return 0.5 * (grown - 1 / grown)


def _sinh_u_sin_v(R: Any, z: Any, D: Any) -> tuple[Any, Any]:
    """sinh u and sin v from the quadratic for sinh^2 u, in the form that does not cancel."""
    b = (R**2 + z**2 - D**2) / D**2
    root = jnp.sqrt(b**2 + 4 * (R / D) ** 2)
    sinh_u = jnp.sqrt(jnp.where(b > 0, 0.5 * (b + root), 2 * (R / D) ** 2 / (root + jnp.abs(b))))
    return sinh_u, R / (D * sinh_u)


class _Nodes(NamedTuple):
    """Midpoint nodes, (n,) each, over the phase of one coordinate; a sum / n is (1 / pi) times an integral over it."""

    action: Any  # of p
    weight: Any  # of 1 / p
    square: Any  # sinh^2 u or sin^2 v


def _nodes_u(orbit: _Orbit, n: int) -> _Nodes:
    """u = middle - half cos(phi), phi from 0 at pericentre to pi at apocentre."""
    middle, half = 0.5 * (orbit.u_peri + orbit.u_apo), 0.5 * (orbit.u_apo - orbit.u_peri)

    def node(phi: Any) -> _Nodes:
        d = middle - half * jnp.cos(phi)
        p = jnp.sqrt(jnp.maximum(orbit.momentum_u(d), _FLOOR**2))
        du = half * jnp.sin(phi)
        return _Nodes(du * p, du / p, _sinh(orbit.exp_u, d) ** 2)

    return _over_nodes(node, (np.arange(n) + 0.5) * np.pi / n)


def _concentration(orbit: _Orbit) -> Any:
    """kappa of the map tan psi = kappa tan chi, which crowds nodes towards the plane where the disk is thin.

    For a force law like that of Phi = sqrt(z^2 + b^2), whose b / z_max follows from p_v^2's curvature at the plane,
    chi's strip of analyticity is widest for kappa^2 = 1 / ratio below; a softer power serves the Milky Way's better
    (measured, docs/actions.md). It is 1, no crowding, for a harmonic oscillation.
    """
    ratio = orbit.slope * (orbit.y + orbit.y_max) / orbit.momentum_y(-orbit.y)
    return jax.lax.stop_gradient((2 * jnp.clip(ratio, 1.0, 1e4) - 1) ** -0.4)


def _nodes_v(orbit: _Orbit, kappa: Any, n: int) -> _Nodes:
    """cos v = t_max sin(psi), psi from 0 at the plane to pi / 2; the orbit repeats it four times."""
    y_max = orbit.y + orbit.y_max

    def node(chi: Any) -> _Nodes:
        cosine, sine = jnp.cos(chi), kappa * jnp.sin(chi)
        norm = cosine**2 + sine**2
        y = y_max * sine**2 / norm
        p = jnp.sqrt(jnp.maximum(orbit.momentum_y(y - orbit.y), _FLOOR**2))
        dv = cosine * kappa / norm * jnp.sqrt(y_max / (norm * (1 - y)))
        return _Nodes(dv * p, dv / p, 1 - y)

    return _over_nodes(node, (np.arange(n) + 0.5) * np.pi / (2 * n))


def _over_nodes(node: Function, phases: np.ndarray) -> _Nodes:
    return jax.lax.map(node, jnp.asarray(phases))


def actions(w: PhaseSpace, D: Any, potential: Potential, nodes: tuple[int, int] = (NODES_U, NODES_V)) -> tuple:
    """J_R, L_z, J_z [kpc km/s] of one bound star.

    w: `PhaseSpace` of scalars; D: focal length [kpc]; potential: Phi(R, z) [(km/s)^2]. NaN where a turning point is not
    found.
    """
    orbit = _orbit(w, D, potential)
    u, v = _nodes_u(orbit, nodes[0]), _nodes_v(orbit, _concentration(orbit), nodes[1])
    return D * jnp.mean(u.action), orbit.L, D * jnp.mean(v.action)


def _up_to(phase: Any, n: int) -> Any:
    """Weights (n,) of values at midpoint phases in (0, pi) that integrate their cosine series from 0 to `phase`."""
    m = np.arange(1, n)
    cosines = np.cos(np.outer((np.arange(n) + 0.5) * np.pi / n, m)) * 2 / m
    return (phase + jnp.asarray(cosines) @ jnp.sin(m * phase)) / n


def actions_angles(w: PhaseSpace, D: Any, potential: Potential, nodes: tuple[int, int] = (NODES_U, NODES_V)) -> tuple:
    """Actions as `actions`, angles theta_R, theta_phi, theta_z [rad, in 0 to 2 pi] and frequencies Omega_R, Omega_phi,
    Omega_z [km/s/kpc] of one bound star.

    theta_R is 0 at pericentre, theta_z where the star crosses the plane upwards. With I = (E, L_z, I_3) the frequencies
    are rows of (dJ/dI)^-1, and theta_i = sum_k dS/dI_k dI_k/dJ_i (Sanders 2012, section 2.2).
    """
    orbit = _orbit(w, D, potential)
    kappa = _concentration(orbit)
    u, v = _nodes_u(orbit, nodes[0]), _nodes_v(orbit, kappa, nodes[1])

    # The star's own phases; the ratio p^2 / (product of distances to the turning points) is smooth through them.
    g_u = (orbit.p_u**2 + _FLOOR) / (-orbit.u_peri * orbit.u_apo)
    phi = jnp.arctan2(orbit.p_u / jnp.sqrt(g_u), 0.5 * (orbit.u_peri + orbit.u_apo))
    g_v = (orbit.p_t**2 + _FLOOR) / orbit.y_max
    side = jnp.where(w.z < 0, -1.0, 1.0)
    still = jnp.where((orbit.t == 0) & (orbit.p_t == 0), _FLOOR**0.5, 0.0)  # planar: no vertical phase; 0 then
    chi = jnp.arctan2(side * orbit.t, side * kappa * (orbit.p_t + still) / jnp.sqrt(g_v))
    up_to_u, up_to_v = _up_to(phi, nodes[0]), 0.5 * _up_to(2 * chi, nodes[1])

    L = orbit.L / D**2
    R_E, R_3, R_L = (D * jnp.mean(u.weight * h) for h in (u.square, -1.0, -L / u.square))
    z_E, z_3, z_L = (D * jnp.mean(v.weight * h) for h in (v.square, 1.0, -L / v.square))
    S_E = D * (up_to_u @ (u.weight * u.square) + up_to_v @ (v.weight * v.square))
    S_3 = D * (up_to_v @ v.weight - up_to_u @ u.weight)
    S_L = w.phi - D * L * (up_to_u @ (u.weight / u.square) + up_to_v @ (v.weight / v.square))

    det = R_E * z_3 - z_E * R_3
    Omega_R, Omega_z, Omega_phi = z_3 / det, -R_3 / det, (R_3 * z_L - z_3 * R_L) / det
    I3_R, I3_z, I3_phi = -z_E / det, R_E / det, (z_E * R_L - R_E * z_L) / det
    theta_R = S_E * Omega_R + S_3 * I3_R
    theta_z = S_E * Omega_z + S_3 * I3_z
    theta_phi = S_L + S_E * Omega_phi + S_3 * I3_phi
    theta_R, theta_phi, theta_z = (jnp.mod(x, 2 * jnp.pi) for x in (theta_R, theta_phi, theta_z))
    J_R, J_z = D * jnp.mean(u.action), D * jnp.mean(v.action)
    return J_R, orbit.L, J_z, theta_R, theta_phi, theta_z, Omega_R, Omega_phi, Omega_z
