"""Orbital Torus Imaging, classical and Bayesian, through one action layer."""

import jax

jax.config.update("jax_enable_x64", True)  # the one place: dynamics and likelihoods need float64
