"""Numbers of Price-Whelan et al. (2021) that follow without its catalogue, beside those that the paper prints.

    python benchmarks/paper_numbers.py [--classical CLASSICAL.nc] [--posterior POSTERIOR.nc]

Prints the halo's scale mass as a function of (m_disk, h_z), and the disk mass and the disk-to-halo mass ratio within
8.1 kpc that follow from the parameters of Table 1, with errors to first order. With results of a mock of the paper's
size (`otibayes mock --stars 56324 --seed 1`), prints the precision of the disk mass: from [O/Fe] alone with h_z fixed
(the paper: 7%), and from all elements (the paper: 2.5%).
"""

from pathlib import Path

import click
import jax
import numpy as np

import otibayes as oti
from otibayes.base.constants import M_HALO_FLOOR
from otibayes.dynamics import MILKY_WAY, derived_quantities, halo_mass

# Table 1, mean and error: m_disk, h_z [kpc], M_disk [1e10 Msun], M_disk / M_halo within 8.1 kpc
TABLE_1 = {
    "all eight elements": ((1.21, 0.04), (0.27, 0.01), (7.89, 0.26), (2.11, 0.21)),
    "without Mg and Si": ((1.07, 0.05), (0.28, 0.01), (6.98, 0.32), (1.51, 0.16)),
}


def halo_masses() -> list[str]:
    heights = (0.1, 0.2, 0.28, 0.4, 0.6)
    lines = [
        "NFW scale mass [1e11 Msun] at v_circ(R0) = 229 km/s",
        "m_disk  " + "".join(f"h_z {h:4.2f} " for h in heights),
    ]
    for mass in (0.4, 0.7, 1.0, 1.3, 1.6, 1.8):
        values = [float(halo_mass(oti.Parameters(m_disk=mass, h_z=height))) for height in heights]
        cells = [f"{value / 1e11:8.2f}{'*' if value < M_HALO_FLOOR else ' '}" for value in values]
        lines.append(f"{mass:5.1f}   " + "".join(cells))
    return [*lines, "* below the floor of the prior, 1e11 Msun"]


def table_1() -> list[str]:
    def ratio_and_mass(pair: jax.Array) -> jax.Array:
        values = derived_quantities(oti.Parameters(m_disk=pair[0], h_z=pair[1]), MILKY_WAY)
        return jax.numpy.stack([values["M_disk"] / 1e10, values["M_disk_over_M_halo"]])

    lines = ["Table 1                 M_disk [1e10 Msun]: ours, paper     M_disk/M_halo: ours, paper"]
    for column, (m_disk, h_z, mass, ratio) in TABLE_1.items():
        point = jax.numpy.array([m_disk[0], h_z[0]])
        values, slopes = ratio_and_mass(point), jax.jacfwd(ratio_and_mass)(point)
        errors = np.hypot(slopes[:, 0] * m_disk[1], slopes[:, 1] * h_z[1])
        lines.append(
            f"{column:22s}  {values[0]:.2f} +- {errors[0]:.2f}, {mass[0]:.2f} +- {mass[1]:.2f}"
            f"            {values[1]:.2f} +- {errors[1]:.2f}, {ratio[0]:.2f} +- {ratio[1]:.2f}"
        )
    return lines


def posterior_precision(file: Path) -> list[str]:
    draws = oti.load(file, "posterior")["posterior"].dataset
    theta = np.stack([draws[name].values.ravel() for name in oti.Parameters._fields])
    covariance = np.cov(theta)
    fixed = np.delete(np.arange(len(theta)), 1)
    inverse = np.linalg.inv(covariance)
    conditional = np.linalg.inv(inverse[np.ix_(fixed, fixed)])[0, 0] ** 0.5
    mean = theta[0].mean()
    elements = ", ".join(map(str, draws.element.values))
    return [
        f"posterior ({elements}): m_disk to {100 * covariance[0, 0] ** 0.5 / mean:.1f}%,"
        f" with h_z fixed to {100 * conditional / mean:.1f}%"
    ]


def classical_precision(file: Path) -> list[str]:
    tree = oti.load(file, "classical")
    draws = tree["posterior"].dataset
    lines = []
    if "O_FE" in draws.element.values:
        one = draws.sel(element="O_FE", chain=0)
        pair = np.cov(np.stack([one.m_disk.values, one.h_z.values]))
        fixed = np.sqrt(pair[0, 0] - pair[0, 1] ** 2 / pair[1, 1])
        lines.append(f"equation 8, [O/Fe]: m_disk with h_z fixed to {100 * fixed / float(one.m_disk.mean()):.1f}%")
    for constraint in tree["joint"].dataset.combination.values.tolist():
        joint = tree["joint"].dataset.sel(combination=constraint)
        percent = 100 * float(joint.covariance[0, 0]) ** 0.5 / float(joint["mean"][0])
        lines.append(f"equation 8, all elements, {constraint}: m_disk to {percent:.1f}%, across the valley only")
    return lines


@click.command(help=__doc__)
@click.option("--classical", type=Path, help="Classical result of a mock.")
@click.option("--posterior", type=Path, multiple=True, help="Posterior of a mock; repeatable.")
def main(classical: Path | None, posterior: tuple[Path, ...]) -> None:
    lines = [*halo_masses(), "", *table_1()]
    if classical is not None:
        lines += ["", *classical_precision(classical)]
    for file in posterior:
        lines += posterior_precision(file)
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
