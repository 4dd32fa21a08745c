"""junit.xml is valid XML whatever a message holds, and every verdict is what CI systems take it for."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import FACTS, finding, report, result

from actconform.report.files.junit import Junit
from actconform.types import Verdict
from actconform.types.report import Facts

if TYPE_CHECKING:
    from pathlib import Path

ANY_TEXT = st.text(st.characters(codec=None), max_size=30) | st.sampled_from(
    [
        "\x1b[31mred\x1b[0m",
        "\x00",
        "\ud800",
        "\udcff",
        "\ufffe",
        "]]>",
        "<script>",
        "&amp;",
        "a\r\nb\tc",
        "\x85",
        "\U0001f600",
    ]
)


def read(folder: Path, *results, **fields) -> ET.Element:
    Junit().write(report(*results, **fields), folder)
    return ET.parse(folder / "junit.xml").getroot()  # noqa: S314  written by the test


def by_name(root: ET.Element) -> dict[str, ET.Element]:
    return {str(test.get("name")): test for test in root.iter("testcase")}


@pytest.mark.parametrize(
    ("verdict", "tag"),
    [
        (Verdict.PASS, None),
        (Verdict.XFAIL, "system-out"),
        (Verdict.FAIL, "failure"),
        (Verdict.XPASS, "failure"),
        (Verdict.ERROR, "error"),
        (Verdict.CRASH, "error"),
        (Verdict.TIMEOUT, "error"),
        (Verdict.UNSUPPORTED, "skipped"),
        (Verdict.UNAVAILABLE, "skipped"),
    ],
)
def test_each_verdict_has_its_element_with_the_reason(tmp_path: Path, verdict: Verdict, tag: str | None) -> None:
    root = read(tmp_path, result(verdict=verdict, reason="because of this"))
    test = by_name(root)["relu/value/f32/torch"]
    assert [child.tag for child in test] == ([tag] if tag else [])
    if tag:
        assert "because of this" in (test[0].get("message") or "") + (test[0].text or "")
    (suite,) = (suite for suite in root if suite.get("name") == "torch")
    counts = {name: int(suite.get(name, "")) for name in ("tests", "failures", "errors", "skipped")}
    wanted = {"failure": "failures", "error": "errors", "skipped": "skipped"}.get(tag or "")
    assert counts == {"tests": 1, "failures": 0, "errors": 0, "skipped": 0, **({wanted: 1} if wanted else {})}


def test_a_failure_tells_its_findings_and_how_to_repeat_it(tmp_path: Path) -> None:
    known = finding("inf", deviation="torch-known")
    failed = result("elu/value/f32/torch", findings=(known, finding()), reason="1 of 2 findings not registered: tail")
    failure = by_name(read(tmp_path, failed))["elu/value/f32/torch"].find("failure")
    assert failure is not None
    assert failure.get("type") == "tail"
    lines = (failure.text or "").splitlines()
    assert lines[1].startswith(
        "minor tail in y, tail: x=0x40000000 truth 1.5 got 1.25 (40 ULP), 7 elements; blame: runtime"
    )
    assert lines[2].endswith("known: torch-known")
    assert lines[-1] == "actconform run elu/value/f32/torch --out conform-case"


def test_failures_come_first_in_their_suite_gravest_first_with_their_severity(tmp_path: Path) -> None:
    results = [
        result("pass/value/f32/torch"),
        result("known/value/f32/torch", Verdict.XFAIL, findings=(finding("nan-made", deviation="d"),)),
        result("small/value/f32/torch", findings=(finding(),)),
        result("nan/value/f32/torch", findings=(finding(), finding("nan-made", regime="ordinary"))),
        result("crash/value/f32/torch", Verdict.CRASH),
    ]
    root = read(tmp_path, *results)
    suite = next(suite for suite in root if suite.get("name") == "torch")
    tests = suite.findall("testcase")
    assert [str(test.get("name")).split("/")[0] for test in tests] == ["crash", "nan", "small", "pass", "known"]
    severities = [[(p.get("name"), p.get("value")) for p in test.iter("property")] for test in tests]
    assert severities == [[], [("severity", "critical")], [("severity", "minor")], [], [("severity", "critical")]]
    failure = tests[1].find("failure")
    assert failure is not None
    assert failure.get("type") == "nan-made, tail"
    assert [line.split()[0] for line in (failure.text or "").splitlines()[1:3]] == ["critical", "minor"]


def test_suites_are_routes_with_versions_and_sums(tmp_path: Path) -> None:
    cases = ("relu/value/f32/torch", "elu/value/f32/torch", "relu/value/f32/authored+ort-cpu")
    root = read(tmp_path, *map(result, cases))
    assert [(suite.get("name"), suite.get("tests")) for suite in root] == [
        ("run", "1"),
        ("torch", "2"),
        ("authored+ort-cpu", "1"),
    ]
    assert root.get("tests") == "4"
    assert {p.get("name"): p.get("value") for p in root[2].iter("property")} == FACTS.backends["ort-cpu"]
    assert root[1].get("timestamp") == "2026-02-01T00:00:00"
    assert root[1].get("time") == "0.500"


def test_a_run_that_does_not_conform_fails_even_where_all_cases_pass(tmp_path: Path) -> None:
    root = read(tmp_path, result(), problems=("required route keras did not run", "another"))
    failure = by_name(root)["the run conforms"].find("failure")
    assert failure is not None
    assert failure.get("message") == "required route keras did not run"
    assert failure.text == "required route keras did not run\nanother"
    assert root.get("failures") == "1"
    assert by_name(read(tmp_path, result()))["the run conforms"].find("failure") is None


@given(ANY_TEXT, ANY_TEXT)
def test_any_text_is_valid_and_visible(tmp_path_factory, text: str, name: str) -> None:
    subject = name.replace("/", "") or "x"
    ended = result(f"{subject}/value/f32/torch", Verdict.CRASH, reason=f"[{text}]", measurements=())
    facts = Facts(backends={"torch": {name: text}})
    root = read(tmp_path_factory.mktemp("out"), ended, facts=facts, problems=(f"[{text}]",))
    error = next(root.iter("error"))
    shown = error.text or ""
    assert (shown[0], shown[-1]) == ("[", "]")
    plain = "".join(sign for sign in text if sign.isprintable() and sign not in "\ufffe\uffff")
    assert not set(plain) - set(shown)  # nothing that can be seen is lost
    assert all(f"{sign!r}"[1:-1] in shown for sign in text if sign < " " and sign not in "\t\n")
    assert len(list(root.iter("testcase"))) == 2
