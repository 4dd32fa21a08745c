"""The page of sweeps in a real browser, as a person uses it."""

from __future__ import annotations

import pytest
from made_sweep import HOSTILE, compared, sweep

from actconform.report.sweep.sweep_page import write_sweep_page
from actconform.sweep.summary import same_bits, sweep_rows


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps")
    sweeps = [
        sweep("torch", facts={"torch": "2.13"}),
        sweep("jax", sha256="b", error=float("inf")),
        sweep(HOSTILE, chunks=5, kernel="silu", error=1e-7),
        sweep("torch", chunks=1, kernel="silu", sha256="b"),
    ]
    pairs = same_bits(sweeps, compared(but_for=(9,)))
    return write_sweep_page(sweep_rows(sweeps), pairs, folder).as_uri()


def cells(page, name):
    rows = page.locator(f"[aria-label='{name}'] tbody tr").all()
    return [row.locator("td").all_text_contents() for row in rows]


def test_each_sweep_has_a_line_with_its_figures_and_a_map(opened):
    page = opened()
    (torch, jax, hostile, _) = cells(page, "Sweeps")
    assert torch[:9] == [
        "tanh",
        "value",
        "torch",
        "torch 2.13",
        "all",
        "2,560 of 4,294,967,296",
        "256 of 256",
        "0.75",
        "0x00000000",
    ]
    assert torch[11] == "2,048 (80 %)"
    assert jax[7] == "∞"
    assert hostile[2] == HOSTILE
    assert page.locator(".map-panel svg").count() == 4
    drawn = page.locator(".map-panel path.ulp").first.get_attribute("d")
    assert drawn.count("M") == 256  # of every chunk one binade has errors
    assert page.evaluate("window.harm") is None


def test_what_differs_in_bits_and_what_breaks_a_limit_stand_in_tables(opened):
    page = opened()
    silu, tanh = cells(page, "Bits")
    assert tanh == [
        "tanh", "value", "jax", "torch", "all", "0 of 256", "510", "2,550 (without 1 chunk)", "0x00000001 … 0x80000002",
    ]  # fmt: skip
    assert silu[5:8] == ["0 of 1", "not counted", "0 (without 1 chunk)"]
    assert cells(page, "What breaks a limit")[0] == ["tanh", "value", "torch", "nan-made", "3", "0x1 … 0x2", "", "new"]


def test_a_map_says_in_words_what_it_shows(opened):
    page = opened()
    words = page.locator(".map-panel svg").first.get_attribute("aria-label")
    assert words == "tanh, value, torch: at most 0.75 ULP at 0x00000000, 0.5 scaled at 0x2"


def test_the_theme_follows_the_system_and_the_button(opened):
    def background(page):
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light, dark = opened(scheme="light"), opened(scheme="dark")
    before = background(light), background(dark)
    assert before[0] != before[1]
    light.click("#theme")
    assert background(light) == before[1]


@pytest.mark.parametrize("hash_", ["", "#maps", "#limits"])
def test_a_phone_needs_no_sideways_scroll(opened, hash_):
    assert opened(hash_, width=390).evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(opened, serious_faults, scheme):
    assert serious_faults(opened(scheme=scheme, bypass_csp=True)) == []
