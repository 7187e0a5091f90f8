"""Actions, angles and frequencies of many stars, by any of the methods: the one door to the action layer."""

from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..base.arrays import column, one_length
from ..base.errors import InputError
from ..base.parallel import cores, in_blocks
from ..base.settings import check_delta, check_method
from . import staeckel
from .delta import local_delta, orbit_delta, shell_deltas, shell_polynomials
from .frame import PhaseSpace
from .potential import MILKY_WAY, MassModel
from .reference import galpy_actions, o2gf_actions

__all__ = [
    "ActionAngle",
    "SampleActions",
    "Status",
    "action_angle",
    "actions_of",
    "focal_length",
    "star_actions",
]


class Status(IntEnum):
    """What became of a star: its values are NaN unless it is OK."""

    OK = 0
    UNBOUND = 1
    NOT_SOLVED = 2
    NOT_FINITE = 3  # of the star's position, velocity or focal length


class ActionAngle(NamedTuple):
    """Actions [kpc km/s], angles [rad, 0 to 2 pi], frequencies [km/s/kpc] and `Status`, each (N,).

    theta_R is 0 at pericentre, theta_z where a star crosses the plane upwards; L_z > 0 along Galactic rotation.
    """

    J_R: Any
    L_z: Any
    J_z: Any
    theta_R: Any
    theta_phi: Any
    theta_z: Any
    Omega_R: Any
    Omega_phi: Any
    Omega_z: Any
    status: Any


def _bound(w: PhaseSpace, theta: Any, model: MassModel) -> tuple[Any, PhaseSpace]:
    """Whether one star is bound; and the star, slowed where it is not, so that no NaN enters a gradient."""
    speed2 = w.vR**2 + w.vT**2 + w.vz**2
    depth = model.potential(staeckel.FAR, 0.0, theta) - model.potential(w.R, w.z, theta)
    bound = 0.5 * speed2 < depth
    slow = jnp.where(bound, 1.0, jnp.sqrt(depth / jnp.where(bound, 1.0, speed2)))
    return bound, w._replace(vR=slow * w.vR, vT=slow * w.vT, vz=slow * w.vz)


def star_actions(w: PhaseSpace, delta: Any, theta: Any, model: MassModel = MILKY_WAY) -> jax.Array:
    """J_R, L_z, J_z [kpc km/s] (3,) of one star by the Staeckel fudge, NaN where unbound: pure, to be vmapped."""
    bound, w = _bound(w, theta, model)
    return jnp.where(bound, jnp.stack(staeckel.actions(w, delta, theta, model.potential)), jnp.nan)


def _star_action_angle(w: PhaseSpace, delta: Any, theta: Any, model: MassModel) -> ActionAngle:
    """Of one star; `delta` may have two values: for J_R, and for all else."""
    bound, w = _bound(w, theta, model)
    *of_J_R, delta = jnp.atleast_1d(delta)
    values = jnp.stack(staeckel.actions_angles(w, delta, theta, model.potential))
    for other in of_J_R:
        values = values.at[0].set(staeckel.actions(w, other, theta, model.potential)[0])
    solved = jnp.all(jnp.isfinite(values))
    status = jnp.where(bound, jnp.where(solved, Status.OK, Status.NOT_SOLVED), Status.UNBOUND)
    return ActionAngle._make([*jnp.where(bound & solved, values, jnp.nan), status])


@partial(jax.jit, static_argnames=("model", "kind"))
def _block(w: PhaseSpace, delta: Any, theta: Any, shells: Any, model: MassModel, kind: str) -> Any:
    star = {
        "actions": lambda w, delta: star_actions(w, delta, theta, model),
        "action_angle": lambda w, delta: _star_action_angle(w, delta, theta, model),
        "local": lambda w, _: local_delta(_bound(w, theta, model)[1], theta, model),
        "orbit": lambda w, _: orbit_delta(_bound(w, theta, model)[1], theta, model),
        "shell": lambda w, _: shell_deltas(_bound(w, theta, model)[1], shells, theta, model),
    }[kind]
    return jax.vmap(star)(w, delta)


def _in_blocks(w: PhaseSpace, delta: Any, theta: Any, model: MassModel, kind: str, threads: int = 0) -> Any:
    """The function `kind` of every star, in blocks, by so many threads (0: all cores); `delta` (N,) or (N, 2)."""
    columns = [*np.broadcast_arrays(*(np.atleast_1d(np.asarray(values, float)) for values in w))]
    if columns[0].size == 0:  # a block has at least one star
        one = _in_blocks(PhaseSpace(*np.ones((6, 1))), 1.0, theta, model, kind)
        return jax.tree.map(lambda leaf: leaf[:0], one)
    delta = np.asarray(delta, float)
    columns.append(np.broadcast_to(delta, (columns[0].size, *delta.shape[1:])))
    theta = type(theta)(*(jnp.asarray(value, float) for value in theta))
    shells = shell_polynomials(theta, model) if kind == "shell" else None
    function = lambda *block: _block(PhaseSpace(*block[:-1]), block[-1], theta, shells, model, kind)  # noqa: E731
    return in_blocks(function, *columns, threads=threads or cores())


def actions_of(w: PhaseSpace, theta: Any, delta: Any, model: MassModel = MILKY_WAY) -> np.ndarray:
    """J_R, L_z, J_z [kpc km/s] (N, 3) of stars by the Staeckel fudge, on one core; NaN where there are none."""
    return _in_blocks(w, delta, theta, model, "actions", threads=1)


def focal_length(w: PhaseSpace, theta: Any, kind: str = "shell", model: MassModel = MILKY_WAY) -> np.ndarray:
    """Delta [kpc] (N,) of the fudge: of the star's shell orbit ("shell"), the median over four radial periods ("orbit")
    or at the star ("local")."""
    check_delta(kind)
    found = _in_blocks(_columns(w)[0], 1.0, theta, model, kind)
    return found[:, 1] if kind == "shell" else found


def _columns(w: PhaseSpace, delta: Any = 1.0) -> tuple[PhaseSpace, np.ndarray]:
    """Phase space and focal lengths, each a float64 array (N,). Raises `InputError` where their lengths differ."""
    names = (*PhaseSpace._fields, "delta")
    columns = [np.asarray(column(values, "kpc", name)) for name, values in zip(names, (*w, delta), strict=True)]
    columns = [values[0] if values.size == 1 else values for values in columns]
    one_length(names, columns)
    *columns, delta = np.broadcast_arrays(*map(np.atleast_1d, columns))
    return PhaseSpace(*columns), delta


def action_angle(
    w: PhaseSpace, theta: Any, method: str = "staeckel", delta: Any = "shell", model: MassModel = MILKY_WAY
) -> ActionAngle:
    """Actions, angles and frequencies of stars (N,) at `w` in the mass model with parameters theta.

    method: "staeckel" (this package), "galpy" (its C code), "o2gf" (gala; near-truth, seconds a star, no delta).
    delta: Delta of the Staeckel fudge, a number or (N,) [kpc], or "shell", "orbit" or "local" (`focal_length`). By
    "shell", J_R has a Delta of its own (docs/actions.md), which makes it several times as accurate.
    Raises `InputError` for an unknown method or delta, or columns of different lengths. Stars that are unbound, not
    solved or not finite are NaN with their `status`.
    Source: Binney 2012; Sanders 2012; Sanders & Binney 2014.
    """
    check_method(method)
    named = isinstance(delta, str)
    w, values = _columns(w, 1.0 if named else delta)
    if named and method == "staeckel" and delta == "shell":
        values = _in_blocks(w, values, theta, model, "shell")
    elif named and method != "o2gf":
        values = focal_length(w, theta, delta, model)
    finite = np.isfinite([*w]).all(0) & (named or np.isfinite(values))
    if method == "staeckel":
        found = _in_blocks(w, values, theta, model, "action_angle")
    else:
        solved = np.full((9, finite.size), np.nan)
        if finite.any():
            some = PhaseSpace(*(x[finite] for x in w))
            peer = galpy_actions(some, theta, values[finite], model) if method == "galpy" else None
            solved[:, finite] = o2gf_actions(some, theta, model) if peer is None else peer
        found = _with_status(solved, w, theta, model)
    return found._replace(status=np.where(finite, found.status, Status.NOT_FINITE))


@dataclass(frozen=True)
class SampleActions:
    """`action_angle` of the stars of one sample, (w, theta) to `ActionAngle`: its method, focal lengths and mass model.

    `delta` (N,) [kpc]. Raises `InputError` where one is not solved.
    """

    delta: np.ndarray
    method: str = "staeckel"
    model: MassModel = MILKY_WAY

    def __call__(self, w: PhaseSpace, theta: Any) -> ActionAngle:
        found = action_angle(w, theta, self.method, self.delta, self.model)
        if bad := int(np.sum(np.asarray(found.status) != Status.OK)):
            where = ", ".join(f"{name}={value:.4g}" for name, value in theta._asdict().items())
            raise InputError(
                f"method {self.method!r} does not solve {bad} stars at {where}; leave them out or use 'staeckel'"
            )
        return found


def _with_status(values: np.ndarray, w: PhaseSpace, theta: Any, model: MassModel) -> ActionAngle:
    bound = np.asarray(jax.vmap(lambda w: _bound(w, theta, model)[0])(w))
    solved = np.isfinite(values).all(0)
    status = np.where(bound, np.where(solved, Status.OK, Status.NOT_SOLVED), Status.UNBOUND)
    return ActionAngle._make([*np.where(status == Status.OK, values, np.nan), status])
