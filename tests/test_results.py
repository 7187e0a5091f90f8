"""Both paths to a result on few stars: its schema, files, models of a user's own, what is refused."""

import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import xarray as xr
from otibayes.models.free_circular_velocity import FREE

import otibayes as oti
from otibayes.base.errors import InputError
from otibayes.base.parameters import TABLE
from otibayes.classical.joint import joint_constraints
from otibayes.classical.settings import ClassicalSettings
from otibayes.dynamics import MILKY_WAY
from otibayes.generative.model import load_model
from otibayes.generative.settings import SampleSettings
from otibayes.results import schema
from otibayes.results.provenance import digest, origins

NAMES = [p.name for p in TABLE]
FEW = {"bootstraps": 8, "neighbours": 24}
SHORT = {"chains": 2, "warmup": 60, "draws": 25, "basis_size": 16}


@pytest.fixture(scope="module")
def stars():
    return oti.embedded_stars()[:120]


@pytest.fixture(scope="module")
def classical(stars):
    return oti.fit_classical(stars, seed=1, **FEW)


@pytest.fixture(scope="module")
def posterior(stars):
    return oti.sample(stars, ["FE_H", "MG_FE"], seed=1, **SHORT)


def test_classical_schema(classical, stars):
    assert set(classical.children) == {
        *("posterior", "sample_stats", "optimum", "valley", "weights", "joint", "surface", "constant_data")
    }
    draws = classical["posterior"].dataset
    assert dict(draws.sizes) == {"chain": 1, "draw": 8, "element": 2}
    assert list(draws.element.values) == ["MG_FE", "FE_H"]
    assert set(draws.data_vars) == {*NAMES, *schema.DERIVED}
    for p in TABLE:
        assert draws[p.name].attrs["units"] == p.unit
        assert (draws[p.name] >= p.low).all() and (draws[p.name] <= p.high).all()
    theta = MILKY_WAY.Parameters(*(float(draws[name][0, 3, 1]) for name in NAMES))
    for name, value in oti.derived_quantities(theta).items():
        assert float(draws[name][0, 3, 1]) == pytest.approx(float(value), rel=1e-9)
    # 8 bootstraps do not suffice for generalised least squares over 2 x 4
    assert classical["joint"].combination.values.tolist() == ["product"]
    assert classical["sample_stats"]["converged"].dtype == bool
    assert classical["surface"].attrs["passes"] >= 50 + 16
    assert "across its valley only" in draws.attrs["long_name"]
    assert json.loads(classical.attrs["settings"])["bins"] == 3  # as asked, though 120 stars are too few for bins
    np.testing.assert_array_equal(classical["constant_data"]["row"], stars.row)


def test_joint_of_known_replicates():
    """Product of Gaussians by hand; derived quantities of it to first order, against finite differences."""
    rng = np.random.default_rng(0)
    centre, sd = np.array([1.0, 0.3, 20.0, 7.8]), np.array([0.05, 0.02, 3.0, 0.2])
    joint = joint_constraints(centre + sd * rng.normal(size=(2, 60, 4)), MILKY_WAY)
    assert joint.combination.values.tolist() == ["product", "gls"]
    assert (np.abs(joint["mean"].values[0] - centre) < 0.4 * sd).all()
    one = joint.sel(combination="product")
    theta, step = one["mean"].values, 1e-4 * sd
    up, down = (schema.derived_of(theta + s * np.diag(step), MILKY_WAY)["Sigma_1p1"] for s in (1, -1))
    slope = (up - down) / (2 * step)
    expected = math.sqrt(slope @ one.covariance.values @ slope)
    assert float(one.derived_sd.sel(derived="Sigma_1p1")) == pytest.approx(expected, rel=1e-5)
    # M_disk is m_disk in another unit, so that their relative widths are one
    ratio = float(one.derived_sd.sel(derived="M_disk") / one.derived_mean.sel(derived="M_disk"))
    assert ratio == pytest.approx(math.sqrt(one.covariance.values[0, 0]) / theta[0], rel=1e-9)


def test_joint_that_is_no_mass_model_derives_nothing():
    rng = np.random.default_rng(0)
    far = np.array([1.79, 0.05, 20.0, 7.8]) + [0.01, 0.01, 3.0, 0.2] * rng.normal(size=(1, 20, 4))
    joint = joint_constraints(far, MILKY_WAY)
    assert not joint.possible.any() and joint.derived_mean.isnull().all()
    assert joint_constraints(far[:, :3], MILKY_WAY) is None  # three replicates, four parameters


def test_posterior_schema(posterior, stars):
    assert set(posterior.children) == {
        *("posterior", "sample_stats", "prior", "prior_predictive", "posterior_predictive", "observed_data"),
        *("field", "mode", "constant_data", "timings", "pull", "log_likelihood", "log_prior", "surface"),
    }
    draws = posterior["posterior"].dataset
    assert {*NAMES, *schema.DERIVED, "amplitude", "scatter", "correlation", "length_scale"} == set(draws.data_vars)
    assert draws.m_disk.dims == ("chain", "draw") and dict(draws.m_disk.sizes) == {"chain": 2, "draw": 25}
    assert draws.element.values.tolist() == ["FE_H", "MG_FE"]
    np.testing.assert_allclose(np.diagonal(draws.correlation, axis1=-2, axis2=-1), 1, rtol=1e-6)
    # in dex: the residual scatter is of the order of the abundances' own
    for element in ("FE_H", "MG_FE"):
        sd = np.std(stars.abundances[element])
        assert 0.2 * sd < float(draws.scatter.sel(element=element).mean()) < 2 * sd
    statistics = posterior["sample_stats"].dataset
    names = {"lp", "diverging", "n_steps", "tree_depth", "acceptance_rate", "energy", "step_size", "log_likelihood"}
    assert names == set(statistics.data_vars)
    assert (statistics.n_steps < 2**statistics.tree_depth).all()
    assert (statistics.energy >= -statistics.lp).all()  # the Hamiltonian is the potential and a kinetic energy
    data = posterior["constant_data"].dataset
    np.testing.assert_array_equal(data.row, stars.row)
    np.testing.assert_array_equal(data.abundances.sel(element="MG_FE"), stars.abundances["MG_FE"])


def test_predictions_are_of_the_stars(posterior, stars):
    seen, predicted = posterior["observed_data"].dataset, posterior["posterior_predictive"].dataset
    assert list(seen.data_vars) == list(predicted.data_vars) == ["FE_H", "MG_FE"]
    np.testing.assert_allclose(seen.FE_H, stars.abundances["FE_H"][seen.star.values], rtol=1e-9)
    assert predicted.FE_H.dims == ("chain", "draw", "star")
    np.testing.assert_array_equal(predicted.star, seen.star)
    # about the field at the same draws, predictions scatter as the draws say
    field, data = posterior["field"].dataset, posterior["constant_data"].dataset.isel(star=seen.star.values)
    J = np.empty((2, 25, len(seen.star), 3))
    for chain, draw in np.ndindex(2, 25):
        theta = MILKY_WAY.Parameters(*field.theta.values[chain, draw])
        w = oti.phase_space(stars[seen.star.values], theta)
        aa = oti.action_angle(w, theta, delta=data.delta.values)
        J[chain, draw] = np.stack([aa.J_R, aa.L_z, aa.J_z], -1)
    mean, scatter = oti.field_at(posterior, J), posterior["posterior"].scatter
    for element in seen:
        off = predicted[element].values - mean.sel(element=element).values
        off = off / scatter.sel(element=element, draw=field.draw).values[..., None]
        assert abs(off.std() - 1) < 5 / np.sqrt(2 * off.size) and abs(off.mean()) < 5 / np.sqrt(off.size)
    assert float(posterior["prior_predictive"]["FE_H"].std() / seen.FE_H.std()) > 3  # the trend's prior is wide


def test_leave_one_out_densities_are_of_the_stars_that_are_shown(posterior):
    found, prior = posterior["log_likelihood"].dataset, posterior["log_prior"].dataset
    assert list(found.data_vars) == ["abundances"] and found.abundances.dims == ("chain", "draw", "star")
    np.testing.assert_array_equal(found.star, posterior["observed_data"].star)
    assert set(posterior["posterior_predictive"].draw.values) <= set(found.draw.values)
    assert np.isfinite(found.abundances).all() and found.abundances.std("draw").max() < 2
    assert {*NAMES, "amplitude", "scatter", "length_scale", "correlation_cholesky"} <= set(prior.data_vars)
    assert all(dict(values.sizes) == {"chain": 2, "draw": 25} for values in prior.data_vars.values())


def test_the_pull_is_told_of_every_parameter_and_derived_quantity(posterior):
    """To first order: that of the parameters is their covariance times the slope."""
    pull, draws = posterior["pull"].dataset, posterior["posterior"].dataset
    assert set(pull.data_vars) == {*NAMES, *schema.DERIVED, "slope"} and list(pull.parameter.values) == NAMES
    theta = np.stack([draws[name].values.ravel() for name in NAMES])
    covariance = np.cov(theta)
    expected = covariance @ pull.slope.values / np.sqrt(np.diag(covariance))
    np.testing.assert_allclose([float(pull[name]) for name in NAMES], expected, rtol=1e-9)
    assert pull.M_disk == pytest.approx(float(pull.m_disk), rel=1e-6)  # proportional


def test_timings_tell_the_stages(posterior):
    timings = posterior["timings"].dataset
    stages = timings.stage.values.tolist()
    assert stages[:4] == ["preparation", "model", "basis", "maximum, 120 stars"]
    assert stages[-5:] == ["NUTS", "check", "pull", "draws", "predictions"]
    assert (timings.seconds > 0).all()


PLOTS = ["autocorr", "dist", "ess", "forest", "mcse", "pair", "prior_posterior", "rank", "ridge", "trace", "trace_dist"]


def test_every_plot_of_arviz_that_people_use(posterior, tmp_path):
    """On what comes back from a file."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import arviz as az
    from matplotlib import pyplot

    oti.save(posterior, tmp_path / "posterior.nc")
    tree = oti.load(tmp_path / "posterior.nc")
    for name in PLOTS:
        getattr(az, f"plot_{name}")(tree, var_names=NAMES)
    az.plot_energy(tree)
    az.plot_ppc_dist(tree, num_samples=20)
    az.plot_ppc_dist(tree, group="prior_predictive", num_samples=20)
    az.plot_ppc_pit(tree)
    assert len(az.summary(tree, var_names=NAMES)) == len(NAMES)
    assert len(pyplot.get_fignums()) >= len(PLOTS)
    pyplot.close("all")


def test_figures_of_our_own(posterior, tmp_path):
    found = oti.null_test(posterior)
    figures = [oti.plot_field(posterior), oti.plot_profiles(posterior), oti.plot_null_test(posterior, found)]
    for i, figure in enumerate(figures):
        figure.savefig(tmp_path / f"{i}.png")
        assert (tmp_path / f"{i}.png").stat().st_size > 20_000
    assert [len(figure.axes) for figure in figures] == [16, 4, 4]  # panels and their colour bars


def test_profiles_are_those_of_the_derived_quantities(posterior):
    curves = oti.profiles(posterior, z=1.1, R=8.122)
    draws = posterior["posterior"].dataset
    np.testing.assert_allclose(curves.K_z[..., 0], draws.K_z_1p1, rtol=1e-9)
    np.testing.assert_allclose(curves.Sigma[..., 0], draws.Sigma_1p1, rtol=1e-5)
    np.testing.assert_allclose(curves.v_circ, 229.0, rtol=1e-9)
    np.testing.assert_allclose(curves.rho_DM[..., 0], draws.rho_DM, rtol=1e-3)  # in the plane, not at the Sun
    with pytest.raises(InputError, match="the mass model's are not"):
        oti.profiles(posterior, mass_model=FREE)


def test_attributes(classical, posterior, stars):
    for tree, kind in ((classical, "classical"), (posterior, "posterior")):
        a = tree.attrs
        assert a["otibayes_kind"] == kind and a["seed"] == 1 and a["stars"] == 120
        assert a["catalogue_sha256"] == stars.provenance.sha256
        assert {"otibayes", "jax", "numpyro", "numpy"} <= set(json.loads(a["versions"]))
        truth = json.loads(a["truth"])
        assert truth["m_disk"] == 1.1 and {*NAMES, *schema.DERIVED} == set(truth)
        assert json.loads(a["provenance"])["rows"] == 4000
    assert json.loads(posterior.attrs["settings"])["likelihood"] == "hilbert"
    assert {"max_r_hat", "min_ess_bulk", "min_ess_tail", "divergences", "converged"} <= set(posterior.attrs)
    assert posterior.attrs["converged"] == 0  # fifty draws


def test_save_and_load_give_the_same(classical, posterior, tmp_path):
    for tree in (classical, posterior):
        path = tmp_path / "result.nc"
        oti.save(tree, path)
        loaded = oti.load(path)
        xr.testing.assert_identical(tree, loaded)
        oti.save(loaded, path)  # over the file that it came from, which is closed
        assert [p.name for p in tmp_path.iterdir()] == ["result.nc"]


def test_save_leaves_nothing_half_written(posterior, tmp_path):
    path = tmp_path / "result.nc"
    path.write_text("before")
    broken = posterior.copy()
    broken.attrs["bad"] = None  # netCDF cannot hold it
    with pytest.raises(TypeError):
        oti.save(broken, path)
    assert path.read_text() == "before" and [p.name for p in tmp_path.iterdir()] == ["result.nc"]
    with pytest.raises(InputError, match="cannot be written"):
        oti.save(posterior, tmp_path / "absent" / "result.nc")


def test_load_refuses_what_is_not_ours(posterior, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        oti.load(tmp_path / "absent.nc")
    with pytest.raises(InputError, match="folder"):
        oti.load(tmp_path)
    (tmp_path / "text.nc").write_text("hello")
    with pytest.raises(InputError, match="cannot be read as netCDF"):
        oti.load(tmp_path / "text.nc")
    xr.Dataset({"x": 1}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(InputError, match="not a result of otibayes"):
        oti.load(tmp_path / "other.nc")
    path = tmp_path / "posterior.nc"
    oti.save(posterior, path)
    with pytest.raises(InputError, match="holds a posterior where a classical fit is needed"):
        oti.load(path, "classical")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="complete"):
        oti.load(path)
    old = posterior.copy()
    old.attrs["otibayes_schema"] = 0
    oti.save(old, path)
    with pytest.raises(InputError, match="schema 0"):
        oti.load(path)


def test_same_seed_same_classical_result(stars, classical):
    again = oti.fit_classical(stars, seed=1, **FEW)
    xr.testing.assert_identical(again["posterior"].dataset, classical["posterior"].dataset)


def identity(*inputs):
    return digest(json.dumps(origins(*inputs), sort_keys=True))


def test_identity_follows_from_every_input(stars):
    settings = SampleSettings().record()
    name = identity(stars, None, 0, settings)
    assert name == identity(oti.embedded_stars()[:120], ["MG_FE", "FE_H"], 0, settings)
    others = [
        (stars[:119], None, 0, settings),
        (stars, ["MG_FE"], 0, settings),
        (stars, None, 1, settings),
        (stars, None, 0, SampleSettings(draws=499).record()),
        (stars, None, 0, settings, FREE),
    ]
    assert len({name, *(identity(*other) for other in others)}) == 6


def test_identity_of_a_classical_result_follows_from_mass_model_and_every_setting(stars):
    settings = ClassicalSettings()
    others = [{"bins": 2}, {"weights": "equal"}, {"own_copies": True}, {"all_terms": True}, {"surface": False}]
    others += [{"naive_mean": True}, {"detrended": True}, {"angle": "theta_R"}, {"moment": "scatter"}, {"delta": 3.6}]
    others += [{"neighbours": 32}, {"method": "galpy"}, {"bootstraps": 64}]
    assert len(others) == len(fields(ClassicalSettings))
    names = [identity(stars, None, 0, ClassicalSettings(**other).record()) for other in others]
    names += [identity(stars, None, 0, settings.record()), identity(stars, None, 0, settings.record(), FREE)]
    assert len(set(names)) == len(others) + 2


def test_settings_or_keywords(stars):
    with pytest.raises(InputError, match="settings= or keywords, not both; keywords were bins"):
        oti.fit_classical(stars, settings=ClassicalSettings(), bins=2)
    with pytest.raises(InputError, match="no setting 'polish'; choose from bootstraps"):
        oti.fit_classical(stars, polish=True)


def test_a_star_without_an_error_keeps_the_weights_of_the_others(stars, classical):
    sigma = stars.errors["MG_FE"].copy()
    sigma[7] = np.nan
    found = oti.fit_classical(replace(stars, errors=stars.errors | {"MG_FE": sigma}), seed=1, **FEW)
    weights = found["weights"].dataset
    assert weights.missing_errors.values.tolist() == [1, 0] and found.attrs["stars"] == classical.attrs["stars"]
    assert float(weights.median_error[0]) == pytest.approx(np.nanmedian(sigma))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "agama"}, "unknown action method"),
        ({"delta": "global"}, "delta must be"),
        ({"delta": -1.0}, "positive"),
        ({"delta": np.ones(3)}, r"delta has shape \(3,\)"),
        ({"bootstraps": 1}, "at least 2"),
        ({"elements": ["FE_H", "FE_H"]}, "given twice"),
        ({"elements": []}, "no elements"),
        ({"elements": ["MN_H"]}, "MN_H is not in the catalogue"),
    ],
)
def test_fit_classical_refuses(stars, given, message):
    with pytest.raises(InputError, match=message):
        oti.fit_classical(stars, **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"likelihood": "sparse"}, "unknown likelihood"),
        ({"likelihood": "dense"}, "no-surface"),
        ({"model": "linear"}, "unknown model"),
        ({"model": "absent.py"}, "no such model file"),
        ({"draws": 2}, "draws=2 is too small"),
        ({"draws": 10, "chains": 2}, "too few to check the surface"),
        ({"drawz": 10}, "no setting 'drawz'; choose from model, likelihood"),
        ({"draws": 10, "settings": SampleSettings()}, "settings= or keywords, not both"),
    ],
)
def test_sample_refuses(stars, given, message):
    with pytest.raises(InputError, match=message):
        oti.sample(stars, **given)


def write_model(folder, name, text):
    path = folder / f"{name}.py"
    path.write_text(text)
    return path


def test_a_model_of_ones_own(stars, tmp_path):
    text = """
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from otibayes.generative import GaussianField, sample_parameters

def model(data):
    theta = sample_parameters(data.model)
    slope = numpyro.sample("slope", dist.Normal(0, 1).expand([2]).to_event(1))
    lengths, amplitude = jnp.full(3, 3.0), jnp.full(len(data.elements), 0.5)
    scatter = jnp.diag(jnp.exp(0.1 * slope))
    return theta, GaussianField(lengths, amplitude, scatter, "matern52")
"""
    path = write_model(tmp_path, "mine", text)
    tree = oti.sample(stars, model=path, keep_stars=50, **SHORT)
    assert tree["posterior"]["slope"].dims == ("chain", "draw", "slope_dim_0")
    # some of the stars are in the result, and what reads it is of these
    data = tree["constant_data"].dataset
    assert tree.attrs["stars"] == 120 and data.sizes["star"] == 50 and np.unique(data.star).size == 50
    np.testing.assert_array_equal(data.abundances.sel(element="FE_H"), stars.abundances["FE_H"][data.star.values])
    np.testing.assert_array_equal(data.row, stars.row[data.star.values])
    assert np.isfinite(oti.null_test(tree).amplitude).all() and 40 < oti.vertical_plane(tree)["count"].sum() <= 50
    assert json.loads(tree.attrs["settings"])["model"].startswith("mine.py ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def other(data): pass", "it defines neither"),
        ("def mine(data): pass\ndef model(data): pass", "it defines both"),
        ("def mine(): pass", "must take one argument"),
        ("def mine(a, b): pass", "it takes 2"),
        ("import absent_module", "ModuleNotFoundError"),
        ("def mine(:", "SyntaxError"),
    ],
)
def test_a_model_that_cannot_be_used(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as error:
        load_model(write_model(tmp_path, "mine", text))
    assert "\n" not in str(error.value)
