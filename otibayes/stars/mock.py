"""Synthetic stars whose truth is not ours: phase-mixed orbits in a known mass model, labels that depend on tori alone.

gala integrates one orbit per star, which is then observed at a random time. The labels are smooth functions of three
invariants of the torus, measured along the orbit: L_z, z_max^2 and (r_apo - r_peri)^2. No action finder, neither ours
nor anybody's, has a part in the answer.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import astropy.coordinates as coord
import astropy.units as u
import numpy as np
from astropy.table import Table
from tqdm import tqdm

from .. import constants as const
from ..dynamics.potential import halo_mass
from ..errors import InputError
from ..parameters import Parameters
from .labels import LABELS, mean_labels, scatter
from .orbits import Orbits, integrate
from .table import META_KEY

__all__ = ["mock"]

_SINCE = 250  # steps, that is, 500 Myr, since a stress was applied
_EARLIEST = 500  # steps, that is, 1 Gyr: by then phases have forgotten that all orbits start in the plane
FOOTPRINTS = ("all-sky", "pencil-beams", "magnitude-limit")
_CHUNK = 1000  # orbits at once: 250 MB
_TRIES = 32  # moments at which an orbit may be seen before another one is taken in its place


_FIDUCIAL = Parameters()


def _disk_orbits(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starting R, z [kpc] and v [km/s] of n disk stars of all ages, in an exponential disk of scale length 2.6 kpc."""
    guiding = rng.gamma(2.0, 2.6, 20 * n)
    guiding = guiding[(guiding > 4.5) & (guiding < 12.5)][:n]
    age = rng.uniform(0.05, 1.0, n)  # in units of the oldest; dispersions grow as in Mackereth et al. 2019
    fall = np.exp(-(guiding - const.R0) / 10.0)
    vR = rng.normal(0, 48.0 * age**0.33 * fall)
    vz = rng.normal(0, 34.0 * age**0.5 * fall)
    return guiding, np.zeros(n), np.stack([vR, np.full(n, const.V_CIRC), vz])


def _disturb(rng: np.random.Generator, orbits: Orbits, truth: Any, kick: float) -> Orbits:
    """The same stars 500 Myr after a vertical kick [km/s] at a random moment, in the mass model of `truth`."""
    n = orbits.L_z.size
    time = rng.integers(_EARLIEST, len(orbits.R), n)
    R, z, vR, vT, vz = (getattr(orbits, name)[time, np.arange(n)] for name in ("R", "z", "vR", "vT", "vz"))
    later = integrate(R, z, np.stack([vR, vT, vz + kick]), truth, _SINCE)
    now = {name: getattr(later, name)[-1:] for name in ("R", "z", "vR", "vT", "vz")}
    return orbits._replace(**now, energy_drift=max(orbits.energy_drift, later.energy_drift))


Footprint = Callable[[np.random.Generator, np.ndarray], np.ndarray]


def _pencil_beams(rng: np.random.Generator) -> Footprint:
    """300 fields of 1.5 degrees, two thirds of them within 16 degrees of the plane, as APOGEE's."""
    l = rng.uniform(0, 2 * np.pi, 300)  # noqa: E741 (Galactic longitude)
    sin_b = np.where(np.arange(300) < 200, np.sin(np.radians(rng.uniform(-16, 16, 300))), rng.uniform(-1, 1, 300))
    cos_b = np.sqrt(1 - sin_b**2)
    fields = np.stack([cos_b * np.cos(l), cos_b * np.sin(l), sin_b])

    def seen(_: np.random.Generator, position: np.ndarray) -> np.ndarray:
        direction = position / np.linalg.norm(position, axis=0)
        return np.array([(fields.T @ row).max(axis=0) for row in direction.swapaxes(0, 1)]) > np.cos(np.radians(1.5))

    return seen


def _magnitude_limit(rng: np.random.Generator, position: np.ndarray) -> np.ndarray:
    """Giants of absolute magnitude -1 +- 1.2 down to apparent magnitude 9.5."""
    modulus = 5 * np.log10(np.linalg.norm(position, axis=0) / 0.01)
    return rng.normal(-1.0, 1.2, modulus.shape) + modulus < 9.5


def _footprint(name: str, rng: np.random.Generator) -> Footprint | None:
    if name == "pencil-beams":
        return _pencil_beams(rng)
    return _magnitude_limit if name == "magnitude-limit" else None


def _observe(
    rng: np.random.Generator, orbits: Orbits, truth: Any, d_max: float, footprint: Footprint | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Galactocentric x, y, z [kpc], vx, vy, vz [km/s] (6, n) of the orbits seen near the Sun, and which (n,) those are.

    Among random moments and azimuths the first within d_max of the Sun is taken, so that all phases of a torus are as
    likely as the selection, a function of position alone, makes them.
    """
    n = orbits.L_z.size
    time = rng.integers(min(_EARLIEST, len(orbits.R) - 1), len(orbits.R), (_TRIES, n))
    wedge = np.arcsin(min(d_max / const.R0, 1.0))
    phi = rng.uniform(-wedge, wedge, (_TRIES, n))
    R, z, vR, vT, vz = (getattr(orbits, name)[time, np.arange(n)] for name in ("R", "z", "vR", "vT", "vz"))
    cosine, sine = np.cos(phi), np.sin(phi)
    x, y = -R * cosine, R * sine
    z_sun = truth.z_sun * const.PC
    position = np.stack([x + np.sqrt(const.R0**2 - z_sun**2), y, z - z_sun])
    seen = np.sum(position**2, axis=0) < d_max**2
    if footprint is not None:
        seen &= footprint(rng, position)
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


def mock(
    stars: int,
    seed: int,
    truth: Any = _FIDUCIAL,
    elements: Sequence[str] = tuple(LABELS),
    *,
    d_max: float = 2.0,
    abundance_errors: bool = True,
    gaia_errors: bool = False,
    footprint: str = "all-sky",
    skew: float = 0.0,
    conical: bool = False,
    abundance_selection: float = 0.0,
    kick: float = 0.0,
    growth: float = 0.0,
    progress: bool = True,
) -> Table:
    """A synthetic catalogue of disk stars within `d_max` [kpc] of the Sun, in the mass model of `truth`.

    Columns as in `read_stars`: ra dec [deg], parallax [mas], pmra pmdec [mas/yr], radial_velocity [km/s], their
    `_error`, and the `elements` (names in `otibayes.stars.labels.LABELS`) with `_ERR` [dex]; then the torus of each
    star, L_z [kpc km/s], z_max, r_apo, r_peri [kpc], which no method may use. Errors of abundances, and with
    `gaia_errors` those of astrometry and radial velocity, differ from star to star and are added to the values;
    without, their columns are zero. `footprint` is "all-sky", "pencil-beams" or "magnitude-limit". The truth and every
    setting are in the metadata; the same seed gives the same table.

    Stresses, all off by default, break an assumption each: `skew` (of the scatter), `conical` (labels linear in z_max),
    `abundance_selection` (log odds of being kept, per dex of the first element and kpc of |z|), `kick` [km/s] (given
    to every star's vz 500 Myr ago: a phase spiral), `growth` (fraction by which the disk's mass suddenly grew, 500 Myr
    ago). With the last two the torus is that before.

    Raises `InputError` for an element without a label, an unknown footprint, no stars, d_max outside (0, 8] kpc, or a
    negative halo mass.
    """
    unknown = [element for element in elements if element not in LABELS]
    if unknown or not elements:
        wanted = unknown[0] if unknown else "(none given)"
        raise InputError(f"no label for element {wanted}; choose from {', '.join(LABELS)}")
    if stars < 1 or not 0 < d_max <= 8:
        raise InputError(f"stars={stars} and d_max={d_max:g} kpc: at least one star and 0 < d_max <= 8 kpc are needed")
    if footprint not in FOOTPRINTS:
        raise InputError(f"no footprint {footprint}; choose from {', '.join(FOOTPRINTS)}")
    if not halo_mass(truth) > 0:
        raise InputError(f"m_disk={truth.m_disk:g}, h_z={truth.h_z:g}: leaves no mass for the halo; lower m_disk")
    rng = np.random.default_rng(seed)
    beams = _footprint(footprint, rng)
    past = truth._replace(m_disk=truth.m_disk * (1 - growth)) if growth else truth
    # Where the selection depends on abundances, half of the stars are there to be lost.
    total = 2 * stars if abundance_selection else stars
    drift, done, seen, tori = 0.0, 0, [], []
    with tqdm(total=total, desc="orbits", unit="star", disable=not progress) as bar:
        while done < total:
            # A short first chunk would leave later ones to make up for orbits that never come near.
            orbits = integrate(*_disk_orbits(rng, min(_CHUNK, total + 20)), past)
            if kick or growth:
                orbits = _disturb(rng, orbits, truth, kick)
            w, found = _observe(rng, orbits, truth, d_max, beams)
            w, found = w[:, : total - done], found[: total - done]
            seen.append(w)
            tori.append(np.stack([orbits.L_z, orbits.z_max, orbits.r_apo, orbits.r_peri])[:, found])
            drift = max(drift, orbits.energy_drift)
            done += found.size
            bar.update(found.size)
    w = np.concatenate(seen, axis=1)
    torus = dict(zip(("L_z", "z_max", "r_apo", "r_peri"), np.concatenate(tori, axis=1), strict=True))
    chosen = [LABELS[element] for element in elements]
    values = mean_labels(torus, chosen, conical) + scatter(rng, total, chosen, skew)
    if abundance_selection:
        log_odds = abundance_selection * values[:, 0] * np.abs(w[2])
        kept = np.sort(np.argsort(log_odds + rng.gumbel(size=total))[-stars:])
        w, values, torus = w[:, kept], values[kept], {name: column[kept] for name, column in torus.items()}
    sky = _sky(w, truth)
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
        "stars": stars, "seed": seed, "elements": list(elements), "d_max": d_max,
        "abundance_errors": abundance_errors, "gaia_errors": gaia_errors, "footprint": footprint, "skew": skew,
        "conical": conical, "abundance_selection": abundance_selection, "kick": kick, "growth": growth,
        "energy_drift": drift,
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
