"""Time the synthetic catalogue of the size of Price-Whelan et al. 2021: 56,324 stars, eight elements.

python benchmarks/make_mock.py [--stars 56324] [--processes 2]
"""

import argparse
import json
import time

from otibayes.base.parallel import cores
from otibayes.stars import mock
from otibayes.stars.table import META_KEY

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stars", type=int, default=56_324)
    parser.add_argument("--processes", type=int, default=cores())
    options = parser.parse_args()
    start = time.perf_counter()
    table = mock(options.stars, seed=0, processes=options.processes)
    drift = json.loads(table.meta[META_KEY])["settings"]["energy_drift"]
    seconds = time.perf_counter() - start
    print(f"{len(table)} stars, {options.processes} processes: {seconds:.0f} s; largest energy drift {drift:.1e}")
