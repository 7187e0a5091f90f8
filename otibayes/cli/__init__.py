"""The command line, thin over the Python interface. Heavy imports are inside the commands, so that help is quick."""

from .actions import actions
from .classical import classical
from .comparison import demo, make_comparison
from .figures import figures, table1
from .group import main
from .run import run
from .sample import sample
from .stars import make_mock, make_selection

__all__ = ["main"]

# in the order of the work, not of the alphabet
for command in (demo, make_mock, make_selection, actions, classical, sample, make_comparison, run, figures, table1):
    main.add_command(command)
