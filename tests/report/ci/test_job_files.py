"""What GitHub shows of a job: foreign text stays text, and everything fits."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from markdown_it import MarkdownIt

from actconform.report.ci.job_files import MOST_LETTERS, annotation_lines, comment, new_junit
from actconform.report.ci.outcome import JobOutcome, Remark

HOSTILE = "a,b::%0A]]>\n::error::\x1b[31m <script>alert(1)</script> | `x` ![i](http://e) @everyone"


def outcome(worse=(), earlier=(), *, compared=True, details="nothing") -> JobOutcome:
    return JobOutcome(compared=compared, worse=tuple(worse), earlier=tuple(earlier), details=details)


def test_each_is_an_error_and_what_was_there_before_a_warning():
    lines = list(annotation_lines(outcome([Remark("relu/value/f32/torch", "inf: 7")], [Remark("b", "c")])))
    assert lines == [
        "::error title=relu/value/f32/torch::inf: 7",
        "::warning title=actconform::1 that do not conform, as in the baseline: b the first",
    ]


def test_more_than_github_shows_are_counted():
    lines = list(annotation_lines(outcome([Remark(f"case {k}", "w") for k in range(25)])))
    assert len(lines) == 10
    assert "and 16 more" in lines[-1]


def test_a_missing_baseline_is_a_warning():
    (line,) = annotation_lines(outcome(compared=False))
    assert line.startswith("::warning")
    assert "no baseline" in line


def test_foreign_text_ends_no_command_and_no_line():
    (line,) = annotation_lines(outcome([Remark(HOSTILE, HOSTILE)]))
    assert "\n" not in line
    assert "\x1b" not in line
    title, _, words = line.removeprefix("::error title=").partition("::")
    assert "," not in title
    assert "%250A" in title
    assert "%250A" in words


def test_a_comment_begins_with_its_marker_and_shows_foreign_text_as_text():
    text = comment(outcome([Remark(HOSTILE, HOSTILE)]), "encoder")
    assert text.startswith("<!-- actconform: encoder -->\n")
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert "<script>" not in html
    assert "<img" not in html
    assert "<code>" not in html
    assert html.count("<td") == 2


def test_a_comment_fits():
    many = [Remark(f"case {k}", "w" * 3000) for k in range(500)]
    text = comment(outcome(many, details="d" * 100_000), "x")
    assert len(text) < MOST_LETTERS
    assert "and 480 more" in text
    assert "in the job's artifact" in text


def parsed(content: bytes) -> ET.Element:
    return ET.fromstring(content)  # noqa: S314  made here


def test_junit_fails_for_what_is_worse_and_skips_what_was_there():
    root = parsed(new_junit(outcome([Remark(HOSTILE, HOSTILE)], [Remark("b", "c")]), "encoder"))
    (suite,) = root
    assert {count: suite.get(count) for count in ("tests", "failures", "skipped")} == {
        "tests": "3",
        "failures": "2",
        "skipped": "1",
    }
    (suite,) = parsed(new_junit(outcome(), "encoder"))
    assert (suite.get("tests"), suite.get("failures")) == ("1", "0")
