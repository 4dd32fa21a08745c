"""The page in a real browser, as a person uses it."""

from __future__ import annotations

import math
import subprocess
import sys

import made
import msgspec
import pytest

from actconform.bench.results import FILE, write
from actconform.report.html import Html
from actconform.types import Profile, Verdict, Worst
from actconform.types.report import Point, Trend
from actconform.types.result import Curve
from actconform.types.training import Claim

HOSTILE = "<script>window.harm=1</script><img src=x onerror=window.harm=1>"
BAD = "sigmoid/value/f32/torch"
TRAINED = "#case=noise-relu/training/f32/keras"


def results():
    at = (*range(-71, -60), 0, *range(36, 42))
    profile = Profile(first=-151, width=4, at=at, share=(0.0,) * 4 + (0.3,) * (len(at) - 5) + (4.0,))
    worst = Worst(input_hex="0x40000000", index=3, truth=0.8807970779778823, got=0.5, ulp=40.0, scaled=32.0)
    finding = made.finding("scaled-error", worst=worst, regime="ordinary", magnitude=32.0, evidence=HOSTILE)
    measurement = made.measurement(32.0, regime="ordinary", profile=profile)
    for subject in ("relu", "tanh", "gelu-erf", "linear"):
        for route in ("torch", "keras", "authored+ort-cpu"):
            for dtype in ("f32", "f16"):
                yield made.result(f"{subject}/value/{dtype}/{route}")
    yield made.result(
        BAD,
        findings=(finding,),
        measurements=(measurement,),
        implementation="torch.nn.functional.sigmoid",
    )
    yield made.result("tanh/gradient/f32/torch", findings=(made.finding(deviation="tanh-tail"),), verdict=Verdict.XFAIL)
    yield made.result(f"{HOSTILE.replace('/', '')}/value/f32/torch", Verdict.ERROR, reason=HOSTILE, measurements=())
    yield made.result("relu/value/f32/authored+ort-cuda", Verdict.UNAVAILABLE, measurements=())
    layers = tuple(
        made.measurement(share, 1.0, tensor=f"dense{n}", regime="layers") for n, share in enumerate((0.1, 0.4, 3.0))
    )
    yield made.result("some-model/value/f32/torch", measurements=layers)
    yield from trainings()


def trained(route, last, *findings, wrong_step=0):
    """A training of 12 epochs, the last of which has this mean loss; of NaN nothing is measured."""
    losses = (*(1.0 / (epoch + 1) ** 2 for epoch in range(11)), last)
    curve = Curve(
        first=losses[:6],
        losses=losses,
        validation=(1.0,) * 12,
        measures={} if math.isnan(last) else {"loss": last},
        about=HOSTILE,
        steps=2,
        claims=(Claim(text="noise is learned by rote", measure="loss", at_most=0.6, published="0.56"),),
        wrong_step=wrong_step,
    )
    return made.result(f"noise-relu/training/f32/{route}", curve=curve, findings=findings)


def trainings():
    """Two routes of an experiment, of which one goes wrong in its third step and ends in NaN."""
    where = {"regime": "optimizer", "tensor": "w", "worst": None, "magnitude": 0.0}
    wrong = made.finding("scaled-error", evidence="first at step 3, optimizer: w", **where)
    yield trained("torch", 1.0 / 144)
    yield trained("keras", math.nan, wrong, wrong_step=3)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    reporter = Html()
    points = (Point("2026-01-01T00:00:00Z", 0.2, Verdict.PASS), Point("2026-02-01T00:00:00Z", 4.0, Verdict.FAIL))
    reporter.trends = {BAD: Trend(BAD, points)}
    reporter.write(made.report(*results(), problems=(HOSTILE,)), folder)
    return (folder / "index.html").as_uri()


def subjects(page):
    return page.locator("table.map tbody th").all_inner_texts()


def test_it_says_the_verdict_and_what_is_new(opened):
    page = opened()
    assert "Does not conform" in page.inner_text("h1")
    assert BAD in page.inner_text("#main")
    assert HOSTILE in page.inner_text(".problems")
    assert page.evaluate("window.harm") is None


def test_filters_narrow_the_map(opened):
    page = opened()
    assert len(subjects(page)) == 8
    page.select_option("#by-dtype", "f16")
    assert subjects(page) == ["relu", "tanh", "gelu-erf", "linear"]
    page.fill("#by-text", "gelu")
    assert subjects(page) == ["gelu-erf"]
    page.click("text=Clear")
    page.select_option("#by-verdict", "XFAIL")
    assert subjects(page) == ["tanh"]
    page.click("text=Clear")
    page.fill("#by-text", "no such thing")
    assert "Nothing fits" in page.inner_text("#map")


def test_sorting_brings_the_worst_first(opened):
    page = opened()
    page.select_option("#by-sort", "worst")
    assert subjects(page)[:4] == [HOSTILE.replace("/", ""), "sigmoid", "noise-relu", "tanh"]
    page.select_option("#by-sort", "name")
    assert subjects(page) == sorted(subjects(page))
    page.click("table.map thead button >> nth=0")
    assert page.get_attribute("table.map thead th >> nth=0", "aria-sort") == "descending"


def test_severity_narrows_the_map_and_orders_what_is_shown(opened):
    page = opened()
    page.select_option("#by-severity", "major")
    assert subjects(page) == ["sigmoid"]
    page.select_option("#by-severity", "minor")
    assert subjects(page) == ["tanh", "noise-relu"]
    assert page.inner_text('a.cell[data-key="tanh/torch"]') == "◦tail"
    assert "known1" in page.get_attribute('a.cell[data-key="tanh/torch"]', "class")
    page.click("text=Clear")
    page.click("button.chip:has-text('1 major')")
    assert subjects(page) == ["sigmoid"]
    assert "new2" in page.get_attribute('a.cell[data-key="sigmoid/torch"]', "class")


def test_routes_without_an_answer_are_shown_when_asked(opened):
    page = opened()
    assert page.locator("table.map thead th").count() == 3
    page.check("#absent")
    assert page.locator("table.map thead th").count() == 4


def test_keys_alone_lead_to_a_case_and_back(opened):
    page = opened()
    page.locator('a.cell[tabindex="0"]').focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.key") == "tanh/keras"
    page.keyboard.press("Enter")
    page.wait_for_selector("text=tanh on keras")
    assert page.evaluate("document.activeElement.tagName") == "H2"
    page.click("text=value f32")
    page.wait_for_selector("main h2:has-text('tanh/value/f32/keras')")
    page.keyboard.press("Escape")
    page.wait_for_selector("table.map")
    assert page.evaluate("document.activeElement.dataset.key") == "tanh/keras"


def test_a_deep_link_opens_the_case_with_all_of_it(opened):
    page = opened(f"#case={BAD}")
    shown = page.inner_text("main")
    wanted = ("0x40000000 (2)", "0.880797", "0.5", "32", "major", "runtime", f"actconform run {BAD}", HOSTILE)
    for words in wanted:
        assert words in shown
    assert page.locator("svg .limit").count() >= 2
    assert page.locator("svg .ring").count() == 1
    assert page.locator("svg .trend").count() == 1
    page.locator("svg .point >> nth=3").hover()
    assert "ordinary: exact" in page.inner_text("#tip")


def test_a_model_shows_its_layers_as_bars(opened):
    page = opened("#case=some-model/value/f32/torch")
    assert "Error along the layers" in page.inner_text("main")
    assert [title for title in page.locator("svg rect title").all_text_contents() if title.startswith("dense2")]


def test_an_experiment_is_a_panel_with_a_line_for_each_route(opened):
    page = opened("#training")
    panel = page.locator("#training .panel")
    assert panel.count() == 1
    assert panel.locator("polyline.curve").count() == 4
    assert panel.locator("polyline.dashed").count() == 2
    assert "logarithmic" in panel.locator("svg").first.text_content()
    assert page.locator("#training .legend").inner_text().split()[:2] == ["torch", "keras"]
    panel.locator(".column >> nth=1").hover()
    assert page.inner_text("#tip").splitlines() == ["epoch 2", "torch: 0.25 / 1", "keras: 0.25 / 1"]
    words = panel.inner_text()
    assert "✓ noise is learned by rote: loss 0.00694, expected at most 0.6 (published: 0.56) keras not judged" in words
    assert "keras first at step 3, optimizer: w" in words
    assert panel.locator("path.wrong").count() == 1
    assert page.evaluate("window.harm") is None
    page.click("#training .claims a >> nth=0")
    page.wait_for_selector("main h2:has-text('noise-relu/training/f32/keras')")
    assert page.locator("path.wrong").count() == 1
    assert "– noise is learned by rote: loss, expected at most 0.6" in page.inner_text("main")


def test_a_training_that_does_not_bear_a_claim_out_is_named(opened, tmp_path):
    Html().write(made.report(trained("torch", 0.5), trained("jax", 0.75), trained("keras", math.nan)), tmp_path)
    page = opened()
    page.goto((tmp_path / "index.html").as_uri())
    claim = page.locator("#training .claims").inner_text()
    assert claim.startswith("✗ noise is learned by rote: loss 0.5 to 0.75, expected at most 0.6 (published: 0.56)")
    assert claim.endswith("jax 0.75 keras not judged, no numbers")


def test_a_run_without_trainings_has_no_such_section(opened, tmp_path):
    Html().write(made.report(made.result()), tmp_path)
    page = opened()
    page.goto((tmp_path / "index.html").as_uri())
    assert page.locator("#training, nav a[href='#training']").count() == 0


def test_throughput_is_drawn_as_bars_with_intervals(opened, tmp_path, timed):
    relu, tanh = (
        timed({"torch": 1e-6, "keras": 2e-6}, subject=name, noise=0.0).measured[0] for name in ("relu", "tanh")
    )
    write(tmp_path / FILE, msgspec.structs.replace(timed({"torch": 1.0}), measured=[relu, tanh]))
    Html().write(made.report(made.result()), tmp_path)
    shown = opened()
    shown.goto((tmp_path / "index.html").as_uri())
    wide = [float(bar.get_attribute("width")) for bar in shown.locator("#throughput rect.bar").all()]
    assert wide[0] == pytest.approx(2 * wide[1], rel=1e-3)
    assert shown.locator("#throughput .whisker").count() == 6
    assert "1.00 µs a call" in shown.locator("#throughput title").all_text_contents()[0]
    shown.get_by_label("timed").select_option("tanh, forward")
    assert "tanh, forward" in shown.locator("#throughput svg").first.get_attribute("aria-label")


@pytest.mark.parametrize("link", ["#case=no/such/case/x", "#cell=none/torch", "#case=%E0%A4%A", "#case="])
def test_a_link_to_nothing_says_so(opened, link):
    assert "Not in this report" in opened(link).inner_text("main")


def test_the_reproduction_is_copied_whole_and_runs(opened):
    page = opened(f"#case={BAD}", permissions=["clipboard-read", "clipboard-write"])
    page.click('button[aria-label="Copy: a reproduction in Python"]')
    page.wait_for_selector("text=Copied")
    code = page.evaluate("navigator.clipboard.readText()")
    assert code == page.locator("pre").nth(1).text_content()
    pytest.importorskip("torch")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.splitlines()[1] == "truth 0.8807970779778823"


@pytest.mark.parametrize("hash_", ["", f"#case={BAD}", TRAINED, "#cause=tanh-tail"])
def test_on_a_phone_text_can_be_read_and_links_can_be_hit(opened, too_small, hash_):
    assert too_small(opened(hash_, width=390)) == []


def test_the_theme_follows_the_system_and_the_button(opened):
    def background(page):
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light, dark = opened(scheme="light"), opened(scheme="dark")
    before = background(light), background(dark)
    assert before[0] != before[1]
    light.click("#theme")
    dark.click("#theme")
    assert (background(light), background(dark)) == before[::-1]
    light.reload()
    assert background(light) == before[1]


@pytest.mark.parametrize("hash_", ["", f"#case={BAD}", "#cell=tanh/torch", TRAINED, "#cause=tanh-tail"])
def test_a_phone_needs_no_sideways_scroll(opened, hash_):
    assert opened(hash_, width=390).evaluate("document.documentElement.scrollWidth") <= 390


def test_print_leaves_out_what_cannot_be_used_on_paper(opened):
    page = opened()
    page.emulate_media(media="print")
    assert not page.is_visible(".controls")
    assert page.is_visible("table.map thead button >> nth=0")
    assert page.evaluate("getComputedStyle(document.querySelector('.map-box')).maxHeight") == "none"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "hash_", ["", f"#case={BAD}", "#cell=tanh/torch", "#case=some-model/value/f32/torch", TRAINED, "#cause=tanh-tail"]
)
def test_axe_finds_no_serious_fault(opened, serious_faults, hash_, scheme):
    assert serious_faults(opened(hash_, scheme=scheme, bypass_csp=True)) == []
