"""The pages of `actconform suite onnx` and `actconform suite drawn` in a real browser, as a person uses them."""

from __future__ import annotations

from pathlib import Path

import pytest

from actconform.report.suite.drawn_page import write_drawn_page
from actconform.report.suite.suite_page import write_suite_page
from actconform.suite.drawn.drawn_report import DrawnFinding, DrawnReport, OperatorTally
from actconform.suite.suite_result import (
    BoundVerdict,
    FarthestElement,
    RuntimeFacts,
    RuntimeVerdict,
    SuiteIdentity,
    SuiteRecord,
    SuiteReport,
)

HOSTILE = "<script>window.harm=1</script><img src=x onerror=window.harm=1>"


def element(ratio: float, difference: str = "value"):
    return FarthestElement(
        output="y", data_set=0, difference=difference, ratio=ratio, error=ratio, bound=1.0, got=2.0, wanted=1.0
    )


def verdict(state: str, ratio: float = 0.5, standard: str = "passed", **more):
    worst = None if state in ("refused", "not judged") else element(ratio)
    return RuntimeVerdict(
        standard=standard, truth=BoundVerdict(state=state, worst=worst, reason=more.pop("reason", "")), **more
    )


def record(case: str, operator: str, data_state: str = "within", **runtimes):
    data = BoundVerdict(state=data_state, worst=element(449.0))
    return SuiteRecord(
        case=case, kind="node", operator=operator, operators=(operator,), opset=17, data=data, runtimes=runtimes
    )


@pytest.fixture(scope="module")
def onnx_page(tmp_path_factory):
    runtimes = tuple(RuntimeFacts(name=name, facts={"version": HOSTILE}) for name in ("first", "second"))
    records = [
        record("test_relu", "Relu", first=verdict("within"), second=verdict("within", 0.25)),
        record(
            "test_resize",
            "Resize",
            "outside",
            first=verdict("outside", 8.0, "failed", blame="runtime"),
            second=verdict("within"),
        ),
        record(
            "test_cast",
            "Cast",
            first=verdict("refused", standard="not supported", reason=HOSTILE),
            second=verdict("within"),
        ),
    ]
    identity = SuiteIdentity(suite="onnx", version="1.0", actconform="0.1", runtimes=runtimes)
    folder = tmp_path_factory.mktemp("onnx")
    report = SuiteReport(identity=identity, records=records, selected=3, notes=[f"a note {HOSTILE}"], date="2026-01-02")
    return write_suite_page(report, "actconform suite onnx --html", folder).as_uri()


def tally(operator: str, runtime: str, **counts):
    return OperatorTally(operator=operator, family="elementwise", runtime=runtime, examples=20, **counts)


def finding(kind: str, examples: int, folder: str, words: str = "y[0] is 1.0, wanted nan"):
    return DrawnFinding(
        operator="Max",
        runtime="run#1",
        kind=kind,
        dtype="float32",
        examples=examples,
        words=words,
        digest="d1",
        folder=folder,
    )


@pytest.fixture(scope="module")
def drawn_page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    place = folder / "Max" / "d1-run#1"
    place.mkdir(parents=True)
    (place / "repro.py").touch()
    report = DrawnReport(
        versions={"actconform": "0.1", "onnx": HOSTILE},
        seed=7,
        examples=20,
        runtimes={"run#1": {"version": HOSTILE}, "second": {}},
        tallies=[
            tally("Abs", "run#1", within=20, worst=0.25),
            tally("Abs", "second", within=15, refused=5, worst=0.5, reasons={f"not taken {HOSTILE}": 5}),
            tally("Max", "run#1", within=14, wrong=6),
            tally("Max", "second", refused=20),
        ],
        findings=[finding("value", 1, "", HOSTILE), finding("nan-lost", 5, "Max/d1-run#1")],
        not_run=["Tile"],
    )
    return write_drawn_page(report, "actconform suite drawn --html", folder).as_uri()


def column(page, name: str, at: int):
    return page.locator(f"section#{name} tbody tr td:nth-child({at})").all_inner_texts()


def head(page, name: str):
    return page.locator(f"section#{name} thead th").all_inner_texts()


def test_operators_of_the_standard_are_counted_and_only_counts_that_there_are_have_a_column(browse, onnx_page):
    page = browse(onnx_page)
    assert head(page, "operators") == [
        "operator", "runtime", "cases", "passed", "failed", "not supported", "within", "outside", "refused", "error / bound", "worst case",
    ]  # fmt: skip
    rows = [row.split("\t") for row in page.locator("section#operators tbody tr").all_inner_texts()]
    assert ["Resize", "first", "1", "", "1", "", "", "1", "", "8", "test_resize"] in rows
    assert ["Cast", "first", "1", "", "", "1", "", "", "1", "", ""] in rows
    assert "DOES NOT CONFORM" in page.inner_text("header")
    assert "test_resize" in page.inner_text("section#data")


def test_cases_of_the_standard_are_narrowed_and_sorted(browse, onnx_page):
    page = browse(onnx_page)
    assert column(page, "cases", 2) == ["test_resize", "test_cast"], "those that are not clean"
    page.select_option("#by-state", "")
    page.locator("section#cases thead button", has_text="error / bound").click()
    assert column(page, "cases", 6) == ["8", "0.5", "0.5", "0.5", "0.25", ""], "what has no number stands last"
    page.select_option("#by-runtime", "second")
    assert column(page, "cases", 2) == ["test_resize", "test_cast", "test_relu"]
    page.keyboard.press("/")
    page.keyboard.type("REL")
    assert column(page, "cases", 2) == ["test_relu"]
    assert column(page, "operators", 1) == ["Relu"]


def test_drawn_operators_have_their_worst_case_and_its_folder(browse, drawn_page):
    page = browse(drawn_page)
    assert [row.split("\t")[1:] for row in page.locator("section#runtimes > .scroll tbody tr").all_inner_texts()] == [
        ["40", "34", "", "6", "0.25"],
        ["40", "15", "25", "", "0.5"],
    ]
    bad = page.locator("section#operators tbody tr.bad")
    assert bad.all_inner_texts() == ["Max\telementwise\trun#1\t20\t14\t\t6\t0\tnan-lost float32 and 1 more\t"]
    assert column(page, "findings", 7) == ["not written", "Max/d1-run#1"]
    for link in (bad.locator("a"), page.locator("section#findings a")):
        path = link.evaluate("link => decodeURIComponent(new URL(link.href).pathname)")
        assert (Path(path) / "repro.py").is_file(), "the link leads to the folder"


def test_drawn_operators_are_narrowed_and_those_that_did_not_run_are_named(browse, drawn_page):
    page = browse(drawn_page)
    assert "not run: Tile" in page.inner_text("header")
    page.select_option("#by-state", "refused")
    assert column(page, "operators", 1) == ["Abs", "Max"]
    page.select_option("#by-runtime", "run#1")
    assert column(page, "operators", 1) == []
    page.select_option("#by-state", "found")
    assert column(page, "operators", 1) == ["Max"]
    page.fill("#by-text", "abs")
    assert column(page, "operators", 1) == column(page, "findings", 1) == []


@pytest.mark.parametrize("name", ["onnx_page", "drawn_page"])
def test_foreign_words_stay_words_and_a_phone_shows_the_page(browse, request, too_small, name):
    page = browse(request.getfixturevalue(name), width=390)
    page.locator("section#runtimes summary").first.click()
    assert HOSTILE in page.inner_text("main")
    assert page.evaluate("window.harm") is None
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert too_small(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["onnx_page", "drawn_page"])
def test_they_have_no_serious_fault_of_accessibility(browse, serious_faults, request, name, scheme):
    page = browse(request.getfixturevalue(name), scheme=scheme, bypass_csp=True)
    page.locator("summary").last.click()
    assert serious_faults(page) == []
