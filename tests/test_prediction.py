"""The field given hyperparameters, against Gaussian conditioning; predictions; a null test that must find a wave."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from otibayes.models import joint_abundances

import otibayes as oti
from otibayes.analysis.null_test import null_test
from otibayes.base.errors import InputError
from otibayes.dynamics import MILKY_WAY
from otibayes.generative import Data, likelihood_data
from otibayes.generative.basis import make_basis, prior_covariance
from otibayes.generative.model import GaussianField, Requirements
from otibayes.generative.prediction import field_draws, posterior_coefficients, predict, prior_draws
from otibayes.generative.result_groups import field_group
from otibayes.generative.statistic import condensed, design
from otibayes.generative.sums import moments_at
from otibayes.generative.weights import Classes, student_weights
from otibayes.results.schema import constant_data
from otibayes.stars.labels import LABELS
from otibayes.stars.preparation import prepare_stars

LENGTHS = jnp.array([2.0, 2.5, 1.5])
CHOLESKY = jnp.linalg.cholesky(jnp.array([[1.0, 0.6], [0.6, 1.2]]))
FIELD = GaussianField(LENGTHS, jnp.array([0.7, 0.4]), CHOLESKY, "matern52")


def test_coefficients_are_those_of_gaussian_conditioning():
    """Two classes: one lacks an element, the other has errors; against the joint covariance of everything."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(np.abs(rng.normal(size=(50, 3))))
    basis = make_basis(np.asarray(x), LENGTHS, 9)
    phi, Y = np.asarray(design(basis, x)), rng.normal(size=(50, 2))
    M = phi.shape[1]
    observed, variance = np.array([[1.0, 1.0], [1.0, 0.0]]), np.array([[0.3, 0.1], [0.0, 0.0]])
    member = np.arange(50) // 25
    Y = Y * observed[member]
    sums = [(phi[member == c].T @ phi[member == c], phi[member == c].T @ Y[member == c]) for c in (0, 1)]
    gram, b = (jnp.stack([jnp.asarray(pair[i]) for pair in sums]) for i in (0, 1))
    classes = Classes(observed > 0, variance)
    draw = jax.jit(jax.vmap(lambda key: posterior_coefficients(FIELD, basis, gram, b, classes, key)))
    draws = np.asarray(draw(jax.random.split(jax.random.PRNGKey(1), 4000))).reshape(4000, -1)

    Sigma, A = np.asarray(CHOLESKY @ CHOLESKY.T), np.diag(np.asarray(FIELD.amplitude) ** 2)
    P = np.asarray(prior_covariance(basis, "matern52", LENGTHS))
    linear = M - len(P)
    prior = np.zeros((M * 2, M * 2))
    prior[: 2 * linear, : 2 * linear] = np.kron(np.eye(linear), Sigma)
    prior[2 * linear :, 2 * linear :] = np.kron(P, A)
    seen = observed[member].ravel() > 0
    X = np.kron(phi, np.eye(2))[seen]
    noise = np.kron(np.eye(50), Sigma) + np.diag(variance[member].ravel())
    noise = noise[np.ix_(seen, seen)]
    gain = prior @ X.T @ np.linalg.inv(X @ prior @ X.T + noise)
    mean, covariance = gain @ Y.ravel()[seen], prior - gain @ X @ prior
    sd = np.sqrt(np.diag(covariance))
    assert np.abs((draws.mean(0) - mean) / sd).max() < 4 / np.sqrt(4000)
    np.testing.assert_allclose(np.cov(draws.T) / np.outer(sd, sd), covariance / np.outer(sd, sd), atol=0.1)


def test_student_weights():
    """Gaussian scatter leaves weights alike; outliers lose theirs, whatever the field."""
    rng = np.random.default_rng(2)
    x = np.abs(rng.normal(size=(1000, 3)))
    Y = np.stack([x[:, 0] ** 2, np.cos(x[:, 2])], 1) + rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], 1000)
    seen = rng.random((1000, 2)) < 0.9
    far = np.arange(1000) % 50 == 0
    Y[far] += 30.0
    weight = student_weights(x, None, np.where(seen, Y, 0.0), seen, 4.0)
    assert weight.mean() == pytest.approx(1) and weight[far & seen.any(1)].max() < 0.03
    assert weight[~far].min() > 0.15 and weight[~far].std() < 0.4


# ---- from a posterior's draws; here of a known mass model, without the sampler


@pytest.fixture(scope="module")
def stars():
    return oti.embedded_stars()[:400]


def field_of(stars, draws=12, requirements=Requirements()):
    """The group of a result, at the true mass model and plausible hyperparameters."""
    elements = list(stars.abundances)
    data = likelihood_data(prepare_stars(stars, elements, "local", every=False), requirements=requirements)
    truth = np.array([dict(stars.provenance.truth)[name] for name in MILKY_WAY.Parameters._fields])
    many = lambda x: np.broadcast_to(np.asarray(x), (draws, *np.shape(x)))  # noqa: E731
    scatter = np.array([np.hypot(LABELS[e].scatter, LABELS[e].error) for e in elements]) / data.scale
    correlation = np.linalg.cholesky([[1, -0.5], [-0.5, 1]])
    fields = GaussianField(many([3.0, 3.0, 3.0]), many([0.5] * 2), many(scatter[:, None] * correlation))
    data = data.on_box(fields)
    data = data.resolving(fields, [moments_at(data, truth, degrees=data.finer.degrees.max(0))])
    statistic = jax.jit(lambda found: condensed(data.basis, found, len(elements)))
    return data, field_draws(data, lambda theta: statistic(moments_at(data, theta)), many(truth), fields, seed=0)


def as_result(stars, data: Data, field) -> xr.DataTree:
    groups = {
        "field": field_group(field, data, (1, len(field.theta))).assign_coords(draw=np.arange(len(field.theta))),
        "constant_data": constant_data(stars[data.kept], data.elements, np.asarray(data.delta)),
    }
    attributes = {"settings": '{"model": "joint_abundances"}', "parameters": "m_disk,h_z,z_sun,vz_sun"}
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attributes), **groups})


@pytest.fixture(scope="module")
def result(stars):
    return as_result(stars, *field_of(stars))


def test_the_field_leaves_the_scatter_and_predictions_have_it(stars, result):
    data, field = field_of(stars)
    truth = MILKY_WAY.Parameters(*field.theta[0])
    aa = oti.action_angle(oti.phase_space(stars, truth), truth, delta=np.asarray(data.delta))
    mean = oti.field_at(result, np.stack([aa.J_R, aa.L_z, aa.J_z], -1)).mean(("chain", "draw"))
    Y = np.stack([stars.abundances[e] for e in data.elements], 1)
    truth = [np.hypot(LABELS[e].scatter, LABELS[e].error) for e in data.elements]  # of the synthetic stars
    np.testing.assert_allclose((Y - mean.values).std(0), truth, rtol=0.12)
    predicted = predict(data, field, np.arange(400), seed=1)
    assert predicted.shape == (12, 400, 2)
    np.testing.assert_allclose(predicted.std((0, 1)), Y.std(0), rtol=0.15)
    np.testing.assert_allclose(predicted.mean((0, 1)), Y.mean(0), atol=0.1 * Y.std(0).max())
    outside = oti.field_at(result, np.array([[1e4, 1800.0, 10.0]]))
    assert np.isnan(outside).all()
    with pytest.raises(InputError, match="J_R, L_z, J_z"):
        oti.field_at(result, np.ones(2))


def test_the_null_test_holds_zero_at_the_truth_and_finds_a_wave(stars, result):
    quiet = null_test(result)
    assert dict(quiet.amplitude.sizes) == {"chain": 1, "draw": 12, "coefficient": 5, "element": 2}
    assert np.abs(quiet.pull.sel(coefficient=["a1", "b1", "a2", "b2"])).max() < 3.5
    truth = MILKY_WAY.Parameters(*(dict(stars.provenance.truth)[name] for name in MILKY_WAY.Parameters._fields))
    aa = oti.action_angle(oti.phase_space(stars, truth), truth, delta="local")
    waved = {**stars.abundances, "FE_H": stars.abundances["FE_H"] + 0.08 * np.sin(2 * aa.theta_z)}
    wave = replace(stars, abundances=waved)
    loud = null_test(as_result(wave, *field_of(wave)))
    b2 = loud.amplitude.sel(coefficient="b2", element="FE_H")
    assert float(b2.mean()) == pytest.approx(0.08, abs=4 * float(b2.std()))
    assert float(loud.pull.sel(coefficient="b2", element="FE_H")) > 4
    assert float(np.abs(loud.pull.sel(coefficient="b2", element="MG_FE"))) < 3.5
    # the same wave in the binned residuals
    angle = loud.theta_z.values
    slope = (loud.residual.sel(element="FE_H") * np.sin(2 * angle)).mean() * 2
    assert float(slope) == pytest.approx(float(b2.mean()), abs=0.02)


def test_the_null_test_weighs_stars_as_the_likelihood_does(stars):
    """A second population on one side of the first: its mean is no wave, and where it weighs little c0 is none."""
    second = np.arange(len(stars)) % 7 == 0
    mixed = {e: values + 0.8 * second for e, values in stars.abundances.items()}
    data, field = field_of(replace(stars, abundances=mixed), requirements=Requirements(tails=4.0))
    found = null_test(as_result(replace(stars, abundances=mixed), data, field))
    assert np.abs(found.amplitude.sel(coefficient="c0").mean("draw")).max() < 0.01  # dex; a plain mean is 0.1
    assert np.abs(found.pull.sel(coefficient=["a1", "b1", "a2", "b2"])).max() < 3.5


def test_vertical_plane_is_even(result):
    plane = oti.vertical_plane(result, z=np.array([-0.5, 0.0, 0.5]), vz=np.array([-20.0, 0.0, 20.0]))
    np.testing.assert_allclose(plane["mean"], plane["mean"][:, ::-1, ::-1], atol=1e-9)
    assert plane["mean"].attrs["units"] == "dex" and (plane.sd > 0).all()


def test_prior_draws_heed_the_limits(stars):
    data = likelihood_data(prepare_stars(stars[:60], ["FE_H"], "local", every=False))
    draws, fields = prior_draws(joint_abundances, data, 500, seed=0)
    theta = MILKY_WAY.Parameters(*(draws[name] for name in MILKY_WAY.Parameters._fields))
    assert all(len(values) == 500 for values in draws.values())
    np.testing.assert_array_equal(fields.amplitude, draws["amplitude"])
    assert np.asarray(jax.vmap(MILKY_WAY.allowed)(theta)).all()
    # uniform over what is allowed: as many above the middle of m_disk as below it, but for the corner cut off
    allowed = np.asarray(jax.vmap(MILKY_WAY.allowed)(theta._replace(m_disk=np.linspace(0.4, 1.8, 500))))
    assert abs(np.mean(draws["m_disk"] < 1.0) - 0.6 / (1.4 * allowed.mean())) < 0.07
