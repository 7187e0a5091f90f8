"""Sampling: NUTS on a known density, the prior without walls, and one posterior by surface, basis and tinygp alike."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats.base import array_stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpyro import handlers
from numpyro.infer.util import log_density, potential_energy, unconstrain_fn
from otibayes.models import joint_abundances

import otibayes as oti
from otibayes.base.errors import InputError
from otibayes.base.parallel import BLOCK, in_blocks
from otibayes.base.parameters import TABLE
from otibayes.dynamics import MILKY_WAY, MassModel
from otibayes.generative import Likelihood, NutsSettings, prepare, sample_parameters, sample_posterior
from otibayes.generative import posterior as sampling
from otibayes.generative.data import from_unbounded, to_unbounded
from otibayes.generative.nuts import sample_nuts
from otibayes.generative.statistic import Statistic
from otibayes.generative.surface import SurfaceReport, expand_statistic, region_about
from otibayes.stars.preparation import prepare_stars

NAMES = [p.name for p in TABLE]


def test_nuts_on_a_gaussian_it_is_told_of():
    covariance = np.array([[4.0, 1.2, 0.0], [1.2, 1.0, 0.3], [0.0, 0.3, 0.25]])
    centre, precision = np.array([3.0, -1.0, 0.5]), np.linalg.inv(covariance)

    def potential(flat, context):
        offset = flat - context
        return 0.5 * offset @ precision @ offset

    run = partial(sample_nuts, potential, jnp.asarray(centre), centre, covariance, NutsSettings(3, 100, 330, seed=1))
    draws, statistics = run()
    assert draws.shape == (3, 330, 3) and statistics["diverging"].sum() == 0
    flat = draws.reshape(-1, 3)
    error = np.array([4 * np.sqrt(covariance[i, i] / array_stats.ess(draws[:, :, i])) for i in range(3)])
    assert (np.abs(flat.mean(0) - centre) < error).all()
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(np.cov((flat / sd).T), covariance / np.outer(sd, sd), atol=0.2)
    np.testing.assert_allclose(-statistics["lp"][1, 7], potential(draws[1, 7], centre), rtol=1e-12)
    again, _ = run()
    np.testing.assert_array_equal(draws, again)


@settings(max_examples=50)
@given(st.tuples(*[st.floats(-12, 12)] * 4))
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
        assert density(1.7, 0.1) == -np.inf or not MILKY_WAY.allowed(oti.Parameters(1.7, 0.1))


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
    return prepare(prepare_stars(stars, list(stars.abundances), "local", every=False))


@pytest.fixture(scope="module")
def on_surface(data):
    return sample_posterior(data, joint_abundances, settings=NutsSettings(4, 100, 150, seed=3))


def log_posterior(likelihood, draws):
    """In unbounded coordinates, at draws (S, ...) of every site."""
    model = handlers.seed(joint_abundances, 0)

    @jax.jit
    def one(values):
        unbounded = unconstrain_fn(model, (likelihood,), {}, values)
        return -potential_energy(model, (likelihood,), {}, unbounded)

    return np.array([float(one({k: x[i] for k, x in draws.items()})) for i in range(len(draws["h_z"]))])


def test_surface_and_basis_give_the_posterior_of_tinygp(data, on_surface):
    """The dense likelihood at the surface's draws moves no mean by more than 0.1 sigma, to first order.

    The box reflects a field of length scale beyond its size, which the even kernel does not: hyperparameters feel that.
    """
    assert on_surface.report.trusted and on_surface.report.basis_shift < 0.1
    chosen = np.random.default_rng(0).choice(4 * 150, 300, replace=False)
    draws = {name: x.reshape(-1, *x.shape[2:])[chosen] for name, x in on_surface.draws.items()}
    change = log_posterior(Likelihood(data, "dense"), draws) - on_surface.statistics["lp"].ravel()[chosen]
    change = change - change.mean()
    noise = change.std() / np.sqrt(len(change))
    for name in NAMES:
        moved = np.mean((draws[name] - draws[name].mean()) * change) / draws[name].std()  # to first order, in sigma
        assert abs(moved) < 0.1 + 2 * noise, name
    assert noise < 0.08


def test_fewer_stars_first_gives_the_same_posterior(data, on_surface, monkeypatch):
    """The maximum by 100 stars, then 200, then all, as a survey's is by 4,000, 64,000 and all of a million."""
    assert [list(sampling._rungs(n)) for n in (30, 56_324, 1_000_000)] == [[30], [4000], [4000, 64_000]]
    monkeypatch.setattr(sampling, "_FEW", 100)
    monkeypatch.setattr(sampling, "_RUNG", 2)
    found = sample_posterior(data, joint_abundances, settings=NutsSettings(4, 100, 150, seed=4))
    assert found.report.trusted
    for name in NAMES:
        one, two = on_surface.draws[name], found.draws[name]
        error = np.hypot(*(x.std() / np.sqrt(array_stats.ess(x)) for x in (one, two)))
        assert abs(one.mean() - two.mean()) < 3 * error, name


@pytest.mark.slow
def test_nuts_on_tinygp_gives_the_same_posterior(data, on_surface):
    """Means and widths of two runs of NUTS, within what their lengths allow."""
    dense = sample_posterior(data, joint_abundances, "dense", surface=False, settings=NutsSettings(4, 150, 250, seed=4))
    for name in NAMES:
        one, two = on_surface.draws[name], dense.draws[name]
        error = np.hypot(*(x.std() / np.sqrt(array_stats.ess(x)) for x in (one, two)))
        assert abs(one.mean() - two.mean()) < 3 * error, name
        assert 0.8 < one.std() / two.std() < 1.25, name


@pytest.mark.slow
def test_1500_stars_reweighted_by_tinygp():
    """The dense likelihood at 200 draws: importance weights that can be trusted, and means within 0.1 sigma."""
    stars = oti.embedded_stars()[:1500]
    data = prepare(prepare_stars(stars, list(stars.abundances), every=False))
    found = sample_posterior(data, joint_abundances, settings=NutsSettings(4, 100, 250, seed=5))
    chosen = np.random.default_rng(1).choice(1000, 200, replace=False)
    draws = {name: x.reshape(-1, *x.shape[2:])[chosen] for name, x in found.draws.items()}
    change = log_posterior(Likelihood(data, "dense"), draws) - found.statistics["lp"].ravel()[chosen]
    log_weights, khat = array_stats.psislw(change - change.mean())
    weights = np.exp(log_weights)
    assert khat < 0.7
    for name in NAMES:
        x = draws[name]
        moved = (weights @ x / weights.sum() - x.mean()) / x.std()
        noise = np.sqrt(np.sum((weights / weights.sum() - 1 / 200) ** 2))  # of 200 draws reweighted
        assert abs(moved) < 0.1 + noise, name


@pytest.mark.slow
def test_5000_stars_with_and_without_the_surface():
    """Means and widths within what is asked (0.1 sigma and 10%) and the runs' own noise."""
    embedded = oti.embedded_stars()
    rng = np.random.default_rng(0)
    stars = embedded[np.r_[np.arange(len(embedded)), rng.choice(len(embedded), 5000 - len(embedded), replace=False)]]
    data = prepare(prepare_stars(stars, list(stars.abundances), every=False))
    with_, without = (
        sample_posterior(data, joint_abundances, surface=surface, settings=NutsSettings(4, 100, draws, seed=6))
        for surface, draws in ((True, 500), (False, 150))
    )
    for name in NAMES:
        one, two = with_.draws[name], without.draws[name]
        noise = np.sqrt(sum(1 / array_stats.ess(x) for x in (one, two)))
        assert abs(one.mean() - two.mean()) / one.std() < 0.1 + 2 * noise, name
        assert abs(np.log(one.std() / two.std())) < 0.1 + 2 * noise, name


def test_a_model_that_does_not_use_its_likelihood_is_refused(data):
    with pytest.raises(InputError, match="never calls its likelihood"):
        sample_posterior(data, lambda likelihood: sample_parameters(MILKY_WAY))


def test_a_surface_does_not_carry_the_dense_likelihood(data):
    with pytest.raises(InputError, match="carries the 'hilbert' statistic"):
        sample_posterior(data, joint_abundances, "dense")


def test_a_surface_that_cannot_be_trusted_is_refused(data, monkeypatch):
    monkeypatch.setattr(sampling, "_ATTEMPTS", 1)
    monkeypatch.setattr(sampling, "_SIGMAS", 1.0)  # draws must leave it
    monkeypatch.setattr(sampling, "_PILOT", NutsSettings(4, 10, 25))
    with pytest.raises(InputError, match="cannot be trusted after 1 attempts.*--no-surface"):
        sample_posterior(data, joint_abundances, basis_size=20, settings=NutsSettings(2, 10, 50))


def test_a_likelihood_that_is_not_finite_somewhere_is_refused():
    class Sometimes:
        def statistics(self, thetas):
            return [Statistic(np.eye(2), np.full((2, 1), np.nan if t[0] > 1 else 1.0), np.eye(1), 9.0) for t in thetas]

    region = region_about(np.array(MILKY_WAY.Parameters()), np.diag([0.1, 0.03, 5.0, 0.5]) ** 2, 3.0, MILKY_WAY)
    with pytest.raises(InputError, match=r"not finite at \d+ of \d+ points.*theta = \[.*leave such stars out"):
        expand_statistic(Sometimes(), region, 2, 0)


def test_a_basis_that_does_not_resolve_the_field_is_made_anew(data, monkeypatch):
    """Twice as large, until a finer one moves no mean."""
    sizes = []

    def told(report):
        sizes.append(report.basis_size)
        return len(sizes) > 1

    monkeypatch.setattr(SurfaceReport, "resolved", property(told))
    monkeypatch.setattr(sampling, "_PILOT", NutsSettings(4, 10, 25))
    found = sample_posterior(data, joint_abundances, settings=NutsSettings(4, 20, 50))
    assert found.report.attempts == 2 and sizes[1] == 2 * sizes[0] == len(found.data.basis.degrees)


def test_limits_are_for_uniform_priors():
    with pytest.raises(ValueError, match="limits are for parameters with a uniform prior"):
        MassModel(MILKY_WAY.components, limits={"z_sun": lambda theta: 50.0})
