"""A synthetic survey file, with the columns and flags of APOGEE DR17, for the notebook and for docs/stars.md.

    python examples/survey_file.py [--figure selection.png]

12,000 stars of a low-alpha and 5,000 of a high-alpha sequence, in APOGEE's pencil beams, with a few flags and repeats.
The figure is that of `otibayes select --recipe pw21-low-alpha --figure`.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from astropy.table import Table, vstack

import otibayes as oti
from otibayes.stars.labels import LABELS

# Between elements as in the disk: [Mg/Fe] falls with [Fe/H] along the low-alpha sequence, more of it at large z_max.
LOW = {
    "FE_H": LABELS["FE_H"]._replace(mean=-0.05, vertical=-0.2, scatter=0.17),
    "MG_FE": LABELS["MG_FE"]._replace(mean=0.0, vertical=0.04, scatter=0.028),
}
HIGH = {
    "FE_H": LABELS["FE_H"]._replace(mean=-0.40, radial=0.0, vertical=-0.2, scatter=0.22),
    "MG_FE": LABELS["MG_FE"]._replace(mean=0.20, radial=0.0, vertical=0.04, scatter=0.030),
}
FLAGS = ("ASPCAPFLAG", "APOGEE_TARGET1", "APOGEE_TARGET2", "APOGEE2_TARGET1", "APOGEE2_TARGET2", "APOGEE2_TARGET3")
NAMES = {"ra": "RA", "dec": "DEC", "radial_velocity": "VHELIO_AVG", "radial_velocity_error": "VERR"}


def survey_file(low: int = 12_000, high: int = 5_000, seed: int = 0) -> Table:
    """A table of so many stars of the low-alpha and the high-alpha sequence, 1% of them twice."""
    rng = np.random.default_rng(seed)
    both = [
        oti.mock(number, seed, labels=labels, d_max=2.5, footprint="pencil-beams", gaia_errors=True)
        for number, seed, labels in ((low, 1, LOW), (high, 1, HIGH))
    ]
    stars = vstack(both, metadata_conflicts="silent")
    stars = vstack([stars, stars[rng.integers(0, len(stars), len(stars) // 100)]])  # seen twice
    table = Table({"APOGEE_ID": [f"2M{number:016.0f}" for number in stars["ra"] * 1e12]})
    for name in ("ra", "dec", "radial_velocity", "radial_velocity_error"):
        table[NAMES[name]] = stars[name]
    for name in ("parallax", "pmra", "pmdec"):
        table[f"GAIAEDR3_{name.upper()}"] = stars[name]
        table[f"GAIAEDR3_{name.upper()}_ERROR"] = stars[f"{name}_error"]
    for name in ("FE_H", "MG_FE"):
        table[name], table[f"{name}_ERR"] = stars[name], stars[f"{name}_ERR"]
    for name, like in (("M_H", "FE_H"), ("ALPHA_M", "MG_FE")):
        table[name], table[f"{name}_ERR"] = stars[like], stars[f"{like}_ERR"]
    table["TEFF"], table["LOGG"] = rng.normal(4700, 300, len(table)), rng.normal(2.4, 0.5, len(table))
    table["SNR"] = rng.lognormal(4.7, 0.6, len(table))
    for name in FLAGS:
        table[name] = np.where(rng.uniform(size=len(table)) < 0.01, 1 << 9, 0)
    table["ASPCAPFLAG"] = np.where(rng.uniform(size=len(table)) < 0.03, 1 << 23, 0)
    return table


def write_survey_file(path: Path, **numbers: int) -> Path:
    """Write the table as FITS and return the path."""
    oti.write_table(survey_file(**numbers), path)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figure", default="selection.png")
    figure = parser.parse_args().figure
    with tempfile.TemporaryDirectory() as folder:
        path, stars = write_survey_file(Path(folder) / "allStar-synthetic.fits"), Path(folder) / "stars.fits"
        command = ["select", path, "--recipe", "pw21-low-alpha", "--output", stars, "--figure", figure]
        subprocess.run([sys.executable, "-m", "otibayes.cli", *map(str, command)], check=True)
