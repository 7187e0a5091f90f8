"""A mass model of your own: PW21's with a second, thick disk, whose mass `m_thick` is a parameter with a prior.

The halo is solved again so that v_circ(R0) stays 229 km/s. Both inference paths take `model=SECOND_DISK`; the peers are
only needed for method="galpy" and "o2gf". Run from the checkout: python examples/second_disk.py
"""

from otibayes.base import constants as const
from otibayes.base.parameters import TABLE, Parameter
from otibayes.dynamics import MILKY_WAY, MassModel, PhaseSpace, action_angle, halo_mass
from otibayes.dynamics.potential import miyamoto_nagai, nfw

A_THICK, B_THICK = 2.0, 0.9  # kpc, scale length and height


def thick(R, z, theta):
    return miyamoto_nagai(R, z, theta.m_thick * 1e10, A_THICK, B_THICK)


def halo_scale_mass(theta):
    """What keeps v_circ(R0): v_circ^2 of the thick disk is taken from what the halo had to supply."""
    taken = const.G * theta.m_thick * 1e10 * const.R0**2 / (const.R0**2 + (A_THICK + B_THICK) ** 2) ** 1.5
    return halo_mass(theta, v_circ=(const.V_CIRC**2 - taken) ** 0.5)


def halo(R, z, theta):
    return nfw(R, z, halo_scale_mass(theta), const.R_S_HALO)


def gala(theta):
    import gala.potential as gp

    model = gp.MilkyWayPotential(
        version="v1",
        disk={"m": float(theta.m_disk) * const.M_DISK_FIDUCIAL, "a": const.A_DISK, "b": float(theta.h_z)},
        halo={"m": float(halo_scale_mass(theta)), "r_s": const.R_S_HALO},
    )
    second = gp.MiyamotoNagaiPotential(float(theta.m_thick) * 1e10, A_THICK, B_THICK, units=model.units)
    return gp.CCompositePotential(**model, thick=second)


def galpy(theta):
    from galpy.potential import HernquistPotential, MiyamotoNagaiPotential, NFWPotential

    unit, kpc = const.G / (const.V_CIRC**2 * const.R0), 1 / const.R0  # galpy's natural units
    return (
        MiyamotoNagaiPotential(
            amp=unit * float(theta.m_disk) * const.M_DISK_FIDUCIAL, a=const.A_DISK * kpc, b=float(theta.h_z) * kpc
        )
        + MiyamotoNagaiPotential(amp=unit * float(theta.m_thick) * 1e10, a=A_THICK * kpc, b=B_THICK * kpc)
        + HernquistPotential(amp=2 * unit * const.M_BULGE, a=const.C_BULGE * kpc)
        + HernquistPotential(amp=2 * unit * const.M_NUCLEUS, a=const.C_NUCLEUS * kpc)
        + NFWPotential(amp=unit * float(halo_scale_mass(theta)), a=const.R_S_HALO * kpc)
    )


SECOND_DISK = MassModel(
    components={**MILKY_WAY.components, "thick": thick, "halo": halo},
    parameters=(*TABLE, Parameter("m_thick", r"M_{\rm thick}/10^{10} M_\odot", "", 0.6, 0.0, 2.0, prior_sd=0.3)),
    allowed=lambda theta: halo_scale_mass(theta) > const.M_HALO_FLOOR,
    peers={"gala": gala, "galpy": galpy},
)


def main() -> None:
    w = PhaseSpace(R=8.0, phi=0.0, z=0.4, vR=20.0, vT=210.0, vz=15.0)
    for m_thick in (0.0, 0.6, 1.2):
        theta = SECOND_DISK.Parameters(m_disk=0.9, m_thick=m_thick)
        aa = action_angle(w, theta, delta="local", model=SECOND_DISK)
        print(f"m_thick {m_thick:.1f}: J_R {aa.J_R[0]:.4f}, J_z {aa.J_z[0]:.4f} kpc km/s, theta_z {aa.theta_z[0]:.4f}")


if __name__ == "__main__":
    main()
