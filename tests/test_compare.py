"""The comparison of equation 8, chi^2 and the posterior, and its figure, against results made by hand."""

import json

import numpy as np
import pytest
import xarray as xr

from otibayes.analysis.comparison import compare, describe, summary
from otibayes.analysis.plot import plot_comparison
from otibayes.base.errors import InputError

NAMES = ("m_disk", "h_z")
TRUTH = {"m_disk": 1.1, "h_z": 0.32}
MEAN, COVARIANCE = np.array([1.0, 0.3]), np.array([[0.01, 0.002], [0.002, 0.0016]])


def root(kind, **attrs):
    shared = {"otibayes_kind": kind, "parameters": ",".join(NAMES), "truth": json.dumps(TRUTH), "dropped": "{}"}
    shared |= {"catalogue_sha256": "abc", "elements": "MG_FE,FE_H", "stars": 3, "otibayes_schema": 1}
    return xr.Dataset(attrs=shared | attrs)


def variables(values, dims):
    """m_disk, h_z and one derived quantity, their product."""
    named = {"m_disk": values[..., 0], "h_z": values[..., 1], "Sigma_1p1": values[..., 0] * values[..., 1]}
    units = {"h_z": "kpc", "Sigma_1p1": "Msun/pc^2"}
    return xr.Dataset({n: (dims, v, {"units": units.get(n, "")}) for n, v in named.items()})


@pytest.fixture
def posterior():
    rng = np.random.default_rng(1)
    draws = rng.multivariate_normal(MEAN, COVARIANCE, (4, 250))
    groups = {
        "posterior": variables(draws, ("chain", "draw")),
        "sample_stats": xr.Dataset({"diverging": (("chain", "draw"), np.zeros((4, 250), bool))}),
        "constant_data": xr.Dataset({"row": ("star", [0, 1, 2])}),
    }
    numbers = {"max_r_hat": 1.002, "min_ess_bulk": 900.0, "min_ess_tail": 800.0, "divergences": 0, "converged": 1}
    return xr.DataTree.from_dict({"/": root("posterior", **numbers), **groups})


INTERVAL = np.array([[[0.9, 1.3], [0.2, np.nan]], [[0.8, 1.5], [0.1, 0.5]]])  # element, parameter, side


def make_classical(combinations=("product", "gls", "chi2"), possible=True):
    rng = np.random.default_rng(2)
    replicates = rng.multivariate_normal(MEAN + np.array([0.2, 0.1]), 4 * COVARIANCE, (1, 30, 2))
    elements = ["MG_FE", "FE_H"]
    over = ("chain", "draw", "element")
    number = len(combinations)
    scale = np.array([0.5, 1.0, 2.0])[:number]
    means = MEAN + scale[:, None] * [0.1, 0.02]
    joint = xr.Dataset(
        {
            "mean": (("combination", "parameter"), means),
            "interval": (("combination", "parameter", "side"), means[..., None] + [[-0.3, 0.1], [np.nan, 0.1]]),
            "covariance": (("combination", "parameter", "parameter_2"), scale[:, None, None] * COVARIANCE),
            "derived_mean": (("combination", "derived"), np.full((number, 1), 0.33 if possible else np.nan)),
            "derived_sd": (("combination", "derived"), np.full((number, 1), 0.05)),
            "derived_interval": (("combination", "derived", "side"), np.full((number, 1, 2), [0.3, 0.4])),
            "possible": ("combination", np.full(number, possible)),
        },
        {"combination": list(combinations), "parameter": list(NAMES), "derived": ["Sigma_1p1"]},
    )
    ones = np.ones((1, 30, 2))
    groups = {
        "posterior": variables(replicates, over).assign_coords(element=elements),
        "sample_stats": xr.Dataset({"converged": (over, ones), "at_bound": (over, 0.2 * ones)}),
        "valley": xr.Dataset(
            {
                "eigenvalues": (("element", "eigenvalue"), np.array([[0.0, 1.0], [0.0, 2.0]])),
                "flat": (("element", "parameter"), np.array([[1.0, 0.0], [0.99, 0.1]])),
                "ends": (("element", "start", "parameter"), np.zeros((2, 4, 2))),
                "spread": (("element", "parameter"), np.array([[0.11, 0.0], [0.17, 0.01]])),
            },
            {"element": elements, "parameter": list(NAMES)},
        ),
        "constant_data": xr.Dataset({"row": ("star", [0, 1, 2])}),
    }
    shift = xr.DataArray([[0.5, 0.1], [-0.2, 0.25]], dims=("element", "parameter"))
    coords = {"element": elements, "parameter": list(NAMES)}
    weights = {"shift": shift, "missing_errors": ("element", [0, 4])}
    groups["weights"] = xr.Dataset(weights, coords, {"weights": "paper", "other": "equal"})
    if number:
        groups["joint"] = joint
    if "chi2" in combinations:
        optimum = variables(np.array([[1.05, 0.28], [1.1, 0.31]]), ("element",))
        for name, high in zip(NAMES, (1.8, 1.0), strict=True):
            optimum[name].attrs |= {"low": 0.05, "high": high}
        numbers = {"value": ("element", [7.0, 9.0]), "p_value": ("element", [0.5, 0.4])}
        numbers["interval"] = (("element", "parameter", "side"), INTERVAL)
        groups["chi2"] = optimum.assign(numbers).assign_coords(coords).assign_attrs(dof=8)
    return xr.DataTree.from_dict({"/": root("classical"), **groups})


def test_table(posterior):
    table = compare(make_classical(), posterior)
    assert list(table.index) == ["m_disk", "h_z", "Sigma_1p1"] and table.attrs["eq8"] == "gls"
    row, draws = table.loc["m_disk"], posterior["posterior"]["m_disk"].values
    assert row.eq8_mean == pytest.approx(1.1) and row.eq8_sd == pytest.approx(0.1)
    assert row.eq8_product_mean == pytest.approx(1.05) and row.eq8_product_sd == pytest.approx(0.1 / np.sqrt(2))
    assert row.chi2_mean == pytest.approx(1.2) and row.chi2_sd == pytest.approx(0.1 * np.sqrt(2))
    assert [row.chi2_FE_H, row.chi2_FE_H_low, row.chi2_FE_H_high] == [1.1, 0.8, 1.5]
    assert table.chi2_MG_FE["h_z"] == 0.28 and np.isnan(table.chi2_MG_FE_high["h_z"])
    assert np.isfinite(table.chi2_MG_FE["Sigma_1p1"]) and np.isnan(table.chi2_MG_FE_low["Sigma_1p1"])
    assert row.posterior_mean == pytest.approx(draws.mean()) and row.posterior_sd == pytest.approx(draws.std(ddof=1))
    assert [row.low_95, row.high_95] == pytest.approx(np.quantile(draws, [0.025, 0.975]))
    assert [row.chi2_low_68, row.chi2_high_68] == pytest.approx([0.9, 1.3]) and np.isnan(table.chi2_low_68["h_z"])
    assert [table.chi2_low_68["Sigma_1p1"], table.chi2_high_68["Sigma_1p1"]] == [0.3, 0.4]
    assert row.difference_sigma == pytest.approx((1.2 - draws.mean()) / np.hypot(0.3, draws.std(ddof=1)))
    h_z = posterior["posterior"]["h_z"].values
    sd = np.hypot(table.chi2_sd["h_z"], h_z.std(ddof=1))  # open on that side
    assert table.difference_sigma["h_z"] == pytest.approx((table.chi2_mean["h_z"] - h_z.mean()) / sd)
    assert row.r_hat == pytest.approx(1, abs=0.02) and row.ess_bulk > 500 and row.ess_tail > 400
    assert row.truth == 1.1 and np.isnan(table.truth["Sigma_1p1"]) and table.unit["h_z"] == "kpc"
    replicates = make_classical()["posterior"]["m_disk"].sel(element="FE_H").values
    assert [row.eq8_FE_H_mean, row.eq8_FE_H_sd] == pytest.approx([replicates.mean(), replicates.std(ddof=1)])
    assert table.eq8_mean["Sigma_1p1"] == 0.33
    assert not any("classical" in column for column in table)


def test_answers_that_are_far_apart_are_marked(posterior):
    assert not any("sigma apart" in note for note in compare(make_classical(), posterior).note)
    heavy = posterior.copy()
    heavy["posterior"] = xr.DataTree(heavy["posterior"].dataset.assign(m_disk=heavy["posterior"].m_disk + 0.8))
    table = compare(make_classical(), heavy)
    assert "chi^2 and the posterior are" in table.note["m_disk"] and "zero point" in table.note["m_disk"]
    assert "sigma apart" not in table.note["h_z"]


def test_a_posterior_that_pulls_itself_is_marked(posterior):
    assert compare(make_classical(), posterior).pull.isna().all()
    assert not any("pull" in line for line in describe(make_classical(), posterior))
    posterior["pull"] = xr.Dataset({"m_disk": 0.7, "h_z": 0.2, "slope": ("parameter", [3.0, 1.0])})
    table = compare(make_classical(), posterior)
    assert [table.pull.m_disk, table.pull.h_z] == [0.7, 0.2] and np.isnan(table.pull["Sigma_1p1"])
    assert "own pull is +0.7 sigma" in table.note.m_disk and "pull" not in table.note.h_z
    assert any("m_disk +0.7, h_z +0.2 sigma" in line for line in describe(make_classical(), posterior))


def test_what_is_ill_determined_is_said(posterior):
    classical = make_classical()
    table = compare(classical, posterior)
    assert "ill-determined" in table.note["m_disk"] and "0.17" in table.note["m_disk"] and not table.note["h_z"]
    lines = "\n".join(describe(classical, posterior))
    assert "valley (MG_FE)" in lines and "m_disk +1.00" in lines and "20% are at a bound" in lines
    assert "eq. 8: errors across its valley only" in lines and "MG_FE 7.0 (p 0.50)" in lines
    assert "weights (MG_FE): equal weights in place of paper move eq. 8 in m_disk by +0.5 bootstrap sd" in lines
    assert "weights (FE_H): 4 stars without an error have the median error" in lines and "h_z by" not in lines
    assert "lower limit" in lines and "3 used" in lines and "NOT CONVERGED" not in lines
    posterior.attrs |= {"converged": 0, "divergences": 7}
    assert "7 divergences" in "\n".join(describe(classical, posterior))
    assert "NOT CONVERGED" in "\n".join(describe(classical, posterior))


def test_without_gls_the_product_and_without_any_none(posterior):
    table = compare(make_classical(["product"]), posterior)
    assert table.attrs["eq8"] == "product" and table.eq8_sd["m_disk"] == pytest.approx(0.1 / np.sqrt(2))
    assert table.chi2_mean.isna().all() and table.difference_sigma.isna().all()
    assert "errors are too small" in "\n".join(describe(make_classical(["product"]), posterior))
    table = compare(make_classical([]), posterior)
    assert table.attrs["eq8"] == "none" and table.eq8_mean.isna().all()
    assert np.isfinite(table[["eq8_MG_FE_mean", "eq8_MG_FE_sd"]].to_numpy()).all()
    assert "-" in summary(table) and "no joint" in "\n".join(describe(make_classical([]), posterior))


def test_joint_mean_out_of_bounds_is_said(posterior):
    table = compare(make_classical(possible=False), posterior)
    assert np.isnan(table.eq8_mean["Sigma_1p1"]) and "outside the bounds" in table.note["Sigma_1p1"]
    assert "outside the bounds" in summary(table)


def test_summary_names_units_and_truth(posterior):
    text = summary(compare(make_classical(), posterior))
    assert "h_z [kpc]" in text and "truth" in text
    assert "* eq. 8 of Price-Whelan et al. (2021), generalised least squares over elements: errors across its" in text
    assert "1.1 (0.8, 1.5)" in text and "0.28 (0.2, nan)" in text


def test_different_stars_are_said(posterior):
    posterior["constant_data"]["row"] = ("star", [0, 1, 5])
    assert "not of the same stars" in "\n".join(describe(make_classical(), posterior))


def test_wrong_order_and_other_models_are_refused(posterior):
    with pytest.raises(InputError, match="in that order"):
        compare(posterior, make_classical())
    classical = make_classical()
    classical.attrs["parameters"] = "m_disk,h_z,q"
    with pytest.raises(InputError, match="different mass models"):
        compare(classical, posterior)


def test_figure_shows_every_projection(posterior, tmp_path):
    figure = plot_comparison(make_classical(), posterior)
    visible = [ax for ax in figure.axes if ax.get_visible()]
    assert len(visible) == 1 and visible[0].get_ylabel().endswith("[kpc]")
    assert len(visible[0].patches) == 2 * 3  # 1 and 2 sigma of two elements and the joint constraint
    low, high = visible[0].get_xlim()
    assert low < 1.1 < high
    bars = {c.get_label(): c.lines[2] for c in visible[0].containers}
    assert list(bars) == ["chi$^2$, MG_FE (68%)", "chi$^2$, FE_H (68%)"]
    across, up = (bar.get_segments()[0] for bar in bars["chi$^2$, MG_FE (68%)"])
    np.testing.assert_allclose(across[:, 0], [0.9, 1.3])
    np.testing.assert_allclose(up[:, 1], [0.2, 1.0])  # an open side ends at the bound
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "* errors across its valley only" in labels and not any("classical" in label for label in labels)
    assert all("eq. 8*" in label for label in labels if "joint" in label)
    figure.savefig(tmp_path / "figure.png")
    assert figure._repr_png_()[:4] == b"\x89PNG" and (tmp_path / "figure.png").stat().st_size > 10_000


def test_figure_of_a_posterior_that_does_not_move(posterior):
    for name in NAMES:
        posterior["posterior"][name][...] = 0.5
    assert plot_comparison(make_classical([]), posterior).axes
