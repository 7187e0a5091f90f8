"""The classical objective and fit: on a toy Galaxy whose actions are known in closed form, and on galpy's orbits."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from galpy_sample import sample, staeckel, to_sun
from otibayes.classical.bootstrap import fit
from otibayes.classical.deviation import deviation
from otibayes.classical.fourier import least_squares
from otibayes.classical.joint import joint_gls, joint_product
from otibayes.classical.minimum import nelder_mead, scales
from otibayes.classical.problem import PlainMinimum, Problem, resamples
from otibayes.classical.regions import LabelSurface, Pool
from otibayes.classical.scan import scan, zero_crossing
from scipy.stats import kstest
from toy_galaxy import TRUTH, ToyStars, toy, toy_frequency, toy_sample

from otibayes.analysis.comparison import chi2_rise
from otibayes.base.errors import InputError
from otibayes.base.nodes import Nodes
from otibayes.base.parameters import TABLE, Parameters
from otibayes.base.surface import Region, nodes
from otibayes.base.surface import fit as fit_surface
from otibayes.classical.chi2 import fit_label, minimise, p_value, together, weight
from otibayes.classical.objective import Coefficients, Settings, coefficients, objective, plain_coefficients
from otibayes.dynamics import MILKY_WAY
from otibayes.dynamics.frame import galactocentric
from otibayes.dynamics.trend import inputs, less_wide_terms, wide_terms
from otibayes.results.schema import chi2_group

pytestmark = pytest.mark.filterwarnings("ignore:Using C implementation")  # galpy says how it integrates

START = np.array([1.1, 0.28, 20.8, 7.78])


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
    result = coefficients(TRUTH, stars, labels, sigma, counts, toy).series
    np.testing.assert_allclose(result, least_squares(aa.theta_z, delta, sigma, counts), rtol=1e-3, atol=1e-7)
    radial = coefficients(TRUTH, stars, labels, sigma, counts, toy, Settings(angle="theta_R")).series
    np.testing.assert_allclose(radial, least_squares(aa.theta_R, delta, sigma, counts), rtol=1e-3, atol=1e-7)


def test_fast_coefficients_are_the_plain_ones():
    """On all stars and on resamples with duplicates, by the function that reads as the paper does."""
    stars, labels = toy_sample(400, 2)
    rng = np.random.default_rng(0)
    sigma = rng.uniform(0.5, 2, (400, 2))
    draws = [np.arange(400), *rng.integers(400, size=(2, 400))]
    counts = np.stack([np.bincount(d, minlength=400) for d in draws])
    together = coefficients(TRUTH, stars, labels, sigma, counts, toy).series
    for b, drawn in enumerate(draws):
        alone = coefficients(TRUTH, stars, labels, sigma, counts[[b]], toy).series
        for e in range(2):
            plain = plain_coefficients(TRUTH, stars, labels[:, e], sigma[:, e], drawn, toy)
            np.testing.assert_allclose(alone[0, e], plain, atol=1e-12)  # labels scatter by 0.1
            np.testing.assert_allclose(together[b, e], plain, atol=1e-7)


@pytest.mark.parametrize("number", [16, 100])
def test_other_numbers_of_neighbours(number):
    stars, labels = toy_sample(300, 2)
    plain = plain_coefficients(TRUTH, stars, labels[:, 0], np.ones(300), np.arange(300), toy, neighbours=number)
    fast = coefficients(TRUTH, stars, labels, None, None, toy, Settings(neighbours=number)).series
    np.testing.assert_allclose(fast[0, 0], plain, atol=1e-12)


def test_scatter_in_place_of_the_mean():
    """Squared deviations less the local mean of the squares about the star's own local mean, written out."""
    stars, labels = toy_sample(300, 4)
    aa = toy(galactocentric(stars.heliocentric, TRUTH), TRUTH)
    J = np.stack([aa.J_R, aa.L_z, aa.J_z], -1)
    y = labels[:, 0]
    mean = y - deviation(J, labels)[0, :, 0]
    square = y**2 - deviation(J, y[:, None] ** 2)[0, :, 0]
    expected = least_squares(aa.theta_z, ((y - mean) ** 2 - (square - mean**2))[None, :, None])
    found = coefficients(TRUTH, stars, labels, None, None, toy, Settings(moment="scatter")).series
    np.testing.assert_allclose(found[0, 0], expected[0, 0], rtol=1e-8)


def test_coefficients_in_bins_are_those_of_the_stars_in_them():
    stars, labels = toy_sample(300, 5)
    aa = toy(galactocentric(stars.heliocentric, TRUTH), TRUTH)
    edges = (3.0, 9.0)
    binned = coefficients(TRUTH, stars, labels, None, None, toy, Settings(bins=edges)).binned
    J = np.stack([aa.J_R, aa.L_z, aa.J_z], -1)
    delta = deviation(J, less_wide_terms(J, labels))
    for q, (low, high) in enumerate([(0, 3), (3, 9), (9, np.inf)]):
        inside = (aa.J_z >= low) & (aa.J_z < high)
        expected = least_squares(aa.theta_z[inside], delta[:, inside], harmonics=(1, 2, 4))
        np.testing.assert_allclose(binned[:, :, q], expected, rtol=1e-8)


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


def cubic_coefficients(theta, stars, labels, sigma, counts, actions, settings, candidates=None):
    """A stand-in for the stars: smooth, asymmetric, and different for each element and resample."""
    x = (np.array(theta) - START) / scales(TABLE)
    shift = (counts @ labels / counts.sum(1, keepdims=True))[..., None]
    a1 = 0.5 + x[3] + 0.1 * x[2] ** 2 + shift[..., 0]
    b1 = -0.7 + x[2] + 0.2 * x[2] * x[0] - 2 * shift[..., 0]
    a2 = 0.6 - x[0] + 0.5 * x[1] - 0.3 * x[0] ** 3 + shift[..., 0]
    a4 = 0.3 * x[0] + 0.2 * x[1] - 0.4 * shift[..., 0]
    zero = 0 * a1
    binned = np.stack([[zero, f * a1, f * b1, f * a2, zero, a4, zero] for f in (1.0, 1.5, 2.0)], 0)
    bins = len(settings.bins) + 1 if settings.bins else 0
    return Coefficients(np.stack([zero, a1, b1, a2, zero], -1), binned.transpose(2, 3, 0, 1)[:, :, :bins])


def test_surface_equals_plain(monkeypatch):
    """Where the coefficients are cubic the surface is exact, and Nelder-Mead ends at the same asymmetric places."""
    monkeypatch.setattr("otibayes.classical.problem.coefficients", cubic_coefficients)
    labels = np.random.default_rng(0).normal(0, 1, (200, 2))
    fast, plain = (fit(None, labels, actions=toy, bootstraps=6, surface=on, starts=1) for on in (True, False))
    assert fast.converged.all() and plain.converged.all() and fast.report.edge == 0 and plain.report is None
    unit = scales(TABLE)
    # along the valley the end hangs on rounding; across it nothing may differ
    apart = np.concatenate([(fast.optimum - plain.optimum)[:, None], fast.replicates - plain.replicates], 1) / unit
    assert np.abs(np.einsum("eci,ebi->ebc", fast.valley.jacobian, apart)).max() < 0.02
    assert np.abs(apart).max() < 1
    np.testing.assert_allclose(fast.valley.jacobian, plain.valley.jacobian, atol=0.1)
    assert fast.report.worst < 1e-6 and not fast.report.polished and fast.report.roughness.max() < 1e-6
    moved = (fast.optimum - START) / unit
    assert (np.abs(moved).max(0) > 0.1).all() and np.ptp(moved, axis=1).min() > 0.5


def test_surfaces_of_degree_2_where_they_leave_out_little(monkeypatch):
    """A fifth of the cubic: it is not exact any more, by a hundredth of the scatter, and takes fewer evaluations."""

    def flatter(theta, *arguments):
        found, x = cubic_coefficients(theta, *arguments), (np.array(theta) - START) / scales(TABLE)
        return found._replace(series=found.series + 0.24 * x[0] ** 3 * np.array([0, 0, 0, 1, 0]))

    labels, found = np.random.default_rng(0).normal(0, 1, (200, 2)), []
    for function in (flatter, cubic_coefficients):
        monkeypatch.setattr("otibayes.classical.problem.coefficients", function)
        found.append(fit(None, labels, actions=toy, bootstraps=6, starts=1))
    low, high = found
    assert [s.degree for s in low.surfaces] == [2, 2] and [s.degree for s in high.surfaces] == [3, 3]
    assert 1e-6 < low.report.worst < 0.03 and low.report.nodes < high.report.nodes


def test_a_surface_tells_what_a_lower_degree_leaves_out():
    """Nothing of a quadratic; of a cubic as the third power of the region's size, in bootstrap sd; any other region."""
    region = Region(START, np.diag(1 / scales(TABLE)), 3.0, START - 1e3, START + 1e3)
    half = replace(region, size=1.5, centre=START + 0.3 * scales(TABLE))
    points = nodes(region, 3, 2.0)
    x = (points - START) / scales(TABLE)

    def surface(a2):
        values = np.zeros((len(x), 3, 5)) + np.array([0, 1.0, -1.0])[:, None]
        values[..., 3] += a2[:, None]
        return LabelSurface(region, 3, fit_surface(region, 3, points, values))

    quadratic, cubic, twice = (surface(a2) for a2 in (x[:, 1] * x[:, 2], x[:, 0] ** 3, 2 * x[:, 0] ** 3))
    assert quadratic.remainder(region, 2) < 1e-9 and cubic.remainder(half, 3) < 1e-9
    assert cubic.remainder(half, 2) * 8 == pytest.approx(cubic.remainder(region, 2), rel=1e-6)
    assert twice.remainder(half, 2) == pytest.approx(2 * cubic.remainder(half, 2))


def rough_coefficients(theta, *arguments):
    """The same, with what no polynomial follows: far finer than the region, coarser than a last step."""
    found = cubic_coefficients(theta, *arguments)
    x = (np.array(theta) - START) / scales(TABLE)
    waves = 0.02 * np.sin(9 * x[:3] + 5 * x[3])
    return found._replace(series=found.series + np.concatenate([[0], waves, [0]]))


def test_optima_are_polished_where_the_surface_is_not_good_enough(monkeypatch):
    monkeypatch.setattr("otibayes.classical.problem.coefficients", rough_coefficients)
    (stars, _), labels = toy_sample(200, 0), np.random.default_rng(0).normal(0, 1, (200, 2))
    polished, not_polished = (fit(stars, labels, actions=toy, bootstraps=20, polish=p) for p in (None, False))
    assert not_polished.report.worst == not_polished.report.surface_worst > 0.1
    assert not_polished.report.roughness.min() > 0.1
    assert polished.report.polished and polished.report.worst < 0.05
    counts = np.concatenate([np.ones((1, 200), int), resamples(200, 20, 0)])
    for e in range(2):
        at_optima = [
            rough_coefficients(theta, None, labels, None, counts[[b]], toy, Settings()).series[0, e]
            for b, theta in enumerate([polished.optimum[e], *polished.replicates[e]])
        ]
        sd = polished.coefficients_sd[e, 1:4]
        assert np.median(np.abs(np.array(at_optima)[:, 1:4] / sd)) < 0.05


def test_detrended_labels():
    """A gross form of the actions leaves no deviation; bins have it always, the series if asked; the rest stays."""
    stars, _ = toy_sample(300, 4)
    aa = toy(galactocentric(stars.heliocentric, TRUTH), TRUTH)
    J = np.stack([aa.J_R, aa.L_z, aa.J_z], 1)
    gross = np.asarray(wide_terms(inputs(J))) @ np.linspace(-1, 1, 12)
    rest = np.random.default_rng(2).normal(size=300)
    labels, sigma = np.stack([gross, gross + rest], 1), np.ones((300, 2))
    counts = np.concatenate([np.ones((1, 300), int), resamples(300, 3, 0)])
    edges = tuple(np.quantile(J[:, 2], [1 / 3, 2 / 3]))

    def found(y, **given):
        return coefficients(TRUTH, stars, y, sigma, counts, toy, Settings(neighbours=16, **given))

    plain, binned, detrended = found(labels), found(labels, bins=edges), found(labels, detrended=True)
    np.testing.assert_allclose(binned.series, plain.series, rtol=1e-6, atol=1e-8)
    assert np.abs(plain.series[:, 0]).max() > 1e-3
    assert np.abs(detrended.series[:, 0]).max() < 1e-7 and np.abs(binned.binned[:, 0]).max() < 1e-7
    both = found(labels, detrended=True, bins=edges)
    np.testing.assert_allclose(both.binned, binned.binned, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(both.series, detrended.series, rtol=1e-5, atol=1e-8)
    # of a label without gross form the regression takes next to nothing
    clean = rest - np.asarray(wide_terms(inputs(J))) @ np.linalg.lstsq(np.asarray(wide_terms(inputs(J))), rest)[0]
    same = found(clean[:, None].repeat(2, 1), detrended=True).series
    np.testing.assert_allclose(detrended.series[:, 1], same[:, 1], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(same, found(clean[:, None].repeat(2, 1)).series, rtol=1e-5, atol=1e-7)


SLOPES = np.random.default_rng(8).normal(size=(12, 4))


def noisy_statistics(theta, stars, labels, sigma, counts, actions, settings, candidates=None):
    """Twelve statistics in three bins, linear in theta, each with a noise of its own that the resamples share."""
    x = (np.array(theta) - [0.95, 0.33, 10.0, 8.5]) / scales(TABLE)
    noise = counts @ labels / counts.sum(1, keepdims=True)
    values = (0.3 * noise + SLOPES @ x).reshape(-1, 3, 4)
    zero = np.zeros(values.shape[:2])
    binned = np.stack([zero, values[..., 0], values[..., 1], values[..., 2], zero, values[..., 3], zero], -1)
    series = np.stack([zero[:, 0], values[:, 0, 0], values[:, 0, 1], values[:, 0, 2], zero[:, 0]], -1)
    return Coefficients(series[:, None], binned[:, None])


def test_chi2_is_unbiased_and_its_errors_and_value_are_right(monkeypatch):
    """Over many samples of linear statistics: pulls of mean 0 and sd 1, values with the mean of their chi^2."""
    monkeypatch.setattr("otibayes.classical.problem.coefficients", noisy_statistics)
    pulls, values, bootstrap = [], [], []
    for seed in range(12):
        labels = np.random.default_rng([seed, 5]).normal(size=(100, 12))
        counts = np.concatenate([np.ones((1, 100), int), resamples(100, 100, seed)])
        points = np.random.default_rng(seed).normal(size=(120, 4)) * scales(TABLE) * 0.3 + [0.95, 0.33, 10.0, 8.5]
        region = Region(points.mean(0), np.diag(1 / scales(TABLE)), 3.0, -1e9 * np.ones(4), 1e9 * np.ones(4))
        pool = Pool(lambda theta, c=counts, y=labels: noisy_statistics(theta, None, y, None, c, toy, None), Nodes())
        pool.add(points)
        surface = pool.surface("binned", 0, region, 1)
        found = fit_label(surface, START[None], TABLE)
        minima = found.minima
        pulls.append((minima[0].theta - [0.95, 0.33, 10.0, 8.5]) / np.sqrt(np.diag(minima[0].covariance)))
        values.append(minima[0].value * found.weight.goodness)
        bootstrap.append(np.std([m.theta for m in minima[1:]], 0) / np.sqrt(np.diag(minima[0].covariance)))
        assert all(m.converged for m in minima)
        # where statistics are linear a profile is a parabola, as wide as the curvature says
        whole = together([found], [surface], TABLE)
        (interval,) = whole.interval
        sides = (interval - minima[0].theta[:, None]) / np.sqrt(np.diag(minima[0].covariance))[:, None]
        np.testing.assert_allclose(sides, np.broadcast_to([-1, 1], (4, 2)), rtol=0.02)
        # and chi^2 rises as the curvature's squared distance, wherever theta is in the region
        near = minima[0].theta + np.random.default_rng(seed).normal(size=(5, 4)) * 0.2 * scales(TABLE)
        off = near - minima[0].theta
        tree = xr.DataTree.from_dict({"chi2": chi2_group(whole, {"element": ["X"]}, MILKY_WAY, (3.0, 9.0))})
        expected = np.einsum("si,ij,sj->s", off, np.linalg.inv(minima[0].covariance), off)
        np.testing.assert_allclose(chi2_rise(tree, near)[:, 0], expected, rtol=1e-3)
        assert np.isnan(chi2_rise(tree, near[0] + 1e3 * scales(TABLE))).all()
    pulls = np.array(pulls)
    assert abs(pulls.mean()) < 0.4 and 0.7 < pulls.std() < 1.35
    assert 5.5 < np.mean(values) < 10.5  # 8 degrees of freedom
    np.testing.assert_allclose(np.mean(bootstrap, 0), 1, atol=0.2)


def test_chi2_knows_that_its_covariance_is_noisy():
    """With a covariance from 40 draws alone, value and rise have the means that they claim, and p is uniform."""
    rng, unit, number = np.random.default_rng(0), scales(TABLE), 40
    A, L = rng.normal(size=(12, 4)) / 0.2, np.tril(rng.normal(size=(12, 12))) + 4 * np.eye(12)
    values, rises, ps = [], [], []
    for _ in range(300):
        at_truth, chosen = L @ rng.normal(size=12), weight(rng.normal(size=(number, 12)) @ L.T, 4)
        found = minimise(lambda theta: A @ ((theta - START) / unit) + at_truth, 0.0, chosen, START, TABLE)  # noqa: B023
        rises.append(((chosen.root @ at_truth) ** 2).sum() - found.value)
        values.append(found.value * chosen.goodness)
        ps.append(p_value(values[-1], number, 8))
    for found, mean in ((values, 8), (rises, 4)):
        assert abs(np.mean(found) - mean) < 3 * np.std(found) / 300**0.5
    assert kstest(ps, "uniform").pvalue > 0.01


def test_a_killed_fit_loses_no_node(monkeypatch, tmp_path):
    calls = []

    def counted(theta, *arguments):
        calls.append(1)
        if len(calls) == 40:
            raise KeyboardInterrupt
        return cubic_coefficients(theta, *arguments)

    monkeypatch.setattr("otibayes.classical.problem.coefficients", counted)
    labels = np.random.default_rng(0).normal(0, 1, (200, 2))
    kept = {"actions": toy, "bootstraps": 4, "nodes": Nodes(store=tmp_path)}
    with pytest.raises(KeyboardInterrupt):
        fit(None, labels, **kept)
    resumed = fit(None, labels, **kept)
    total = len(calls) - 40
    calls[:] = [1] * 100
    whole = fit(None, labels, actions=toy, bootstraps=4)
    assert total == len(calls) - 100 - 39
    np.testing.assert_array_equal(whole.replicates, resumed.replicates)


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


def test_fit_meets_its_contract(toy_fit):
    """Coefficients at random optima agree with the plain ones within 0.1 of their bootstrap sd, polished if need be.

    In a sample as small as this an optimum may lie where the plain coefficients jump; that is told.
    """
    report = toy_fit.report
    assert toy_fit.optimum.shape == (2, 4) and toy_fit.replicates.shape == (2, 12, 4)
    assert toy_fit.value.shape == toy_fit.converged.shape == toy_fit.at_bound.shape == (2, 13)
    assert report.pairs.shape == (8, 2) and len(np.unique(report.pairs, axis=0)) == 8
    errors = np.abs(report.pair_error).max(1)
    assert report.worst == errors.max() < report.surface_worst
    assert report.beyond < 0.1 and (errors < 0.1).sum() >= 7
    assert report.edge == 0 and report.nodes > 56
    # outside its region a surface refuses
    far = toy_fit.optimum[0] + [0, 0, 500.0, 0]
    assert np.isnan(toy_fit.surfaces[0].at(far)).all()


@pytest.mark.slow
def test_plain_nelder_mead_from_the_same_start_agrees():
    """On galpy's orbits: within 0.1 sd along the row space of the Jacobian, that is, but for the valley."""
    truth = Parameters(m_disk=1.1, h_z=0.3, z_sun=15.0, vz_sun=8.5)
    stars = sample(1500, truth, seed=5)
    fast = fit(stars, stars.labels, actions=staeckel, bootstraps=24)
    problem = Problem(stars, stars.labels, None, np.ones((1, 1500), int), staeckel, Settings(), MILKY_WAY)
    for e in range(stars.labels.shape[1]):
        plain = PlainMinimum(problem, 1e-3 * stars.labels.var(0) / 1500)((e, 0, START))
        unit = scales(TABLE)
        across = fast.valley.jacobian[e] @ ((plain.theta - fast.optimum[e]) / unit)
        scatter = (fast.replicates[e] - fast.optimum[e]) / unit @ fast.valley.jacobian[e].T
        assert plain.converged and np.abs(across / scatter.std(0)).max() < 0.1


@pytest.mark.parametrize(
    ("y", "expected"),
    [([2.0, 1.0, -1.0, -3.0], 1.5), ([-1.0, 0.0, 4.0, 5.0], 1.0), ([1.0, 2.0, 3.0, 4.0], np.nan)],
)
def test_zero_crossing(y, expected):
    np.testing.assert_allclose(zero_crossing(np.arange(4.0), np.array(y)), expected)


def test_of_two_crossings_the_steeper_or_the_nearer():
    x, y = np.arange(8.0), np.array([-0.1, 0.1, 0.1, 0.1, 0.1, 3.0, -3.0, -6.0])
    assert zero_crossing(x, y) == 5.5
    assert zero_crossing(x, y, near=1.0) == 0.5


def test_scan_finds_the_disk_of_the_toy_galaxy():
    stars, labels = toy_sample(1500, 7, noise=0.02)
    values = np.arange(0.5, 1.5, 0.1)
    found = scan(stars, labels, None, TRUTH, values, actions=toy, bootstraps=16)
    assert found.series.shape == (10, 17, 2, 5)
    crossing = found.crossing(0)
    assert abs(crossing.value - TRUTH.m_disk) < 4 * crossing.error < 0.2
    assert 0.4 < crossing.error / crossing.bootstrap.std() < 2.5


def test_galpy_stars_prefer_the_true_disk():
    """At the truth the coefficients are consistent with zero; at half the disk's mass a2 is not."""
    truth = Parameters(m_disk=1.1, h_z=0.3, z_sun=15.0, vz_sun=8.5)
    stars = sample(1200, truth, seed=5)
    counts = np.concatenate([np.ones((1, 1200), int), resamples(1200, 24, 0)])

    def significance(theta):
        c = coefficients(theta, stars, stars.labels, None, counts, staeckel).series
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
    with pytest.raises(InputError, match="needs more bootstraps, got 2"):
        joint_product(replicates[:, :2])


def test_refusals():
    stars, labels = toy_sample(70, 0)
    with pytest.raises(InputError, match="at least 2 bootstraps"):
        fit(stars, labels, actions=toy, bootstraps=1)
    with pytest.raises(InputError, match="more than 64 stars, got 60"):
        fit(ToyStars(stars.heliocentric[:60]), labels[:60], actions=toy, bootstraps=2)
