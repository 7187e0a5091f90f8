"""Actions and angles as a table."""

from pathlib import Path

import click

from ..base.errors import InputError
from .options import (
    check_table_output,
    delta_option,
    file_option,
    method_option,
    number_or_name,
    read_catalogue,
    star_options,
    theta_from,
)

__all__ = ["actions"]


@click.command()
@star_options
@method_option
@delta_option
@click.option("--m-disk", type=float, help="Disk mass over its fiducial value [-].")
@click.option("--h-z", type=float, help="Disk scale height (Miyamoto-Nagai b) [kpc].")
@click.option("--z-sun", type=float, help="Sun's height above the plane [pc].")
@click.option("--vz-sun", type=float, help="Sun's vertical velocity [km/s].")
@file_option("Table to write: .fits, .ecsv, .csv or .parquet.")
def actions(
    stars: Path,
    columns: tuple[str, ...],
    zero_point: float,
    method: str,
    delta: str,
    output: Path,
    **theta: float | None,
) -> None:
    """Actions, angles and frequencies of stars in one mass model, as a table.

    Columns: row (of the input), J_R L_z J_z [kpc km/s], theta_R theta_phi theta_z [rad], Omega_R Omega_phi Omega_z
    [km/s/kpc], status (0 solved, 1 unbound, 2 not solved; values are then NaN). What is not given is fiducial.

    Example: otibayes actions stars.fits --m-disk 1.1 --output actions.ecsv
    """
    parameters = theta_from({name: value for name, value in theta.items() if value is not None})
    from ..dynamics import check_method
    from ..stars.preparation import delta_setting

    check_method(method)
    delta_setting(number_or_name(delta))  # names are right, before anything is read
    check_table_output(output)
    import astropy.units as u
    import numpy as np
    from astropy.table import Table

    from ..dynamics import MILKY_WAY, action_angle, phase_space
    from ..stars import write_table

    if not bool(MILKY_WAY.allowed(parameters)):
        raise InputError("these parameters leave the halo too little mass; lower --m-disk or raise --h-z")
    read = read_catalogue(stars, columns, zero_point, None)
    found = action_angle(phase_space(read, parameters), parameters, method, number_or_name(delta))
    table = Table({"row": np.asarray(read.row)})
    units = {"J": u.kpc * u.km / u.s, "L": u.kpc * u.km / u.s, "t": u.rad, "O": u.km / u.s / u.kpc}
    for name, values in found._asdict().items():
        table[name] = np.asarray(values) if name == "status" else np.asarray(values) * units[name[0]]
    write_table(table, output)
    failed = int(np.sum(np.asarray(found.status) != 0))
    click.echo(f"written: {output} ({len(table)} stars, {failed} of them without actions)")
