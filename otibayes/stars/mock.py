"""Synthetic stars whose truth is not ours: phase-mixed orbits in a known mass model, labels that depend on tori alone.

gala integrates one orbit per star, which is then observed at a random time. The labels are smooth functions of three
invariants of the torus, measured along the orbit: L_z, z_max^2 and (r_apo - r_peri)^2. No action finder, neither ours
nor anybody's, has a part in the answer.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import astropy.coordinates as coord
import astropy.units as u
import numpy as np
from astropy.table import Table
from tqdm import tqdm

from .. import constants as const
from ..dynamics.potential import halo_mass
from ..errors import InputError
from ..parameters import Parameters
from .orbits import Orbits, integrate
from .table import META_KEY

__all__ = ["LABELS", "Label", "mock"]

_EARLIEST = 500  # steps, that is, 1 Gyr: by then phases have forgotten that all orbits start in the plane
_CHUNK = 1000  # orbits at once: 250 MB
_TRIES = 32  # moments at which an orbit may be seen before another one is taken in its place


_FIDUCIAL = Parameters()


class Label(NamedTuple):
    """How one element depends on the torus, and what blurs it.

    mean + radial (L_z / v_circ - R0) + vertical s(z_max^2, 1 kpc) + eccentric s((r_apo - r_peri)^2, 4 kpc), where
    s(x^2, c) = x^2 / (x^2 + c^2), plus Normal scatter. Scatters of two elements correlate by the product of their
    `loadings` on two common causes. In dex, `radial` in dex/kpc; `error` is the median measurement error.
    """

    mean: float
    radial: float
    vertical: float
    eccentric: float
    scatter: float
    loadings: tuple[float, float]
    error: float


# Gradients and amplitudes after Hayden et al. 2015 and Price-Whelan et al. 2021 (Figs. 3, 4), on the strong side;
# errors after Joensson et al. 2020. The loadings make [Mg/Fe] and [O/Fe] correlate by 0.90, [Fe/H] with both by -0.52.
LABELS: Mapping[str, Label] = {
    "FE_H": Label(0.00, -0.060, -0.50, -0.10, 0.080, (-0.55, 0.60), 0.010),
    "C_FE": Label(-0.02, -0.010, 0.08, 0.02, 0.060, (0.30, -0.30), 0.020),
    "N_FE": Label(0.15, -0.015, -0.10, -0.03, 0.080, (-0.30, 0.40), 0.025),
    "O_FE": Label(0.02, 0.012, 0.28, 0.05, 0.040, (0.95, 0.00), 0.015),
    "MG_FE": Label(0.02, 0.010, 0.25, 0.05, 0.040, (0.95, 0.00), 0.013),
    "SI_FE": Label(0.00, 0.008, 0.18, 0.03, 0.035, (0.90, 0.00), 0.013),
    "MN_FE": Label(-0.03, -0.030, -0.22, -0.04, 0.040, (-0.60, 0.50), 0.017),
    "NI_FE": Label(0.02, -0.010, -0.05, -0.01, 0.025, (0.10, 0.50), 0.012),
}


def _disk_orbits(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starting R, z [kpc] and v [km/s] of n disk stars of all ages, in an exponential disk of scale length 2.6 kpc."""
    guiding = rng.gamma(2.0, 2.6, 20 * n)
    guiding = guiding[(guiding > 4.5) & (guiding < 12.5)][:n]
    age = rng.uniform(0.05, 1.0, n)  # in units of the oldest; dispersions grow as in Mackereth et al. 2019
    fall = np.exp(-(guiding - const.R0) / 10.0)
    vR = rng.normal(0, 48.0 * age**0.33 * fall)
    vz = rng.normal(0, 34.0 * age**0.5 * fall)
    return guiding, np.zeros(n), np.stack([vR, np.full(n, const.V_CIRC), vz])


def _observe(rng: np.random.Generator, orbits: Orbits, truth: Any, d_max: float) -> tuple[np.ndarray, np.ndarray]:
    """Galactocentric x, y, z [kpc], vx, vy, vz [km/s] (6, n) of the orbits seen near the Sun, and which (n,) those are.

    Among random moments and azimuths the first within d_max of the Sun is taken, so that all phases of a torus are as
    likely as the selection, a function of position alone, makes them.
    """
    n = orbits.L_z.size
    time = rng.integers(_EARLIEST, len(orbits.R), (_TRIES, n))
    wedge = np.arcsin(min(d_max / const.R0, 1.0))
    phi = rng.uniform(-wedge, wedge, (_TRIES, n))
    R, z, vR, vT, vz = (getattr(orbits, name)[time, np.arange(n)] for name in ("R", "z", "vR", "vT", "vz"))
    cosine, sine = np.cos(phi), np.sin(phi)
    x, y = -R * cosine, R * sine
    z_sun = truth.z_sun * const.PC
    seen = (x + np.sqrt(const.R0**2 - z_sun**2)) ** 2 + y**2 + (z - z_sun) ** 2 < d_max**2
    first, found = seen.argmax(axis=0), np.flatnonzero(seen.any(axis=0))
    w = np.stack([x, y, z, -vR * cosine + vT * sine, vR * sine + vT * cosine, vz])
    return w[:, first[found], found], found


def _sky(w: np.ndarray, truth: Any) -> dict[str, np.ndarray]:
    """ICRS ra, dec [deg], parallax [mas], pmra, pmdec [mas/yr], radial_velocity [km/s] of Galactocentric w (6, N)."""
    frame = coord.Galactocentric(
        galcen_coord=coord.ICRS(ra=266.4051 * u.deg, dec=-28.936175 * u.deg),
        galcen_distance=const.R0 * u.kpc,
        galcen_v_sun=coord.CartesianDifferential([const.V_SUN_X, const.V_SUN_Y, truth.vz_sun] * u.km / u.s),
        z_sun=truth.z_sun * u.pc,
        roll=0 * u.deg,
    )
    position, velocity = w[:3] * u.kpc, w[3:] * u.km / u.s
    names = dict(zip(("x", "y", "z", "v_x", "v_y", "v_z"), (*position, *velocity), strict=True))
    icrs = frame.realize_frame(coord.Galactocentric(**names).data).transform_to(coord.ICRS())
    return {
        "ra": icrs.ra.deg,
        "dec": icrs.dec.deg,
        "parallax": 1 / icrs.distance.to_value(u.kpc),
        "pmra": icrs.pm_ra_cosdec.to_value(u.mas / u.yr),
        "pmdec": icrs.pm_dec.to_value(u.mas / u.yr),
        "radial_velocity": icrs.radial_velocity.to_value(u.km / u.s),
    }


def _saturating(x: np.ndarray, scale: float) -> np.ndarray:
    """Even in x, hence smooth in the action that grows as x^2, and never above 1."""
    return x**2 / (x**2 + scale**2)


def _mean_labels(torus: Mapping[str, np.ndarray], labels: Sequence[Label]) -> np.ndarray:
    """Mean abundance [dex] (N, E) on each star's torus."""
    mean, radial, vertical, eccentric = np.array([label[:4] for label in labels]).T
    inputs = np.stack([
        np.ones_like(torus["L_z"]),
        torus["L_z"] / const.V_CIRC - const.R0,
        _saturating(torus["z_max"], 1.0),
        _saturating(torus["r_apo"] - torus["r_peri"], 4.0),
    ])  # fmt: skip
    return inputs.T @ np.stack([mean, radial, vertical, eccentric])


def _scatter_covariance(labels: Sequence[Label]) -> np.ndarray:
    """Covariance [dex^2] (E, E) of the scatter about the mean abundances."""
    loadings = np.array([label.loadings for label in labels])
    correlation = loadings @ loadings.T
    np.fill_diagonal(correlation, 1.0)
    scatter = np.array([label.scatter for label in labels])
    return correlation * np.outer(scatter, scatter)


def mock(
    stars: int,
    seed: int,
    truth: Any = _FIDUCIAL,
    elements: Sequence[str] = tuple(LABELS),
    *,
    d_max: float = 2.0,
    scatter: float = 1.0,
    abundance_errors: bool = True,
    gaia_errors: bool = False,
    progress: bool = True,
) -> Table:
    """A synthetic catalogue of disk stars within `d_max` [kpc] of the Sun, in the mass model of `truth`.

    Columns as in `read_stars`: ra dec [deg], parallax [mas], pmra pmdec [mas/yr], radial_velocity [km/s], their
    `_error`, and the `elements` (names in `LABELS`) with `_ERR` [dex]; then the torus of each star, L_z [kpc km/s],
    z_max, r_apo, r_peri [kpc], which no method may use. `scatter` multiplies the intrinsic scatter. Errors of
    abundances, and with `gaia_errors` those of astrometry and radial velocity, differ from star to star and are added
    to the values; without, their columns are zero. The truth and every setting are in the metadata; the same seed gives
    the same table.

    Raises `InputError` for an element without a label, no stars, d_max outside (0, 8] kpc, or a negative halo mass.
    """
    unknown = [element for element in elements if element not in LABELS]
    if unknown or not elements:
        wanted = unknown[0] if unknown else "(none given)"
        raise InputError(f"no label for element {wanted}; choose from {', '.join(LABELS)}")
    if stars < 1 or not 0 < d_max <= 8:
        raise InputError(f"stars={stars} and d_max={d_max:g} kpc: at least one star and 0 < d_max <= 8 kpc are needed")
    if not halo_mass(truth) > 0:
        raise InputError(f"m_disk={truth.m_disk:g}, h_z={truth.h_z:g}: leaves no mass for the halo; lower m_disk")
    rng = np.random.default_rng(seed)
    drift, seen, tori = 0.0, [], []
    with tqdm(total=stars, desc="orbits", unit="star", disable=not progress) as bar:
        while bar.n < stars:
            # A short first chunk would leave later ones to make up for orbits that never come near.
            orbits = integrate(*_disk_orbits(rng, min(_CHUNK, stars + 20)), truth)
            w, found = _observe(rng, orbits, truth, d_max)
            w, found = w[:, : stars - bar.n], found[: stars - bar.n]
            seen.append(w)
            tori.append(np.stack([orbits.L_z, orbits.z_max, orbits.r_apo, orbits.r_peri])[:, found])
            drift = max(drift, orbits.energy_drift)
            bar.update(found.size)
    sky = _sky(np.concatenate(seen, axis=1), truth)
    torus = dict(zip(("L_z", "z_max", "r_apo", "r_peri"), np.concatenate(tori, axis=1), strict=True))

    chosen = [LABELS[element] for element in elements]
    covariance = scatter**2 * _scatter_covariance(chosen)
    values = _mean_labels(torus, chosen) + rng.multivariate_normal(np.zeros(len(chosen)), covariance, stars)
    errors = np.zeros_like(values)
    if abundance_errors:
        # Lognormal about each element's median, within what ASPCAP reports for giants.
        errors = np.clip([c.error for c in chosen] * rng.lognormal(0, 0.35, values.shape), 0.005, 0.05)
        values = values + errors * rng.normal(size=values.shape)
    sky_errors = {name: np.zeros(stars) for name in ("parallax", "pmra", "pmdec", "radial_velocity")}
    if gaia_errors:
        common = rng.lognormal(0, 0.4, stars)  # a faint star is bad at everything
        for name, median in zip(sky_errors, (0.018, 0.017, 0.015, 0.10), strict=True):
            sky_errors[name] = median * common
            sky[name] = sky[name] + sky_errors[name] * rng.normal(size=stars)
    settings = {
        "stars": stars, "seed": seed, "elements": list(elements), "d_max": d_max, "scatter": scatter,
        "abundance_errors": abundance_errors, "gaia_errors": gaia_errors, "energy_drift": drift,
    }  # fmt: skip
    labels = {element: LABELS[element]._asdict() for element in elements}
    meta = {"truth": {k: float(v) for k, v in truth._asdict().items()}, "settings": settings, "labels": labels}
    table = Table(meta={META_KEY: json.dumps(meta)})
    units = {"ra": u.deg, "dec": u.deg, "parallax": u.mas, "pmra": u.mas / u.yr, "pmdec": u.mas / u.yr}
    for name, column in sky.items():
        table[name] = column * units.get(name, u.km / u.s)
        if name in sky_errors:
            table[f"{name}_error"] = sky_errors[name] * units.get(name, u.km / u.s)
    for i, element in enumerate(elements):
        table[element], table[f"{element}_ERR"] = values[:, i], errors[:, i]
    for name, column in torus.items():
        table[name] = column * (u.kpc * u.km / u.s if name == "L_z" else u.kpc)
    return table
