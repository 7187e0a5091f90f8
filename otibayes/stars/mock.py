"""Synthetic stars whose truth is not ours: phase-mixed orbits in a known mass model, labels that depend on tori alone.

gala integrates one orbit per star, which is then observed at a random time. The labels are smooth functions of three
invariants of the torus, measured along the orbit: L_z, z_max^2 and (r_apo - r_peri)^2. No action finder, neither ours
nor anybody's, has a part in the answer.
"""

import json
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from functools import partial
from itertools import count
from multiprocessing import get_context
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
from .labels import LABELS, mean_labels, scatter
from .orbits import Orbits, integrate
from .table import META_KEY

__all__ = ["mock"]

_SINCE = 250  # steps, that is, 500 Myr, since a stress was applied
_EARLIEST = 500  # steps, that is, 1 Gyr: by then phases have forgotten that all orbits start in the plane
FOOTPRINTS = ("all-sky", "pencil-beams", "magnitude-limit")
_CHUNK = 200  # orbits at once: 24 MB, and little to lose at the end
_WORTH_PROCESSES = 5000  # stars; fewer are made before others have started
_TRIES = 64  # moments and azimuths at which an orbit may be in the footprint before another is taken in its place
_STARTS = 30  # drawn for each orbit: of a survey of 100 pc one in 15 may come near


_FIDUCIAL = Parameters()


def _disk_orbits(rng: np.random.Generator, n: int, d_max: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starting R, z [kpc] and v [km/s] of n disk stars of all ages, in an exponential disk of scale length 2.6 kpc.

    Those alone whose epicycle may bring them within d_max [kpc] of the Sun. Any choice among starts is a choice among
    tori, which leaves the phases, drawn later, as they are.
    """
    guiding = rng.gamma(2.0, 2.6, _STARTS * n)
    age = rng.uniform(0.05, 1.0, guiding.size)  # in units of the oldest; dispersions grow as in Mackereth et al. 2019
    fall = np.exp(-(guiding - const.R0) / 10.0)
    vR = rng.normal(0, 48.0 * age**0.33 * fall)
    vz = rng.normal(0, 34.0 * age**0.5 * fall)
    epicycle = np.abs(vR) * guiding / (np.sqrt(2) * const.V_CIRC)
    near = (guiding > 4.5) & (guiding < 12.5) & (np.abs(guiding - const.R0) < d_max + 1.5 * epicycle)
    guiding, vR, vz = guiding[near][:n], vR[near][:n], vz[near][:n]
    return guiding, np.zeros_like(guiding), np.stack([vR, np.full_like(vR, const.V_CIRC), vz])


def _disturb(rng: np.random.Generator, orbits: Orbits, truth: Any, kick: float) -> Orbits:
    """The same stars 500 Myr after a vertical kick [km/s] at a random moment, in the mass model of `truth`."""
    R, z, vR, vT, vz = orbits.at(rng.integers(_EARLIEST, orbits.w.shape[1], orbits.L_z.size))
    later = integrate(R, z, np.stack([vR, vT, vz + kick]), truth, _SINCE)
    return orbits._replace(w=later.w[:, -1:], energy_drift=max(orbits.energy_drift, later.energy_drift))


Footprint = Callable[[np.random.Generator, np.ndarray], np.ndarray]


def _pencil_beams(rng: np.random.Generator) -> Footprint:
    """300 fields of 1.5 degrees, two thirds of them within 16 degrees of the plane, as APOGEE's."""
    l = rng.uniform(0, 2 * np.pi, 300)  # noqa: E741 (Galactic longitude)
    sin_b = np.where(np.arange(300) < 200, np.sin(np.radians(rng.uniform(-16, 16, 300))), rng.uniform(-1, 1, 300))
    cos_b = np.sqrt(1 - sin_b**2)
    return partial(_in_beams, np.stack([cos_b * np.cos(l), cos_b * np.sin(l), sin_b]))


def _in_beams(fields: np.ndarray, _: np.random.Generator, position: np.ndarray) -> np.ndarray:
    direction = position / np.linalg.norm(position, axis=0)
    return np.array([(fields.T @ row).max(axis=0) for row in direction.swapaxes(0, 1)]) > np.cos(np.radians(1.5))


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

    Moments and azimuths are drawn evenly among all within d_max of the Sun, and the first in the footprint is taken:
    all phases of a torus are as likely as the selection, a function of position alone, makes them.
    """
    steps = orbits.w.shape[1]
    earliest = min(_EARLIEST, steps - 1)
    x, y, z = orbits.w[:3, earliest:]
    z_sun = truth.z_sun * const.PC
    x_sun = np.sqrt(const.R0**2 - z_sun**2)
    R = np.hypot(x, y)
    # Half of the range of azimuth in which a star at this R and z is within d_max.
    wedge = np.arccos(np.clip((R**2 + x_sun**2 + (z - z_sun) ** 2 - d_max**2) / (2 * R * x_sun), -1, 1))
    until = np.cumsum(wedge, axis=0)
    near = np.flatnonzero(until[-1])
    chosen = rng.uniform(0, until[-1, near], (_TRIES if footprint else 1, near.size))
    time = np.stack([np.searchsorted(until[:, i], column) for i, column in zip(near, chosen.T, strict=True)], axis=1)
    phi = wedge[time, near] * rng.uniform(-1, 1, time.shape)
    every = np.zeros((len(time), orbits.L_z.size), int)
    every[:, near] = time + earliest
    R, z, vR, vT, vz = (values[:, near] for values in orbits.at(every))
    cosine, sine = np.cos(phi), np.sin(phi)
    w = np.stack([-R * cosine, R * sine, z, -vR * cosine + vT * sine, vR * sine + vT * cosine, vz])
    seen = footprint(rng, w[:3] + np.array([x_sun, 0, -z_sun])[:, None, None]) if footprint else np.ones(R.shape, bool)
    first, found = seen.argmax(axis=0), np.flatnonzero(seen.any(axis=0))
    return w[:, first[found], found], near[found]


class _Survey(NamedTuple):
    """What decides which stars are seen: all that a chunk of orbits needs to know, so that any process can make it."""

    seed: int
    orbits: int
    truth: Any
    past: Any
    kick: float
    d_max: float
    footprint: Footprint | None

    def chunk(self, number: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Phase space (6, n) and torus L_z, z_max, r_apo, r_peri (4, n) of the stars seen, and the energy drift."""
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(number,)))
        orbits = integrate(*_disk_orbits(rng, self.orbits, self.d_max), self.past)
        if self.kick or self.past is not self.truth:
            orbits = _disturb(rng, orbits, self.truth, self.kick)
        w, found = _observe(rng, orbits, self.truth, self.d_max, self.footprint)
        torus = np.stack([orbits.L_z, orbits.z_max, orbits.r_apo, orbits.r_peri])
        return w, torus[:, found], orbits.energy_drift


def _in_order(function: Callable[[int], Any], processes: int) -> Generator[Any]:
    """function(0), function(1), ... without end, computed a little ahead by as many processes."""
    if processes == 1:
        yield from map(function, count())
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        ahead = deque(pool.submit(function, number) for number in range(2 * processes))
        try:
            for number in count(2 * processes):
                yield ahead.popleft().result()
                ahead.append(pool.submit(function, number))
        finally:
            pool.shutdown(cancel_futures=True)


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
    processes: int = 1,
    progress: bool = True,
) -> Table:
    """A synthetic catalogue of disk stars within `d_max` [kpc] of the Sun, in the mass model of `truth`.

    Columns as in `read_stars`: ra dec [deg], parallax [mas], pmra pmdec [mas/yr], radial_velocity [km/s], their
    `_error`, and the `elements` (names in `otibayes.stars.labels.LABELS`) with `_ERR` [dex]; then the torus of each
    star, L_z [kpc km/s], z_max, r_apo, r_peri [kpc], which no method may use. Errors of abundances, and with
    `gaia_errors` those of astrometry and radial velocity, differ from star to star and are added to the values;
    without, their columns are zero. `footprint` is "all-sky", "pencil-beams" or "magnitude-limit". The truth and every
    setting are in the metadata; the same seed gives the same table, with however many `processes`. (With more than one,
    a script must guard its start with `if __name__ == "__main__":`, as always in multiprocessing.)

    Stresses, all off by default, break an assumption each: `skew` (of the scatter), `conical` (labels linear in z_max),
    `abundance_selection` (log odds of being kept, per dex of the first element and kpc of |z|), `kick` [km/s] (given
    to every star's vz 500 Myr ago: a phase spiral), `growth` (fraction by which the disk's mass suddenly grew, 500 Myr
    ago). With the last two the torus is that before.

    Raises `InputError` for an element without a label, an unknown footprint, no stars, d_max outside 0.1 to 8 kpc, or a
    negative halo mass.
    """
    unknown = [element for element in elements if element not in LABELS]
    if unknown or not elements:
        wanted = unknown[0] if unknown else "(none given)"
        raise InputError(f"no label for element {wanted}; choose from {', '.join(LABELS)}")
    if stars < 1 or not 0.1 <= d_max <= 8:
        given = f"stars={stars} and d_max={d_max:g} kpc"
        raise InputError(f"{given}: at least one star and 0.1 <= d_max <= 8 kpc are needed")
    if footprint not in FOOTPRINTS:
        raise InputError(f"no footprint {footprint}; choose from {', '.join(FOOTPRINTS)}")
    if not halo_mass(truth) > 0:
        raise InputError(f"m_disk={truth.m_disk:g}, h_z={truth.h_z:g}: leaves no mass for the halo; lower m_disk")
    rng = np.random.default_rng(seed)
    past = truth._replace(m_disk=truth.m_disk * (1 - growth)) if growth else truth
    # Where the selection depends on abundances, half of the stars are there to be lost.
    total = 2 * stars if abundance_selection else stars
    survey = _Survey(seed, min(_CHUNK, total + 20), truth, past, kick, d_max, _footprint(footprint, rng))
    drift, done, seen, tori = 0.0, 0, [], []
    chunks = _in_order(survey.chunk, processes if total > _WORTH_PROCESSES else 1)
    with tqdm(total=total, desc="orbits", unit="star", disable=not progress) as bar, closing(chunks):
        while done < total:
            w, torus, drift_here = next(chunks)
            seen.append(w[:, : total - done])
            tori.append(torus[:, : total - done])
            drift = max(drift, drift_here)
            done += seen[-1].shape[1]
            bar.update(seen[-1].shape[1])
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
