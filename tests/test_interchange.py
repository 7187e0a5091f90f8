"""Stars from and to tables in memory, and how objects show themselves."""

from html.parser import HTMLParser

import numpy as np
import pytest
from astropy import units as u
from astropy.table import MaskedColumn, Table

import otibayes as oti
from otibayes import InputError, MassModel, Stars

STARS = oti.embedded_stars()[:50]


def same(ours, theirs):
    for name in ("ra", "dec", "distance", "pmra", "pmdec", "radial_velocity"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    for name in ("abundances", "errors", "astrometric_errors"):
        assert getattr(ours, name).keys() == getattr(theirs, name).keys()
        for key, values in getattr(ours, name).items():
            np.testing.assert_array_equal(values, getattr(theirs, name)[key])
    assert ours.provenance.truth == theirs.provenance.truth


def test_a_table_gives_back_the_same_stars():
    same(Stars.from_table(STARS.to_table()), STARS)


def test_a_data_frame_gives_back_the_same_stars():
    same(Stars.from_pandas(STARS.to_pandas()), STARS)


def test_a_table_and_its_file_give_the_same_stars(tmp_path):
    table = STARS.to_table()
    oti.write_table(table, tmp_path / "stars.ecsv")
    same(Stars.from_table(table), oti.read_stars(tmp_path / "stars.ecsv"))


def test_units_masks_and_options_are_those_of_files():
    table = STARS.to_table()
    table["distance"] = table["distance"].to(u.pc)
    table["rv"] = MaskedColumn(table["radial_velocity"].data, mask=np.arange(50) == 3)
    table.remove_column("radial_velocity")
    stars = Stars.from_table(table, columns={"radial_velocity": "rv"}, elements=["FE_H"])
    assert len(stars) == 49 and list(stars.abundances) == ["FE_H"]
    np.testing.assert_allclose(stars.distance, np.delete(STARS.distance, 3), rtol=1e-15)


def test_missing_values_of_a_data_frame_are_missing():
    frame = STARS.to_pandas()
    frame["FE_H"] = frame["FE_H"].astype("Float64")
    frame.loc[4, "FE_H"] = None
    assert np.isnan(Stars.from_pandas(frame).abundances["FE_H"]).nonzero()[0].tolist() == [4]


def test_tables_of_other_values_differ_in_their_digest():
    table = STARS.to_table()
    before = Stars.from_table(table).provenance.sha256
    assert Stars.from_table(table.copy()).provenance.sha256 == before
    table["FE_H"][0] += 0.1
    assert Stars.from_table(table).provenance.sha256 != before


@pytest.mark.parametrize(
    ("table", "message"), [(Table(), "empty"), (Table({"ra": [1.0], "dec": [2.0]}), "no column parallax")]
)
def test_a_table_that_cannot_be_used_is_refused(table, message):
    with pytest.raises(InputError, match=message):
        Stars.from_table(table)


class Balanced(HTMLParser):
    """Checks that every tag is closed, and collects the text."""

    def __init__(self, html):
        super().__init__()
        self.open, self.text = [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_stars_show_themselves():
    assert repr(STARS) == "<Stars: 50 from embedded.ecsv; MG_FE, FE_H>"
    text = Balanced(STARS._repr_html_()).text
    assert {"ra", "deg", "MG_FE", "dex", "50"} <= set(text) and any("m_disk 1.1" in line for line in text)


def test_a_mass_model_shows_itself():
    assert repr(oti.MILKY_WAY) == "<MassModel: disk, bulge, nucleus, halo; parameters m_disk, h_z, z_sun, vz_sun>"
    assert {"m_disk", "0.4 to 1.8", "Normal(7.78, 3)"} <= set(Balanced(oti.MILKY_WAY._repr_html_()).text)
    assert "&lt;disk&gt;" in MassModel({"<disk>": lambda R, z, theta: 0.0})._repr_html_()
