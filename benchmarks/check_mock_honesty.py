"""Are synthetic labels a function of the torus alone? Ask action codes that had no part in making them.

    python benchmarks/check_mock_honesty.py [--stars 8000] [--o2gf 150]

Each star's abundance, less a smooth polynomial in the actions, is binned in theta_z. At the true theta the bins agree
with zero within their noise (chi^2 per bin near 1); at a wrong one they do not. galpy's Staeckel fudge, at galpy's own
focal lengths, sees stars with the scatter and errors of a survey. gala's O2GF (Sanders & Binney 2014) takes seconds a
star and theta: it sees fewer, whose abundances scatter by a tenth of that, so that they say as much.
"""

import argparse
import tempfile
import warnings
from pathlib import Path

import numpy as np

import otibayes as oti
from otibayes.base.constants import R0
from otibayes.dynamics.reference import galpy_actions, galpy_potential, o2gf_actions

TRUTH = oti.Parameters(m_disk=1.1, h_z=0.32, z_sun=15.0, vz_sun=8.5)
THETAS = [
    ("the truth", {}),
    ("m_disk 0.6 in place of 1.1", {"m_disk": 0.6}),
    ("z_sun 100 pc in place of 15", {"z_sun": 100.0}),
    ("m_disk 1.6", {"m_disk": 1.6}),
    ("vz_sun 4 km/s in place of 8.5", {"vz_sun": 4.0}),
]


def stars_of(table):
    with tempfile.TemporaryDirectory() as folder:
        oti.write_table(table, Path(folder) / "mock.fits")
        return oti.read_stars(Path(folder) / "mock.fits")


def by_galpy(w, theta):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*actionAngleTorus.*")
        from galpy.actionAngle import estimateDeltaStaeckel
    R, z = np.asarray(w.R) / R0, np.asarray(w.z) / R0
    delta = R0 * estimateDeltaStaeckel(galpy_potential(theta), R, z, no_median=True)
    # Near the plane galpy's estimate is a difference of nothing: what is often taken instead.
    return galpy_actions(w, theta, np.where(np.isfinite(delta) & (delta > 0.1), delta, 0.45 * R0))


def by_o2gf(w, theta):
    return o2gf_actions(w, theta, steps=64)


def chi_squared(found, values, degree, bins):
    """Chi^2 per bin of theta_z of `values` less a polynomial of the actions."""
    J_R, L_z, J_z, _, _, theta_z = found[:6]
    usable = np.isfinite(J_R + J_z + theta_z)
    a, b, c = J_R / (J_R + 60), (L_z - 1800) / 500, J_z / (J_z + 20)
    powers = [(i, j, k) for i in range(4) for j in range(4) for k in range(6) if i + j + k <= degree]
    design = np.stack([a**i * b**j * c**k for i, j, k in powers], -1)[usable]
    residual = values[usable] - design @ np.linalg.lstsq(design, values[usable], rcond=None)[0]
    which = np.floor(np.mod(theta_z[usable], 2 * np.pi) / (2 * np.pi) * bins).astype(int)
    parts = [residual[which == i] for i in range(bins)]
    return np.mean([part.mean() ** 2 / (part.var(ddof=1) / part.size) for part in parts])


def report(title, stars, actions, degree, bins, thetas=THETAS):
    print(f"\n{title}\nchi^2 per bin of theta_z ({bins} bins); 1 +- {np.sqrt(2 / bins):.1f} without dependence")
    for name, change in thetas:
        theta = TRUTH._replace(**change)
        found = actions(oti.phase_space(stars, theta), theta)
        chi = [chi_squared(found, values, degree, bins) for values in stars.abundances.values()]
        print(f"{name:30s}", *(f"{e} {c:6.2f}" for e, c in zip(stars.abundances, chi, strict=True)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stars", type=int, default=8000)
    parser.add_argument("--o2gf", type=int, default=150)
    options = parser.parse_args()
    elements = ["MG_FE", "FE_H"]
    many = stars_of(oti.mock(options.stars, 1, TRUTH, elements))
    report(f"galpy, {options.stars} stars", many, by_galpy, 5, 12)
    few = stars_of(oti.mock(options.o2gf, 2, TRUTH, elements, scatter_scale=0.1, abundance_errors=False))
    report(f"galpy, {options.o2gf} stars with a tenth of the scatter", few, by_galpy, 3, 6)
    report(f"O2GF, the same {options.o2gf} stars", few, by_o2gf, 3, 6, THETAS[:2])
