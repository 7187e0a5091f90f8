"""Sampling: NUTS on a known density, the prior without walls, one posterior by surface, basis and tinygp alike.

And what becomes of chains that stand still, disagree or leave the surface: for that, Gaussian draws stand for NUTS.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats.base import array_stats
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st
from numpyro.infer.util import log_density
from otibayes.models import joint_abundances

import otibayes as oti
from otibayes.base.errors import InputError
from otibayes.base.parallel import BLOCK, in_blocks
from otibayes.base.parameters import TABLE
from otibayes.dynamics import MILKY_WAY, MassModel
from otibayes.generative import GaussianField, SampleSettings, likelihood_data, sample_parameters, sample_posterior
from otibayes.generative import posterior as sampling
from otibayes.generative.density import dense_log_likelihood, hilbert_log_likelihood
from otibayes.generative.expansion import Expansion, Run
from otibayes.generative.nuts import Chains, sample_nuts
from otibayes.generative.posterior import convergence
from otibayes.generative.statistic import Statistic, condensed
from otibayes.generative.sums import all_inputs, all_moments
from otibayes.generative.surface import (
    StarPotential,
    SurfaceReport,
    given,
    light,
    packed,
    pareto_k,
    region_about,
    shift,
)
from otibayes.generative.unconstrained import Unconstrained, from_unbounded, to_unbounded
from otibayes.stars.preparation import prepare_stars

NAMES = [p.name for p in TABLE]


def test_nuts_on_a_gaussian_whose_covariance_is_known():
    covariance = np.array([[4.0, 1.2, 0.0], [1.2, 1.0, 0.3], [0.0, 0.3, 0.25]])
    centre, precision = np.array([3.0, -1.0, 0.5]), np.linalg.inv(covariance)

    def potential(flat, context):
        offset = flat - context
        return 0.5 * offset @ precision @ offset

    starts = np.random.default_rng(0).multivariate_normal(centre, covariance, 3)
    run = partial(sample_nuts, potential, jnp.asarray(centre), Chains(starts, covariance, 100, 330, seed=1))
    draws, statistics = run()
    assert draws.shape == (3, 330, 3) and statistics["diverging"].sum() == 0
    sizes = np.array([array_stats.ess(draws[:, :, i]) for i in range(3)])
    sd, flat = np.sqrt(np.diag(covariance)), draws.reshape(-1, 3)
    assert (np.abs(flat.mean(0) - centre) < 5 * sd / np.sqrt(sizes)).all()
    off = np.cov((flat / sd).T) - covariance / np.outer(sd, sd)
    assert np.abs(off).max() < 5 * np.sqrt(2 / sizes.min())
    np.testing.assert_allclose(-statistics["lp"][1, 7], potential(draws[1, 7], centre), rtol=1e-12)
    np.testing.assert_array_equal(draws, run()[0])


@settings(max_examples=50)
@for_all(st.tuples(*[st.floats(-12, 12)] * 4))
def test_unbounded_parameters_are_always_allowed_and_come_back(u):
    theta = from_unbounded(jnp.array(u), MILKY_WAY)
    assert MILKY_WAY.allowed(theta)
    np.testing.assert_allclose(to_unbounded(theta, MILKY_WAY), u, atol=1e-5 * np.exp(np.abs(u).max() - 12) + 1e-9)


def test_the_prior_is_uniform_where_it_is_allowed():
    def density(m_disk, h_z):
        values = {"m_disk": m_disk, "h_z": h_z, "z_sun": 20.0, "vz_sun": 8.0}
        return float(log_density(lambda: sample_parameters(MILKY_WAY), (), {}, values)[0])

    inside = [density(0.5, 0.1), density(1.6, 0.1), density(1.0, 0.9), density(1.79, 0.95)]
    np.testing.assert_allclose(inside, inside[0], rtol=1e-12)
    with pytest.warns(UserWarning, match="Out-of-support"):
        assert density(1.7, 0.1) == -np.inf
    assert not MILKY_WAY.allowed(oti.Parameters(1.7, 0.1))


@pytest.mark.parametrize("number", [1, BLOCK - 1, BLOCK, 2 * BLOCK + 3])
def test_in_blocks_is_the_function_of_everything(number):
    a, b = np.arange(number, dtype=float), np.ones((number, 2))
    for threads in (1, 2):
        one, two = in_blocks(lambda x, y: (x**2, x[:, None] + y), a, b, threads=threads)
        np.testing.assert_array_equal(one, a**2)
        np.testing.assert_array_equal(two, a[:, None] + b)


# ---- one posterior, three ways


@pytest.fixture(scope="module")
def data():
    stars = oti.embedded_stars()[:300]
    return likelihood_data(prepare_stars(stars, list(stars.abundances), "local", every=False))


@pytest.fixture(scope="module")
def peak(data):
    run = Run(Unconstrained.of(joint_abundances, data), SampleSettings())
    return run, sampling._maximum(run, data)[0]


@pytest.fixture(scope="module")
def expansion(data, peak):
    """A basis and a surface that are good enough at Gaussian draws about the maximum, and these draws."""
    run, gaussian = peak
    made = Expansion(run, run.on_basis(data, gaussian.wider(1.5), None, "maximum"))
    draws = gaussian.draws(np.random.default_rng(0), 300)
    made.suit(draws, "test")
    return made, draws


def test_surface_and_basis_give_the_posterior_of_tinygp(expansion):
    """They move no mean by 0.1 sigma, to first order and within the noise of 300 draws, from the dense likelihood's.

    The box reflects a field of length scale beyond its size, which the even kernel does not: hyperparameters feel that.
    """
    made, draws = expansion
    data, theta = made.data, made.plain.theta(draws)

    def log_likelihood(theta, field):
        return dense_log_likelihood(field, all_inputs(data, jnp.stack([*theta])), data.Y)

    dense = jax.jit(made.run.unconstrained.potential(log_likelihood))
    on_surface = made.plain.potentials_on(made.surface, draws)
    change = np.array([float(dense(flat)) for flat in draws]) - on_surface
    assert light(-change) and shift(theta, change) < 0.1 + 2 * change.std() / np.sqrt(300)
    on_basis, on_finer = made.plain.potentials(draws[:60], finer=True)
    change = on_basis - on_finer
    assert shift(theta[:60], change) < 0.1
    assert abs(made.plain.basis_shift(draws) - shift(theta[:60], change)) < 4 * change.std() / np.sqrt(60)
    # accepted below 0.05 at 32 other draws, of which such a number is known to 13%
    assert np.std(on_basis - on_surface[:60]) < 0.075


def test_the_shift_by_a_basis_is_exact_where_ln_l_changes_by_a_plane(expansion, monkeypatch):
    made, draws = expansion
    slope = np.random.default_rng(1).normal(size=draws.shape[1])
    monkeypatch.setattr(made.plain, "potentials", lambda flat, finer: np.stack([3 + flat @ slope, 0 * flat[:, 0]]))
    covariance, places = np.cov(draws.T), made.run.unconstrained.places
    expected = np.abs((covariance @ slope / np.sqrt(np.diag(covariance)))[places]).max()
    assert made.plain.basis_shift(draws) == pytest.approx(expected, rel=1e-9)
    assert np.isnan(made.plain.basis_shift(np.tile(draws[0], (50, 1))))


def test_the_gaussian_about_the_maximum_is_that_of_the_stars(expansion, peak):
    """Against derivatives of the density itself, by passes that JAX differentiates, in units of the Gaussian."""
    made, (run, gaussian) = expansion[0], peak
    data = made.data.relabelled(made.plain.theta(gaussian.mean))
    found = StarPotential(run.unconstrained, data).laplace(gaussian, 3, 0)

    def log_likelihood(theta, field):
        return given(field, condensed(data.basis, all_moments(data, jnp.stack([*theta])), 2), data.basis, data.unlike)

    slope = jax.jit(jax.value_and_grad(run.unconstrained.potential(log_likelihood)))
    root = np.linalg.cholesky(found.covariance)
    assert np.abs(root.T @ slope(found.mean)[1]).max() < 0.1
    steps = 1e-3 * np.eye(found.mean.size)
    hessian = np.array([np.subtract(slope(found.mean + s)[1], slope(found.mean - s)[1]) / 2e-3 for s in steps])
    np.testing.assert_allclose(np.linalg.eigvalsh(root.T @ hessian @ root), 1.0, atol=0.2)


def test_a_posterior_by_nuts(data, peak, monkeypatch):
    """What holds for any trajectory: all draws are there and allowed, and the result says what it is worth.

    The maximum is found by 100 stars, then by all, as a survey's is by 4,000 and then by all of a million.
    """
    monkeypatch.setattr(sampling, "FEW", 100)
    found = sample_posterior(data, joint_abundances, SampleSettings(warmup=50, draws=50), seed=3)
    assert found.complete and found.report.trusted and found.report.resolved
    assert found.draws["m_disk"].shape == (4, 50) and found.statistics["lp"].shape == (4, 50)
    theta = MILKY_WAY.Parameters(*(found.draws[name] for name in NAMES))
    assert np.asarray(jax.vmap(jax.vmap(MILKY_WAY.allowed))(theta)).all()
    assert found.convergence["converged"] == 0  # 200 draws cannot have 400 effective ones
    assert len(found.report.posterior) in (32, 100) and len(found.report.held_out) == 12
    one = {name: values[2, 7] for name, values in found.draws.items()}
    field, at = found.unconstrained.field(one), np.array([one[name] for name in NAMES])
    joint = hilbert_log_likelihood(field, found.statistic(at), found.data.basis)
    assert found.statistics["log_likelihood"][2, 7] == pytest.approx(float(joint), abs=1e-6)
    run, gaussian = peak
    mode = to_unbounded(MILKY_WAY.Parameters(*(found.mode[name] for name in NAMES)), MILKY_WAY)
    places = run.unconstrained.places
    sd = np.sqrt(np.diag(gaussian.covariance))[places]
    # each maximum is at most 0.3 sigma from that whose labels it has, which moves it by a third of that at most
    assert np.abs((mode - gaussian.mean[places]) / sd).max() < 0.2


@pytest.mark.slow
def test_nuts_on_tinygp_gives_the_same_posterior(data):
    """Means and widths of two runs of NUTS, within what their lengths allow."""
    hilbert = SampleSettings(warmup=150, draws=250)
    dense = SampleSettings(likelihood="dense", surface=False, warmup=150, draws=250)
    alike(*(sample_posterior(data, joint_abundances, each, seed=4) for each in (hilbert, dense)), 0.0)


def alike(one, two, bias):
    """Means to `bias` sigma and widths to 10%, and the noise that runs of this length have."""
    for name in NAMES:
        x, y = one.draws[name], two.draws[name]
        noise = np.sqrt(sum(1 / array_stats.ess(draws) for draws in (x, y)))
        assert abs(x.mean() - y.mean()) / x.std() < bias + 4.5 * noise, name
        assert abs(np.log(x.std() / y.std())) < 0.1 + 3.5 * noise, name


@pytest.mark.slow
def test_5000_stars_with_and_without_the_surface():
    embedded = oti.embedded_stars()
    rng = np.random.default_rng(0)
    stars = embedded[np.r_[np.arange(len(embedded)), rng.choice(len(embedded), 5000 - len(embedded), replace=False)]]
    data = likelihood_data(prepare_stars(stars, list(stars.abundances), every=False))
    both = (SampleSettings(warmup=100, draws=500), SampleSettings(surface=False, warmup=100, draws=150))
    alike(*(sample_posterior(data, joint_abundances, each, seed=6) for each in both), 0.1)


# ---- what is refused


def test_a_model_that_returns_no_field_is_refused(data):
    def refused(model, match):
        with pytest.raises(InputError, match=match):
            sample_posterior(data, model)

    theta = lambda data: sample_parameters(data.model)  # noqa: E731
    field = GaussianField(jnp.full(3, 3.0), jnp.full(2, 0.5), jnp.eye(2))
    refused(theta, "returned Parameters; it must return theta and a GaussianField")
    refused(lambda data: theta(data) and None, "returned NoneType; it must return theta and a GaussianField")
    refused(lambda data: None, "does not sample m_disk, h_z, z_sun, vz_sun")
    refused(lambda data: (None, field), "does not sample m_disk.*sample_parameters")
    one = replace(field, amplitude=jnp.asarray(0.5))
    refused(lambda data: (theta(data), one), r"amplitude has shape \(\); \(2,\) is needed for 2 elements")
    periodic = replace(field, kernel="periodic")
    refused(lambda data: (theta(data), periodic), "kernel 'periodic' is unknown; choose one of expsquared")


def test_a_surface_does_not_carry_the_dense_likelihood():
    with pytest.raises(InputError, match="carries the 'hilbert' statistic"):
        SampleSettings(likelihood="dense")


def test_a_likelihood_that_is_not_finite_somewhere_is_refused():
    thetas = [np.array([0.8, 0.3, 20.0, 8.0]), np.array([1.2, 0.3, 20.0, 8.0])]
    found = [Statistic(np.eye(2), np.full((2, 1), value), np.eye(1), 9.0) for value in (1.0, np.nan)]
    with pytest.raises(InputError, match=r"not finite at 1 of 2 points.*theta = \[1\.2.*leave such stars out"):
        packed(found, thetas)


def test_limits_are_for_uniform_priors():
    with pytest.raises(ValueError, match="limits are for parameters with a uniform prior"):
        MassModel(MILKY_WAY.components, limits={"z_sun": lambda theta: 50.0})


# ---- diagnostics that cannot be computed are NaN, and a reason to go on or to refuse


def test_chains_that_stand_still_have_no_diagnostics():
    statistics = {"diverging": np.zeros((4, 50), bool)}
    for places in (np.zeros(4), np.arange(4.0)):  # all chains at one place, or each at its own
        about = convergence(np.ones((4, 50, 3)) * np.arange(3.0) + places[:, None, None], statistics)
        assert np.isnan([about["max_r_hat"], about["min_ess_bulk"], about["min_ess_tail"]]).all()
        assert about["converged"] == 0
    alone = convergence(np.random.default_rng(0).normal(size=(1, 500, 3)), statistics)
    assert np.isnan(alone["max_r_hat"]) and alone["min_ess_bulk"] > 300 and alone["converged"] == 0


@pytest.mark.parametrize("weights", [np.zeros(100), np.full(100, np.nan), np.r_[np.inf, np.zeros(99)], np.arange(20.0)])
def test_pareto_k_that_cannot_be_computed_is_nan(weights):
    assert np.isnan(pareto_k(weights))
    assert not light(np.array([np.nan, 0.0])) and light(np.zeros(100))


def test_draws_that_are_all_the_same_have_a_region_and_a_metric_but_no_shift():
    theta = np.tile(np.array(MILKY_WAY.Parameters()), (100, 1))
    region = region_about(theta.mean(0), np.cov(theta.T), 6.0, MILKY_WAY)
    assert np.isfinite(region.whitening).all()
    assert np.isnan(shift(theta, np.zeros(100))) and np.isnan(shift(theta, np.full(100, np.nan)))
    np.testing.assert_allclose(sampling._shrunk(theta, np.eye(4)), np.eye(4) * 8 / 108)


class Gaussians:
    """In place of NUTS: Gaussian draws in the metric of the chains, moved by `move`; keeps the lengths of its runs."""

    def __init__(self, move=lambda draws, surface: draws):
        self.lengths, self.move = [], move

    def __call__(self, potential, context, chains, name, store):
        rng = np.random.default_rng(chains.seed)
        draws = rng.multivariate_normal(chains.starts.mean(0), chains.covariance, (4, chains.draws))
        draws = self.move(draws, context[1])
        self.lengths.append(chains.draws)
        density = jax.jit(lambda draws, context: jax.lax.map(lambda flat: -potential(flat, context), draws))
        lp = np.asarray(density(draws.reshape(-1, draws.shape[-1]), context)).reshape(draws.shape[:2])
        return draws, {"lp": lp, "diverging": np.zeros(draws.shape[:2], bool)}


@pytest.fixture(scope="module")
def narrow(data, peak):
    """A Gaussian half as wide as that about the maximum, for which a small basis and a plain surface suffice."""
    run, gaussian = peak
    half = gaussian.wider(0.5)
    made = Expansion(run, run.on_basis(data, half, None, "narrow"))
    guide = half.draws(np.random.default_rng(0), 300)
    made.suit(guide, "narrow")
    return made, guide, half


@pytest.fixture
def sampled(narrow, monkeypatch):
    """What becomes of runs of so many draws on the surface after a pilot."""

    def run(nuts, draws):
        monkeypatch.setattr(sampling, "sample_nuts", nuts)
        made, guide, half = narrow
        settings = made.run._replace(settings=SampleSettings(draws=draws))
        return sampling._on_surface(settings, replace(made), guide, half)

    return run


def test_a_run_that_is_good_ends_at_once(sampled):
    nuts = Gaussians()
    found = sampled(nuts, 500)  # of 250 independent draws a chain, some coordinate's R-hat can exceed 1.01
    assert nuts.lengths == [500] and found.report.attempts == 1 and found.report.trusted


def test_chains_that_disagree_go_on_by_themselves_but_not_for_ever(sampled):
    def apart(runs):
        def move(draws, surface):
            return draws + 0.25 * draws.std((0, 1)) * (len(nuts.lengths) < runs) * (np.arange(4) - 1.5)[:, None, None]

        nuts = Gaussians(move)
        return nuts

    once, always, short = apart(1), apart(9), apart(9)
    assert sampled(once, 250).convergence["max_r_hat"] < 1.01 and once.lengths == [250, 500]
    assert sampled(always, 250).convergence["converged"] == 0 and always.lengths == [250, 500, 1000]
    sampled(short, 50)
    assert short.lengths == [50]  # as long as it was to be


def test_draws_that_leave_the_surface_are_kept_where_a_wider_one_agrees(narrow, sampled):
    def stray(draws, surface):
        region = surface.region
        beyond = region.centre + 1.05 * region.size * np.linalg.inv(region.whitening)[:, -1]  # in vz_sun
        draws[0, 0] = narrow[0].plain.with_theta(draws[0, 0], beyond)
        return draws

    nuts = Gaussians(stray)
    found = sampled(nuts, 500)
    assert found.report.trusted and found.report.attempts == 2 and nuts.lengths == [500]


def test_chains_that_stand_still_are_refused(sampled):
    with pytest.raises(InputError, match=r"cannot be trusted after 3 runs.*nan.*chains that stood still.*--no-surface"):
        sampled(Gaussians(lambda draws, surface: 0 * draws + draws[:1, :1]), 250)


def test_a_basis_that_does_not_resolve_the_field_is_made_anew(sampled, monkeypatch):
    """Twice as large, until a finer one moves no mean."""
    sizes = []

    def resolved(report):
        sizes.append(report.basis_size)
        return len(sizes) > 1

    monkeypatch.setattr(SurfaceReport, "resolved", property(resolved))
    found = sampled(Gaussians(), 50)
    assert found.report.attempts == 2 and sizes[1] == 2 * sizes[0]
    monkeypatch.setattr(SurfaceReport, "resolved", property(lambda report: False))
    monkeypatch.setattr(sampling, "_ATTEMPTS", 1)
    with pytest.raises(InputError, match="basis functions do not resolve the field after 1 runs"):
        sampled(Gaussians(), 50)
