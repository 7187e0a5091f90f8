"""Data that tell nothing, or would tell it wrongly: refused in one line before sampling, or finite and wide."""

from dataclasses import replace

import astropy.coordinates as coord
import astropy.units as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import otibayes as oti
from otibayes.base.errors import InputError
from otibayes.dynamics import MILKY_WAY
from otibayes.generative import likelihood_data
from otibayes.generative import posterior as sampling
from otibayes.generative.model import GaussianField, Requirements
from otibayes.generative.statistic import condensed
from otibayes.generative.sums import moments_at
from otibayes.generative.surface import given
from otibayes.stars.preparation import prepare_stars


@pytest.fixture(scope="module")
def stars():
    return oti.embedded_stars()[:150]


def changed(stars, **columns):
    return replace(stars, abundances={**stars.abundances, **columns})


def with_one(values, place, value):
    values = np.array(values)
    values[place] = value
    return values


def refused(stars, match, **given):
    """Before anything is sampled: the sampler is not reached."""
    with pytest.raises(InputError, match=match) as error:
        oti.sample(stars, delta="local", **given)
    assert "\n" not in str(error.value)


def test_what_is_refused(stars, monkeypatch):
    monkeypatch.setattr(sampling, "sample_nuts", None)
    monkeypatch.setattr(sampling, "_maximum", None)
    feh, mg = stars.abundances["FE_H"], stars.abundances["MG_FE"]
    refused(changed(stars, FE_H=np.full(150, 0.1)), "FE_H is the same for all 150 stars.*leave it out")
    refused(changed(stars, FE_H=np.full(150, np.nan)), "only 0 stars that can be used have FE_H")
    refused(changed(stars, FE_H=np.full(150, np.nan)), "no star has all", elements=["FE_H"])
    refused(changed(stars, AGE=with_one(feh, 17, 50.0)), r"one star makes \d+% of the scatter in AGE \(star 17")
    refused(changed(stars, MG_H=feh.copy()), "FE_H and MG_H determine one another.*leave MG_H out")
    refused(changed(stars, MG_H=mg + feh), "MG_FE and FE_H and MG_H determine one another")
    refused(stars[:29], "only 29 stars can be used; the model needs 30|only 29 stars can be used, of 29")
    refused(stars, "one_element is for one element; got MG_FE, FE_H", model="one_element")
    refused(stars, "the model needs LOGG of every star", model="calibrated_abundances")


def posterior_is_finite(stars, **options):
    """The log posterior of hyperparameters and its gradient at random places, over the prior's corners of theta."""
    data = likelihood_data(prepare_stars(stars, list(stars.abundances), "local", every=False), **options)
    E = len(data.elements)
    corners = np.array(sampling.prior_grid(MILKY_WAY))[:4]
    fields = GaussianField(np.full((1, 3), 3.0), np.full((1, E), 0.5), np.eye(E)[None])
    data = data.on_box(fields, 8)
    found = [moments_at(data, theta, degrees=data.finer.degrees.max(0)) for theta in corners]
    data = data.resolving(fields, found)

    @jax.jit
    @jax.value_and_grad
    def value(hyper, sums):
        hyper = jnp.exp(hyper)
        field = GaussianField(hyper[:3], hyper[3 : 3 + E], jnp.diag(hyper[3 + E :]))
        return given(field, condensed(data.basis, sums, E), data.basis, data.unlike)

    rng = np.random.default_rng(0)
    for sums in found:
        density, slope = value(jnp.asarray(0.5 * rng.normal(size=3 + 2 * E)), sums)
        assert np.isfinite(density) and np.isfinite(slope).all()


def in_the_plane(stars):
    """Along the Galactic equator (b = 0), and moving in it."""
    number = len(stars)
    l = np.linspace(0, 350, number)  # noqa: E741
    pm_l = np.random.default_rng(0).normal(-5, 3, number)
    moving = {"pm_l_cosb": pm_l * u.mas / u.yr, "pm_b": 0 * l * u.mas / u.yr}
    flat = coord.SkyCoord(l * u.deg, 0 * l * u.deg, frame="galactic", **moving).icrs
    there = {"ra": flat.ra.deg, "dec": flat.dec.deg, "pmra": flat.pm_ra_cosdec.value, "pmdec": flat.pm_dec.value}
    return replace(stars, **there, radial_velocity=np.zeros(number))


# what is not refused: the stars, and what `oti.sample` is given
ODD = {
    "errors of zero": lambda stars: (
        replace(stars, errors={e: with_one(stars.errors[e], slice(0, 20), 0.0) for e in stars.errors}),
        {"error_classes": 3},
    ),
    "outlier": lambda stars: (
        replace(  # no element: an abundance of 50 dex is taken as missing
            stars,
            abundances={"MG_FE": stars.abundances["MG_FE"], "AGE": with_one(stars.abundances["FE_H"], 17, 50.0)},
        ),
        {"model": "heavy_tails"},
    ),
    "thirty stars": lambda stars: (stars[:30], {}),
    "in the plane": lambda stars: (in_the_plane(stars), {}),
    "missing": lambda stars: (changed(stars, FE_H=with_one(stars.abundances["FE_H"], slice(0, 100), np.nan)), {}),
}


@pytest.mark.parametrize("case", ODD)
def test_what_is_sampled_honestly(stars, case):
    odd, options = ODD[case](stars)
    model = options.pop("model", None)
    required = Requirements(tails=4.0 if model else None)
    posterior_is_finite(odd, **options, requirements=required)
    if model:
        prepared = prepare_stars(odd, list(odd.abundances), "local", every=False)
        data = likelihood_data(prepared, requirements=required)
        assert data.weight[17] < 1e-3 and data.scale[1] < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("case", ODD)
def test_what_is_sampled_to_the_end(stars, case):
    """An honest, wide posterior, which does not exclude the truth (stars that were moved into the plane have none)."""
    odd, options = ODD[case](stars)
    found = oti.sample(odd, delta="local", surface=False, chains=2, warmup=100, draws=100, **options)
    prior, posterior = found["prior"]["m_disk"].std(), found["posterior"]["m_disk"].std()
    assert 0.5 < float(posterior / prior) < 1.3
    off = abs(float(found["posterior"]["m_disk"].mean()) - dict(stars.provenance.truth)["m_disk"])
    assert case == "in the plane" or off < 3 * float(posterior)
