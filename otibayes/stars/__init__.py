"""Star catalogues: real ones in (`read_stars`), synthetic ones out (`mock`)."""

from .catalogue import embedded_stars, read_stars
from .mock import mock
from .stars import Provenance, Stars
from .table import read_table, write_table

__all__ = ["Provenance", "Stars", "embedded_stars", "mock", "read_stars", "read_table", "write_table"]
