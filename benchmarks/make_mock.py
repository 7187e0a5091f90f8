"""Time the synthetic catalogue of the size of Price-Whelan et al. 2021: 56,324 stars, eight elements.

python benchmarks/make_mock.py [--stars 56324]
"""

import argparse
import json
import time

from otibayes.stars import mock
from otibayes.stars.table import META_KEY

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stars", type=int, default=56_324)
    stars = parser.parse_args().stars
    start = time.perf_counter()
    table = mock(stars, seed=0)
    drift = json.loads(table.meta[META_KEY])["settings"]["energy_drift"]
    print(f"{len(table)} stars in {time.perf_counter() - start:.0f} s; largest energy drift {drift:.1e}")
