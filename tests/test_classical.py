"""The classical objective and fit: on a toy Galaxy whose actions are known in closed form, and on galpy's orbits."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from galpy_sample import sample, staeckel, to_sun
from scipy.stats import kstest
from toy_galaxy import TRUTH, ToyStars, toy, toy_frequency, toy_sample

import otibayes as oti
from otibayes.analysis.comparison import chi2_rise
from otibayes.analysis.scan import scan, zero_crossing
from otibayes.base.errors import InputError
from otibayes.base.parameters import TABLE, Parameters
from otibayes.base.response_surface import Region, Surface
from otibayes.base.response_surface import fit as fit_surface
from otibayes.base.store import Store
from otibayes.classical.chi2 import fit_element, minimise_chi2, p_value, profile, weight
from otibayes.classical.fit import fit
from otibayes.classical.joint import elements_chi2, joint_gls, joint_product
from otibayes.classical.local_mean import deviation
from otibayes.classical.objective import least_squares, minimise_objective, plain_coefficients, scales
from otibayes.classical.result_groups import chi2_group
from otibayes.classical.settings import ClassicalSettings
from otibayes.classical.statistic import Coefficients, Statistic, Weights, make_statistic, resamples
from otibayes.dynamics import MILKY_WAY
from otibayes.dynamics.frame import galactocentric
from otibayes.dynamics.trend import detrended, inputs, trend_terms

pytestmark = pytest.mark.filterwarnings("ignore:Using C implementation")  # galpy says how it integrates

START = np.array([1.1, 0.28, 20.8, 7.78])


def test_toy_stars_are_where_they_should_be():
    stars, _ = toy_sample(50, 0)
    w = galactocentric(stars.heliocentric, TRUTH)
    np.testing.assert_allclose(to_sun(*(np.asarray(a) for a in w), TRUTH), stars.heliocentric, rtol=1e-9, atol=1e-9)


def statistic_of(stars, labels, errors=None, seed=0, actions=toy, **settings):
    return make_statistic(stars, labels, errors, actions=actions, seed=seed, settings=ClassicalSettings(**settings))


def toy_actions(stars):
    aa = toy(galactocentric(stars.heliocentric, TRUTH), TRUTH)
    return aa, np.stack([aa.J_R, aa.L_z, aa.J_z], -1)


def test_coefficients_are_the_steps_in_order():
    stars, labels = toy_sample(200, 1)
    sigma = np.random.default_rng(0).uniform(0.5, 2, (200, 2))
    aa, J = toy_actions(stars)
    for angle in ("theta_z", "theta_R"):
        statistic = statistic_of(stars, labels, sigma, bootstraps=2, bins=0, angle=angle)
        delta = deviation(J, labels, statistic.counts)
        expected = least_squares(getattr(aa, angle), delta, sigma**-2, statistic.counts)
        np.testing.assert_allclose(statistic(TRUTH).series, expected, rtol=1e-3, atol=1e-7)
        equal = least_squares(getattr(aa, angle), delta[:1])
        np.testing.assert_allclose(statistic(TRUTH).reweighted, equal, rtol=1e-3, atol=1e-7)


def test_fast_coefficients_are_the_plain_ones():
    """On all stars and on resamples with duplicates, by the function that reads as the paper does."""
    stars, labels = toy_sample(400, 2)
    rng = np.random.default_rng(0)
    sigma = rng.uniform(0.5, 2, (400, 2))
    draws = [np.arange(400), *rng.integers(400, size=(2, 400))]
    statistic = statistic_of(stars, labels, sigma, bins=0)
    statistic = replace(statistic, counts=np.stack([np.bincount(d, minlength=400) for d in draws]))
    together = statistic(TRUTH).series
    for b, drawn in enumerate(draws):
        for e in range(2):
            plain = plain_coefficients(TRUTH, stars, labels[:, e], sigma[:, e], drawn, toy)
            np.testing.assert_allclose(statistic.one(e, b)(TRUTH).series[0, 0], plain, atol=1e-12)  # labels: 0.1
            np.testing.assert_allclose(together[b, e], plain, atol=1e-7)


@pytest.mark.parametrize("number", [16, 100])
def test_other_numbers_of_neighbours(number):
    stars, labels = toy_sample(300, 2)
    plain = plain_coefficients(TRUTH, stars, labels[:, 0], np.ones(300), np.arange(300), toy, neighbours=number)
    fast = statistic_of(stars, labels, neighbours=number).one(0, 0)(TRUTH).series
    np.testing.assert_allclose(fast[0, 0], plain, atol=1e-12)


def test_scatter_in_place_of_the_mean():
    """Squared deviations less the local mean of the squares about the star's own local mean, written out."""
    stars, labels = toy_sample(300, 4)
    aa, J = toy_actions(stars)
    y = labels[:, 0]
    mean = y - deviation(J, labels)[0, :, 0]
    square = y**2 - deviation(J, y[:, None] ** 2)[0, :, 0]
    expected = least_squares(aa.theta_z, ((y - mean) ** 2 - (square - mean**2))[None, :, None])
    found = statistic_of(stars, labels, moment="scatter").one(0, 0)(TRUTH).series
    np.testing.assert_allclose(found[0, 0], expected[0, 0], rtol=1e-8)


def test_coefficients_in_bins_are_those_of_the_stars_in_them():
    stars, labels = toy_sample(300, 5)
    aa, J = toy_actions(stars)
    sigma = np.random.default_rng(0).uniform(0.01, 0.3, (300, 2))
    statistic = statistic_of(stars, labels, sigma)
    binned = replace(statistic, counts=statistic.counts[:1], edges=(3.0, 9.0))(TRUTH).binned
    delta, total = deviation(J, detrended(J, labels)), statistic.weights.total
    for q, (low, high) in enumerate([(0, 3), (3, 9), (9, np.inf)]):
        inside = (aa.J_z >= low) & (aa.J_z < high)
        expected = least_squares(aa.theta_z[inside], delta[:, inside], total[inside], harmonics=(1, 2, 4))
        np.testing.assert_allclose(binned[:, :, q], expected, rtol=1e-8)


def test_bins_have_equally_many_stars_and_none_where_there_are_few():
    stars, labels = toy_sample(600, 5)
    statistic = statistic_of(stars, labels, bins=4)
    J, _ = statistic.actions_at(np.array(Parameters()))
    assert np.bincount(np.digitize(J[:, 2], statistic.edges)).tolist() == [150] * 4
    assert statistic_of(stars, labels, bins=7).edges == () and statistic_of(stars, labels, bins=0).edges == ()


# ---- weights


def test_weights():
    """Total variances have the intrinsic scatter, robustly; a missing error is the median one; the rest stays."""
    stars, labels = toy_sample(4000, 6, noise=0.05)
    sigma = np.random.default_rng(1).uniform(0.01, 0.03, labels.shape)
    labels = labels + sigma * np.random.default_rng(2).normal(size=labels.shape)
    labels[:20] += 0.5  # outliers
    sigma[3, 0], sigma[4, 0], sigma[:, 1] = np.nan, 0.0, np.nan
    for name, other in (("paper", "equal"), ("total", "equal"), ("equal", "paper")):
        weights = statistic_of(stars, labels, sigma, weights=name, bootstraps=2).weights
        inverse = {"equal": np.ones(labels.shape), "total": weights.total}
        filled = sigma[:, 0].copy()
        filled[[3, 4]] = np.nanmedian(sigma[sigma[:, 0] > 0, 0])
        inverse["paper"] = np.stack([filled**-2.0, np.ones(4000)], 1)
        np.testing.assert_allclose(weights.chosen, inverse[name], rtol=1e-3)
        np.testing.assert_allclose(weights.other, inverse[other], rtol=1e-3)
        assert weights.missing.tolist() == [2, 4000] and np.isnan(weights.error[1])
        np.testing.assert_allclose(weights.scatter, [0.05, np.hypot(0.05, 0.0208)], rtol=0.1)
        expected = 1 / (sigma[5:, 0] ** 2 + weights.scatter[0] ** 2)
        np.testing.assert_allclose(weights.total[5:, 0], expected, rtol=1e-9)
        np.testing.assert_allclose(weights.total[:, 1] * weights.scatter[1] ** 2, 1, rtol=1e-9)


def test_a_selection_by_abundance_in_the_errors_is_told():
    """Errors that follow the abundance move equation 8 with the paper's weights, and not with equal ones."""
    stars, labels = toy_sample(1500, 3, noise=0.05)
    rank = np.argsort(np.argsort(labels[:, :1], 0), 0) / 1500
    found = [
        fit(statistic_of(stars, labels[:, :1], errors, bootstraps=8, bins=0))
        for errors in (0.02 * np.exp(3 * rank * (stars.heliocentric[:, [5]] > 0)), np.full((1500, 1), 0.02))
    ]
    leaning, even = (np.abs((f.reweighted - f.optimum) / f.replicates.std(1, ddof=1)).max() for f in found)
    assert even < 1e-3 and leaning > 1


# ---- resamples and minima


def test_resamples():
    counts = resamples(500, 3, seed=7)
    assert (counts.sum(1) == 500).all()
    np.testing.assert_array_equal(counts, resamples(500, 3, seed=7))
    assert not (counts[0] == counts[1]).all()
    # not the stream from which a catalogue of the same seed is simulated
    assert not (counts[0] == np.bincount(np.random.default_rng(7).integers(500, size=500), minlength=500)).all()


def test_nelder_mead_finds_an_asymmetric_minimum_in_scales_and_bounds():
    unit = scales(TABLE)

    def minimum(target):
        series = lambda t: np.concatenate([[0], (t - target)[[2, 3, 0]] / unit[[2, 3, 0]], (t - target)[[1]] / unit[1]])  # noqa: E731
        return minimise_objective(series, START, MILKY_WAY, 1e-9, all_terms=True)

    target = np.array([0.72, 0.41, -35.0, 11.0])
    assert minimum(target).converged
    np.testing.assert_allclose((minimum(target).theta - target) / unit, 0, atol=2e-3)
    assert minimum(np.array([2.5, 0.28, 20.8, 7.78])).theta[0] == pytest.approx(1.8, abs=1e-3)


class Cubic(Statistic):
    """A stand-in for the stars: smooth, asymmetric, and different for each element and resample."""

    bend = 0.3

    def __call__(self, theta):
        x = (np.array(theta) - START) / scales(TABLE)
        shift = self.counts @ self.labels / self.counts.sum(1, keepdims=True)
        a1 = 0.5 + x[3] + 0.1 * x[2] ** 2 + shift
        b1 = -0.7 + x[2] + 0.2 * x[2] * x[0] - 2 * shift
        a2 = 0.6 - x[0] + 0.5 * x[1] - self.bend * x[0] ** 3 + shift
        a4 = 0.3 * x[0] + 0.2 * x[1] - 0.4 * shift
        zero = 0 * a1
        series = np.stack([zero, a1, b1, a2, zero], -1)
        bins = [np.stack([zero, f * a1, f * b1, f * a2, zero, a4, zero], -1) for f in (1.0, 1.5, 2.0)]
        return Coefficients(series, series[:1] + 0.01, np.stack(bins, 2) if self.edges else None)


def stand_in(kind=Cubic, labels=None, bootstraps=6, edges=(), **settings):
    """A statistic of no stars, whose resamples differ by the means of their labels."""
    labels = np.random.default_rng(0).normal(0, 1, (200, 2)) if labels is None else labels
    counts = np.concatenate([np.ones((1, len(labels)), int), resamples(len(labels), bootstraps, 0)])
    weights = Weights(*[np.ones(labels.shape)] * 3, *np.zeros((3, labels.shape[1])))
    settings = ClassicalSettings(bootstraps=bootstraps, **settings)
    return kind(None, labels, counts, weights, None, settings, edges, MILKY_WAY)


def test_surface_equals_plain():
    """Where the coefficients are cubic the surface is exact, and Nelder-Mead takes the same way to the same end."""
    fast, plain = (fit(stand_in(surface=on), starts=1) for on in (True, False))
    assert fast.converged.all() and plain.converged.all() and plain.report is None
    assert fast.report.rms.max() < 1e-6 and not fast.report.refined.any() and (fast.report.outermost < 1).all()
    unit = scales(TABLE)
    # along the valley the end depends on rounding; across it nothing may differ
    apart = [getattr(fast, name) - getattr(plain, name) for name in ("optimum", "reweighted")]
    apart = np.concatenate([*(a[:, None] for a in apart), fast.replicates - plain.replicates], 1) / unit
    assert np.abs(np.einsum("eci,ebi->ebc", fast.valley.jacobian, apart)).max() < 0.02
    assert np.abs(apart).max() < 1
    np.testing.assert_allclose(fast.valley.jacobian, plain.valley.jacobian, atol=0.1)
    moved = (fast.optimum - START) / unit
    assert (np.abs(moved).max(0) > 0.1).all() and np.ptp(moved, axis=1).min() > 0.5


class Bent(Cubic):
    """What a cubic over the pilot's ball does not follow, but follows at the optima when it is fitted to them too."""

    waves = 1.5

    def __call__(self, theta):
        found, x = super().__call__(theta), (np.array(theta) - START) / scales(TABLE)
        bend = 0.5 * np.cos(self.waves * x[0]) * np.array([0, 0, 0, 1, 0])
        return found._replace(series=found.series + bend, reweighted=found.reweighted + bend)


class Wavy(Bent):
    """What only a surface over a region of its own follows."""

    waves = 2.0


class Rough(Cubic):
    """With waves that no surface follows."""

    def __call__(self, theta):
        found, x = super().__call__(theta), (np.array(theta) - START) / scales(TABLE)
        waves = 0.1 * np.concatenate([[0], np.sin(40 * x[:3] + 25 * x[3]), [0]])
        return found._replace(series=found.series + waves)


def test_a_surface_that_the_check_does_not_accept_is_refined():
    exact, bent, wavy, rough = (fit(stand_in(kind, bootstraps=20)).report for kind in (Cubic, Bent, Wavy, Rough))
    assert bent.passes == exact.passes + 16 and not bent.refined.any() and (bent.rms < 0.25).all()
    assert wavy.refined.all() and (wavy.rms < 0.1).all() and wavy.passes > bent.passes
    assert rough.refined.all() and (rough.rms > 0.5).all() and (rough.worst >= rough.rms).all()  # told as it is
    for report in (exact, bent, wavy, rough):
        assert len(report.pairs) == len(np.unique(report.pairs, axis=0)) == 16
        for e in range(2):
            mine = report.pair_error[report.pairs[:, 0] == e]
            assert report.rms[e] == pytest.approx(np.sqrt((mine**2).mean()), rel=1e-9)


def test_optima_outside_the_pilot_have_a_surface_over_the_prior():
    """The optimum of Far is 4 scales from the start, where the pilot's ball ends after 3."""

    class Far(Cubic):
        def __call__(self, theta):
            return super().__call__(np.array(theta) + np.array([0, 0, 80.0, 0]))

    found = fit(stand_in(Far))
    assert found.converged.all() and found.report.rms.max() < 1e-6 and (found.optimum[:, 2] < -20).all()


def test_detrended_labels():
    """A gross form of the actions leaves no deviation; bins have it always, the series if asked; the rest stays."""
    stars, _ = toy_sample(300, 4)
    aa = toy(galactocentric(stars.heliocentric, TRUTH), TRUTH)
    J = np.stack([aa.J_R, aa.L_z, aa.J_z], 1)
    gross = np.asarray(trend_terms(inputs(J))) @ np.linspace(-1, 1, 12)
    rest = np.random.default_rng(2).normal(size=300)
    labels = np.stack([gross, gross + rest], 1)
    edges = tuple(np.quantile(J[:, 2], [1 / 3, 2 / 3]))

    def found(y, edges=(), **settings):
        statistic = statistic_of(stars, y, bootstraps=3, neighbours=16, weights="equal", **settings)
        equal = statistic.weights._replace(total=np.ones(y.shape))  # the first label has hardly any scatter
        return replace(statistic, edges=edges, weights=equal)(TRUTH)

    plain, binned, detrended = found(labels), found(labels, edges), found(labels, detrended=True)
    np.testing.assert_allclose(binned.series, plain.series, rtol=1e-6, atol=1e-8)
    assert np.abs(plain.series[:, 0]).max() > 1e-3
    assert np.abs(detrended.series[:, 0]).max() < 1e-7 and np.abs(binned.binned[:, 0]).max() < 1e-7
    both = found(labels, edges, detrended=True)
    np.testing.assert_allclose(both.binned, binned.binned, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(both.series, detrended.series, rtol=1e-5, atol=1e-8)
    # of a label without a trend the regression takes next to nothing
    clean = rest - np.asarray(trend_terms(inputs(J))) @ np.linalg.lstsq(np.asarray(trend_terms(inputs(J))), rest)[0]
    same = found(clean[:, None].repeat(2, 1), detrended=True).series
    np.testing.assert_allclose(detrended.series[:, 1], same[:, 1], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(same, found(clean[:, None].repeat(2, 1)).series, rtol=1e-5, atol=1e-7)


# ---- chi^2


SLOPES = np.random.default_rng(8).normal(size=(12, 4))


def test_chi2_is_unbiased_and_its_errors_and_value_are_right():
    """Over many samples of linear statistics: deviations of mean 0 and sd 1, values with the mean of their chi^2."""
    truth, unit = np.array([0.95, 0.33, 10.0, 8.5]), scales(TABLE)
    pulls, values, bootstrap = [], [], []
    for seed in range(12):
        labels = np.random.default_rng([seed, 5]).normal(size=(100, 12))
        counts = np.concatenate([np.ones((1, 100), int), resamples(100, 100, seed)])
        points = np.random.default_rng(seed).normal(size=(120, 4)) * unit * 0.3 + truth
        noise = 0.3 * counts @ labels / 100
        region = Region(points.mean(0), np.diag(1 / unit), 3.0, -1e9 * np.ones(4), 1e9 * np.ones(4))
        linear = noise + ((points - truth) / unit @ SLOPES.T)[:, None]
        surface = Surface(region, fit_surface(region, 1, points, linear), 1)
        found = fit_element(surface, START[None], TABLE)
        minima = found.minima
        pulls.append((minima[0].theta - truth) / np.sqrt(np.diag(minima[0].covariance)))
        values.append(minima[0].value * found.weight.goodness)
        bootstrap.append(np.std([m.theta for m in minima[1:]], 0) / np.sqrt(np.diag(minima[0].covariance)))
        assert all(m.converged for m in minima)
        # where statistics are linear a profile is a parabola, as wide as the curvature says
        found = found._replace(interval=profile(found, TABLE))
        sides = (found.interval - minima[0].theta[:, None]) / np.sqrt(np.diag(minima[0].covariance))[:, None]
        np.testing.assert_allclose(sides, np.broadcast_to([-1, 1], (4, 2)), rtol=0.02)
        # and chi^2 rises as the curvature's squared distance, wherever theta is in the region
        near = minima[0].theta + np.random.default_rng(seed).normal(size=(5, 4)) * 0.2 * unit
        off = near - minima[0].theta
        tree = xr.DataTree.from_dict({"chi2": chi2_group([found], {"element": ["X"]}, MILKY_WAY, (3.0, 9.0))})
        expected = np.einsum("si,ij,sj->s", off, np.linalg.inv(minima[0].covariance), off)
        np.testing.assert_allclose(chi2_rise(tree, near)[:, 0], expected, rtol=1e-2, atol=1e-3)
        assert np.isnan(chi2_rise(tree, near[0] + 1e3 * unit)).all()
    pulls = np.array(pulls)
    assert abs(pulls.mean()) < 0.4 and 0.7 < pulls.std() < 1.35
    assert 5.5 < np.mean(values) < 10.5  # 8 degrees of freedom
    np.testing.assert_allclose(np.mean(bootstrap, 0), 1, atol=0.2)


def test_an_interval_is_open_where_its_end_is_outside_the_region():
    unit = scales(TABLE)
    region = Region(START, np.diag(1 / unit), 0.5, START - 1e3, START + 1e3)
    points = START + np.random.default_rng(0).normal(size=(60, 4)) * 0.3 * unit
    noise = np.random.default_rng(1).normal(size=(101, 12))
    steep = np.concatenate([0.5 * np.eye(4), np.zeros((8, 4))])  # an error of two scales, beyond the region
    steep[1] *= 20
    rows = 0.3 * noise * (np.arange(101) > 0)[:, None] + ((points - START) / unit @ steep.T)[:, None]
    surface = Surface(region, fit_surface(region, 1, points, rows), 1)
    found = profile(fit_element(surface, START[None], TABLE), TABLE)
    assert np.isnan(found[[0, 2, 3]]).all() and np.isfinite(found[1]).all()


def test_chi2_comes_with_the_fit():
    class Noisy(Cubic):
        """Twelve statistics with a noise of their own."""

        def __call__(self, theta):
            found = super().__call__(theta)
            noise = self.counts @ np.random.default_rng(3).normal(size=(200, 21)) / 200
            return found._replace(binned=found.binned + 0.3 * noise.reshape(-1, 1, 3, 7))

    found = fit(stand_in(Noisy, bootstraps=40, edges=(3.0, 9.0)))
    assert len(found.chi2) == 2 and (found.report.chi2_rms < 1e-6).all()
    for element in found.chi2:
        assert len(element.minima) == 41 and all(m.converged for m in element.minima)
    assert fit(stand_in(Noisy, bootstraps=16, edges=(3.0, 9.0))).chi2 == []  # twelve statistics need more resamples


def test_joint_chi2_is_the_minimum_of_the_sum_and_knows_that_elements_share_noise():
    """Twins count once: the mean is that of one, and so is the covariance, whatever the curvature of the sum says.

    Covariances are wider than those of the resamples, as those of the elements are.
    """
    unit, rng = scales(TABLE), np.random.default_rng(0)
    region = Region(START, np.diag(1 / unit), 3.0, START - 1e3, START + 1e3)
    points = START + rng.normal(size=(60, 4)) * 0.3 * unit
    slopes, noise = rng.normal(size=(2, 12, 4)), 0.2 * rng.normal(size=(2, 201, 12))
    groups, square = [], np.outer(unit, unit)
    for twins in (False, True):
        elements = []
        for e in (0, 0 if twins else 1):
            rows = noise[e] + ((points - START) / unit @ slopes[e].T)[:, None]
            surface = Surface(region, fit_surface(region, 1, points, rows), 1)
            elements.append(fit_element(surface, START[None], TABLE))
        groups.append((elements, chi2_group(elements, {"element": ["X", "Y"]}, MILKY_WAY, (3.0, 9.0))))
    for elements, group in groups:
        joint, inverse = elements_chi2(group, MILKY_WAY), [np.linalg.inv(e.minima[0].covariance) for e in elements]
        each = np.array([[m.theta for m in e.minima] for e in elements])
        expected = np.einsum("ij,ejk,ebk->bi", np.linalg.inv(sum(inverse)), inverse, each)  # statistics are linear
        np.testing.assert_allclose(joint.minimum.theta / unit, expected[0] / unit, atol=1e-3)
        narrower = inverse[0] @ np.cov(each[0, 1:].T)
        np.testing.assert_allclose(narrower, np.eye(4) * narrower[0, 0], atol=1e-3)
        scatter = np.cov(expected[1:].T) / narrower[0, 0]
        np.testing.assert_allclose(joint.covariance / square, scatter / square, atol=1e-4)
        axes = np.vstack([np.eye(4), [1.0, 0.5, 0.0, 0.0]])  # and a derived quantity
        ends = joint.minimum.theta @ axes.T + np.outer([-1, 1], np.sqrt(np.diag(axes @ joint.covariance @ axes.T)))
        size = np.append(unit, unit[0])[:, None]
        intervals = joint.intervals(lambda theta, axes=axes: axes @ theta, axes, MILKY_WAY)
        np.testing.assert_allclose(intervals / size, ends.T / size, atol=2e-3)
    np.testing.assert_allclose(joint.covariance / square, np.linalg.inv(inverse[0]) / square, atol=1e-4)


def test_chi2_knows_that_its_covariance_is_noisy():
    """With a covariance from 40 draws alone, value and rise have the means that they claim, and p is uniform."""
    rng, unit, number = np.random.default_rng(0), scales(TABLE), 40
    A, L = rng.normal(size=(12, 4)) / 0.2, np.tril(rng.normal(size=(12, 12))) + 4 * np.eye(12)
    values, rises, ps = [], [], []
    for _ in range(300):
        at_truth, chosen = L @ rng.normal(size=12), weight(rng.normal(size=(number, 12)) @ L.T, 4)
        found = minimise_chi2(lambda theta: A @ ((theta - START) / unit) + at_truth, 0.0, chosen.root, START, TABLE)  # noqa: B023
        rises.append(((chosen.root @ at_truth) ** 2).sum() - found.value)
        values.append(found.value * chosen.goodness)
        ps.append(p_value(values[-1], number, 8))
    for found, mean in ((values, 8), (rises, 4)):
        assert abs(np.mean(found) - mean) < 3 * np.std(found) / 300**0.5
    assert kstest(ps, "uniform").pvalue > 0.01


# ---- the fit


def test_a_killed_fit_loses_no_pass(tmp_path):
    class Counted(Cubic):
        calls, last = [], 40

        def __call__(self, theta):
            if len(self.calls) == self.last:
                raise KeyboardInterrupt
            self.calls.append(theta)
            return super().__call__(theta)

    with pytest.raises(KeyboardInterrupt):
        fit(stand_in(Counted, bootstraps=4), Store(tmp_path))
    Counted.last = np.inf
    resumed = fit(stand_in(Counted, bootstraps=4), Store(tmp_path))
    total = len(Counted.calls)
    Counted.calls.clear()
    whole = fit(stand_in(Counted, bootstraps=4))
    assert total == len(Counted.calls) == whole.report.passes
    np.testing.assert_array_equal(whole.replicates, resumed.replicates)


@pytest.fixture(scope="module")
def toy_fit():
    stars, labels = toy_sample(600, 3, noise=0.02)
    return fit(statistic_of(stars, labels, bootstraps=12, neighbours=32), starts=3)


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


def test_fit_reports_its_surfaces(toy_fit):
    report = toy_fit.report
    assert toy_fit.optimum.shape == (2, 4) and toy_fit.replicates.shape == (2, 12, 4)
    assert toy_fit.value.shape == toy_fit.converged.shape == toy_fit.at_bound.shape == (2, 13)
    assert report.pairs.shape == (16, 2) and len(np.unique(report.pairs, axis=0)) == 16
    assert (report.worst >= report.rms).all() and report.passes >= 50 + 16
    stars, labels = toy_sample(600, 3, noise=0.02)
    statistic = statistic_of(stars, labels, bootstraps=12, neighbours=32)
    for (e, b), error in list(zip(report.pairs, report.pair_error, strict=True))[::5]:
        theta = np.concatenate([toy_fit.optimum[e, None], toy_fit.replicates[e]])[b]
        plain = statistic(theta).series[:, e, 1:4]
        # at an optimum the surface's coefficients vanish, but for what Nelder-Mead leaves
        np.testing.assert_allclose(error, plain[b] / plain[1:].std(0, ddof=1), atol=0.15)


def spreads(fits, jacobian):
    """Bootstrap sd of each fit along the three directions of the row space of the Jacobian (3, d)."""
    directions = np.linalg.svd(jacobian)[2][:3]
    return [(one.replicates[0] / scales(TABLE) @ directions.T).std(0, ddof=1) for one in fits]


@pytest.mark.slow
def test_surfaces_and_plain_nelder_mead_spread_alike():
    """Over 64 resamples of 4,000 stars, in the three well-determined directions, within 10%."""
    stars = oti.prepare_stars(oti.embedded_stars(), ["MG_FE"], method="staeckel")
    given = stars.stars, stars.labels, stars.errors
    fast, plain = (
        fit(statistic_of(*given, actions=stars.actions, bootstraps=64, bins=0, surface=on), starts=1)
        for on in (True, False)
    )
    surface, reference = spreads([fast, plain], fast.valley.jacobian[0])
    np.testing.assert_allclose(surface, reference, rtol=0.1)


# ---- scans and joint constraints


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
    found = scan(statistic_of(stars, labels, bootstraps=16, bins=0), TRUTH, values)
    assert found.series.shape == (10, 17, 2, 5)
    crossing = found.crossing(0)
    assert abs(crossing.value - TRUTH.m_disk) < 4 * crossing.error < 0.2
    assert 0.4 < crossing.error / crossing.bootstrap.std() < 2.5


def test_galpy_stars_prefer_the_true_disk():
    """At the truth the coefficients are consistent with zero; at half the disk's mass a2 is not."""
    truth = Parameters(m_disk=1.1, h_z=0.3, z_sun=15.0, vz_sun=8.5)
    stars = sample(1200, truth, seed=5)
    statistic = statistic_of(stars, stars.labels, actions=staeckel, bootstraps=24, bins=0)

    def significance(theta):
        c = statistic(theta).series
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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bootstraps": 1}, "bootstraps=1 is too small; at least 2"),
        ({"neighbours": 3}, "neighbours=3 is too small; at least 4"),
        ({"bins": -1}, "bins=-1 is too small; at least 0"),
        ({"weights": "inverse"}, "unknown weights 'inverse'; choose one of paper, equal, total"),
        ({"angle": "theta_phi"}, "unknown angle"),
        ({"moment": "median"}, "unknown moment"),
        ({"method": "agama"}, "unknown action method"),
        ({"delta": -1.0}, "positive"),
    ],
)
def test_settings_are_checked(given, message):
    with pytest.raises(InputError, match=message):
        ClassicalSettings(**given)


def test_settings_are_recorded_as_given():
    recorded = ClassicalSettings(bins=5, delta=np.array([3.0, 4.0])).record()
    assert recorded["bins"] == 5 and recorded["delta"].startswith("array ")
    assert recorded == ClassicalSettings(bins=5, delta=np.array([3.0, 4.0])).record()


def test_too_few_stars_are_refused():
    stars, labels = toy_sample(70, 0)
    with pytest.raises(InputError, match="more than 64 stars, got 60"):
        statistic_of(ToyStars(stars.heliocentric[:60]), labels[:60])
