r"""A free circular velocity: v_circ at the Sun's radius is a fifth parameter, and the halo follows it.

As `joint_abundances`, with

    v_circ ~ Normal(229, 10) km/s within 200 to 260     (Eilers et al. 2019, with room for their systematics of 2 to 5%)
    M_halo = what brings v_circ(R_0) to v_circ beside disk, bulge and nucleus (Price-Whelan et al. 2021, section 4)

for every (m_disk, h_z, v_circ), above the same floor of the halo's mass, which limits m_disk. The Sun's own velocity
stays at its measured value, so that L_z does not change; J_R and J_z against it do. All derived quantities follow from
the same halo. `compare` needs a classical fit of this mass model: `fit_classical(stars, model=FREE)`.
"""

from typing import Any

from otibayes.models.joint_abundances import joint_abundances

from otibayes.base import constants as const
from otibayes.base.parameters import TABLE, Parameter
from otibayes.dynamics import MILKY_WAY, MassModel, halo_mass
from otibayes.dynamics.potential import heaviest_disk, nfw
from otibayes.generative import Data, GaussianField, requires


def _halo(R: Any, z: Any, theta: Any) -> Any:
    return nfw(R, z, halo_mass(theta, theta.v_circ), const.R_S_HALO)


FREE = MassModel(
    components={**MILKY_WAY.components, "halo": _halo},
    parameters=(*TABLE, Parameter("v_circ", r"v_{\rm circ}(R_0)", "km/s", const.V_CIRC, 200.0, 260.0, prior_sd=10.0)),
    allowed=lambda theta: halo_mass(theta, theta.v_circ) > const.M_HALO_FLOOR,
    limits={"m_disk": lambda theta: heaviest_disk(theta, theta.v_circ)},
)


@requires(mass_model=FREE)
def free_circular_velocity(data: Data) -> tuple[Any, GaussianField]:
    """Sample theta with v_circ and the hyperparameters of all elements jointly."""
    return joint_abundances(data)
