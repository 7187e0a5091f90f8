"""The classical objective and fit: on a toy Galaxy whose actions are known in closed form, and on galpy's orbits."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from galpy_sample import sample, staeckel, to_sun

from otibayes.classical.bootstrap import fit, resamples
from otibayes.classical.deviation import deviation
from otibayes.classical.fourier import least_squares
from otibayes.classical.joint import joint_gls, joint_product
from otibayes.classical.minimum import nelder_mead, scales
from otibayes.classical.objective import Settings, coefficients, objective
from otibayes.dynamics.frame import galactocentric
from otibayes.errors import InputError
from otibayes.parameters import TABLE, Parameters

pytestmark = pytest.mark.filterwarnings("ignore:Using C implementation")  # galpy says how it integrates

TRUTH = Parameters(m_disk=0.93, h_z=0.31, z_sun=12.0, vz_sun=8.3)
START = np.array([1.1, 0.28, 20.8, 7.78])


class ToyActions(NamedTuple):
    J_R: Any
    L_z: Any
    J_z: Any
    theta_R: Any
    theta_z: Any


class ToyStars(NamedTuple):
    heliocentric: np.ndarray


def toy_frequency(theta):
    return 70 * np.sqrt(theta.m_disk) * (0.28 / theta.h_z) ** 0.4


def toy(w, theta):
    """A separable Galaxy: the vertical motion is harmonic at every radius."""
    nu = toy_frequency(theta)
    R, z, vR, vT, vz = (np.asarray(a) for a in (w.R, w.z, w.vR, w.vT, w.vz))
    return ToyActions(vR**2 / 80, R * vT, (vz**2 / nu + nu * z**2) / 2, np.arctan2(vR, 1.0), np.arctan2(nu * z, vz))


def toy_sample(number, seed, noise=0.1):
    """Stars in steady state in the toy Galaxy of TRUTH, two labels that follow J_z and the other actions."""
    rng = np.random.default_rng(seed)
    nu, J_z, theta_z = toy_frequency(TRUTH), rng.exponential(8, number), rng.uniform(0, 2 * np.pi, number)
    z, vz = np.sqrt(2 * J_z / nu) * np.sin(theta_z), np.sqrt(2 * J_z * nu) * np.cos(theta_z)
    R, vR, vT = rng.uniform(7, 9, number), rng.normal(0, 30, number), rng.normal(225, 4, number)
    stars = ToyStars(to_sun(R, rng.uniform(-0.1, 0.1, number), z, vR, vT, vz, TRUTH))
    trend = np.stack([-0.1 * J_z / 8, 0.05 * np.log1p(J_z) + 1e-4 * R * vT], -1)
    return stars, trend + noise * rng.normal(size=(number, 2))


def test_toy_stars_are_where_they_should_be():
    stars, _ = toy_sample(50, 0)
    w = galactocentric(stars.heliocentric, TRUTH)
    np.testing.assert_allclose(to_sun(*(np.asarray(a) for a in w), TRUTH), stars.heliocentric, rtol=1e-9, atol=1e-9)


def test_objective_is_equation_8():
    c = np.array([[10.0, 1.0, 2.0, 3.0, 20.0]])
    assert objective(c) == 14
    assert objective(c, every=True) == 514


def test_coefficients_are_the_steps_in_order():
    stars, labels = toy_sample(200, 1)
    counts, sigma = resamples(200, 2, 0), np.random.default_rng(0).uniform(0.5, 2, (200, 2))
    aa = toy(galactocentric(stars.heliocentric, TRUTH), TRUTH)
    delta = deviation(np.stack([aa.J_R, aa.L_z, aa.J_z], -1), labels, counts)
    result = coefficients(TRUTH, stars, labels, sigma, counts, toy)
    np.testing.assert_allclose(result, least_squares(aa.theta_z, delta, sigma, counts), rtol=1e-12)
    radial = coefficients(TRUTH, stars, labels, sigma, counts, toy, Settings(angle="theta_R", harmonics=1))
    np.testing.assert_allclose(radial, least_squares(aa.theta_R, delta, sigma, counts, harmonics=1), rtol=1e-12)


def test_resamples():
    counts = resamples(500, 3, seed=7)
    assert (counts.sum(1) == 500).all()
    np.testing.assert_array_equal(counts, resamples(500, 3, seed=7))
    assert not (counts[0] == counts[1]).all()
    # not the stream from which a catalogue of the same seed is simulated
    assert not (counts[0] == np.bincount(np.random.default_rng(7).integers(500, size=500), minlength=500)).all()


def test_nelder_mead_finds_an_asymmetric_minimum_in_scales_and_bounds():
    target, weights = np.array([0.72, 0.41, -35.0, 11.0]), np.array([1.0, 3.0, 0.5, 2.0])
    unit = scales(TABLE)
    found = nelder_mead(lambda t: float((weights * ((t - target) / unit) ** 2).sum()), START, TABLE, 1e-9)
    assert found.converged
    np.testing.assert_allclose((found.theta - target) / unit, 0, atol=2e-3)
    beyond = nelder_mead(lambda t: float((((t - [2.5, 0.28, 20.8, 7.78]) / unit) ** 2).sum()), START, TABLE, 1e-9)
    assert beyond.theta[0] == pytest.approx(1.8, abs=1e-3)


def cubic_coefficients(theta, stars, labels, sigma, counts, actions, settings):
    """A stand-in for the stars: smooth, asymmetric, and different for each element and resample."""
    x = (np.array(theta) - START) / scales(TABLE)
    shift = (counts @ labels / counts.sum(1, keepdims=True))[..., None]
    a1 = 0.5 + x[3] + 0.1 * x[2] ** 2 + shift[..., 0]
    b1 = -0.7 + x[2] + 0.2 * x[2] * x[0] - 2 * shift[..., 0]
    a2 = 0.6 - x[0] + 0.5 * x[1] + 0.02 * x[0] ** 3 + shift[..., 0]
    return np.stack([0 * a1, a1, b1, a2, 0 * a1], -1)


def test_surface_equals_plain(monkeypatch):
    """Where the coefficients are cubic the surface is exact, and Nelder-Mead ends at the same asymmetric places."""
    monkeypatch.setattr("otibayes.classical.bootstrap.coefficients", cubic_coefficients)
    labels = np.random.default_rng(0).normal(0, 1, (200, 2))
    fast, plain = (fit(None, labels, actions=toy, bootstraps=6, surface=on, starts=1) for on in (True, False))
    assert fast.converged.all() and plain.converged.all() and fast.report.edge == 0 and plain.report is None
    unit = scales(TABLE)
    # along the valley the end hangs on rounding; across it nothing may differ
    apart = np.concatenate([(fast.optimum - plain.optimum)[:, None], fast.replicates - plain.replicates], 1) / unit
    assert np.abs(np.einsum("eci,ebi->ebc", fast.valley.jacobian, apart)).max() < 0.02
    assert np.abs(apart).max() < 0.5
    np.testing.assert_allclose(fast.valley.jacobian, plain.valley.jacobian, atol=0.05)
    np.testing.assert_allclose(fast.coefficients_sd, plain.coefficients_sd, rtol=1e-3)
    assert fast.report.worst < 1e-6
    moved = (fast.optimum - START) / unit
    assert (np.abs(moved).min(0) > 0.1).all() and np.ptp(moved, axis=1).min() > 0.5


@pytest.fixture(scope="module")
def toy_fit():
    stars, labels = toy_sample(600, 3, noise=0.02)
    return fit(stars, labels, actions=toy, bootstraps=12, starts=3, settings=Settings(neighbours=32))


def test_fit_recovers_the_toy_galaxy(toy_fit):
    unit = scales(TABLE)
    for e in range(2):
        off = toy_fit.valley.jacobian[e] @ ((toy_fit.optimum[e] - TRUTH) / unit)
        scatter = (toy_fit.replicates[e] - toy_fit.optimum[e]) / unit @ toy_fit.valley.jacobian[e].T
        assert np.abs(off / scatter.std(0)).max() < 4
    frequency = toy_frequency(Parameters(*toy_fit.optimum.T))
    np.testing.assert_allclose(frequency, toy_frequency(TRUTH), rtol=0.2)


def test_fit_shows_the_valley(toy_fit):
    """The toy Galaxy knows m_disk and h_z only through one frequency, so the valley runs along m_disk / h_z^0.8."""
    valley = toy_fit.valley
    assert (valley.condition > 1e6).all()
    for e in range(2):
        m_disk, h_z = toy_fit.optimum[e, :2]
        expected = np.array([m_disk, h_z / 0.8, 0, 0]) / scales(TABLE)
        assert abs(valley.flat[e] @ expected) / np.linalg.norm(expected) > 0.98
    assert (valley.spread[:, :2] > 0).all() and valley.ends.shape == (2, 3, 4)


def test_fit_reports_its_surface(toy_fit):
    report = toy_fit.report
    assert toy_fit.optimum.shape == (2, 4) and toy_fit.replicates.shape == (2, 12, 4)
    assert toy_fit.value.shape == toy_fit.converged.shape == toy_fit.at_bound.shape == (2, 13)
    assert report.pairs.shape == (8, 2) and report.held_out_error.shape == (12, 2, 3)
    assert report.worst == np.abs(report.pair_error).max() < 0.6
    assert report.edge == 0 and report.nodes > 24


def test_galpy_stars_prefer_the_true_disk():
    """At the truth the coefficients are consistent with zero; at half the disk's mass a2 is not."""
    truth = Parameters(m_disk=1.1, h_z=0.3, z_sun=15.0, vz_sun=8.5)
    stars = sample(1200, truth, seed=5)
    counts = np.concatenate([np.ones((1, 1200), int), resamples(1200, 24, 0)])

    def significance(theta):
        c = coefficients(theta, stars, stars.labels, None, counts, staeckel)
        return c[0, :, 1:4] / c[1:, :, 1:4].std(0)

    assert np.abs(significance(truth)).max() < 3.5
    light, heavy = (significance(truth._replace(m_disk=m)) for m in (0.5, 1.7))
    assert (light[:, 2] * heavy[:, 2] < 0).all() and np.abs(light[:, 2]).min() > 2


def test_joint_constraints():
    rng = np.random.default_rng(0)
    common = rng.normal(size=(4000, 2))
    replicates = np.stack([common + 0.1 * rng.normal(size=(4000, 2)) for _ in range(3)])
    product, gls = joint_product(replicates), joint_gls(replicates)
    np.testing.assert_allclose(product.covariance, np.eye(2) / 3, atol=0.05)  # as if the elements were independent
    np.testing.assert_allclose(gls.covariance, np.eye(2), atol=0.1)
    np.testing.assert_allclose(product.mean, gls.mean, atol=0.1)
    with pytest.raises(InputError, match="more than 8 bootstraps, got 8"):
        joint_gls(replicates[:, :8])


def test_refusals():
    stars, labels = toy_sample(70, 0)
    with pytest.raises(InputError, match="at least 2 bootstraps"):
        fit(stars, labels, actions=toy, bootstraps=1)
    with pytest.raises(InputError, match="more than 64 stars, got 60"):
        fit(ToyStars(stars.heliocentric[:60]), labels[:60], actions=toy, bootstraps=2)
