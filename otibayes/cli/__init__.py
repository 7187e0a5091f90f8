"""The command line, thin over the Python interface. Heavy imports are inside the commands, so that help is quick."""

import contextlib
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..base.errors import InputError
from ..base.jax_options import keep_compiled_programs
from ..base.progress import restart
from .classical import classical
from .comparison import demo, figures, make_comparison, table1
from .run import run
from .sample import sample
from .stars import actions, make_mock, make_selection

__all__ = ["main"]

_WITHOUT_FIGURES = ("actions", "mock")  # commands that need not wait for matplotlib


class _OneLine(click.Group):
    """A group of commands whose errors, of whatever class, are one line on stderr and exit code 2."""

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **options: Any
    ) -> Any:
        line = list(sys.argv[1:] if args is None else args)
        debug, quiet = "--debug" in line, "--quiet" in line  # before or after the command
        line = [text for text in line if text not in ("--debug", "--quiet")]
        restart(quiet)
        try:
            if line and not {"--help", "-h"} & set(line):
                keep_compiled_programs()
                if line[0] not in _WITHOUT_FIGURES:
                    _import_matplotlib()
            code = super().main(line, prog_name, **{**options, "standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as help_wanted:
            click.echo(help_wanted.format_message())
            sys.exit(2)
        except click.Abort:
            click.echo("Error: interrupted; nothing was written", err=True)
            sys.exit(130)
        except (Exception, SystemExit) as error:
            if debug:
                traceback.print_exc()
            click.echo(f"Error: {_message(error)}", err=True)
            sys.exit(2)
        sys.exit(code if isinstance(code, int) else 0)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of the work, not of the alphabet


def _message(error: BaseException) -> str:
    """What went wrong, on one line; of an error that nobody foresaw its class too, and how to see more."""
    if isinstance(error, click.ClickException):
        return " ".join(error.format_message().split())
    text = " ".join(str(error).split())
    if isinstance(error, InputError | OSError) and text:
        return text
    return f"{type(error).__name__}: {text[:300] or 'no message'} (--debug shows where)"


def _import_matplotlib() -> None:
    """Import matplotlib without the user's settings (MPLBACKEND, matplotlibrc), which could break a figure."""
    os.environ["MPLBACKEND"] = "agg"
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("matplotlibrc").touch()  # one in the current folder goes before all others
        import matplotlib  # noqa: F401


@click.group(cls=_OneLine, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="otibayes")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
@click.option("--quiet", is_flag=True, expose_value=False, help="Show no progress; results and errors only.")
def main() -> None:
    """Orbital Torus Imaging: the Milky Way's mass from element abundances and actions, classical and Bayesian.

    Start with `otibayes demo`. With a catalogue of your own: `classical` and `sample`, then `compare`.

    Star tables (FITS, ECSV, CSV, Parquet) have ra dec [deg], parallax [mas] or distance [kpc], pmra pmdec
    [mas/yr], radial_velocity [km/s], and abundances such as FE_H, MG_FE with FE_H_ERR, MG_FE_ERR [dex]; other names are
    mapped with --column NAME=THEIRS.
    """


# in the order of the work, not of the alphabet
for command in (demo, make_mock, make_selection, actions, classical, sample, make_comparison, run, figures, table1):
    main.add_command(command)
