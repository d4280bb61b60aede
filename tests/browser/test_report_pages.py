# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as a person meets it: on a phone, on a desk, in the dark, on paper."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from diting.report import build as building
from diting.report import index
from support.browser import Browser, find
from support.evidence_sample import Sample, write

pytestmark = pytest.mark.browser
PHONE, DESK = (390, 844), (1180, 900)
HOSTILE = "<script>document.title='owned'</script><img src=http://192.0.2.1/x>"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One sealed report per verdict, one hostile one, and the index of them all."""
    evidence = tmp_path_factory.mktemp("evidence")

    def sample(month: int, **more: Any) -> Sample:
        options: dict[str, Any] = {"gap": {"dsn": 6.1, "haproxy": 7.4}, "before": 7, "stable": 4}
        return Sample(started=datetime(2026, month, 3, 9, 0, tzinfo=UTC), **(options | more))

    samples = {
        "PASS": sample(8),
        "FAIL": sample(9, lost=3),
        "INVALID": sample(10, changes={"injection": None}),
        "ABORTED": sample(11, outcome="aborted"),
        "hostile": sample(12, lost=1, changes={"not_tested": [HOSTILE], "preset": {"name": HOSTILE}}),
    }
    found = {}
    for name, wanted in samples.items():
        run = write(evidence, wanted)
        report = building.build(run)
        assert name in {report["verdict"], "hostile"}
        found[name] = run / "report.html"
    found["index"] = index.write(evidence, date(2026, 9, 20))
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = find()
    if program is None:
        pytest.skip("no Chromium on this machine; wanted: apt-get install chromium")
    with Browser(program) as running:
        yield running


@pytest.mark.parametrize("name", ["PASS", "FAIL", "INVALID", "ABORTED", "hostile", "index"])
@pytest.mark.parametrize("size", [(360, 740), PHONE, (768, 1024), DESK])
def test_pages_stand_alone_and_fit_the_screen(
    browser: Browser, pages: dict[str, Path], name: str, size: tuple[int, int]
) -> None:
    browser.open(pages[name], *size)
    too_wide = browser.value("document.scrollingElement.scrollWidth - window.innerWidth")
    assert too_wide <= 0, "the page must not scroll sideways"
    assert browser.complaints() == []
    others = [url for url in browser.requests() if url != pages[name].resolve().as_uri() and url != "data:,"]
    assert others == [], "a report loads nothing but itself"


@pytest.mark.parametrize("name", ["PASS", "FAIL", "INVALID", "ABORTED"])
def test_the_verdict_and_the_headline_figures_need_no_scrolling(
    browser: Browser, pages: dict[str, Path], name: str
) -> None:
    for width, height in (PHONE, DESK):
        browser.open(pages[name], width, height)
        assert browser.value("document.querySelector('h1').innerText") == name
        for selector in (
            "h1",
            ".what",
            "[data-figure=rto_client_seconds] .value",
            "[data-figure=rpo_count] .value",
        ):
            bottom = browser.value(f"document.querySelector('{selector}').getBoundingClientRect().bottom")
            assert 0 < bottom <= height, f"{selector} lies below the first screen"


def test_verdicts_differ_without_colour(browser: Browser, pages: dict[str, Path]) -> None:
    seen = set()
    for name in ("PASS", "FAIL", "INVALID", "ABORTED"):
        browser.open(pages[name], *DESK)
        border = browser.value("getComputedStyle(document.querySelector('.verdict')).borderTopStyle")
        sign = browser.value("document.querySelector('.verdict .sign').innerHTML.trim()")
        seen.add((border, sign))
    assert len({border for border, _ in seen}) == 4
    assert len({sign for _, sign in seen}) == 4


def contrast(front: str, back: str) -> float:
    """WCAG contrast of two CSS colours."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(front), luminance(back)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["PASS", "FAIL", "INVALID", "ABORTED"])
def test_words_can_be_read_by_day_and_by_night(
    browser: Browser, pages: dict[str, Path], name: str, dark: bool
) -> None:
    browser.open(pages[name], *DESK, dark=dark)
    back = browser.value("getComputedStyle(document.body).backgroundColor")
    for selector in ("h1", ".what", ".lead", ".figures dt", ".figures .target", "td", ".plot .tick"):
        style = f"getComputedStyle(document.querySelector('{selector}'))"
        front = browser.value(f"'{selector}'.startsWith('.plot') ? {style}.fill : {style}.color")
        assert contrast(front, back) >= 4.5, f"{selector} {front} on {back}"
    lit = sum(int(part) for part in re.findall(r"\d+", back)[:3])
    assert (lit < 200) is dark


@pytest.mark.parametrize(
    ("size", "shown", "hidden"), [(PHONE, ".narrow", ".wide"), (DESK, ".wide", ".narrow")]
)
def test_the_gap_plot_is_drawn_for_the_screen_it_is_on(
    browser: Browser, pages: dict[str, Path], size: tuple[int, int], shown: str, hidden: str
) -> None:
    browser.open(pages["PASS"], *size)
    assert browser.value(f"getComputedStyle(document.querySelector('#gap {hidden}')).display") == "none"
    smallest = browser.value(
        f"Math.min(...[...document.querySelectorAll('#gap {shown} .tick')].map(t => t.getBoundingClientRect().height))"
    )
    assert smallest >= 10, "labels must keep their size"
    labels = browser.value(
        f"[...document.querySelectorAll('#gap {shown} .gaplabel')].map(t => t.textContent)"
    )
    report = json.loads((pages["PASS"].parent / "report.json").read_text())
    expected = [report["paths"][path]["rto_client_seconds"] for path in sorted(report["paths"])]
    assert [float(label.split("\u202f")[0]) for label in labels] == pytest.approx(expected, abs=0.006)
    badly_placed = browser.value(
        f"[...document.querySelectorAll('#gap {shown} svg text')].filter(t => {{"
        " const b = t.getBoundingClientRect(), s = t.ownerSVGElement.getBoundingClientRect();"
        " return b.left < s.left - 1 || b.right > s.right + 1 || b.top < s.top - 1 || b.bottom > s.bottom + 1;"
        "}).map(t => t.textContent)"
    )
    assert badly_placed == [], "nothing may be cut off at the edge of the drawing"


def test_nothing_in_a_drill_can_inject_anything_into_its_page(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["hostile"], *DESK)
    assert browser.value("document.scripts.length") == 0
    assert browser.value("document.images.length") == 0
    assert browser.value("document.title").startswith("INVALID") or "owned" not in browser.value(
        "document.title"
    )
    assert HOSTILE in browser.value("document.body.innerText")


def test_the_report_prints_on_a4_with_nothing_cut_off(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["PASS"], *DESK)
    printed = browser.pdf()
    assert printed.startswith(b"%PDF")
    boxes = set(re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", printed))
    assert [(round(float(w)), round(float(h))) for w, h in boxes] == [(595, 842)]
    # A4 within its margins is 182 mm, 688 CSS pixels wide.
    browser.open(pages["PASS"], 688, 970, media="print", dark=True)
    assert browser.value("document.scrollingElement.scrollWidth") <= 688
    assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    cut = browser.value(
        "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1)"
        ".map(e => e.closest('section').id)"
    )
    assert cut == [], "a table that scrolls on a screen is cut off on paper"


def test_the_index_says_what_is_proven_and_what_has_expired(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["index"], *DESK)
    text = browser.value("document.body.innerText")
    assert "Expired on 2026-09-02" in text, "the last PASS, not the last drill, decides"
    rows = browser.value("[...document.querySelectorAll('#drills tbody tr')].map(r => r.innerText)")
    assert len(rows) == 5
    assert [("proves nothing" in row) for row in rows] == [False, True, True, False, False]
    assert browser.value("document.querySelectorAll('#l4 .wide svg g').length") == 5
    links = browser.value("[...document.querySelectorAll('#drills a')].map(a => a.getAttribute('href'))")
    assert all((pages["index"].parent / link).is_file() for link in links)
