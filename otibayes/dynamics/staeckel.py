"""The Staeckel fudge (Binney 2012; Sanders 2012) for one star, differentiable to any order.

In prolate spheroidal coordinates R = D sinh u sin v, z = D cosh u cos v of focal length D, the squared momenta of a
star at (u0, v0) are taken to be, in units of D^2,

    p_u^2(u) = 2 [E - Phi(u, pi/2)] cosh^2 u - L_z^2 / (D sinh u)^2 - const               zero at u_min, u_max
    p_v^2(v) = 2 [E - Phi(u0, v)] (sinh^2 u0 + sin^2 v) - L_z^2 / (D sin v)^2 - const     zero at +-t_max, t = cos v

exact where Phi is a Staeckel potential. Three things make this fast and well behaved:

- With u = u_mid - u_half cos(phi) and tan((pi / 2 - v) / 2) = its maximum * sin(psi), phases bent so that nodes crowd
  where an orbit needs them (pericentre, and the plane of a thin disk), every integral over an orbit is that of a smooth
  periodic function, for which the midpoint rule converges geometrically; its Fourier series gives the integral up to
  the star's own phase too, so actions, frequencies and angles all come from the same few evaluations of Phi.
- Displacements from the star, exp(u0 - u) - 1 and y - y0, y = cos^2 v, are the variables. Where they are small the
  momenta come from their Taylor series at the star, so circular and planar orbits and turning points lose no digits.
- Turning points are found without gradient and differentiated as implicit functions. First derivatives of the actions
  do not even need that: momenta vanish there, so that integrals of dp^2 / 2p at fixed u and v are all there is.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .frame import PhaseSpace
from .logarithm import log1p

__all__ = ["FAR", "NODES_U", "NODES_V", "actions", "actions_angles", "momentum_in_plane"]

NODES_U = 10
NODES_V = 18

# Displacements within which momenta come from a Taylor series; of u, and of cos^2 v
_SERIES_U, _SERIES_V = 3e-4, 2e-8
# Least momentum squared, (km/s)^2: keeps a circular or planar orbit's turning points apart, where its actions (below
# 1e-20 kpc km/s) and their gradients are zero to rounding.
_FLOOR = 1e-20
FAR = 1e5  # kpc: an orbit that reaches beyond is not solved
_LEAST_BARRIER = 1e-8  # (km/s)^2, of (L_z / D)^2: a star on a radial orbit turns just short of the axis
_NEAR_PLANE = 1e-10  # of cos^2 v
_NEWTON_MAX = 60
_NEWTON_NOISE = 1e-3  # of a displacement, or of 1e-3 where it is more: only small ones are lost in rounding
_NEWTON_TOLERANCE = 1e-7  # of the last step, relative; the error after it is its square

Function = Callable[[Any], Any]
Potential = Callable[[Any, Any, Any], Any]


class _Star(NamedTuple):
    """Where one star is, and its integrals of motion. Momenta are in units of D."""

    D: Any
    theta: Any
    L: Any
    two_E: Any
    barrier: Any
    exp_u: Any
    sinh_u: Any
    cosh_u: Any
    t: Any
    y: Any  # t^2
    p_u: Any
    p_t: Any  # of t = cos v, towards larger t; both as in the mirror image above the plane


class _Orbit(NamedTuple):
    """One star's separable motion. Turning points are displacements from the star."""

    star: _Star
    momentum_u: Function  # p_u^2 of the displacement exp(u0 - u) - 1
    momentum_y: Function  # p_v^2 of the displacement y - y0
    u_peri: Any
    u_apo: Any
    y_max: Any
    bend_u: Any  # how nodes crowd
    bend_v: Any


def _derivatives(f: Function, order: int, x: Any) -> list[Any]:
    """f(x), f'(x), ... f^(order)(x) of a scalar function."""

    def with_next(g: Function) -> Function:
        def values(x: Any) -> tuple:
            known, slopes = jax.jvp(g, (x,), (jnp.ones_like(x),))
            return (*known, slopes[-1])

        return values

    def first(x: Any) -> tuple:
        return (f(x),)

    derivatives: Function = first
    for _ in range(order):
        derivatives = with_next(derivatives)
    return list(derivatives(x))


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
            done |= (change <= _NEWTON_NOISE * jnp.minimum(jnp.abs(x), 1e-3)) & (change >= last)
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


def _star(w: PhaseSpace, D: Any, theta: Any, potential: Potential) -> _Star:
    side = jnp.where(w.z < 0, -1.0, 1.0)  # the mirror image above the plane
    R, z, vR, vT, vz = w.R, side * w.z, w.vR, w.vT, side * w.vz
    rho = jnp.sqrt(R**2 + (z + D) ** 2) + jnp.sqrt(R**2 + (z - D) ** 2)  # 2 D cosh u
    cosh_u, t = rho / (2 * D), 2 * z / rho
    sinh_u, sin_v = _sinh_u_sin_v(R, z, D)
    p_u = vR * cosh_u * sin_v + vz * sinh_u * t
    p_t = vz * cosh_u * sin_v - vR * sinh_u * t
    two_E = 2 * potential(R, z, theta) + vR**2 + vT**2 + vz**2
    L = R * vT
    return _Star(D, theta, L, two_E, (L / D) ** 2 + _LEAST_BARRIER, sinh_u + cosh_u, sinh_u, cosh_u, t, t**2, p_u, p_t)


def _at_u(star: _Star, potential: Potential, exp_u: Any) -> Any:
    """p_u^2 + const at exp(u)."""
    sinh = 0.5 * (exp_u - 1 / exp_u)
    kinetic = star.two_E - 2 * potential(star.D * sinh, jnp.zeros_like(sinh), star.theta)
    return kinetic * (1 + sinh**2) - star.barrier / sinh**2


def _at_y(star: _Star, potential: Potential, y: Any) -> Any:
    """p_v^2 + const at y = cos^2 v."""
    y = jnp.maximum(y, _NEAR_PLANE**2)
    sin2 = 1 - y
    R, z = star.D * star.sinh_u * jnp.sqrt(sin2), star.D * star.cosh_u * jnp.sqrt(y)
    kinetic = star.two_E - 2 * potential(R, z, star.theta)
    return kinetic * (star.sinh_u**2 + sin2) - star.barrier / sin2


def momentum_in_plane(w: PhaseSpace, D: Any, theta: Any, potential: Potential) -> Any:
    """p_v^2 [(km/s)^2], in units of D^2, with which one star crosses the plane."""
    star = _star(w, D, theta, potential)
    return star.p_t**2 + _at_y(star, potential, jnp.zeros_like(star.y)) - _at_y(star, potential, star.y)


def _orbit(star: _Star, potential: Potential) -> _Orbit:
    """Momenta and turning points of one bound star (scalars throughout)."""
    p2_u, p2_t, y = star.p_u**2 + _FLOOR, star.p_t**2 + _FLOOR, star.y

    def f_u(q: Any) -> Any:
        return _at_u(star, potential, star.exp_u / (1 + q))

    def f_y(d: Any) -> Any:
        return _at_y(star, potential, y + d)

    f0, f1, f2, f3 = _derivatives(f_u, 3, jnp.zeros_like(y))
    # f_y is smooth in y, but at the plane itself its derivatives by way of z are 0 / 0
    off = jnp.maximum(_NEAR_PLANE - y, 0.0)
    _, g1, g2 = _derivatives(f_y, 2, off)
    g0, g1 = f_y(jnp.zeros_like(y)), g1 - off * g2
    slope = -_derivatives(f_y, 1, _NEAR_PLANE - y)[1]

    def momentum_u(q: Any) -> Any:
        return p2_u + jnp.where(jnp.abs(q) < _SERIES_U, q * (f1 + q * (f2 / 2 + q * f3 / 6)), f_u(q) - f0)

    def momentum_y(d: Any) -> Any:
        return p2_t + jnp.where(jnp.abs(d) < _SERIES_V, d * (g1 + d * g2 / 2), f_y(d) - g0)

    # p_u^2 / cosh^2 u is nearly the parabola 2 (E - Phi) - L_z^2 / R^2 in 1 / R, which Newton's method likes
    def flat_u(q: Any) -> Any:
        exp_u = star.exp_u / (1 + q)
        return momentum_u(q) / (0.5 * (exp_u + 1 / exp_u)) ** 2

    tanh_u = star.sinh_u / star.cosh_u
    h1 = f1 + 2 * tanh_u * p2_u
    h2 = f2 + 4 * tanh_u * f1 + (6 * tanh_u**2 - 2 * tanh_u - 2) * p2_u
    root = jnp.sqrt(jnp.maximum(h1**2 - 2 * p2_u * h2, 0.0))
    guesses = 2 * p2_u * jnp.stack([1 / (root - h1), -1 / (root + h1)])
    u0 = log1p(star.exp_u - 1)
    outside = jnp.stack([star.exp_u * (1 - 1e-9) - 1, 0.5 * star.exp_u * star.D / FAR - 1])
    # in turn: arrays of two for each star, stars vmapped, do not vectorise
    u_peri, u_apo = -log1p(jax.lax.map(lambda bracket: _root(flat_u, *bracket), (guesses, outside)))
    y_max = _root(momentum_y, 2 * p2_t / (jnp.sqrt(jnp.maximum(g1**2 - 2 * p2_t * g2, 0.0)) - g1), (1 - 1e-12) - y)
    bend_v = _bend_v(slope * (y + y_max) / momentum_y(-y))
    return _Orbit(star, momentum_u, momentum_y, u_peri, u_apo, y_max, _bend_u(u0 + u_peri, u0 + u_apo), bend_v)


def _bend_u(u_peri: Any, u_apo: Any) -> Any:
    """lambda of the map tan(phi / 2) = lambda tan(chi / 2), which crowds nodes towards the pericentre, of u itself.

    The barrier's pole at u = 0 alone would ask for the power 1 / 4; a softer one serves, and nearer to the centre than
    3e-3 the bulge and the nucleus have poles of their own.
    """
    eighth = jnp.sqrt(jnp.sqrt(jnp.sqrt(jnp.maximum(jax.lax.stop_gradient(u_peri / u_apo), 3e-3))))
    return eighth * jnp.sqrt(jnp.sqrt(eighth))


def _bend_v(ratio: Any) -> Any:
    """kappa of the map tan psi = kappa tan chi, which crowds nodes towards the plane where the disk is thin.

    For a force law like that of Phi = sqrt(z^2 + b^2), whose b / z_max follows from p_v^2's curvature at the plane,
    chi's strip of analyticity is widest for kappa^2 = 1 / (2 ratio - 1); a softer power serves the Milky Way's better.
    It is 1, no crowding, for a harmonic oscillation.
    """
    quarter = jnp.sqrt(jnp.sqrt(2 * jnp.clip(jax.lax.stop_gradient(ratio), 1.0, 1e4) - 1))
    return 1 / (quarter * jnp.sqrt(quarter))


def _sinh_u_sin_v(R: Any, z: Any, D: Any) -> tuple[Any, Any]:
    """sinh u and sin v from the quadratic for sinh^2 u, in the form that does not cancel."""
    b = (R**2 + z**2 - D**2) / D**2
    root = jnp.sqrt(b**2 + 4 * (R / D) ** 2)
    sinh_u = jnp.sqrt(jnp.where(b > 0, 0.5 * (b + root), 2 * (R / D) ** 2 / (root + jnp.abs(b))))
    return sinh_u, R / (D * sinh_u)


class _Nodes(NamedTuple):
    """Midpoint nodes, (n,) each, over the phase of one coordinate; a sum / n is (1 / pi) times an integral over it."""

    place: Any  # exp u or cos^2 v
    action: Any  # of p
    weight: Any  # of 1 / p


def _nodes_u(orbit: _Orbit, n: int) -> _Nodes:
    """u = middle - half cos(phi), phi from 0 at pericentre to pi at apocentre."""
    middle, half, lam = 0.5 * (orbit.u_peri + orbit.u_apo), 0.5 * (orbit.u_apo - orbit.u_peri), orbit.bend_u

    def node(chi: Any) -> _Nodes:
        cosine, sine = jnp.cos(0.5 * chi), lam * jnp.sin(0.5 * chi)
        norm = cosine**2 + sine**2
        q = jnp.expm1(half * (cosine**2 - sine**2) / norm - middle)
        p = jnp.sqrt(jnp.maximum(orbit.momentum_u(q), _FLOOR**2))
        du = 2 * half * lam * cosine * sine / norm**2
        return _Nodes(orbit.star.exp_u / (1 + q), du * p, du / p)

    return jax.lax.map(node, jnp.asarray((np.arange(n) + 0.5) * np.pi / n))


def _tan_half(y: Any) -> Any:
    """tan(latitude / 2), latitude = pi / 2 - v: like cos v in a thin disk, but smooth up to a polar orbit's turn."""
    return jnp.sqrt(y) / (1 + jnp.sqrt(1 - y))


def _nodes_v(orbit: _Orbit, n: int) -> _Nodes:
    """tan(latitude / 2) = its maximum * sin(psi), psi from 0 at the plane to pi / 2: a quarter of the oscillation."""
    most, kappa = _tan_half(orbit.star.y + orbit.y_max), orbit.bend_v

    def node(chi: Any) -> _Nodes:
        cosine, sine = jnp.cos(chi), kappa * jnp.sin(chi)
        norm = cosine**2 + sine**2
        square = most**2 * sine**2 / norm
        y = 4 * square / (1 + square) ** 2
        p = jnp.sqrt(jnp.maximum(orbit.momentum_y(y - orbit.star.y), _FLOOR**2))
        dv = 2 * most * kappa * cosine / ((1 + square) * norm * jnp.sqrt(norm))
        return _Nodes(y, dv * p, dv / p)

    return jax.lax.map(node, jnp.asarray((np.arange(n) + 0.5) * np.pi / (2 * n)))


def _nodes(orbit: _Orbit, nodes: tuple[int, int]) -> tuple[_Nodes, _Nodes]:
    return _nodes_u(orbit, nodes[0]), _nodes_v(orbit, nodes[1])


def actions(
    w: PhaseSpace, D: Any, theta: Any, potential: Potential, nodes: tuple[int, int] = (NODES_U, NODES_V)
) -> tuple:
    """J_R, L_z, J_z [kpc km/s] of one bound star.

    w: `PhaseSpace` of scalars; D: focal length [kpc]; potential: Phi(R, z, theta) [(km/s)^2]. NaN where a turning point
    is not found.
    """
    w, D, theta = jax.tree.map(lambda x: jnp.asarray(x, float), (w, D, theta))
    return _actions(w, D, theta, potential, nodes)


@partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def _actions(w: PhaseSpace, D: Any, theta: Any, potential: Potential, nodes: tuple[int, int]) -> tuple:
    star = _star(w, D, theta, potential)
    u, v = _nodes(_orbit(star, potential), nodes)
    return D * jnp.mean(u.action), star.L, D * jnp.mean(v.action)


@_actions.defjvp
def _(potential: Potential, nodes: tuple[int, int], primals: tuple, tangents: tuple) -> tuple:
    def integrals(w: PhaseSpace, D: Any, theta: Any) -> tuple:
        star = _star(w, D, theta, potential)
        const_u = star.p_u**2 - _at_u(star, potential, star.exp_u)
        return star, const_u, star.p_t**2 - _at_y(star, potential, star.y)

    (star, _, _), (d_star, d_const_u, d_const_v) = jax.jvp(integrals, primals, tangents)
    u, v = _nodes(_orbit(star, potential), nodes)

    def integral(at: Callable[[_Star, Potential, Any], Any], over: _Nodes, d_const: Any) -> Any:
        def d_square(place: Any) -> Any:
            return d_const + jax.jvp(lambda star: at(star, potential, place), (star,), (d_star,))[1]

        return 0.5 * jnp.mean(over.weight * jax.lax.map(d_square, over.place))

    (_, D, _), (_, d_D, _) = primals, tangents
    J_R, J_z = jnp.mean(u.action), jnp.mean(v.action)
    d_R, d_z = integral(_at_u, u, d_const_u), integral(_at_y, v, d_const_v)
    return (D * J_R, star.L, D * J_z), (D * d_R + d_D * J_R, d_star.L, D * d_z + d_D * J_z)


def _up_to(phase: Any, n: int) -> Any:
    """Weights (n,) of values at midpoint phases in (0, pi) that integrate their cosine series from 0 to `phase`."""
    m = np.arange(1, n)
    cosines = np.cos(np.outer((np.arange(n) + 0.5) * np.pi / n, m)) * 2 / m
    return (phase + jnp.asarray(cosines) @ jnp.sin(m * phase)) / n


def actions_angles(
    w: PhaseSpace, D: Any, theta: Any, potential: Potential, nodes: tuple[int, int] = (NODES_U, NODES_V)
) -> tuple:
    """Actions as `actions`, angles theta_R, theta_phi, theta_z [rad, in 0 to 2 pi] and frequencies Omega_R, Omega_phi,
    Omega_z [km/s/kpc] of one bound star.

    theta_R is 0 at pericentre, theta_z where the star crosses the plane upwards. With I = (E, L_z, I_3) the frequencies
    are rows of (dJ/dI)^-1, and theta_i = sum_k dS/dI_k dI_k/dJ_i (Sanders 2012, section 2.2).
    """
    star = _star(w, D, theta, potential)
    orbit = _orbit(star, potential)
    u, v = _nodes(orbit, nodes)

    # The star's own phases; the ratio p^2 / (product of distances to the turning points) is smooth through them.
    g_u = (star.p_u**2 + _FLOOR) / (-orbit.u_peri * orbit.u_apo)
    lam, half = orbit.bend_u, 0.5 * (orbit.u_apo - orbit.u_peri)
    away, towards = half + 0.5 * (orbit.u_peri + orbit.u_apo), half - 0.5 * (orbit.u_peri + orbit.u_apo)
    phi = jnp.arctan2(2 * lam * star.p_u / jnp.sqrt(g_u), lam**2 * away - towards)
    g_v = (star.p_t**2 + _FLOOR) / orbit.y_max
    kappa, side = orbit.bend_v, jnp.where(w.z < 0, -1.0, 1.0)
    s_star, s_max = jnp.sqrt(1 - star.y), jnp.sqrt(1 - star.y - orbit.y_max)
    slant = jnp.sqrt(2 / ((s_star + s_max) * (1 + s_star) * (1 + s_max)))
    still = jnp.where((star.t == 0) & (star.p_t == 0), _FLOOR**0.5, 0.0)  # planar: no vertical phase; 0 then
    tan_half = star.t / (1 + s_star)
    chi = jnp.arctan2(side * tan_half, side * kappa * (star.p_t + still) / jnp.sqrt(g_v) * slant)
    up_to_u, up_to_v = _up_to(phi, nodes[0]), 0.5 * _up_to(2 * chi, nodes[1])

    L = star.L / D**2
    sinh2, sin2 = 0.25 * (u.place - 1 / u.place) ** 2, 1 - v.place
    R_E, R_3, R_L = (D * jnp.mean(u.weight * h) for h in (sinh2, -1.0, -L / sinh2))
    z_E, z_3, z_L = (D * jnp.mean(v.weight * h) for h in (sin2, 1.0, -L / sin2))
    S_E = D * (up_to_u @ (u.weight * sinh2) + up_to_v @ (v.weight * sin2))
    S_3 = D * (up_to_v @ v.weight - up_to_u @ u.weight)
    S_L = w.phi - D * L * (up_to_u @ (u.weight / sinh2) + up_to_v @ (v.weight / sin2))

    det = R_E * z_3 - z_E * R_3
    Omega_R, Omega_z, Omega_phi = z_3 / det, -R_3 / det, (R_3 * z_L - z_3 * R_L) / det
    I3_R, I3_z, I3_phi = -z_E / det, R_E / det, (z_E * R_L - R_E * z_L) / det
    theta_R = S_E * Omega_R + S_3 * I3_R
    theta_z = S_E * Omega_z + S_3 * I3_z
    theta_phi = S_L + S_E * Omega_phi + S_3 * I3_phi
    theta_R, theta_phi, theta_z = (jnp.mod(x, 2 * jnp.pi) for x in (theta_R, theta_phi, theta_z))
    J_R, J_z = D * jnp.mean(u.action), D * jnp.mean(v.action)
    return J_R, star.L, J_z, theta_R, theta_phi, theta_z, Omega_R, Omega_phi, Omega_z
