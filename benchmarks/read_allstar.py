"""Select from a synthesised file of the shape of APOGEE DR17's allStar (733,901 rows, 4 GB): time and peak memory.

    python benchmarks/read_allstar.py [--rows 733901] [--folder FOLDER]

The columns that the recipe needs lie between vector columns that it does not, as in the real file. Peak memory is the
process's largest resident set, after the file was made by another process.
"""

import argparse
import io
import math
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from astropy.io import fits

ROWS = 733_901
BLOCK = 20_000  # rows made once and repeated: the reader cannot tell


def block(rng: np.random.Generator, n: int) -> fits.BinTableHDU:
    parallax = rng.uniform(0.1, 3, n)
    scalars = {
        "RA": rng.uniform(0, 360, n), "DEC": rng.uniform(-90, 90, n), "SNR": rng.uniform(10, 300, n),
        "TEFF": rng.uniform(3400, 6600, n), "LOGG": rng.uniform(1, 4, n), "M_H": rng.normal(-0.1, 0.25, n),
        "ALPHA_M": rng.normal(0.05, 0.08, n), "VHELIO_AVG": rng.normal(0, 40, n), "VERR": np.full(n, 0.1),
        "GAIAEDR3_PARALLAX": parallax, "GAIAEDR3_PARALLAX_ERROR": np.full(n, 0.02),
        "GAIAEDR3_PMRA": rng.normal(0, 5, n), "GAIAEDR3_PMRA_ERROR": np.full(n, 0.02),
        "GAIAEDR3_PMDEC": rng.normal(0, 5, n), "GAIAEDR3_PMDEC_ERROR": np.full(n, 0.02),
    }  # fmt: skip
    for element in ("FE_H", "C_FE", "N_FE", "O_FE", "MG_FE", "SI_FE", "MN_FE", "NI_FE"):
        scalars[element], scalars[f"{element}_ERR"] = rng.normal(0, 0.1, n), np.full(n, 0.01)
    flags = ("ASPCAPFLAG", "APOGEE_TARGET1", "APOGEE_TARGET2", "APOGEE2_TARGET1", "APOGEE2_TARGET2", "APOGEE2_TARGET3")
    columns = [fits.Column("APOGEE_ID", "18A", array=np.array([f"2M{i:016d}" for i in rng.integers(0, 10**9, n)]))]
    columns += [fits.Column(name, "J", array=np.zeros(n, np.int32)) for name in flags]
    for i, (name, values) in enumerate(scalars.items()):
        columns.append(fits.Column(name, "D" if name in ("RA", "DEC") else "E", array=values))
        columns.append(fits.Column(f"VECTOR_{i}", "41E", array=np.zeros((n, 41), np.float32)))
    return fits.BinTableHDU.from_columns(columns)


def make(path: Path, rows: int) -> None:
    hdu = block(np.random.default_rng(0), BLOCK)
    width, written = hdu.header["NAXIS1"], io.BytesIO()
    hdu.writeto(written)
    raw = written.getbuffer()[-2880 * math.ceil(BLOCK * width / 2880) :]
    hdu.header["NAXIS2"] = rows
    with path.open("wb") as file:
        file.write(fits.PrimaryHDU().header.tostring().encode() + hdu.header.tostring().encode())
        for start in range(0, rows, BLOCK):
            file.write(raw[: min(BLOCK, rows - start) * width])
        file.write(bytes(-rows * width % 2880))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    path = options.folder / "allStar-synthetic.fits"
    maker = multiprocessing.get_context("spawn").Process(target=make, args=(path, options.rows))
    maker.start()
    maker.join()
    try:
        from otibayes.stars import select

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        start = time.perf_counter()
        table, flow = select(path, "pw21-low-alpha")
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(flow)
        print(f"{path.stat().st_size / 1e9:.2f} GB, {flow.rows} rows -> {len(table)} stars in {seconds:.1f} s")
        print(f"peak memory {peak:.2f} GB, of which {before:.2f} GB before reading")
    finally:
        path.unlink()
