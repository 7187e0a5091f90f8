"""The report: what it says, that it needs nothing besides itself, and how a browser shows it."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr
from test_compare import make_classical, posterior  # noqa: F401 (a fixture)

from otibayes.analysis.report import Picture, _rounded, report

VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """The text of a page, its links and images; every tag must be closed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.text, self.addresses, self.alternatives = [], [], [], []
        self.feed(html)
        assert not self.open
        self.said = " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        attrs = dict(attrs)
        self.addresses += [attrs[name] for name in ("src", "href") if name in attrs]
        self.alternatives += [attrs.get("alt", "")] * (tag == "img")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text.append(data)


@pytest.fixture
def results(posterior):  # noqa: F811
    rng = np.random.default_rng(3)
    data = posterior["constant_data"].dataset
    measured = xr.Dataset(
        {
            "heliocentric": (("star", "coordinate"), rng.normal(size=(3, 6))),
            "abundances": (("star", "element"), rng.normal(size=(3, 2))),
        },
        {"element": ["MG_FE", "FE_H"]},
    )
    posterior["constant_data"] = xr.DataTree(data.merge(measured))
    posterior.attrs |= {"versions": '{"otibayes": "9.8.7"}', "seed": 5, "dropped": '{"FE_H <missing>": 12}'}
    return make_classical(), posterior


@pytest.fixture
def html(results):
    return report(*results, ["otibayes compare a.nc b.nc"], run_file="[run]\noutput = '<here>'")


def test_it_says_what_a_reader_asks(html):
    page = Page(html)
    for part in ("MG_FE, FE_H", "3 stars", "Sigma_1p1", "Msun/pc^2", "1.1", "across its valley only", "R-hat"):
        assert part in page.said, part
    assert "1.20 (0.90 to 1.30)" in page.said  # chi^2 with its interval
    for part in ("12", "FE_H <missing>", "otibayes compare a.nc b.nc", "output = '<here>'", "9.8.7", "ill-determined"):
        assert part in page.said, part
    assert len(page.alternatives) == 2 and all(page.alternatives)


def test_it_needs_nothing_besides_itself(html):
    assert all(address.startswith("data:") for address in Page(html).addresses)
    assert not re.search(r"url\(|@import|<script", html)


def test_pictures_of_the_caller_come_first(results):
    page = Page(report(*results, pictures=[Picture("First & best", "See <this>.", b"png")]))
    assert page.alternatives[0] == "First & best: See <this>."


def test_what_is_not_known_is_a_dash(results):
    results[1].attrs["truth"] = "{}"
    page = Page(report(make_classical(combinations=()), results[1]))
    assert "truth" not in page.said.lower().split("figures")[0].replace("the truth is known", "")
    assert "- ± -" in page.said


@pytest.mark.parametrize(
    ("mean", "sd", "shown"),
    [
        (1.03449, 0.0468, ("1.034", "0.047")),
        (68.123, 2.44, ("68.1", "2.4")),
        (2031.7, 312.0, ("2032", "312")),
        (6.5123e10, 2.3e9, ("6.51e10", "0.23e10")),
        (0.00912, 0.00031, ("0.00912", "0.00031")),
        (-0.0, 0.5, ("0.00", "0.50")),
        (1.5, 0.0, ("1.5", "0")),
        (np.nan, 1.0, ("-", "-")),
    ],
)
def test_numbers_end_at_the_second_digit_of_their_error(mean, sd, shown):
    assert _rounded(mean, sd) == shown


# ---- in a browser

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PROBE = """<script>addEventListener("load", () => {
  const images = [...document.images], root = document.documentElement;
  const shown = images.every(image => image.complete && image.naturalWidth > 100);
  const dark = getComputedStyle(document.body).backgroundColor.match(/\\d+/g)[0] < 100;
  document.title = `shown=${shown} fits=${root.scrollWidth <= root.clientWidth} dark=${dark} images=${images.length}`;
})</script></head>"""


@pytest.mark.skipif(BROWSER is None, reason="needs a Chromium; .ci/run installs Debian's where there is none")
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_it(html, tmp_path, width, dark):
    """Every image, nothing wider than the window, no message on the console; in both colour schemes."""
    path = tmp_path / "report.html"
    path.write_text(html.replace("</head>", PROBE), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--window-size={width},900"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    done = subprocess.run([BROWSER, *flags, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120)
    title = re.search("<title>(.*?)</title>", done.stdout).group(1)
    assert title == f"shown=true fits=true dark={str(dark).lower()} images=2"
    assert "CONSOLE" not in done.stderr
