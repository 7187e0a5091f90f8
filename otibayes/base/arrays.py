"""The converter at the door of the Python interface: any column of numbers becomes plain float64 in our unit."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from .errors import InputError

__all__ = ["column", "in_unit", "one_length"]


def in_unit(value: Any, unit: str | None, name: str) -> Any:
    """A float64 array of `value` in `unit`: NaN where masked, in native byte order, by position.

    `value` is a number, a list, an array of NumPy or pandas, or a quantity or column of astropy; a column without a
    unit is in ours, and without a `unit` of ours each keeps its own. Plain numbers and values of JAX, traced ones too,
    are returned as they are. Raises `InputError` for text, and for a unit of another kind.
    """
    if isinstance(value, jax.Array | float | int) or (type(value) is np.ndarray and value.dtype == np.float64):
        return value
    if not isinstance(value, list | tuple | str | bytes) and not hasattr(value, "__array__"):
        return value  # what JAX puts into a tree in place of numbers
    try:
        if hasattr(value, "iloc"):  # pandas: positions, not labels
            array, mask = value.to_numpy(dtype=float, na_value=np.nan), False
        else:
            array, mask = value, getattr(value, "mask", False)
            if getattr(value, "unit", None) is not None:
                array = value.value if unit is None else value.to(unit).value
        array = np.ma.getdata(array)
        if array.dtype.kind not in "biufO":
            raise TypeError(f"{array.dtype} is no number")
        array = np.where(mask, np.nan, np.array(array, dtype=float))
        return array if array.ndim else float(array)
    except (TypeError, ValueError) as error:
        unit_of_value = getattr(value, "unit", None)
        what = " ".join(f"{value!r:.40}".split()) if unit_of_value is None else f"a quantity in {unit_of_value}"
        wanted = f"numbers or a quantity in {unit}" if unit else "numbers"
        raise InputError(f"{name}: {what} cannot be used; give {wanted}") from error


def column(value: Any, unit: str | None, name: str) -> Any:
    """One number for each star (N,), as `in_unit`; a single number is one star. Raises `InputError` for a table."""
    array = in_unit(value, unit, name)
    if isinstance(array, float | int):
        array = np.asarray(array, float)
    if isinstance(array, np.ndarray) and array.ndim > 1:
        raise InputError(f"{name} has shape {array.shape} where one number for each star is needed")
    return np.atleast_1d(array) if isinstance(array, np.ndarray) else array


def one_length(names: Sequence[str], columns: Sequence[Any]) -> None:
    """Raise `InputError` unless all columns have the length of the first; None has any length."""
    sizes = [(name, np.shape(array)[0]) for name, array in zip(names, columns, strict=True) if np.ndim(array)]
    for name, size in sizes:
        if size != sizes[0][1]:
            raise InputError(f"{name} has {size} values where {sizes[0][0]} has {sizes[0][1]}; give one for each star")
