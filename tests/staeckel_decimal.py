"""The integrals of the Staeckel fudge in 50 decimal digits, one star at a time: what all codes must agree with.

Written from Binney (2012) and Sanders (2012) in plain Python, on none of otibayes' own dynamics. Only the momenta
need the digits: for a nearly planar or circular orbit they are differences of large numbers.
"""

from decimal import Decimal, localcontext
from typing import NamedTuple

import numpy as np

from otibayes.base import constants as const

NODES, WEIGHTS = np.polynomial.legendre.leggauss(300)


class Reference(NamedTuple):
    J_R: float
    L_z: float
    J_z: float
    theta_R: float
    theta_phi: float
    theta_z: float
    Omega_R: float
    Omega_phi: float
    Omega_z: float


def milky_way(theta):
    """Phi(R, z) of PW21's mass model in Decimal."""
    G, R0, a, r_s = map(Decimal, (const.G, const.R0, const.A_DISK, const.R_S_HALO))
    disk, b = Decimal(float(theta.m_disk)) * Decimal(const.M_DISK_FIDUCIAL), Decimal(float(theta.h_z))
    spheres = [(Decimal(const.M_BULGE), Decimal(const.C_BULGE)), (Decimal(const.M_NUCLEUS), Decimal(const.C_NUCLEUS))]
    square = Decimal(const.V_CIRC) ** 2 - G * disk * R0**2 / ((R0**2 + (a + b) ** 2).sqrt() ** 3)
    square -= sum(G * m * R0 / (R0 + c) ** 2 for m, c in spheres)
    halo = square * R0 / G / ((1 + R0 / r_s).ln() - R0 / (R0 + r_s))

    def potential(R, z):
        r = (R**2 + z**2).sqrt()
        phi = disk / (R**2 + (a + (z**2 + b**2).sqrt()) ** 2).sqrt() + halo * (1 + r / r_s).ln() / r
        return -G * (phi + sum(m / (r + c) for m, c in spheres))

    return potential


def _root(f, inside, outside):
    for _ in range(140):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if f(middle) >= 0 else (inside, middle)
    return inside


def reference(w, D, potential):
    """Actions, angles and frequencies of one star w = (R, phi, z, vR, vT, vz) at focal length D."""
    with localcontext(prec=50):
        return _reference(w, D, potential)


def _reference(w, D, potential):
    R, phi, z, vR, vT, vz = (Decimal(float(x)) for x in w)
    D = Decimal(float(D))
    side = -1 if z < 0 else 1
    z, vz = side * z, side * vz
    rho = (R**2 + (z + D) ** 2).sqrt() + (R**2 + (z - D) ** 2).sqrt()
    cosh0, t0 = rho / (2 * D), 2 * z / rho
    sinh0 = (cosh0**2 - 1).sqrt()
    sin_v0 = (1 - t0**2).sqrt()
    p_u0, p_v0 = D * (vR * cosh0 * sin_v0 + vz * sinh0 * t0), D * (vR * sinh0 * t0 - vz * cosh0 * sin_v0)
    E, L = potential(R, z) + (vR**2 + vT**2 + vz**2) / 2, R * vT

    def square_u(u):
        sinh = (u.exp() - (-u).exp()) / 2
        return 2 * D**2 * (1 + sinh**2) * (E - potential(D * sinh, Decimal(0))) - (L / sinh) ** 2, sinh**2

    def square_v(t):
        sin2 = 1 - t**2
        there = potential(D * sinh0 * sin2.sqrt(), D * cosh0 * abs(t))
        return 2 * D**2 * (sinh0**2 + sin2) * (E - there) - L**2 / sin2, sin2

    u0 = (sinh0 + cosh0).ln()
    const_u, const_v = p_u0**2 - square_u(u0)[0], p_v0**2 - square_v(t0)[0]
    u_min = _root(lambda u: square_u(u)[0] + const_u, u0, u0 * Decimal("1e-12"))
    u_max = _root(lambda u: square_u(u)[0] + const_u, u0, u0 + 10)
    t_max = _root(lambda t: square_v(t)[0] + const_v, t0, 1 - Decimal("1e-40"))
    half = (u_max - u_min) / 2

    def over_u(phase):
        """Integrals from pericentre to a phase in (0, pi): of p, and of its derivatives by E, I_3 (of const), L."""
        angles, total = 0.5 * phase * (NODES + 1), np.zeros(4)
        for angle, weight in zip(angles, 0.5 * phase * WEIGHTS, strict=True):
            square, sinh2 = square_u(u_min + 2 * half * Decimal(float(np.sin(angle / 2) ** 2)))
            p, sinh2 = float((square + const_u).sqrt()), float(sinh2)
            step = weight * float(half) * np.sin(angle)
            total += step * np.array([p, float(D) ** 2 * sinh2 / p, -1 / p, -float(L) / sinh2 / p])
        return total

    def over_v(phase):
        """Integrals from the plane to a phase in (0, pi / 2), where t = t_max."""
        angles, total = 0.5 * phase * (NODES + 1), np.zeros(4)
        for angle, weight in zip(angles, 0.5 * phase * WEIGHTS, strict=True):
            t = t_max * Decimal(float(np.sin(angle)))
            square, sin2 = square_v(t)
            p, sin2 = float((square + const_v).sqrt()), float(sin2)
            step = weight * float(t_max) * np.cos(angle) / np.sqrt(sin2)
            total += step * np.array([p, float(D) ** 2 * sin2 / p, 1 / p, -float(L) / sin2 / p])
        return total

    whole_u, whole_v = over_u(np.pi), over_v(np.pi / 2)
    J_R, J_z = whole_u[0] / np.pi, whole_v[0] * 2 / np.pi
    # rows: derivatives of J_R, L_z, J_z by (E, I_3, L)
    matrix = np.array([whole_u[1:] / np.pi, [0, 0, 1], whole_v[1:] * 2 / np.pi])
    inverse = np.linalg.inv(matrix)  # d(E, I_3, L) / dJ
    phase_u = 2 * np.arctan2(float((u0 - u_min).sqrt()), float((u_max - u0).sqrt()))
    phase_v = np.arctan2(float(t0), float((t_max**2 - t0**2).sqrt()))
    part_u, part_v = over_u(phase_u), over_v(phase_v)
    if p_u0 < 0:
        part_u = 2 * whole_u - part_u
    if p_v0 > 0:  # v grows: the star moves towards the plane
        part_v = 2 * whole_v - part_v
    if side < 0:
        part_v = part_v + 2 * whole_v
    S = part_u + part_v
    S[3] += float(phi)
    theta_R, theta_phi, theta_z = np.mod(inverse.T @ S[1:], 2 * np.pi)
    return Reference(J_R, float(L), J_z, theta_R, theta_phi, theta_z, *inverse[0])
