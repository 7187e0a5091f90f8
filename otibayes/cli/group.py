"""The group of commands, whose errors are one line on stderr and exit code 2."""

import sys
from typing import Any

import click

from ..base.errors import InputError
from ..base.jax_options import keep_compiled_programs

__all__ = ["main"]


class _OneLine(click.Group):
    """A group whose errors are one line on stderr and exit code 2."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["standalone_mode"] = False
        try:
            code = super().main(*args, **kwargs)
        except click.exceptions.NoArgsIsHelpError as help_wanted:
            click.echo(help_wanted.format_message())
            sys.exit(2)
        except (click.ClickException, InputError, OSError) as error:
            message = error.format_message() if isinstance(error, click.ClickException) else str(error)
            click.echo(f"Error: {' '.join(message.split())}", err=True)
            sys.exit(2)
        except click.Abort:
            click.echo("Error: interrupted; nothing was written", err=True)
            sys.exit(130)
        sys.exit(code if isinstance(code, int) else 0)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of the work, not of the alphabet


@click.group(cls=_OneLine, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="otibayes")
def main() -> None:
    """Orbital Torus Imaging: the Milky Way's mass from element abundances and actions, classical and Bayesian.

    Start with `otibayes demo`. With a catalogue of your own: `classical` and `sample`, then `compare`.

    Star tables (FITS, ECSV, CSV, Parquet) have ra dec [deg], parallax [mas] or distance [kpc], pmra pmdec [mas/yr],
    radial_velocity [km/s], and abundances such as FE_H, MG_FE with FE_H_ERR, MG_FE_ERR [dex]; other names are mapped
    with --column NAME=THEIRS.
    """
    keep_compiled_programs()
