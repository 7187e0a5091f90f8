"""Are synthetic labels a function of the torus alone? Ask action codes that had no part in making them.

    python examples/check_mock_honesty.py [--stars 8000]

Each star's abundance, less a smooth polynomial in galpy's actions, is binned in galpy's theta_z. At the true theta the
bins agree with zero within their noise (chi^2 per bin near 1); at a wrong one they do not.
"""

import argparse

import numpy as np
from galpy.actionAngle import actionAngleStaeckel, estimateDeltaStaeckel
from galpy.potential import HernquistPotential, MiyamotoNagaiPotential, NFWPotential

from otibayes import constants as const
from otibayes.dynamics.frame import phase_space
from otibayes.dynamics.potential import halo_mass
from otibayes.parameters import Parameters
from otibayes.stars import Stars, mock

BINS = 12


def actions(stars, theta):
    """galpy's J_R, L_z, J_z, theta_z (N,) for our mass model in physical units (ro = vo = 1)."""
    potential = [
        MiyamotoNagaiPotential(amp=const.G * const.M_DISK_FIDUCIAL * theta.m_disk, a=const.A_DISK, b=theta.h_z),
        HernquistPotential(amp=2 * const.G * const.M_BULGE, a=const.C_BULGE),
        HernquistPotential(amp=2 * const.G * const.M_NUCLEUS, a=const.C_NUCLEUS),
        NFWPotential(amp=const.G * float(halo_mass(theta)), a=const.R_S_HALO),
    ]
    w = phase_space(stars, theta)
    R, phi, z, vR, vT, vz = (np.asarray(a) for a in w)
    delta = estimateDeltaStaeckel(potential, R, z, no_median=True)
    delta = np.where(np.isfinite(delta) & (delta > 0.1), delta, 0.45 * const.R0)
    finder = actionAngleStaeckel(pot=potential, delta=0.45, c=True)
    found = finder.actionsFreqsAngles(R, vR, vT, z, vz, phi, delta=delta, c=True)
    return found[0], found[1], found[2], found[8]


def chi_squared(stars, element, theta):
    """Chi^2 per bin of the binned residual against theta_z."""
    J_R, L_z, J_z, theta_z = actions(stars, theta)
    usable = np.isfinite(J_R + J_z + theta_z) & (J_R < 9000)
    a, b, c = J_R / (J_R + 60), (L_z - 1800) / 500, J_z / (J_z + 20)
    powers = [(i, j, k) for i in range(4) for j in range(4) for k in range(6) if i + j + k <= 5]
    design = np.stack([a**i * b**j * c**k for i, j, k in powers], -1)[usable]
    values = stars.abundances[element][usable]
    residual = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    which = np.floor(np.mod(theta_z[usable], 2 * np.pi) / (2 * np.pi) * BINS).astype(int)
    parts = [residual[which == i] for i in range(BINS)]
    return np.mean([part.mean() ** 2 / (part.var() / part.size) for part in parts])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stars", type=int, default=8000)
    truth = Parameters(m_disk=1.1, h_z=0.32, z_sun=15.0, vz_sun=8.5)
    table = mock(parser.parse_args().stars, seed=1, truth=truth, elements=["MG_FE", "FE_H"])
    names = ("ra", "dec", "pmra", "pmdec", "radial_velocity")
    columns = {name: np.asarray(table[name]) for name in names}
    abundances = {name: np.asarray(table[name]) for name in ("MG_FE", "FE_H")}
    stars = Stars(**columns, distance=1 / np.asarray(table["parallax"]), abundances=abundances)
    print(f"chi^2 per bin of theta_z ({BINS} bins); 1 +- {np.sqrt(2 / BINS):.2f} if labels do not depend on it")
    wrong = {
        "truth": truth,
        "m_disk = 0.6": truth._replace(m_disk=0.6),
        "m_disk = 1.6": truth._replace(m_disk=1.6),
        "z_sun = 100 pc": truth._replace(z_sun=100.0),
        "vz_sun = 4 km/s": truth._replace(vz_sun=4.0),
    }
    for name, theta in wrong.items():
        print(f"{name:16s}", *(f"{e} {chi_squared(stars, e, theta):6.2f}" for e in abundances))
