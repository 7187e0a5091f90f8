"""One evaluation of the classical objective against the paper's recipe, written with astropy, gala, galpy and SciPy.

Run from the checkout: python benchmarks/classical.py [--stars N] [--bootstraps B] [--catalogue FILE]. Side by side in
one run, on the same stars and resamples, with the same focal lengths. The recipe does what the paper's procedure box
says (section 6.2), for one element and one resample at a time, on one core as its loop over stars is Python; it is
timed with all its steps, and without the first three, which need not be done again for other elements at the same
theta. Then the whole job, a fit of every element and resample with chi^2, as `otibayes classical` makes it. The
recipe's is extrapolated from its one evaluation, to as many as Nelder-Mead takes from the paper's start on the plain
objective: the mean of a fit of each element, each on a resample of its own, on 4,000 of the stars or fewer.
"""

import argparse
import time
import warnings
from dataclasses import replace

import astropy.coordinates as coord
import astropy.units as u
import gala.dynamics as gd
import gala.potential as gp
import numpy as np
from gala.dynamics.actionangle import get_staeckel_fudge_delta
from gala.units import galactic
from scipy.spatial import cKDTree

from otibayes.base import constants as const
from otibayes.base.parameters import Parameters
from otibayes.classical.fit import PlainMinimum, fit
from otibayes.classical.local_mean import deviation, nearest
from otibayes.classical.objective import least_squares
from otibayes.classical.settings import ClassicalSettings
from otibayes.classical.statistic import make_statistic
from otibayes.dynamics.actions import SampleActions
from otibayes.dynamics.frame import phase_space
from otibayes.dynamics.reference import galpy_potential
from otibayes.stars import embedded_stars, read_stars

with warnings.catch_warnings():  # galpy says at import which optional extensions it lacks
    warnings.simplefilter("ignore")
    from galpy.actionAngle import actionAngleStaeckel

ELEMENTS = 8
FEW = 4000  # stars on which evaluations of a fit are counted: there are no fewer on more


def milky_way(theta):
    """1: the halo's mass at fixed circular velocity."""
    parts = {
        "disk": gp.MiyamotoNagaiPotential(
            theta.m_disk * const.M_DISK_FIDUCIAL * u.Msun, const.A_DISK * u.kpc, theta.h_z * u.kpc, units=galactic
        ),
        "bulge": gp.HernquistPotential(const.M_BULGE * u.Msun, const.C_BULGE * u.kpc, units=galactic),
        "nucleus": gp.HernquistPotential(const.M_NUCLEUS * u.Msun, const.C_NUCLEUS * u.kpc, units=galactic),
    }
    sun = np.array([const.R0, 0, 0]) * u.kpc
    rest = gp.CCompositePotential(**parts).circular_velocity(sun).to_value(u.km / u.s)[0] ** 2
    unit = gp.NFWPotential(1e11 * u.Msun, const.R_S_HALO * u.kpc, units=galactic)
    halo = 1e11 * (const.V_CIRC**2 - rest) / unit.circular_velocity(sun).to_value(u.km / u.s)[0] ** 2
    return gp.CCompositePotential(**parts, halo=gp.NFWPotential(halo * u.Msun, const.R_S_HALO * u.kpc, units=galactic))


def phase(theta, sky):
    """2: Galactocentric positions and velocities."""
    frame = coord.Galactocentric(
        galcen_coord=coord.ICRS(ra=266.4051 * u.deg, dec=-28.936175 * u.deg),
        galcen_distance=const.R0 * u.kpc,
        galcen_v_sun=coord.CartesianDifferential([const.V_SUN_X, const.V_SUN_Y, theta.vz_sun] * u.km / u.s),
        z_sun=theta.z_sun * u.pc,
        roll=0 * u.deg,
    )
    return gd.PhaseSpacePosition(sky.transform_to(frame).data)


def recipe(theta, w, delta, label, sigma, draws, K=64):
    """4 to 7 for one element and one resample: as the text reads, on the resampled catalogue itself."""
    x, y, z = w.xyz.to_value(u.kpc)[:, draws]
    vx, vy, vz = w.v_xyz.to_value(u.km / u.s)[:, draws]
    R = np.hypot(x, y)
    vR, vT = (x * vx + y * vy) / R, (y * vx - x * vy) / R
    fudge = actionAngleStaeckel(pot=galpy_potential(theta), delta=delta[draws] / const.R0, c=True, order=20)
    J_R, L_z, J_z, *_, theta_z = fudge.actionsFreqsAngles(
        R / const.R0, vR / const.V_CIRC, vT / const.V_CIRC, z / const.R0, vz / const.V_CIRC, np.arctan2(y, -x)
    )
    J, value = np.stack([J_R, L_z, J_z], -1) * const.R0 * const.V_CIRC, label[draws]
    index = cKDTree(J).query(J, k=K + np.bincount(draws).max())[1]
    mean, neighbours = np.empty(len(value)), np.empty((len(value), K), int)
    for n in range(len(value)):
        near = index[n][draws[index[n]] != draws[n]][:K]  # a star's copies are not its neighbours
        neighbours[n] = near
        xi = (J[near] - J[n]) @ (J[near].mean(0) - J[n])
        weights = xi * xi.sum() - (xi**2).sum()
        mean[n] = weights @ value[near] / weights.sum()
    M = np.stack(
        [np.ones_like(theta_z), np.cos(theta_z), np.sin(theta_z), np.cos(2 * theta_z), np.sin(2 * theta_z)], -1
    )
    c_inverse = sigma[draws, None] ** -2.0
    found = np.linalg.solve(M.T @ (c_inverse * M), M.T @ (c_inverse[:, 0] * (value - mean)))
    return found, (neighbours, value - mean, theta_z)


def where_neighbours_agree(theta, stars, actions, label, sigma, details, K=64):
    """Share of stars with the same neighbours and angle in both; largest difference of coefficients fitted to these.

    (galpy loses digits on stars that hardly leave the plane: see tests/staeckel_decimal.py.)
    """
    neighbours, deviations, theta_z = details
    aa = actions(phase_space(stars, theta), theta)
    J = np.stack([np.asarray(aa.J_R), np.asarray(aa.L_z), np.asarray(aa.J_z)], -1)
    ours = nearest(cKDTree(J), np.arange(len(J)), K)
    same = (np.sort(ours, 1) == np.sort(neighbours, 1)).all(1)
    same &= np.abs(np.angle(np.exp(1j * (np.asarray(aa.theta_z) - theta_z)))) < 1e-4
    one, other = (
        least_squares(angle[same], found[None, same, None], sigma[same, None] ** -2.0)[0, 0]
        for angle, found in ((np.asarray(aa.theta_z), deviation(J, label[:, None])[0, :, 0]), (theta_z, deviations))
    )
    return same.mean(), np.abs(one - other).max()


def evaluations(stars, labels, sigma, delta):
    """Of plain Nelder-Meads from the paper's start, (E,)."""
    settings = ClassicalSettings(bootstraps=ELEMENTS, bins=0)
    statistic = make_statistic(stars, labels, sigma, actions=SampleActions(delta), settings=settings, seed=1)
    return np.array([PlainMinimum(statistic)((e, e, statistic.start)).evaluations for e in range(ELEMENTS)])


def seconds(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stars", type=int, default=4000)
    parser.add_argument("--bootstraps", type=int, default=128)
    parser.add_argument("--catalogue", help="A table of `otibayes mock`; default: the embedded stars.")
    options = parser.parse_args()
    stars = (read_stars(options.catalogue) if options.catalogue else embedded_stars())[: options.stars]
    N, theta = len(stars), Parameters(m_disk=1.05, z_sun=15.0)
    rng = np.random.default_rng(1)
    values = np.stack(list(stars.abundances.values()), -1)
    labels = values if values.shape[1] == ELEMENTS else values @ rng.normal(size=(values.shape[1], ELEMENTS))
    sigma = rng.uniform(0.01, 0.03, labels.shape)
    sky = coord.SkyCoord(
        ra=np.asarray(stars.ra) * u.deg,
        dec=np.asarray(stars.dec) * u.deg,
        distance=np.asarray(stars.distance) * u.kpc,
        pm_ra_cosdec=np.asarray(stars.pmra) * u.mas / u.yr,
        pm_dec=np.asarray(stars.pmdec) * u.mas / u.yr,
        radial_velocity=np.asarray(stars.radial_velocity) * u.km / u.s,
    )

    def first_steps():
        w = phase(theta, sky)
        return w, np.asarray(get_staeckel_fudge_delta(milky_way(theta), w).to_value(u.kpc))

    setup, (w, delta) = seconds(first_steps)
    actions, at = SampleActions(delta), np.array(theta)
    settings = ClassicalSettings(bootstraps=options.bootstraps)
    statistic = make_statistic(stars, labels, sigma, actions=actions, settings=settings)
    plain_only = replace(statistic, counts=statistic.counts[:1], edges=())
    for one_pass in (plain_only, statistic):
        one_pass(at)  # compiles
    ours, one = seconds(plain_only, at)
    cpu = time.process_time()
    ours_all, every = seconds(statistic, at)
    cpu = time.process_time() - cpu
    plain, (theirs, details) = seconds(recipe, theta, w, delta, labels[:, 0], sigma[:, 0], np.arange(N))
    share, difference = where_neighbours_agree(theta, stars, actions, labels[:, 0], sigma[:, 0], details)
    resampled, _ = recipe(theta, w, delta, labels[:, 1], sigma[:, 1], np.repeat(np.arange(N), statistic.counts[1]))

    pairs, recipe_8, shared = ELEMENTS * (options.bootstraps + 1), (plain + setup) * ELEMENTS, plain * ELEMENTS
    print(f"{N} stars, {ELEMENTS} elements, {options.bootstraps} bootstraps")
    print(f"recipe, steps 1 to 3; 4 to 7, one element          {setup:9.3f} s {plain:9.3f} s")
    print(f"otibayes, {ELEMENTS} elements                               {ours:9.3f} s")
    print(f"recipe, {ELEMENTS} elements                                 {recipe_8:9.3f} s   {recipe_8 / ours:9.1f} x")
    print(f"  its steps 4 to 7 alone                           {shared:9.3f} s   {shared / ours:9.1f} x")
    print(f"otibayes, {pairs} (element, resample), with chi^2  {ours_all:9.3f} s, {cpu:.3f} s of CPU")
    sd = every.series[1:, 0, 1:4].std(0, ddof=1)
    print(
        f"coefficients differ by at most {np.abs(one.series[0, 0] - theirs).max():.1e} on all stars"
        f" ({(np.abs(one.series[0, 0] - theirs)[1:4] / sd).max():.1e} bootstrap sd),"
        f" {np.abs(every.series[1, 1] - resampled).max():.1e} on a resample;"
        f" by {difference:.1e} on the {share:.1%} of stars whose neighbours and angles both codes agree on"
    )
    took = evaluations(stars[:FEW], labels[:FEW], sigma[:FEW], delta[:FEW])
    job = (plain + setup) * took.mean() * pairs
    print(f"evaluations of a fit, {took.mean():.0f}: {took.min()} to {took.max()} of {ELEMENTS} from the paper's start")
    print(f"whole job, recipe                                  {job / 3600:9.2f} h")
    whole, found = seconds(fit, statistic)
    print(f"whole job, otibayes, {found.report.passes} passes{whole / 3600:24.2f} h   {job / whole:9.0f} x")
    rms = ", ".join(f"{value:.2f}" for value in found.report.rms)
    print(f"  plain less surface coefficients at {len(found.report.pairs)} random optima, rms by element: {rms} sd")


if __name__ == "__main__":
    main()
