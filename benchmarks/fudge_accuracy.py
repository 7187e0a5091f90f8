"""Section 4 of Price-Whelan et al. 2021 again: how far is the Staeckel fudge from O2GF, over m_disk 0.5 to 1.5?

python benchmarks/fudge_accuracy.py --reference tests/data/o2gf_actions.ecsv              (seconds)
python benchmarks/fudge_accuracy.py --stars 20 --write FILE.ecsv                          (a fresh set; seconds a star)

Prints the paper's claims beside the measured shares, the percentiles for every choice of Delta with its cost, and draws
docs/figures/fudge_accuracy.png.
"""

import argparse
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from astropy.table import Table, vstack

from otibayes.base.constants import R0
from otibayes.base.parameters import Parameters
from otibayes.dynamics import PhaseSpace, action_angle, focal_length

FIGURE = Path(__file__).resolve().parents[1] / "docs" / "figures" / "fudge_accuracy.png"
NAMES = ("J_R", "L_z", "J_z", "theta_z")
CLAIMS = {"J_R": 0.10, "L_z": 0.001, "J_z": 0.005}  # PW21, section 4: "in all cases"
SHOWN = ("J_R", "J_z", "theta_z")
DELTAS = ("shell", "orbit", "local", "0.45 R0")
LABELS = (r"$|\Delta J_R|/J_R$", r"$|\Delta J_z|/J_z$", r"$|\Delta\theta_z|$ [rad]")


def fresh(stars, seed):
    """Disk stars near the Sun, and their O2GF actions and angles: {m_disk: (w, J_R, L_z, J_z, theta_z)}."""
    rng = np.random.default_rng(seed)
    columns = ((8.122, 0.8), (0.0, 0.15), (0.0, 0.4), (0.0, 40.0), (220.0, 25.0), (0.0, 20.0))
    w = PhaseSpace(*(rng.normal(mean, sd, stars) for mean, sd in columns))
    sets = {}
    for m_disk in (0.5, 1.0, 1.5):
        aa = action_angle(w, Parameters(m_disk=m_disk), method="o2gf")
        ok = aa.status == 0
        sets[m_disk] = PhaseSpace(*(x[ok] for x in w)), *(getattr(aa, name)[ok] for name in NAMES)
    return sets


def write(sets, path):
    """A fresh set as a table that `read` reads."""
    tables = []
    for m_disk, (w, *truth) in sets.items():
        columns = dict(zip((*w._fields, *(f"{name}_o2gf" for name in NAMES)), (*w, *truth), strict=True))
        tables.append(Table({"m_disk": np.full(w.R.size, m_disk), **columns, "o2gf_ok": np.ones(w.R.size, bool)}))
    table = vstack(tables)
    table.meta["comment"] = "Disk stars; actions [kpc km/s] and theta_z [rad] by gala's O2GF. Made by fudge_accuracy.py"
    for name in table.colnames[1:-1]:
        table[name].info.format = ".9g"
    table.write(path)


def read(path):
    table = Table.read(path)
    table = table[table["o2gf_ok"]]
    sets = {}
    for m_disk in sorted(set(table["m_disk"])):
        rows = table[table["m_disk"] == m_disk]
        w = PhaseSpace(*(np.array(rows[name]) for name in PhaseSpace._fields))
        sets[float(m_disk)] = w, *(np.array(rows[f"{name}_o2gf"]) for name in NAMES)
    return sets


def errors(aa, truth):
    """Of each of NAMES, (4, N): relative, of actions; in radians, of the angle."""
    J_R, L_z, J_z, theta_z = truth
    gap = (aa.theta_z - theta_z + np.pi) % (2 * np.pi) - np.pi
    return np.abs([aa.J_R / J_R - 1, aa.L_z / L_z - 1, aa.J_z / J_z - 1, gap])


def microseconds(kind):
    """us a star of finding Delta, after compilation."""
    rng = np.random.default_rng(0)
    n = 20_480
    w = PhaseSpace(*(rng.normal(m, s, n) for m, s in ((8, 1), (0, 0.2), (0, 0.4), (0, 35), (220, 25), (0, 20))))
    focal_length(w, Parameters(), kind)
    start = time.perf_counter()
    focal_length(w, Parameters(), kind)
    return 1e6 * (time.perf_counter() - start) / n


def roughness(kind):
    """How far J_z(m_disk) is from a quartic, where Delta follows theta: rms over 500 stars and 21 steps, relative."""
    rng = np.random.default_rng(0)
    w = PhaseSpace(*(rng.normal(m, s, 500) for m, s in ((8, 1), (0, 0.2), (0, 0.4), (0, 35), (220, 25), (0, 20))))
    grid = np.linspace(0.8, 1.2, 21)
    delta = focal_length(w, Parameters()) if kind == "fiducial" else kind
    J_z = np.array([action_angle(w, Parameters(m_disk=m), delta=delta).J_z for m in grid])
    fit = np.polynomial.Polynomial.fit
    rough = [np.log(row) - fit(grid, np.log(row), 4)(grid) for row in J_z.T]
    return float(np.sqrt(np.mean(np.square(rough))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, help="a table of O2GF actions; without it a fresh set is made")
    parser.add_argument("--stars", type=int, default=20, help="stars in a fresh set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, help="keep the fresh set in this table")
    parser.add_argument("--figure", type=Path, default=FIGURE)
    options = parser.parse_args()
    sets = read(options.reference) if options.reference else fresh(options.stars, options.seed)

    if options.write:
        write(sets, options.write)

    found = {kind: {} for kind in DELTAS}
    for m_disk, (w, *truth) in sets.items():
        for kind in DELTAS:
            delta = 0.45 * R0 if kind == "0.45 R0" else kind
            found[kind][m_disk] = errors(action_angle(w, Parameters(m_disk=m_disk), delta=delta), truth)

    cost = {kind: microseconds(kind) for kind in DELTAS[:-1]} | {DELTAS[-1]: 0.0}
    print(
        f"{'Delta':8s} {'m_disk':>6s} {'stars':>5s}  "
        + "".join(f"{n + ' 50/95/99%':>26s}" for n in SHOWN)
        + "  us/star"
    )
    for kind in DELTAS:
        pooled = np.concatenate(list(found[kind].values()), 1)
        for label, error in (*((f"{m:.1f}", e) for m, e in found[kind].items()), ("all", pooled)):
            cells = ("/".join(f"{x:.4f}" for x in np.percentile(row, [50, 95, 99])) for row in error[[0, 2, 3]])
            print(
                f"{kind:8s} {label:>6s} {error.shape[1]:5d}  "
                + "".join(f"{c:>26s}" for c in cells)
                + f"{cost[kind]:9.2f}"
            )
    rough = ", ".join(f"{kind} {roughness(kind):.1e}" for kind in (*DELTAS[:-1], "fiducial"))
    print(f"\nroughness of J_z in m_disk, Delta followed or, fiducial, found once: {rough}")
    print("\nPW21 claims agreement within 10%, 0.1%, 0.5% in J_R, L_z, J_z; share of stars for which that holds:")
    for kind in DELTAS:
        for m_disk, error in found[kind].items():
            limits = zip(CLAIMS.items(), error, strict=False)
            shares = (f"{name} {np.mean(row < limit):6.1%}" for (name, limit), row in limits)
            print(f"{kind:8s} m_disk {m_disk:.1f}: " + ", ".join(shares))

    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), sharey=True, layout="constrained")
    for axis, i, label in zip(axes, (0, 2, 3), LABELS, strict=True):
        for kind, colour in zip(DELTAS, ("C0", "C1", "C2", "C3"), strict=True):
            for m_disk, style in zip(found[kind], ("-", "--", ":"), strict=False):
                error = np.sort(found[kind][m_disk][i])
                share = (np.arange(error.size) + 0.5) / error.size
                axis.semilogx(
                    error, share, style, color=colour, lw=1.2, label=f"{kind}, {m_disk:.1f}" if i == 0 else None
                )
        if NAMES[i] in CLAIMS:
            axis.axvline(CLAIMS[NAMES[i]], color="0.5", lw=0.8)
        axis.set(xlabel=label, xlim=(1e-5, 0.5), ylim=(0, 1))
    axes[0].set_ylabel("share of stars below")
    axes[0].legend(fontsize=6, title=r"$\Delta$, $m_{\rm disk}$", title_fontsize=6)
    options.figure.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.figure, dpi=150)
    print(f"\n{options.figure}")


if __name__ == "__main__":
    main()
