"""What the page shows first, and its filters and links, in a real browser."""

from __future__ import annotations

import made
import pytest

from actconform.report.html import Html
from actconform.types import Verdict
from actconform.types.cause import Cause

LARGE = {"regime": "huge"}
HOSTILE = "<b>&#=%25x"


def known(case, *findings):
    return made.result(case, Verdict.XFAIL, findings=findings)


def results():
    for route in ("torch", "keras"):
        for dtype in ("f32", "f16"):
            made_nan = made.finding("nan-made", deviation="rounds-twice", blame="framework", **LARGE)
            infinite = made.finding("inf", deviation="rounds-twice", blame="framework", regime="ordinary")
            yield known(f"gelu-erf/value/{dtype}/{route}", *([infinite, made_nan] if dtype == "f32" else [made_nan]))
    yield known("selu/value/f32/keras", made.finding("nan-made", deviation="far-out", **LARGE))
    yield known("tanh/value/f32/torch", made.finding(deviation="tails"))
    yield known("relu/value/f32/torch", made.finding("zero-sign", blame="convention", deviation="convention"))
    yield made.result("sigmoid/value/f32/torch", findings=(made.finding("zero-sign", blame="convention"),))
    yield known(f"{HOSTILE}/value/f32/torch", made.finding(deviation=HOSTILE))
    for number in range(20):
        yield made.result(f"clean-{number}/value/f32/torch")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    reporter = Html()
    reason = "the product is rounded twice"
    reporter.causes = [
        Cause(id="rounds-twice", reason=reason, link="https://example.org/1", since="0.1", routes=("*",))
    ]
    reporter.write(made.report(*results(), problems=("one case is new",)), folder)
    return (folder / "index.html").as_uri()


def subjects(page):
    return page.locator("table.map tbody th").all_inner_texts()


def causes(page):
    return page.locator("#known-lists tbody tr:visible td:first-child").all_inner_texts()


def test_what_is_new_and_critical_is_in_the_first_screen_and_the_rest_is_folded_with_its_counts(opened):
    page = opened()
    assert page.inner_text("#new h2") == "New: 1 case"
    assert page.locator("#new").bounding_box()["y"] < page.locator("#known").bounding_box()["y"] < 600
    assert causes(page) == ["rounds-twice"]
    row = page.locator("#known-lists tbody tr").first.locator("td").all_inner_texts()
    assert row == ["rounds-twice", "2 of 4", "inf", "framework", "gelu-erf", "torch +1", "the product is rounded twice"]
    assert page.locator("#known-lists summary").all_inner_texts() == [
        "▲ critical: 1 cause, 2 cases",
        "△ major: 1 cause, 1 case",
        "◦ minor: 2 causes, 2 cases",
        "◦ convention: 1 cause, 1 case",
    ]
    page.click("summary:has-text('minor')")
    assert causes(page) == ["rounds-twice", HOSTILE, "tails"]


def test_no_filter_hides_what_is_new(opened):
    page = opened("#severity=minor&text=nothing-like-it")
    assert "sigmoid/value/f32/torch" in page.inner_text("#new")
    assert page.inner_text("#known-lists") == "None that fits these filters."


def test_more_new_cases_than_fit_scroll_in_their_box_and_none_is_left_out(browse, tmp_path):
    many = (made.result(f"k{number}/value/f32/torch", findings=(made.finding(),)) for number in range(40))
    Html().write(made.report(*many), tmp_path)
    page = browse((tmp_path / "index.html").as_uri())
    assert page.locator("#new tbody tr").count() == 40
    assert page.locator("#new").bounding_box()["height"] < 700


def test_on_a_phone_a_new_case_is_a_block_that_needs_no_sideways_scroll(opened):
    page = opened(width=390)
    assert page.locator("#new td:last-child").first.bounding_box()["x"] < 20
    assert page.evaluate("document.querySelector('#new .scroll').scrollWidth <= innerWidth")


def test_quiet_subjects_are_folded_and_one_click_away(opened):
    page = opened()
    assert subjects(page) == ["gelu-erf", "selu", "sigmoid"]
    assert page.inner_text("#fold") == "Show 23 subjects with nothing graver than minor"
    page.click("#fold")
    assert len(subjects(page)) == 26
    assert page.url.endswith("#all=1")
    assert page.evaluate("document.activeElement.id") == "fold"
    page.select_option("#by-severity", "minor")
    assert subjects(page) == ["tanh", HOSTILE]


def test_a_range_of_inputs_shows_cases_as_grave_as_they_are_there(opened):
    page = opened()
    assert page.inner_text('a.cell[data-key="gelu-erf/torch"]') == "▲inf"
    page.select_option("#by-range", "large")
    assert subjects(page) == ["gelu-erf", "selu"]
    assert page.inner_text('a.cell[data-key="gelu-erf/torch"]') == "△nan-made"
    assert page.locator("#known-lists summary").all_inner_texts() == ["△ major: 2 causes, 5 cases"]
    page.select_option("#by-severity", "critical")
    assert "Nothing fits" in page.inner_text("#map")
    page.select_option("#by-range", "ordinary")
    assert subjects(page) == ["gelu-erf"]


def test_new_is_a_severity(opened):
    page = opened("#severity=new")
    assert subjects(page) == ["sigmoid"]


def test_a_link_shows_the_same_again(opened, address):
    page = opened()
    page.select_option("#by-severity", "major")
    page.select_option("#by-range", "large")
    page.fill("#by-text", "far-out & <b>")
    page.fill("#by-text", "far-out")
    page.check("#absent")
    shown = page.inner_text("#map")
    again = opened(page.url.removeprefix(address))
    assert again.inner_text("#map") == shown
    assert again.input_value("#by-severity") == "major"
    assert again.input_value("#by-text") == "far-out"
    assert again.is_checked("#absent")
    assert again.inner_text("#filters-head") == "Filters (3 set)"


def test_a_route_is_a_filter_of_the_causes_the_map_and_the_link(opened, address):
    page = opened()
    page.select_option("#by-route", "keras")
    assert subjects(page) == ["gelu-erf", "selu"]
    assert page.locator("table.map thead th").all_inner_texts() == ["keras"]
    assert page.url.endswith("#route=keras")
    again = opened(page.url.removeprefix(address))
    assert (subjects(again), again.input_value("#by-route")) == (["gelu-erf", "selu"], "keras")


def test_back_and_forward_go_through_the_filters(opened):
    page = opened(bypass_csp=True)  # of playwright's own waiting
    page.select_option("#by-severity", "minor")
    page.locator("#by-text").press_sequentially("tanh")
    assert subjects(page) == ["tanh"]
    page.click('a.cell[data-key="tanh/torch"]')
    page.wait_for_selector("text=tanh on torch")
    page.go_back()
    page.wait_for_selector("table.map")
    assert (subjects(page), page.input_value("#by-text")) == (["tanh"], "tanh")
    page.go_back()
    page.wait_for_function("document.getElementById('by-text').value === ''")
    assert page.input_value("#by-severity") == "minor"
    page.go_back()
    page.wait_for_function("document.getElementById('by-severity').value === ''")
    page.go_forward()
    page.wait_for_function("document.getElementById('by-severity').value === 'minor'")


def test_a_cell_keeps_the_filters_in_its_link_and_on_the_way_back(opened, address):
    page = opened("#range=large&dtype=f16")
    page.click('a.cell[data-key="gelu-erf/torch"]')
    page.wait_for_selector("text=gelu-erf on torch")
    again = opened(page.url.removeprefix(address))
    assert "1 case hidden by the filters" in again.inner_text("main")
    again.click("text=← all subjects")
    again.wait_for_selector("table.map")
    assert again.input_value("#by-dtype") == "f16"


@pytest.mark.parametrize(
    "hash_",
    [
        "#severity=grave&range=&dtype=f99&x",
        "#constructor=1&__proto__=2&toString",
        "#%E0%A4%A&&==",
        "#case",
        "#cell",
        "#sort=worst%20error%20on%20x",
    ],
)
def test_a_foreign_link_is_ignored(opened, hash_):
    page = opened(hash_)
    if hash_ in ("#case", "#cell"):
        assert "Not in this report" in page.inner_text("main")
    else:
        assert subjects(page) == ["gelu-erf", "selu", "sigmoid"]
        assert page.inner_text("#filters-head") == "Filters"


def test_a_cause_leads_to_its_reason_and_its_cases(opened):
    page = opened()
    page.click("#known-lists a:has-text('rounds-twice')")
    page.wait_for_selector("main h2:has-text('rounds-twice')")
    shown = page.inner_text("main")
    assert "the product is rounded twice" in shown
    assert "4 cases" in shown
    assert page.locator("main tbody tr").first.locator("td").all_inner_texts()[1:4] == [
        "critical",
        "inf, nan-made",
        "ordinary, large",
    ]
    page.click("text=Show them on the map")
    page.wait_for_selector("table.map")
    assert subjects(page) == ["gelu-erf"]


def test_hostile_names_stay_whole_in_links(opened):
    page = opened("#severity=minor")
    page.click(f"#known-lists a:has-text('{HOSTILE}')")
    page.wait_for_selector(f"main h2:has-text('{HOSTILE}')")
    page.click(f"main td a:has-text('{HOSTILE}')")
    page.wait_for_selector(f"main h2:has-text('{HOSTILE}/value/f32/torch')")
    page.click(f"text={HOSTILE} on torch")
    page.wait_for_selector("main h2:has-text(' on torch')")
    assert "Not in this report" not in page.inner_text("main")


def test_links_to_parts_keep_the_filters(opened):
    page = opened("#severity=minor")
    page.click("nav >> text=facts")
    assert page.url.endswith("#facts&severity=minor")
    assert page.input_value("#by-severity") == "minor"


def test_without_scripts_the_summary_is_there(chromium, address):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    shown = page.inner_text("body")
    context.close()
    assert "✗ Does not conform" in shown
    assert "NEW convention sigmoid/value/f32/torch: zero-sign" in shown
    assert "rounds-twice: 2 cases" in shown


def test_print_shows_what_is_folded(opened):
    page = opened()
    page.emulate_media(media="print")
    content = "getComputedStyle(document.querySelector('details.of-severity:not([open])'), '::details-content').contentVisibility"
    assert page.evaluate(content) == "visible"
