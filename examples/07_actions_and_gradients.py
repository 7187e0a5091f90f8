# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Actions alone, with gradients
#
# The action layer of otibayes is useful by itself: actions, angles and frequencies by the Staeckel
# fudge, as pure JAX functions that can be differentiated by the star and by the mass model.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

import otibayes as oti
from otibayes.dynamics import star_actions

stars = oti.embedded_stars()
theta = oti.Parameters(m_disk=1.1, h_z=0.32, z_sun=15.0, vz_sun=8.5)  # -, kpc, pc, km/s
theta

# %% [markdown]
# ## Many stars
#
# Phase space depends on theta through the Sun's height and velocity. `action_angle` works on all
# cores. `status` is 0 where a star is solved, 1 where it is unbound, 2 where no solution was found;
# values are NaN there.

# %%
w = oti.phase_space(stars, theta)
aa = oti.action_angle(w, theta)
for name in ("J_R", "L_z", "J_z"):
    low, middle, high = np.quantile(getattr(aa, name), [0.16, 0.5, 0.84])
    print(f"{name}: {middle:8.2f} kpc km/s (68% between {low:.2f} and {high:.2f})")
print(f"stars without actions: {(np.asarray(aa.status) != 0).sum()}")

# %% [markdown]
# ## The same from galpy
#
# galpy's C code agrees at the same focal lengths. What differs are stars that hardly leave the
# plane, whose J_z is a difference of nearly equal numbers in galpy. `method="o2gf"` is gala's, near
# the truth and seconds a star.

# %%
delta = oti.focal_length(w, theta)  # kpc, the median along each orbit
ours = oti.action_angle(w, theta, delta=delta)
galpy = oti.action_angle(w, theta, method="galpy", delta=delta)
difference = np.abs(galpy.J_z - ours.J_z)
print(
    f"J_z: 99% of stars agree to {np.quantile(difference / ours.J_z, 0.99):.0e}, all to {difference.max():.0e} kpc km/s"
)

# %% [markdown]
# ## One star is one pure function
#
# `star_actions` takes one star, its focal length and theta, and returns (J_R, L_z, J_z).
# `jax.jacfwd` by theta says how the actions answer to the mass model.

# %%
one = oti.PhaseSpace(*(column[0] for column in w))
jacobian = jax.jacfwd(star_actions, argnums=2)(one, delta[0], theta)
for name, slope in jacobian._asdict().items():
    print(f"d(J_R, L_z, J_z) / d {name:7s}", np.array2string(np.asarray(slope), precision=3))

# %% [markdown]
# L_z does not depend on the potential. All derivatives here are at fixed position and velocity;
# derivatives by z_sun and vz_sun need the frame too. A function of theta alone does both:

# %%
from otibayes.dynamics import galactocentric


def vertical_action(theta, star, delta):
    return star_actions(galactocentric(star, theta), delta, theta)[2]


slope = jax.grad(vertical_action)(theta, stars.heliocentric[0], delta[0])
step = 1e-4
up, down = (vertical_action(theta._replace(z_sun=15.0 + s), stars.heliocentric[0], delta[0]) for s in (step, -step))
print(f"dJ_z/dz_sun: {slope.z_sun:.6f}, by differences {(up - down) / (2 * step):.6f} kpc km/s per pc")

# %% [markdown]
# ## Why it matters
#
# The derivative of J_z by the disk's mass depends on where on its orbit a star is seen. That is the
# whole of Orbital Torus Imaging: a wrong mass moves stars at the top of their orbits and stars in
# the plane by different amounts, so that abundances, which follow the true J_z, seem to vary along
# the orbit.

# %%
by_theta = jax.jit(jax.vmap(jax.grad(vertical_action), (None, 0, 0)))(theta, stars.heliocentric, delta)
figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
picked = np.abs(aa.L_z - np.median(aa.L_z)) < 200  # kpc km/s
drawn = axes[0].scatter(w.z[picked], w.vz[picked], c=aa.J_z[picked], s=5, vmax=40)
axes[0].set(xlabel="$z$ [kpc]", ylabel="$v_z$ [km/s]", xlim=(-1.5, 1.5), ylim=(-70, 70))
figure.colorbar(drawn, ax=axes[0], label="$J_z$ [kpc km/s]", extend="max")
axes[1].scatter(aa.theta_z, by_theta.m_disk / aa.J_z, s=3)
_ = axes[1].set(xlabel=r"$\theta_z$ [rad]", ylabel=r"$\partial \ln J_z / \partial m_{\rm disk}$")
