"""Make the catalogue shipped in otibayes/stars/: 4,000 synthetic stars, two elements, a stated truth.

    python benchmarks/make_embedded_stars.py

The file that is shipped was made with the random numbers of an earlier `mock`: running this gives other stars of the
same truth and kind. The truth differs from the fiducial model in all four parameters. The columns of the torus, from
which the labels were made, are left out, and numbers keep no more digits than matter: positions to 1e-6 deg, distances
to one part in 1e5, velocities to 10 m/s, abundances to 1e-4 dex.
"""

from pathlib import Path

from otibayes.base.parameters import Parameters
from otibayes.stars import mock, write_table

TRUTH = Parameters(m_disk=1.1, h_z=0.32, z_sun=15.0, vz_sun=8.5)
DIGITS = {"ra": 6, "dec": 6, "parallax": 5, "pmra": 4, "pmdec": 4, "radial_velocity": 2}
OUTPUT = Path(__file__).resolve().parents[1] / "otibayes" / "stars" / "embedded.ecsv"

if __name__ == "__main__":
    table = mock(stars=4000, seed=0, truth=TRUTH, elements=["MG_FE", "FE_H"])
    table.keep_columns([*DIGITS, *(name for name in table.colnames if name.startswith(("MG_FE", "FE_H")))])
    for name in table.colnames:
        table[name][:] = table[name].round(DIGITS.get(name, 4))
    write_table(table, OUTPUT)
    print(f"{OUTPUT}: {len(table)} stars, {OUTPUT.stat().st_size / 1e6:.2f} MB")
