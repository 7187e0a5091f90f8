"""Star catalogues: real ones in (`read_stars`), synthetic ones out (`mock`)."""

from .catalogue import embedded_stars, read_stars
from .mock import mock
from .selection import CutFlow, select
from .stars import Provenance, Stars
from .table import write_table

__all__ = [
    "CutFlow",
    "Provenance",
    "Stars",
    "embedded_stars",
    "mock",
    "read_stars",
    "select",
    "write_table",
]
