"""Leave-one-out densities against differences of joint ones, Gaussian conditioning and tinygp; ArviZ's comparisons."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from numpyro.infer.util import log_density
from otibayes.models import free_circular_velocity, independent_elements, joint_abundances
from scipy.stats import multivariate_t

import otibayes as oti
from otibayes.dynamics import MILKY_WAY
from otibayes.generative import GaussianField, likelihood_data, predictions
from otibayes.generative.basis import make_basis, prior_covariance
from otibayes.generative.density import dense_log_likelihood, hilbert_log_likelihood
from otibayes.generative.model import Requirements
from otibayes.generative.pointwise import leave_one_out, log_prior
from otibayes.generative.posterior import Posterior
from otibayes.generative.result_groups import posterior_groups
from otibayes.generative.statistic import condensed, design, moments
from otibayes.generative.sums import all_inputs, moments_at
from otibayes.generative.unconstrained import Unconstrained
from otibayes.stars.preparation import prepare_stars

THETA = np.array([1.1, 0.32, 15.0, 8.5])
FIELD = GaussianField(
    jnp.array([3.0, 4.0, 2.0]), jnp.array([0.5, 0.3]), jnp.linalg.cholesky(0.7 * jnp.eye(2) + 0.2), "expsquared"
)
NUMBER = 60
LEFT_OUT = np.array([0, 7, 21, 42, 58])
KINDS = ["alike", "missing", "errors", "missing and errors"]


def of_stars(kind="alike", number=NUMBER, tails=None):
    """The first embedded stars: every third lacks an element, or errors are in classes; a reduced basis."""
    stars = oti.embedded_stars()[:number]
    first = next(iter(stars.abundances))
    if "missing" in kind:
        holes = np.where(np.arange(number) % 3 == 0, np.nan, stars.abundances[first])
        stars = replace(stars, abundances={**stars.abundances, first: holes})
    errors = {e: 0.02 * np.exp(np.random.default_rng(0).normal(size=number)) for e in stars.abundances}
    stars = replace(stars, errors=errors)
    prepared = prepare_stars(stars, list(stars.abundances), "local", every=False)
    data = likelihood_data(prepared, 2 if "errors" in kind else 0)
    if tails is not None:
        weight = np.random.default_rng(1).gamma(2.0, 0.5, len(data))
        data = replace(data, tails=tails, weight=weight / weight.mean())
    one = jax.tree.map(lambda leaf: np.asarray(leaf)[None], FIELD)
    data = data.relabelled(np.array([1.0, 0.28, 20.8, 7.78])).on_box(one, 40)
    return data.resolving(one, [moments_at(data, THETA, degrees=data.finer.degrees.max(0))])


def found_of(data, x, kept):
    """The statistic at labels x of the stars for which `kept` (N,) is 1, and of the others where it is 0."""
    box, degrees = (data.basis.low, data.basis.high), tuple(map(int, data.basis.degrees.max(0)))
    parts = [
        condensed(data.basis, moments(box, degrees, x[rows], data.columns[rows], (kept * data.weight)[rows]), 2)
        for rows in data.members
    ]
    return parts[0] if data.classes.common else jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)


def without(n):
    return (np.arange(NUMBER) != n).astype(float)


@pytest.mark.parametrize("kind", KINDS)
def test_against_differences_of_the_joint_density(kind):
    """ln p(all) - ln p(all but one), on the same basis at the same labels."""
    data = of_stars(kind)
    assert len(data.members) == {"alike": 1, "missing": 2, "errors": 2, "missing and errors": 4}[kind]
    x = jax.jit(lambda: all_inputs(data, THETA))()
    joint = jax.jit(lambda kept: hilbert_log_likelihood(FIELD, found_of(data, x, kept), data.basis, data.unlike))
    whole = joint(np.ones(NUMBER))
    dex = np.isfinite(data.variance) @ np.log(data.scale)
    expected = [float(whole - joint(without(n))) - dex[n] for n in LEFT_OUT]
    found = jax.jit(lambda kept: leave_one_out(data, FIELD, found_of(data, x, kept), x[LEFT_OUT], LEFT_OUT))
    np.testing.assert_allclose(found(np.ones(NUMBER)), expected, atol=1e-8)


@pytest.mark.parametrize("kind", ["alike", "missing and errors"])
def test_with_heavy_tails_against_conditioning_on_the_other_stars(kind):
    """The t about the field's mean without the star, of the sum of its covariance and the scatter's."""
    data = of_stars(kind, tails=4.0)
    x = jax.jit(lambda: all_inputs(data, THETA))()
    found = leave_one_out(data, FIELD, found_of(data, x, np.ones(NUMBER)), x[LEFT_OUT], LEFT_OUT)
    member = np.zeros(NUMBER, int)
    for c, rows in enumerate(data.members):
        member[rows] = c
    phi, Sigma = np.asarray(design(data.basis, x)), np.asarray(FIELD.scatter_cholesky @ FIELD.scatter_cholesky.T)
    process = np.asarray(prior_covariance(data.basis, FIELD.kernel, FIELD.lengths))
    linear = phi.shape[1] - len(process)
    K = np.kron(phi[:, :linear] @ phi[:, :linear].T, Sigma)
    K += np.kron(phi[:, linear:] @ process @ phi[:, linear:].T, np.diag(np.asarray(FIELD.amplitude) ** 2))
    own = [Sigma + np.diag(data.classes.variance[c]) for c in member]
    seen, Y, noise = np.isfinite(data.variance), np.asarray(data.Y).ravel(), np.zeros_like(K)
    for n in range(NUMBER):
        noise[2 * n : 2 * n + 2, 2 * n : 2 * n + 2] = own[n] / data.weight[n]
    for value, n in zip(found, LEFT_OUT, strict=True):
        star = np.repeat(np.arange(NUMBER) == n, 2)
        mine, others = star & seen.ravel(), ~star & seen.ravel()
        gain = np.linalg.solve((K + noise)[np.ix_(others, others)], K[np.ix_(others, mine)]).T
        mean = gain @ Y[others]
        scale = K[np.ix_(mine, mine)] - gain @ K[np.ix_(others, mine)] + own[n][np.ix_(seen[n], seen[n])]
        expected = multivariate_t(mean, scale, df=4).logpdf(Y[mine]) - seen[n] @ np.log(data.scale)
        # the process leaves out combinations that stars can hardly tell
        assert float(value) == pytest.approx(expected, abs=1e-8 if data.classes.common else 1e-3)


def test_against_tinygp():
    """The conditional density of the kernel itself, with 1,200 cosines on a wide box: to 1e-3."""
    data = of_stars()
    x = jax.jit(lambda: all_inputs(data, THETA))()
    data = replace(data, basis=make_basis(np.asarray(x), FIELD.lengths, 1200, margin=3.0))
    dense = jax.jit(lambda x, Y: dense_log_likelihood(FIELD, x, Y))
    whole = dense(x, data.Y)
    expected = [float(whole - dense(np.delete(x, n, 0), np.delete(data.Y, n, 0))) for n in LEFT_OUT]
    found = jax.jit(lambda: leave_one_out(data, FIELD, found_of(data, x, np.ones(NUMBER)), x[LEFT_OUT], LEFT_OUT))()
    np.testing.assert_allclose(found + np.log(data.scale).sum(), expected, atol=1e-3)


def test_prior_of_every_site_adds_up_to_the_models_density():
    data = of_stars()
    data = replace(data, model=free_circular_velocity.requirements.mass_model)
    sites = {"m_disk": 1.0, "h_z": 0.3, "z_sun": 20.0, "vz_sun": 8.0, "v_circ": 230.0, "length_scale": jnp.full(3, 3.0)}
    sites |= {"amplitude": jnp.array([0.5, 0.4]), "scatter": jnp.array([0.9, 0.8])}
    sites |= {"correlation_cholesky": jnp.linalg.cholesky(jnp.array([[1.0, 0.3], [0.3, 1.0]]))}
    found = log_prior(free_circular_velocity, data, {n: np.asarray(v)[None, None] for n, v in sites.items()})
    assert {*sites} < {*found} and all(values.shape == (1, 1) for values in found.values())
    expected = float(log_density(free_circular_velocity, (data,), {}, sites)[0])
    assert float(sum(found.values())[0, 0]) == pytest.approx(expected, rel=1e-12)


# ---- results, from draws about a known truth, without the sampler

SCALES = np.array([0.1, 0.05])  # dex, of the scatter


def drawn_stars(noise, number=200):
    """Embedded stars with abundances [dex] that follow the actions at the fiducial model, and this noise."""
    stars = oti.embedded_stars()[:number]
    theta = MILKY_WAY.Parameters()
    aa = oti.action_angle(oti.phase_space(stars, theta), theta, delta="local")
    mean = np.stack([-0.1 * np.sqrt(aa.J_z / 10), 0.05 * np.sqrt(aa.J_z / 10) + 0.02 * (aa.L_z - 1860) / 300], 1)
    abundances = dict(zip(("FE_H", "MG_FE"), (mean + SCALES * noise[:number]).T, strict=True))
    return replace(stars, abundances=abundances, errors={})


def correlated(rho, number=200):
    return np.random.default_rng(3).multivariate_normal([0, 0], [[1, rho], [rho, 1]], number)


def on_basis(data, fields):
    data = data.relabelled(np.array(MILKY_WAY.Parameters())).on_box(fields, 40)
    theta = np.array(MILKY_WAY.Parameters())
    return data.resolving(fields, [moments_at(data, theta, degrees=data.finer.degrees.max(0))])


def statistic_of(data):
    condense = jax.jit(lambda sums: condensed(data.basis, sums, 2))
    return lambda theta: jax.tree.map(np.asarray, condense(moments_at(data, theta)))


def result_of(model, rho, chains=4, draws=50):
    """A result of stars whose residuals are correlated, at draws about the truth."""
    prepared = prepare_stars(drawn_stars(correlated(0.7)), ["FE_H", "MG_FE"], "local", every=False)
    data, rng, shape = likelihood_data(prepared), np.random.default_rng(5), (chains, draws)
    sites = {p.name: p.fiducial * (1 + 0.03 * rng.normal(size=shape)) for p in MILKY_WAY.parameters}
    around = {"length_scale": np.array([3.0, 4.0, 3.0]), "amplitude": np.full(2, 0.3), "scatter": SCALES / data.scale}
    sites |= {n: centre * np.exp(0.05 * rng.normal(size=(*shape, len(centre)))) for n, centre in around.items()}
    if rho:
        rhos = rho + 0.03 * rng.normal(size=shape)
        matrix = np.stack([np.ones(shape), np.zeros(shape), rhos, np.sqrt(1 - rhos**2)], -1)
        sites["correlation_cholesky"] = matrix.reshape(*shape, 2, 2)
    unconstrained = Unconstrained.of(model, data)
    flat = {name: value.reshape(-1, *value.shape[2:]) for name, value in sites.items()}
    fields = jax.tree.map(np.asarray, jax.jit(jax.vmap(unconstrained.field))(flat))
    data = on_basis(data, fields)
    statistic = statistic_of(data)
    theta = np.stack([flat[p.name] for p in MILKY_WAY.parameters], 1)
    joint = jax.jit(lambda field, found: hilbert_log_likelihood(field, found, data.basis))
    values = [float(joint(jax.tree.map(lambda v: v[s], fields), statistic(theta[s]))) for s in range(len(theta))]  # noqa: B023
    statistics = {"log_likelihood": np.reshape(values, shape)}
    mode = {name: value[0, 0] for name, value in sites.items()}
    found = Posterior(sites, mode, statistics, True, {}, None, None, data, unconstrained, statistic)
    return xr.DataTree.from_dict(posterior_groups(found, predictions(unconstrained, data, sites, statistic, 0)))


@pytest.fixture(scope="module")
def joint():
    return result_of(joint_abundances, 0.7)


def test_the_model_with_the_correlation_that_is_there_is_preferred(joint):
    """By 200 x 0.34, which a correlation of 0.7 is worth, within four standard errors. Warnings are errors."""
    import arviz as az

    found = az.loo(joint, pointwise=True)
    assert np.isfinite(found.pareto_k).all() and not found.warning and found.n_data_points == 200
    independent = result_of(independent_elements, None)
    np.testing.assert_array_equal(joint["log_likelihood"].star, independent["log_likelihood"].star)
    table = az.compare({"independent": independent, "joint": joint}, round_to="none")
    assert list(table.index) == ["joint", "independent"]
    difference, error = table.loc["independent", ["elpd_diff", "dse"]]
    assert abs(difference + 200 * 0.5 * -np.log(1 - 0.7**2)) < 4 * error < 0.7 * abs(difference)


def with_log_likelihood(result, group):
    return xr.DataTree.from_dict(result.to_dict() | {"/log_likelihood": group})


def test_the_recipes_of_the_docs(joint):
    """Leave-one-out PIT of each element, and sensitivity to prior and likelihood."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import arviz as az

    star = joint["log_likelihood"].dataset.abundances.sel(draw=joint["posterior_predictive"].draw)
    by_element = with_log_likelihood(joint, xr.Dataset({e: star for e in joint["observed_data"].data_vars}))
    pit = az.loo_pit(by_element)
    for element in ("FE_H", "MG_FE"):
        assert abs(float(pit[element].mean()) - 0.5) < 4 / np.sqrt(12 * 200)
        assert abs(float(pit[element].std()) - 12**-0.5) < 0.05
    az.plot_loo_pit(by_element)
    whole = with_log_likelihood(joint, joint["sample_stats"].dataset[["log_likelihood"]])
    table = az.psense_summary(whole, var_names=["m_disk", "h_z"])
    assert np.isfinite(table[["prior", "likelihood"]].to_numpy(float)).all()
    az.plot_psense_dist(whole, var_names=["m_disk", "h_z"])
    matplotlib.pyplot.close("all")


def test_heavy_tails_are_preferred_where_they_are_and_only_there():
    """The weights have seen the star, the density by which it is judged has not: it is no better where scatter is
    Gaussian. At the scatter that each of the models would have."""
    normal = correlated(0.0)
    t = normal / np.sqrt(np.random.default_rng(7).gamma(2.0, 0.5, (200, 1)))
    theta, preferred, made, x = np.array(MILKY_WAY.Parameters()), {}, None, None
    for name, noise, widths in (("normal", normal, {None: 1.0, 4.0: 0.8}), ("t", t, {None: 2**0.5, 4.0: 1.0})):
        prepared, total = prepare_stars(drawn_stars(noise), ["FE_H", "MG_FE"], "local", every=False), {}
        for tails, width in widths.items():
            data = likelihood_data(prepared, requirements=Requirements(tails=tails))
            field = GaussianField(np.array([3.0, 4.0, 3.0]), np.full(2, 0.3), np.diag(width * SCALES / data.scale))
            if made is None:
                made = on_basis(data, jax.tree.map(lambda leaf: leaf[None], field))
                x = jax.jit(all_inputs, static_argnums=0)(made, theta)
            data = replace(data, reference=made.reference, basis=made.basis)
            found = found_of(data, x, np.ones(200))
            total[tails] = leave_one_out(data, field, found, x, np.arange(200)).sum()
        preferred[name] = float(total[4.0] - total[None])
    assert preferred["t"] > 15 and -20 < preferred["normal"] < -5, preferred
