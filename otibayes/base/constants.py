"""Units and fixed constants, each with its source.

Internal units are kpc, km/s, Msun and radian, so actions are in kpc km/s and potentials in (km/s)^2.
"""

import astropy.constants
import astropy.units as u

__all__ = [
    "G",
    "KMS_PER_MASYR_KPC",
    "PC",
    "R0",
    "V_CIRC",
    "V_SUN_X",
    "V_SUN_Y",
    "M_DISK_FIDUCIAL",
    "A_DISK",
    "M_BULGE",
    "C_BULGE",
    "M_NUCLEUS",
    "C_NUCLEUS",
    "R_S_HALO",
    "M_HALO_FLOOR",
]

G = float(astropy.constants.G.to_value(u.kpc * (u.km / u.s) ** 2 / u.Msun))  # CODATA 2018, through astropy
KMS_PER_MASYR_KPC = float((1 * u.mas / u.yr * u.kpc).to_value(u.km / u.s, u.dimensionless_angles()))
PC = 1e-3  # kpc

R0 = 8.122  # kpc, GRAVITY Collaboration et al. 2018
V_CIRC = 229.0  # km/s at R0, Eilers et al. 2019
V_SUN_X = 12.9  # km/s, Drimmel & Poggio 2018
V_SUN_Y = 245.6  # km/s, Reid & Brunthaler 2004 with R0

# gala's MilkyWayPotential(version="v1") with the disk of Price-Whelan et al. 2021, section 4.
M_DISK_FIDUCIAL = 6.52551e10  # Msun, Miyamoto-Nagai disk for m_disk = 1
A_DISK = 3.0  # kpc, Miyamoto-Nagai a
M_BULGE, C_BULGE = 5.0e9, 1.0  # Msun, kpc, Hernquist
M_NUCLEUS, C_NUCLEUS = 1.71e9, 0.07  # Msun, kpc, Hernquist
R_S_HALO = 15.62  # kpc, NFW scale radius

M_HALO_FLOOR = 1e11  # Msun, NFW scale mass below which the prior is zero: towards zero mass J_R diverges
