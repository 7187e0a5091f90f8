"""Results as files: netCDF, written whole or not at all, and read with a check of what they are."""

import os
from pathlib import Path

import xarray as xr

from ..base.errors import InputError
from ..base.store import write_whole
from .schema import KINDS, SCHEMA

__all__ = ["load", "save"]


def save(tree: xr.DataTree, path: str | os.PathLike[str]) -> None:
    """Write a result as netCDF, over what is there, whole or not at all.

    Raises `InputError` where the folder is absent or cannot be written.
    """
    write_whole(path, lambda part: tree.to_netcdf(part, engine="h5netcdf"))


def load(path: str | os.PathLike[str], kind: str | None = None) -> xr.DataTree:
    """A result from `save`, in memory, the file closed. `kind` "classical" or "posterior" insists on one.

    Raises `InputError` where the file is absent, not a result of otibayes, of another schema, or of the other kind.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: {'is a folder, not a result' if path.is_dir() else 'no such file'}")
    try:
        with xr.open_datatree(path, engine="h5netcdf") as opened:
            tree = opened.load()
    except Exception as error:  # HDF5 and netCDF readers raise many kinds
        raise InputError(f"{path}: cannot be read as netCDF; is it a result of otibayes, and complete?") from error
    found = tree.attrs.get("otibayes_kind")
    if found not in KINDS or "posterior" not in tree.children:
        raise InputError(f"{path}: is not a result of otibayes; give a file that fit_classical or sample made")
    if tree.attrs.get("otibayes_schema") != SCHEMA:
        raise InputError(
            f"{path}: has schema {tree.attrs.get('otibayes_schema')}, this version reads {SCHEMA}; make it again"
        )
    if kind is not None and found != kind:
        raise InputError(f"{path}: holds a {KINDS[found]} where a {KINDS[kind]} is needed")
    return tree
