"""report.json comes back as it went, and whatever else lies in its place is named; the published schema holds it."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import finding, measurement, report, result

from actconform.errors import UsageError
from actconform.report.files.schema import schema, schema_document
from actconform.report.read import read_report
from actconform.run.recorder import write_report
from actconform.types import Verdict, Worst
from actconform.types.json import finite

TOP = Path(__file__).parents[2]
NAN, INF = float("nan"), float("inf")
FLOATS = st.floats() | st.sampled_from([NAN, INF, -INF, 0.0, -0.0, 5e-324])
WORDS = st.text(max_size=8) | st.sampled_from(["nan", "inf", "-inf", "<script>", "\x1b[31m", "null"])


@given(FLOATS, FLOATS, WORDS, WORDS, st.sampled_from(Verdict))
def test_a_report_comes_back_as_it_went(tmp_path_factory, one, other, word, reason, verdict) -> None:
    worst = Worst(input_hex=word, index=0, truth=one, got=other, ulp=one, scaled=other)
    found = finding("tail", worst=worst, magnitude=one, deviation=reason, evidence=word)
    made = report(
        result(findings=(found,), verdict=verdict, reason=reason, measurements=(measurement(1.0, bias=other),)),
        problems=(word,),
    )
    folder = tmp_path_factory.mktemp("out")
    file = write_report(folder, made)
    assert repr(read_report(folder)) == repr(made)  # nan is nan there
    assert repr(read_report(file)) == repr(made)


def written(folder: Path) -> bytes:
    return write_report(folder, report(result(), result("elu/value/f32/torch"))).read_bytes()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda text: text[:-1], "is cut off; wanted the report.json of a run, whole"),
        (lambda text: text[: len(text) // 2], "is cut off"),
        (lambda _: b"", "is empty; wanted"),
        (lambda _: b"<html>", "is not JSON"),
        (lambda _: b"\xff\xfe\x00", "is not JSON"),
        (lambda _: b'{"x":' + b"[" * 100_000, "is not JSON"),
        (lambda _: b"[1, 2]", "is JSON, but not the report of a run"),
        (lambda _: b"null", "is JSON, but not the report of a run"),
        (lambda _: b'{"version": "2.1.0", "runs": []}', "is JSON, but not the report of a run"),
        (lambda text: text.replace(b'"PASS",', b'"PASSED",'), "is JSON, but not the report of a run"),
        (lambda text: text.replace(b'"results":[{', b'"results":["x",{'), "not the report of a run"),
        (
            lambda text: text.replace(b'"elu/value/f32/torch"', b'"relu/value/f32/torch"'),
            "has relu/value/f32/torch more than",
        ),
        (lambda text: text.replace(b'"PASS",', b'"FAIL",', 1), "says that it conforms, and has 1 FAIL"),
        (lambda text: text.replace(b'"schema":1', b'"schema":2'), "is of schema 2, this actconform reads schema 1"),
        (lambda text: text.replace(b'"schema":1', b'"schema":"new"'), "not the report of a run"),
        (lambda text: text.replace(b"2026-02-01T", b"yesterday "), "not the report of a run"),
    ],
)
def test_what_is_no_report_is_named(tmp_path: Path, wrong, words: str) -> None:
    file = tmp_path / "report.json"
    text = written(tmp_path)
    assert wrong(text) != text
    file.write_bytes(wrong(text))
    for place in (tmp_path, file):
        with pytest.raises(UsageError) as raised:
            read_report(place)
        assert str(raised.value).startswith(f"{file}: ")
        assert words in str(raised.value)


def test_what_is_not_there_is_named_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere: cannot be read: No such file .* make one with `actconform run`"):
        read_report(tmp_path / "nowhere")
    (tmp_path / "results.jsonl").write_text("")
    with pytest.raises(UsageError, match=r"did not come to an end: go on with `actconform run --resume --out"):
        read_report(tmp_path)


def test_a_field_that_came_later_is_no_fault(tmp_path: Path) -> None:
    text = json.loads(written(tmp_path))
    text["later"], text["results"][0]["later"] = 1, {}
    (tmp_path / "report.json").write_text(json.dumps(text))
    assert len(read_report(tmp_path).results) == 2


def test_a_report_of_before_there_were_severities_gets_them(tmp_path: Path) -> None:
    findings = (finding(), finding("nan-made", regime="ordinary", blame="exporter"))
    made = report(result("elu/value/f32/torch", findings=findings), problems=("1 FAIL",))
    write_report(tmp_path, made)
    path = tmp_path / "report.json"
    old = json.loads(path.read_bytes())
    (case,) = old["results"]
    case["findings"] = [{k: v for k, v in each.items() if k != "severity"} for each in case["findings"]][::-1]
    case["blame"] = "convention"
    path.write_text(json.dumps(old))
    assert read_report(path) == made
    assert [(each.class_, each.severity) for each in made.results[0].findings] == [
        ("nan-made", "critical"),
        ("tail", "minor"),
    ]


def test_the_published_schema_is_that_of_the_code() -> None:
    assert (TOP / "docs/report-schema.json").read_text() == schema_document(), "run `make docs`"
    jsonschema.Draft202012Validator.check_schema(schema())


def test_the_schema_holds_every_report_and_refuses_others() -> None:
    worst = Worst(input_hex="0x7fc00000", index=0, truth=NAN, got=-INF, ulp=INF, scaled=0.5)
    made = finite(
        report(
            result(findings=(finding(worst=worst), finding(worst=None, deviation="known"))),
            result("elu/gradient/bf16/authored+ort-cpu", Verdict.UNSUPPORTED, measurements=(), reason="no"),
            result("tanh/value/f32/torch", measurements=(measurement(0.0, 0.0),)),
            problems=("1 FAIL",),
        )
    )
    check = jsonschema.Draft202012Validator(schema())
    check.validate(made)
    for path, wrong in (
        (("schema",), 2),
        (("results", 0, "verdict"), "passed"),
        (("results", 0, "findings", 0, "worst", "truth"), "NaN"),
        (("results", 0, "measurements", 0, "margin"), None),
        (("when",), "yesterday"),
        (("results", 1, "case"), None),
    ):
        broken = json.loads(msgspec.json.encode(made))
        part = broken
        for step in path[:-1]:
            part = part[step]
        assert path[-1] in part
        part[path[-1]] = wrong
        assert not check.is_valid(broken), path
