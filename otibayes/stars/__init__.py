"""Star catalogues: real ones in (`read_stars`), synthetic ones out (`mock`)."""

from .catalogue import embedded_stars, read_stars
from .mock import mock
from .recipes import distance_makers, parse_override, recipes
from .selection import CutFlow, select
from .stars import Provenance, Stars
from .table import read_table, write_table

__all__ = [
    "CutFlow",
    "Provenance",
    "Stars",
    "distance_makers",
    "embedded_stars",
    "mock",
    "parse_override",
    "read_stars",
    "read_table",
    "recipes",
    "select",
    "write_table",
]
