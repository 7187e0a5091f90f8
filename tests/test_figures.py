"""The paper's figures and Table 1: what they show is checked through the artists, on small samples."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import otibayes as oti
from otibayes.analysis.plot.abundances import _start
from otibayes.analysis.table_1 import table_1, table_1_text
from otibayes.base.errors import InputError
from otibayes.base.parameters import TABLE
from otibayes.classical.joint import joint_gls, joint_product
from otibayes.classical.local_mean import deviation
from otibayes.classical.settings import ClassicalSettings
from otibayes.cli import main
from otibayes.dynamics import action_angle, phase_space
from otibayes.results.schema import SCHEMA

ELEMENTS = ["MG_FE", "FE_H", "O_FE"]
MEAN = np.array([1.1, 0.3, 15.0, 8.0])
SD = np.array([0.05, 0.02, 4.0, 0.3])
FEW = ClassicalSettings(bootstraps=5)


@pytest.fixture(scope="module")
def stars():
    return oti.embedded_stars()[:500]


@pytest.fixture(scope="module")
def problem(stars):
    return oti.prepare_stars(replace(stars, errors={}), ["FE_H", "MG_FE"], 3.6, method="staeckel")


def replicates():
    """Three elements that share most of their noise, (E, B, d)."""
    rng = np.random.default_rng(4)
    common = rng.normal(size=(60, 4))
    return MEAN + SD * np.stack([common + 0.5 * rng.normal(size=(60, 4)) + 0.2 * e for e in range(3)])


@pytest.fixture
def tree():
    over = ("chain", "draw", "element")
    values = np.moveaxis(replicates(), 0, 1)[None]
    draws = {
        p.name: (over, values[..., i], {"units": p.unit, "symbol": p.symbol, "low": p.low, "high": p.high})
        for i, p in enumerate(TABLE)
    }
    attrs = {
        "otibayes_kind": "classical",
        "otibayes_schema": SCHEMA,
        "parameters": ",".join(p.name for p in TABLE),
        "truth": json.dumps({"m_disk": 1.1, "h_z": 0.3}),
    }
    groups = {"posterior": xr.Dataset(draws, {"element": ELEMENTS})}
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), **groups})


def test_mean_abundances(stars):
    figure = oti.plot_mean_abundances(stars)
    panels = [ax for ax in figure.axes if ax.collections and ax.get_label() != "<colorbar>"]
    assert len(panels) == len(stars.abundances)
    w = phase_space(stars, oti.Parameters())
    cells = panels[0].collections[0]
    edges = cells.get_coordinates()
    means = np.ma.filled(cells.get_array(), np.nan)
    values = np.asarray(next(iter(stars.abundances.values())))
    i, j = np.argwhere(np.isfinite(means))[0]
    (vz_low, z_low), (vz_high, z_high) = edges[i, j], edges[i + 1, j + 1]
    vz, z = np.asarray(w.vz), np.asarray(w.z)
    inside = (vz >= vz_low) & (vz < vz_high) & (z >= z_low) & (z < z_high)
    assert means[i, j] == pytest.approx(values[inside].mean())
    with pytest.raises(InputError, match="XX_FE is not in the catalogue; found: MG_FE, FE_H"):
        oti.plot_mean_abundances(stars, ["XX_FE"])


@pytest.mark.parametrize("m_disk", [0.4, 1.6])
def test_orbits_have_the_actions_asked_for(m_disk):
    theta = oti.Parameters(m_disk=m_disk)
    R, z, (vR, vT, vz) = _start(20.0, 1800.0, 12.0, theta)
    aa = action_angle(oti.PhaseSpace(R=R, phi=0 * R, z=z, vR=vR, vT=vT, vz=vz), theta, delta="local")
    found = [float(np.asarray(a)[0]) for a in (aa.J_R, aa.L_z, aa.J_z)]
    np.testing.assert_allclose(found, [20.0, 1800.0, 12.0], rtol=1e-4)


def test_orbits(stars):
    figure = oti.plot_orbits(stars, "MG_FE", m_disk=(0.4, 1.0))
    panels = [ax for ax in figure.axes if ax.lines]
    assert len(panels) == 2
    # a lighter disk, at the same actions: the orbit reaches higher, and crosses the plane more slowly
    light, heavy = (ax.lines[2].get_xydata() for ax in panels)
    assert np.abs(light[:, 1]).max() > 1.05 * np.abs(heavy[:, 1]).max()
    assert np.abs(light[:, 0]).max() < np.abs(heavy[:, 0]).max()


def test_deviations(problem):
    figure = oti.plot_deviations(problem, "MG_FE", m_disk=(0.5, 1.5), settings=FEW)
    assert len(figure.axes) == 2
    curves = figure.axes[0].lines[:5]
    assert all(len(curve.get_xdata()) == 181 for curve in curves)
    with pytest.raises(InputError, match="O_FE is not among the prepared stars'; found: FE_H, MG_FE"):
        oti.plot_deviations(problem, "O_FE")
    with pytest.raises(InputError, match="leaves the halo any mass"):
        oti.plot_deviations(problem, "FE_H", m_disk=(3.0,), settings=FEW)


def test_bins_of_theta_z_have_the_weights_of_the_curves(stars):
    """A constant fitted to the means, with the weights of their bins, is that of the stars with the weights chosen."""
    rng = np.random.default_rng(0)
    precise = rng.random(500) < 0.1
    labels = {"MG_FE": rng.normal(0, 0.05, 500) + 0.2 * precise}
    errors = {"MG_FE": np.where(precise, 0.02, 0.05)}
    prepared = oti.prepare_stars(replace(stars, abundances=labels, errors=errors), ["MG_FE"], 3.6, method="staeckel")
    aa = prepared.actions(phase_space(prepared.stars, oti.Parameters()), oti.Parameters())
    delta = deviation(np.stack([aa.J_R, aa.L_z, aa.J_z], 1), prepared.labels)[0, :, 0]
    place = np.digitize(aa.theta_z, np.linspace(0, 2 * np.pi, 33)) - 1
    for weights, w in (("paper", prepared.errors[:, 0] ** -2.0), ("equal", np.ones(len(delta)))):
        figure = oti.plot_deviations(prepared, "MG_FE", m_disk=(1.0,), settings=replace(FEW, weights=weights))
        means = figure.axes[0].patches[0].get_data().values
        expected = [np.average(delta[place == i], weights=w[place == i]) for i in range(32) if (place == i).any()]
        np.testing.assert_allclose(means[np.isfinite(means)], 1e3 * np.array(expected), rtol=1e-6)


def test_coefficients_against_disk_mass(problem):
    """Of a label whose a2 changes its sign between the disk masses."""
    truth = oti.Parameters(m_disk=1.1, h_z=0.32, z_sun=15.0, vz_sun=8.5)
    aa = problem.actions(phase_space(problem.stars, truth), truth)
    label = np.sqrt(np.asarray(aa.J_z)) - 0.1 * np.cos(2 * np.asarray(aa.theta_z))
    problem = replace(problem, labels=np.stack([label, label], 1))
    figure = oti.plot_coefficients(problem, "MG_FE", values=(0.5, 0.9, 1.3, 1.7), theta=truth, settings=FEW)
    assert len(figure.axes) == 4 and "null test" in figure.axes[3].get_title()
    points = figure.axes[2].containers[0].lines[0]
    assert len(points.get_xdata()) == 4
    # the crossing lies where the line through the points crosses zero
    x, y = points.get_xdata(), points.get_ydata()
    crossing = figure.axes[2].containers[1].lines[0].get_xdata()[0]
    assert y[0] < 0 < y[-1] and abs(np.interp(crossing, x, y)) < 1e-9


def test_ellipses(tree):
    figure = oti.plot_constraint(tree, exclude=["O_FE"])
    patches = figure.axes[0].patches
    assert len(patches) == 2 * (3 + 2)  # one and two sigma, three elements, product and gls
    draws = replicates()
    np.testing.assert_allclose(patches[0].center, draws[0, :, :2].mean(0))
    joint = joint_product(draws[:2])
    np.testing.assert_allclose(patches[6].center, joint.mean[:2])
    area = np.pi * np.sqrt(np.linalg.det(joint.covariance[:2, :2]))
    assert np.pi * patches[6].width * patches[6].height / 4 == pytest.approx(area)
    assert len([ax for ax in oti.plot_projections(tree).axes if ax.get_visible()]) == 6
    with pytest.raises(InputError, match="unknown parameter 'mass'"):
        oti.plot_constraint(tree, "mass")


def test_table_1(tree):
    table = table_1(tree, ["O_FE"])
    draws = replicates()
    for elements, title in ((draws, "all"), (draws[:2], "without O_FE")):
        for name, combine in (("product", joint_product), ("gls", joint_gls)):
            joint = combine(elements)
            np.testing.assert_allclose(table[title, name, "mean"].values[:4], joint.mean)
            np.testing.assert_allclose(table[title, name, "sd"].values[:4], np.sqrt(np.diag(joint.covariance)))
    m_disk, mass = table["all", "product", "mean"].loc[["m_disk", "M_disk"]]
    assert mass == pytest.approx(6.52551e10 * m_disk)
    # elements that share their noise: the product claims too much
    assert (table["all", "product", "sd"] < table["all", "gls", "sd"])[:4].all()
    text = table_1_text(table)
    assert "M_disk_over_M_halo" in text and "e10" in text and "+-" in text
    assert "eq. 8*" in text and text.endswith("* errors across its valley only")
    with pytest.raises(InputError, match="AL_FE is not in the result; found: MG_FE, FE_H, O_FE"):
        table_1(tree, ["AL_FE"])
    with pytest.raises(InputError, match="every element is excluded"):
        table_1(tree, ELEMENTS)


def test_commands(tree, tmp_path):
    oti.save(tree, tmp_path / "classical.nc")
    done = CliRunner().invoke(
        main, ["figures", str(tmp_path / "classical.nc"), "--exclude", "O_FE", "--output", str(tmp_path / "out")]
    )
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["figure7.pdf", "figure8.pdf", "table1.csv"]
    assert (tmp_path / "out" / "figure7.pdf").read_bytes().startswith(b"%PDF")
    done = CliRunner().invoke(main, ["table1", str(tmp_path / "classical.nc")])
    assert done.exit_code == 0 and "product" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "bmp"], "unknown format 'bmp'; choose pdf, svg, png"),
        (["--theta", "m_disc=1"], "unknown parameter 'm_disc'"),
        (["--m-disk", ","], "--m-disk is empty"),
    ],
)
def test_bad_input_leaves_nothing(arguments, message, tmp_path):
    out = tmp_path / "out"
    done = CliRunner().invoke(main, ["figures", str(tmp_path / "stars.fits"), "--output", str(out), *arguments])
    assert done.exit_code == 2 and message in done.output + str(done.stderr)
    assert not out.exists()


def test_figures_want_a_scheduler_that_answers(stars, tmp_path):
    """Before anything is drawn."""
    path = Path(oti.__file__).parent / "stars" / "embedded.ecsv"
    given = ["figures", str(path), "--elements", "MG_FE", "--delta", "4", "--dask", "nonsense://x"]
    done = CliRunner().invoke(main, [*given, "--output", str(tmp_path / "out")])
    assert done.exit_code == 2 and "no Dask scheduler answers at 'nonsense://x'" in done.stderr
    assert not (tmp_path / "out").exists()
