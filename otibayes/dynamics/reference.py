"""The same actions and angles from galpy (Staeckel fudge, C) and gala (O2GF): peers to check against, and to use."""

import warnings
from typing import Any

import numpy as np

from ..base import constants as const
from ..base.errors import InputError
from ..base.progress import progress
from .frame import PhaseSpace
from .potential import MILKY_WAY, MassModel, halo_mass

__all__ = ["gala_potential", "galpy_actions", "galpy_potential", "o2gf_actions"]

_RO, _VO = const.R0, const.V_CIRC  # galpy's natural units
_O2GF_PERIODS, _O2GF_STEPS, _O2GF_N_MAX = 128, 256, 8  # PW21, section 4


def galpy_potential(theta: Any, model: MassModel = MILKY_WAY) -> Any:
    """The mass model as a galpy potential, in natural units of R0 and 229 km/s."""
    if model is not MILKY_WAY:
        return _peer("galpy", theta, model)
    from galpy.potential import HernquistPotential, MiyamotoNagaiPotential, NFWPotential

    unit = const.G / (_VO**2 * _RO)
    return (
        MiyamotoNagaiPotential(
            amp=unit * float(theta.m_disk) * const.M_DISK_FIDUCIAL, a=const.A_DISK / _RO, b=float(theta.h_z) / _RO
        )
        + HernquistPotential(amp=2 * unit * const.M_BULGE, a=const.C_BULGE / _RO)
        + HernquistPotential(amp=2 * unit * const.M_NUCLEUS, a=const.C_NUCLEUS / _RO)
        + NFWPotential(amp=unit * float(halo_mass(theta)), a=const.R_S_HALO / _RO)
    )


def gala_potential(theta: Any, model: MassModel = MILKY_WAY) -> Any:
    """The mass model as a gala potential."""
    if model is not MILKY_WAY:
        return _peer("gala", theta, model)
    import gala.potential as gp

    return gp.MilkyWayPotential(
        version="v1",
        disk={"m": float(theta.m_disk) * const.M_DISK_FIDUCIAL, "a": const.A_DISK, "b": float(theta.h_z)},
        halo={"m": float(halo_mass(theta)), "r_s": const.R_S_HALO},
    )


def _peer(name: str, theta: Any, model: MassModel) -> Any:
    if name not in model.peers:
        raise InputError(
            f"this mass model has no {name} potential, which the method needs; "
            f'give MassModel(peers={{"{name}": ...}}) or use method="staeckel"'
        )
    return model.peers[name](theta)


def galpy_actions(w: PhaseSpace, theta: Any, delta: np.ndarray, model: MassModel = MILKY_WAY) -> np.ndarray:
    """Actions, angles, frequencies (9, N), in the order of `ActionAngle`, by galpy's C Staeckel fudge at `delta` [kpc].

    NaN where galpy gives none, or one of its sentinels.
    """
    with warnings.catch_warnings():
        # galpy warns of an extension it was built without, which is not used here
        warnings.filterwarnings("ignore", message=".*actionAngleTorus.*")
        from galpy.actionAngle import actionAngleStaeckel

    finder = actionAngleStaeckel(pot=galpy_potential(theta, model), delta=delta / _RO, c=True, order=20)
    star = (w.R / _RO, w.vR / _VO, w.vT / _VO, w.z / _RO, w.vz / _VO, w.phi)
    J_R, L_z, J_z, O_R, O_phi, O_z, t_R, t_phi, t_z = finder.actionsFreqsAngles(*map(np.asarray, star))
    values = np.array(
        [J_R * _RO * _VO, L_z * _RO * _VO, J_z * _RO * _VO, t_R, t_phi, t_z]
        + [frequency * _VO / _RO for frequency in (O_R, O_phi, O_z)]
    )
    failed = (np.abs([J_R, J_z, O_R, O_phi, O_z]) > 9000).any(0)  # galpy's 9999.99
    return np.where(failed, np.nan, values)


def o2gf_actions(w: PhaseSpace, theta: Any, model: MassModel = MILKY_WAY, steps: int = _O2GF_STEPS) -> np.ndarray:
    """Actions, angles, frequencies (9, N), in the order of `ActionAngle`, by gala's O2GF (Sanders & Binney 2014).

    Isochrone toy, 128 radial periods of `steps` steps each, N_max = 8; 256 as PW21: near-truth, seconds a star. 64
    give the same to 1e-5 in a quarter of the time. NaN where it fails.
    """
    import astropy.units as u
    import gala.dynamics as gd
    from gala.dynamics.actionangle import find_actions_o2gf
    from gala.integrate import DOPRI853Integrator

    potential = gala_potential(theta, model)
    kpc_kms = u.kpc * u.km / u.s
    values = np.full((9, np.size(w.R)), np.nan)
    for i in progress(range(np.size(w.R)), "O2GF", "star"):
        star = PhaseSpace(*(np.asarray(column)[i] for column in w))
        c, s = np.cos(star.phi), np.sin(star.phi)
        position, velocity = [star.R * c, star.R * s, star.z], [star.vR * c - star.vT * s, star.vR * s + star.vT * c]
        start = gd.PhaseSpacePosition(position * u.kpc, [*velocity, star.vz] * u.km / u.s)
        try:
            rough = potential.integrate_orbit(start, dt=1.0 * u.Myr, n_steps=4000)
            period = rough.physicsspherical.estimate_period()["r"]
            orbit = potential.integrate_orbit(
                start, dt=period / steps, n_steps=_O2GF_PERIODS * steps, Integrator=DOPRI853Integrator
            )
            with warnings.catch_warnings():
                # gala compares the unknowns with the number of coordinates, not of time steps: it always warns
                warnings.filterwarnings("ignore", "More unknowns than equations")
                found = find_actions_o2gf(orbit, N_max=_O2GF_N_MAX)
        except (ValueError, np.linalg.LinAlgError, RuntimeError):
            continue
        J, angle, Omega = (
            np.squeeze(found[name].to_value(unit, u.dimensionless_angles()))
            for name, unit in (("actions", kpc_kms), ("angles", u.rad), ("freqs", u.km / u.s / u.kpc))
        )
        values[:, i] = [*J, *angle, *Omega]
    return values
