"""Synthetic stars: phase-mixed orbits in a known mass model, with labels that depend on the tori alone.

gala integrates one orbit for each star, which is then observed at a random time. The labels are smooth functions of
three invariants of the torus, measured along the orbit: L_z, z_max^2 and (r_apo - r_peri)^2. No action finder takes
part.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import batched, count
from multiprocessing import get_context
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
from astropy.table import Table

from ..base import constants as const
from ..base.errors import InputError
from ..base.parameters import Parameters
from ..base.progress import progress as shown_progress
from ..dynamics.potential import halo_mass
from .labels import LABELS, Label, mean_labels, scatter
from .orbits import EARLIEST, FOOTPRINTS, Footprint, Orbits, footprint_of, icrs, integrate, observe
from .stars import names_of
from .table import META_KEY
from .values import RANGES

__all__ = ["MockSettings", "mock"]

_SINCE = 250  # steps, that is, 500 Myr, since a stress was applied
_CHUNK = 200  # orbits at once, of 24 MB in all
_WORTH_PROCESSES = 5000  # stars: fewer are ready before other processes have started
_STARTS = 30  # drawn for each orbit: for a survey of 100 pc one in 15 may come near
_BARREN = 20  # chunks without any star that is seen, after which none is expected
_FIDUCIAL = Parameters()
# Median errors. Gaia's of giants brighter than G = 15 (Lindegren et al. 2021); APOGEE's radial velocities, whose
# repeats scatter by 0.1 km/s (Nidever et al. 2015).
_ERRORS = {"parallax": 0.018, "pmra": 0.017, "pmdec": 0.015, "radial_velocity": 0.10}


def _disk_orbits(rng: np.random.Generator, n: int, d_max: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starting R, z [kpc] and v [km/s] of n disk stars of all ages, in an exponential disk of scale length 2.6 kpc.

    Only stars are drawn whose epicycle may bring them within d_max [kpc] of the Sun. This selects tori; the phases
    are drawn later.
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
    R, z, vR, vT, vz = orbits.at(rng.integers(EARLIEST, orbits.w.shape[1], orbits.L_z.size))
    later = integrate(R, z, np.stack([vR, vT, vz + kick]), truth, _SINCE)
    return orbits._replace(w=later.w[:, -1:], energy_drift=max(orbits.energy_drift, later.energy_drift))


class _Survey(NamedTuple):
    """What decides which stars are seen: all that another process needs to make a chunk of orbits."""

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
        w, seen = observe(rng, orbits, self.truth, self.d_max, self.footprint)
        torus = np.stack([orbits.L_z, orbits.z_max, orbits.r_apo, orbits.r_peri])
        return w, torus[:, seen], orbits.energy_drift


def _in_order(function: Callable[[int], Any], processes: int) -> Iterator[Any]:
    """function(0), function(1), ... without end, computed a little ahead by as many processes."""
    if processes == 1:
        yield from map(function, count())
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for numbers in batched(count(), 16 * processes):
            yield from pool.map(function, numbers)


def _sight(survey: _Survey, total: int, processes: int, progress: bool) -> tuple[np.ndarray, np.ndarray, float]:
    """Phase space (6, total) and torus (4, total) of as many stars, and the largest energy drift."""
    chunks, done = [], 0
    with shown_progress(None, "orbits", "star", total, shown=progress) as bar:
        for chunk in _in_order(survey.chunk, processes if total > _WORTH_PROCESSES else 1):
            chunks.append(chunk)
            done += (seen := chunk[0].shape[1])
            bar.update(min(seen, total - bar.n))
            if done >= total:
                break
            if done == 0 and len(chunks) > _BARREN:
                raise InputError("no orbit is ever seen in this survey; make d_max larger or the footprint wider")
    w, torus = (np.concatenate([chunk[i] for chunk in chunks], axis=1)[:, :total] for i in (0, 1))
    return w, torus, max(chunk[2] for chunk in chunks)


def _abundance_errors(rng: np.random.Generator, n: int, labels: Sequence[Label]) -> np.ndarray:
    """Errors [dex] (n, E) about each element's median.

    As in APOGEE DR17, where the logarithms of the errors of a star's elements correlate by 0.7 to 1.0 (94 halo stars):
    a faint or a metal-poor star has large errors in all of them.
    """
    spread = np.exp(0.30 * rng.normal(size=(n, 1)) + 0.10 * rng.normal(size=(n, len(labels))))
    return np.array([label.error for label in labels]) * spread


@dataclass(frozen=True)
class MockSettings:
    """What a survey sees and measures, and the stresses, all off by default, that break one assumption each.

    `d_max` [kpc]: stars within this distance of the Sun; `footprint`: "all-sky", "pencil-beams" or "magnitude-limit".
    Errors of abundances (`abundance_errors`), and those of astrometry and radial velocity (`gaia_errors`), differ from
    star to star and are added to the values; without, their columns are zero. `scatter_scale` multiplies the scatter.

    Stresses: `skew` (of the scatter), `conical` (labels linear in z_max), `abundance_selection` (log odds of being
    kept, per dex of the first element and kpc of |z|), `kick` [km/s] (given to every star's vz 500 Myr ago: a phase
    spiral), `growth` (fraction of today's disk mass that came suddenly, 500 Myr ago). With the last two the torus is
    that before.
    """

    d_max: float = 2.0
    footprint: str = "all-sky"
    abundance_errors: bool = True
    gaia_errors: bool = False
    scatter_scale: float = 1.0
    skew: float = 0.0
    conical: bool = False
    abundance_selection: float = 0.0
    kick: float = 0.0
    growth: float = 0.0

    def __post_init__(self) -> None:
        if self.footprint not in FOOTPRINTS:
            raise InputError(f"no footprint {self.footprint}; choose from {', '.join(FOOTPRINTS)}")
        _refuse("d_max", self.d_max, 0.1 <= self.d_max <= 8, "0.1 to 8 kpc")
        _refuse("scatter_scale", self.scatter_scale, 0 <= self.scatter_scale < np.inf, "0 or more")
        _refuse("skew", self.skew, 0 <= self.skew <= 2, "0 to 2")
        _refuse("growth", self.growth, 0 <= self.growth < 1, "0 to below 1")
        _refuse("kick", self.kick, abs(self.kick) <= 200, "-200 to 200 km/s")
        _refuse("abundance_selection", self.abundance_selection, abs(self.abundance_selection) < np.inf, "a number")


def _refuse(name: str, value: float, possible: bool, needed: str) -> None:
    if not possible:
        raise InputError(f"{name}={value:g} cannot be used; {needed} is needed")


def mock(
    stars: int,
    seed: int,
    truth: Any = _FIDUCIAL,
    elements: str | Sequence[str] | None = None,
    *,
    labels: Mapping[str, Label] = LABELS,
    processes: int = 1,
    progress: bool = True,
    **settings: Any,
) -> Table:
    """A synthetic catalogue of disk stars near the Sun, in the mass model of `truth`; `settings` of `MockSettings`.

    Columns as in `read_stars`: ra dec [deg], parallax [mas], pmra pmdec [mas/yr], radial_velocity [km/s], their
    `_error`, and the `elements` (default: all of `labels`) with `_ERR` [dex]; then the torus of each star, L_z [kpc
    km/s], z_max, r_apo, r_peri [kpc], which no method may use. The truth and every setting are in the metadata; the
    same seed gives the same table, with however many `processes`. (With more than one, a script must guard its start
    with `if __name__ == "__main__":`, as always in multiprocessing.)

    Raises `InputError` for an element without a label, an unknown footprint, no stars, a number out of range, or a
    negative halo mass.
    """
    chosen = MockSettings(**settings)
    elements = list(labels) if elements is None else list(names_of(elements))
    unknown = [element for element in elements if element not in labels]
    if unknown or not elements:
        wanted = unknown[0] if unknown else "(none given)"
        raise InputError(f"no label for element {wanted}; choose from {', '.join(labels)}")
    for name, value, least in (("stars", stars, 1), ("seed", seed, 0), ("processes", processes, 1)):
        _refuse(name, value, value >= least, f"at least {least}")
    past = truth._replace(m_disk=truth.m_disk * (1 - chosen.growth)) if chosen.growth else truth
    if not halo_mass(truth) > 0:
        raise InputError(f"m_disk={truth.m_disk:g}, h_z={truth.h_z:g}: leaves no mass for the halo; lower m_disk")

    rng = np.random.default_rng(seed)
    # Where the selection depends on abundances, it removes half of the stars.
    total = 2 * stars if chosen.abundance_selection else stars
    footprint = footprint_of(chosen.footprint, rng)
    survey = _Survey(seed, min(_CHUNK, total + 20), truth, past, chosen.kick, chosen.d_max, footprint)
    w, tori, drift = _sight(survey, total, processes, progress)
    torus = dict(zip(("L_z", "z_max", "r_apo", "r_peri"), tori, strict=True))
    simulated = [labels[element] for element in elements]
    values = mean_labels(torus, simulated, chosen.conical)
    values = values + chosen.scatter_scale * scatter(rng, total, simulated, chosen.skew)
    if chosen.abundance_selection:
        log_odds = chosen.abundance_selection * values[:, 0] * np.abs(w[2])
        chosen_stars = np.sort(np.argsort(log_odds + rng.gumbel(size=total))[-stars:])
        w, values = w[:, chosen_stars], values[chosen_stars]
        torus = {name: column[chosen_stars] for name, column in torus.items()}
    sky = icrs(w, truth)
    errors = np.zeros_like(values)
    if chosen.abundance_errors:
        errors = _abundance_errors(rng, stars, simulated)
        values = values + errors * rng.normal(size=values.shape)
    sky_errors = {name: np.zeros(stars) for name in _ERRORS}
    if chosen.gaia_errors:
        faint = 0.22 * rng.normal(size=stars)  # a faint star has large errors in every quantity
        for name, median in _ERRORS.items():
            sky_errors[name] = median * np.exp(faint + 0.10 * rng.normal(size=stars))
            sky[name] = sky[name] + sky_errors[name] * rng.normal(size=stars)

    record = {"stars": stars, "seed": seed, "elements": elements, **asdict(chosen)}
    record |= {"energy_drift": drift, "otibayes": version("otibayes")}
    described = {element: label._asdict() for element, label in zip(elements, simulated, strict=True)}
    meta = {"truth": {k: float(v) for k, v in truth._asdict().items()}, "settings": record, "labels": described}
    table = Table(meta={META_KEY: json.dumps(meta)})
    for name, column in sky.items():
        table[name] = column * RANGES[name].unit
        if name in sky_errors:
            table[f"{name}_error"] = sky_errors[name] * RANGES[name].unit
    for i, element in enumerate(elements):
        table[element], table[f"{element}_ERR"] = values[:, i], errors[:, i]
    for name, column in torus.items():
        table[name] = column * (u.kpc * u.km / u.s if name == "L_z" else u.kpc)
    return table
