"""Expected distances, on stars of a density that nothing of ours made, against their true distances."""

import astropy.coordinates as coord
import astropy.units as u
import numpy as np
import pytest
from astropy.table import Table

import otibayes as oti
from otibayes.base.errors import InputError

FARTHEST = 3.0  # kpc, by parallax
ERROR = 0.03  # mas


def survey(number):
    """A table of so many candidate stars of a disk within 6 kpc, of those whose 1 / parallax is at most FARTHEST; and
    their true distances, heights and vertical velocities."""
    rng = np.random.default_rng(1)
    x, y, z = rng.uniform(-6, 6, (3, number)) * [[1], [1], [0.3]]
    R = np.hypot(x - 8.122, y)
    chosen = rng.random(number) < np.exp(-(R - 8.122) / 4 - np.abs(z) / 0.3) / 5
    chosen &= np.sqrt(x**2 + y**2 + z**2) < 6
    x, y, z, R = x[chosen] - 8.122, y[chosen], z[chosen], R[chosen]
    v_R, v_phi, v_z = rng.normal(size=(3, len(x))) * [[35], [25], [18]] + [[0], [220], [0]]
    v_x, v_y = (x * v_R + y * v_phi) / R, (y * v_R - x * v_phi) / R
    position, velocity = np.array([x, y, z]) * u.kpc, np.array([v_x, v_y, v_z]) * u.km / u.s
    frame = coord.Galactocentric(
        galcen_distance=8.122 * u.kpc, z_sun=20.8 * u.pc, galcen_v_sun=[12.9, 245.6, 7.78] * u.km / u.s
    )
    sky = coord.SkyCoord(
        **dict(zip("xyz", position, strict=True)),
        **dict(zip(("v_x", "v_y", "v_z"), velocity, strict=True)),
        frame=frame,
    ).transform_to(coord.ICRS())
    true = sky.distance.to_value(u.kpc)
    parallax = 1 / true + ERROR * rng.normal(size=len(true))
    kept = parallax > 1 / FARTHEST
    columns = {"ra": sky.ra, "dec": sky.dec, "pmra": sky.pm_ra_cosdec, "pmdec": sky.pm_dec}
    table = Table({**columns, "radial_velocity": sky.radial_velocity, "parallax": parallax * u.mas})
    table["parallax_error"] = np.full(len(true), ERROR) * u.mas
    table["FE_H"] = rng.normal(size=len(true))
    return table[kept], true[kept], np.abs(z[kept]), np.abs(v_z[kept])


def test_they_are_right_on_average_where_the_stars_are_and_however_they_move():
    table, true, height, speed = survey(600_000)
    stars = oti.read_stars(table)
    expected = oti.expected_distances(stars)
    before, after = (np.log(true / np.asarray(one.distance)) for one in (stars, expected))
    assert before.mean() > 10 * before.std() / np.sqrt(len(true))
    for column in (height, speed, np.asarray(stars.distance)):
        third = np.digitize(column, np.quantile(column, [1 / 3, 2 / 3]))
        for q in range(3):
            some = after[third == q]
            assert abs(some.mean()) < 3 * some.std() / np.sqrt(len(some)) + 0.002, (q, some.mean())
    assert "distances are expectations" in expected.provenance.notes[-1]


def test_a_star_without_an_error_keeps_its_distance():
    table, *_ = survey(60_000)
    table["parallax_error"][::2] = np.nan
    table["parallax_error"][1::4] = 0.0
    stars = oti.read_stars(table)
    moved = np.asarray(oti.expected_distances(stars).distance) != np.asarray(stars.distance)
    np.testing.assert_array_equal(np.flatnonzero(moved), np.arange(3, len(stars), 4))


def test_what_cannot_be_expected_is_refused():
    table, *_ = survey(60_000)
    stars = oti.read_stars(table)
    with pytest.raises(InputError, match="1 / parallax"):
        oti.expected_distances(oti.expected_distances(stars))
    with pytest.raises(InputError, match="1 / parallax"):
        oti.expected_distances(oti.Stars.from_table(stars.to_table()))
    with pytest.raises(InputError, match="300 stars or more, got 20"):
        oti.expected_distances(stars[:20])
    table.remove_column("parallax_error")
    with pytest.raises(InputError, match="parallax_error"):
        oti.expected_distances(oti.read_stars(table))
