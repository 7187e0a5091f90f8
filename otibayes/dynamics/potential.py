"""Mass models: a gravitational potential Phi(R, z, theta), its parameters, and the quantities derived from them.

The default, `MILKY_WAY`, is the four-component model of Price-Whelan et al. 2021, section 4, whose halo is solved in
closed form so that v_circ(R0) is 229 km/s for every theta.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..base import constants as const
from ..base.notebook import html_table
from ..base.parameters import TABLE, Parameter, parameters_type
from .logarithm import log1p

__all__ = [
    "MILKY_WAY",
    "MassModel",
    "circular_velocity_squared",
    "density",
    "derived_quantities",
    "forces",
    "halo_mass",
    "heaviest_disk",
    "hernquist",
    "miyamoto_nagai",
    "nfw",
]

Potential = Callable[[Any, Any, Any], Any]


def miyamoto_nagai(R: Any, z: Any, mass: Any, a: Any, b: Any) -> Any:
    """Potential [(km/s)^2] of a Miyamoto & Nagai (1975) disk of mass [Msun], scale length a and height b [kpc]."""
    return -const.G * mass / jnp.sqrt(R**2 + (a + jnp.sqrt(z**2 + b**2)) ** 2)


def hernquist(R: Any, z: Any, mass: Any, c: Any) -> Any:
    """Potential [(km/s)^2] of a Hernquist (1990) sphere of mass [Msun] and scale radius c [kpc]."""
    return -const.G * mass / (jnp.sqrt(R**2 + z**2) + c)


def nfw(R: Any, z: Any, mass: Any, r_s: Any) -> Any:
    """Potential [(km/s)^2] of a Navarro, Frenk & White (1996) halo of scale mass [Msun] and radius r_s [kpc]."""
    r = jnp.sqrt(R**2 + z**2)
    return -const.G * mass * log1p(r / r_s) / r


@dataclass(frozen=True, eq=False, repr=False)
class MassModel:
    """An axisymmetric mass model: a sum of components Phi(R, z, theta), and the table of its parameters.

    `components` maps a name to a function of R, z [kpc] and theta (an instance of `Parameters`) that returns a
    potential [(km/s)^2]. `parameters` must hold `z_sun` and `vz_sun`, which the frame needs, and may hold anything
    else.
    `allowed(theta)` is True where theta is physical; elsewhere its prior probability is zero. Where it comes down to an
    upper limit of a parameter with a uniform prior, below its bound in the table and set by the other parameters,
    `limits` maps the name to that function of theta: samplers then meet no wall. The components "disk" and "halo" are
    those of the derived quantities. `peers` may map "galpy" and "gala" to functions of theta that return the
    same potential there, for `method="galpy"` and `"o2gf"`.
    """

    components: Mapping[str, Potential]
    parameters: tuple[Parameter, ...] = TABLE
    allowed: Callable[[Any], Any] = lambda theta: jnp.bool_(True)
    limits: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    peers: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    Parameters: Any = field(init=False)

    def __post_init__(self) -> None:
        names = [p.name for p in self.parameters]
        missing = [name for name in ("z_sun", "vz_sun") if name not in names]
        if missing:
            raise ValueError(f"a mass model's parameters must include z_sun and vz_sun; {missing} not among {names}")
        uniform = {p.name for p in self.parameters if p.prior_sd is None}
        if not self.limits.keys() <= uniform:
            raise ValueError(
                f"limits are for parameters with a uniform prior; {sorted(self.limits)} not all among them"
            )
        object.__setattr__(self, "Parameters", parameters_type(self.parameters))

    def __repr__(self) -> str:
        return f"<MassModel: {', '.join(self.components)}; parameters {', '.join(p.name for p in self.parameters)}>"

    def _repr_html_(self) -> str:
        rows = []
        for p in self.parameters:
            prior = "uniform" if p.prior_sd is None else f"Normal({p.fiducial:g}, {p.prior_sd:g})"
            rows.append((p.name, p.unit or "-", f"{p.fiducial:g}", f"{p.low:g} to {p.high:g}", prior))
        title = f"MassModel: {', '.join(self.components)}"
        return html_table(title, ["parameter", "unit", "fiducial", "bounds", "prior"], rows)

    def range(self, parameter: Parameter, theta: Any) -> tuple[Any, Any]:
        """Bounds of one parameter, of which those with a limit depend on the others in theta."""
        limit = self.limits.get(parameter.name)
        return parameter.low, parameter.high if limit is None else jnp.minimum(parameter.high, limit(theta))

    def potential(self, R: Any, z: Any, theta: Any) -> Any:
        """Phi(R, z) [(km/s)^2] of all components; R and z [kpc] of any one shape."""
        return sum(component(R, z, theta) for component in self.components.values())


def circular_velocity_squared(potential: Potential, R: Any, theta: Any) -> Any:
    """v_circ^2 [(km/s)^2] at one radius R [kpc] in the plane."""
    return R * jax.grad(potential)(jnp.asarray(R, float), 0.0, theta)


def _disk(R: Any, z: Any, theta: Any) -> Any:
    return miyamoto_nagai(R, z, theta.m_disk * const.M_DISK_FIDUCIAL, const.A_DISK, theta.h_z)


def _bulge(R: Any, z: Any, theta: Any) -> Any:
    return hernquist(R, z, const.M_BULGE, const.C_BULGE)


def _nucleus(R: Any, z: Any, theta: Any) -> Any:
    return hernquist(R, z, const.M_NUCLEUS, const.C_NUCLEUS)


def _squares(h_z: Any, r_s: Any) -> tuple[Any, Any, Any]:
    """v_circ^2(R0) [(km/s)^2] of the fiducial disk, of bulge and nucleus, and of a halo of 1 Msun."""
    R = const.R0
    disk = const.G * const.M_DISK_FIDUCIAL * R**2 / (R**2 + (const.A_DISK + h_z) ** 2) ** 1.5
    bulge = const.G * const.M_BULGE * R / (R + const.C_BULGE) ** 2
    nucleus = const.G * const.M_NUCLEUS * R / (R + const.C_NUCLEUS) ** 2
    return disk, bulge + nucleus, const.G / R * (jnp.log1p(R / r_s) - R / (R + r_s))


def halo_mass(theta: Any, v_circ: Any = const.V_CIRC, r_s: Any = const.R_S_HALO) -> Any:
    """NFW scale mass [Msun] that brings v_circ(R0) [km/s] to the given value, in closed form (PW21, section 4).

    It may be negative, where disk, bulge and nucleus alone exceed v_circ.
    """
    disk, centre, unit_halo = _squares(theta.h_z, r_s)
    return (v_circ**2 - theta.m_disk * disk - centre) / unit_halo


def heaviest_disk(theta: Any, v_circ: Any = const.V_CIRC) -> Any:
    """The m_disk that leaves `M_HALO_FLOOR` to the halo, with v_circ(R0) [km/s]."""
    disk, centre, unit_halo = _squares(theta.h_z, const.R_S_HALO)
    return (v_circ**2 - centre - const.M_HALO_FLOOR * unit_halo) / disk


def _halo(R: Any, z: Any, theta: Any) -> Any:
    return nfw(R, z, halo_mass(theta), const.R_S_HALO)


MILKY_WAY = MassModel(
    components={"disk": _disk, "bulge": _bulge, "nucleus": _nucleus, "halo": _halo},
    allowed=lambda theta: halo_mass(theta) > const.M_HALO_FLOOR,
    limits={"m_disk": heaviest_disk},
)


def prior_grid(model: MassModel) -> list[Any]:
    """Allowed corners of the prior, the middles of its edges and its centre; Gaussian priors reach to 3 sigma."""
    axes = []
    for p in model.parameters:
        sd = p.prior_sd or np.inf
        low, high = max(p.low, p.fiducial - 3 * sd), min(p.high, p.fiducial + 3 * sd)
        axes.append((low, p.fiducial, high) if p.prior_sd is None else (low, high))
    points = [model.Parameters(*map(float, point)) for point in itertools.product(*axes)]
    return [theta for theta in points if bool(model.allowed(theta))]


def forces(R: Any, z: Any, theta: Any, model: MassModel = MILKY_WAY) -> tuple[jax.Array, jax.Array]:
    """Gradient (dPhi/dR, dPhi/dz) [(km/s)^2/kpc] at one point R, z [kpc]."""
    return jax.grad(model.potential, (0, 1))(jnp.asarray(R, float), jnp.asarray(z, float), theta)


def density(potential: Potential, R: Any, z: Any, theta: Any) -> Any:
    """Poisson's equation at one point: density [Msun/kpc^3]."""
    phi_R = jax.grad(potential, 0)
    phi_RR, phi_zz = jax.grad(phi_R, 0)(R, z, theta), jax.grad(jax.grad(potential, 1), 1)(R, z, theta)
    return (phi_RR + phi_R(R, z, theta) / R + phi_zz) / (4 * jnp.pi * const.G)


def derived_quantities(theta: Any, model: MassModel = MILKY_WAY) -> dict[str, Any]:
    """Derived quantities of one theta.

    `M_disk` [Msun], `M_disk_over_M_halo` (v_circ^2 R / G of each component in the plane at 8.1 kpc, as in Table 1
    of PW21), `Sigma_1p1` [Msun/pc^2] (all matter, |z| < 1.1 kpc at R0), `rho_DM` [Msun/pc^3] (halo at the Sun),
    `K_z_1p1` [km^2/s^2/kpc] (|dPhi/dz| at R0, z = 1.1 kpc), and in the plane at R0 Oort's `A_Oort` and `B_Oort`, the
    radial and vertical frequencies `kappa` and `nu` of nearly circular orbits [km/s/kpc] (Binney & Tremaine 2008,
    section 3.2.3). The azimuthal frequency is A - B; v_circ = R0 (A - B). Those that need a component the model lacks
    are left out.
    """
    nodes, weights = np.polynomial.legendre.leggauss(64)
    z = 0.55 * (nodes + 1)
    R0 = jnp.asarray(const.R0)
    matter = jax.vmap(lambda height: density(model.potential, R0, height, theta))(jnp.asarray(z))
    derived = {
        "Sigma_1p1": 2 * 0.55 * jnp.sum(weights * matter) * const.PC**2,
        "K_z_1p1": forces(R0, jnp.asarray(1.1), theta, model)[1],
    }
    v, slope = jax.value_and_grad(lambda R: jnp.sqrt(circular_velocity_squared(model.potential, R, theta)))(R0)
    A, B = 0.5 * (v / R0 - slope), -0.5 * (v / R0 + slope)
    upwards = jax.grad(jax.grad(model.potential, 1), 1)(R0, jnp.zeros(()), theta)
    derived |= {"A_Oort": A, "B_Oort": B, "kappa": jnp.sqrt(-4 * B * (A - B)), "nu": jnp.sqrt(upwards)}
    if hasattr(theta, "m_disk"):
        derived["M_disk"] = theta.m_disk * const.M_DISK_FIDUCIAL
    if {"disk", "halo"} <= model.components.keys():
        disk, halo = (circular_velocity_squared(model.components[c], 8.1, theta) for c in ("disk", "halo"))
        derived["M_disk_over_M_halo"] = disk / halo
    if "halo" in model.components:
        height = theta.z_sun * const.PC
        derived["rho_DM"] = density(model.components["halo"], R0, height, theta) * const.PC**3
    return derived
