"""summary.md is short, worst first, and shows text from outside as text: checked by a Markdown parser of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from made import finding, measurement, report, result
from markdown_it import MarkdownIt

from actconform.report.files.markdown import literal, table
from actconform.report.text.summary import Summary, summary
from actconform.types import Finding, Result, Verdict

if TYPE_CHECKING:
    from pathlib import Path

GFM = MarkdownIt("commonmark").enable(["table", "strikethrough"])
SIGNS = st.text("|`<>*_[]()~\\#&;!-+=.$ab1 :/{}\"'", max_size=20)
TEXT = (
    SIGNS
    | st.text(max_size=20)
    | st.sampled_from(["<script>alert(1)</script>", "a|b", "```", "&lt;", "1. x", "- x", "[a](b)"])
)


def shown(markdown: str) -> list[str]:
    """The text of each inline part; whatever is not plain text fails."""
    parts = []
    for token in GFM.parse(markdown):
        assert token.type != "html_block"
        if token.type == "inline":
            assert {child.type for child in token.children or ()} <= {"text", "text_special"}, token.content
            parts.append("".join(child.content for child in token.children or ()))
    return parts


@given(TEXT, TEXT)
def test_any_text_is_shown_as_it_is(text: str, other: str) -> None:
    line = " ".join(text.split())
    visible = literal(text)
    readable = all(sign.isprintable() or sign in "\n\t" for sign in text)
    if readable:
        assert "".join(shown(visible)) == line
        assert "".join(shown(f"- {visible}")) == line
    cells = shown("\n".join(table(["a", "b"], [[literal(text), literal(other)]])))
    assert len(cells) == 4
    if readable:
        assert cells[2] == line


def test_the_verdict_the_counts_and_the_problems_come_first() -> None:
    text = summary(report(result(), result("elu/value/f32/torch", Verdict.XFAIL), problems=("a | b",)))
    assert text.splitlines()[:5] == ["## actconform: does not conform", "", "1 PASS, 1 XFAIL", "", "- a \\| b"]
    assert summary(report(result())).startswith("## actconform: conforms\n")
    assert "nothing was run" in summary(report())


def test_crashes_come_before_failures_and_large_errors_before_small_ones() -> None:
    def failed(name: str, magnitude: float):
        return result(f"{name}/value/f32/torch", findings=(finding("scaled-error", magnitude=magnitude),))

    crash = result("mish/value/f32/torch", Verdict.CRASH, reason="killed by SIGSEGV", measurements=())
    text = summary(report(failed("small", 16.0), failed("large", 80.0), crash))
    rows = [line for line in text.splitlines() if "/value/" in line and line.startswith("|")]
    assert [row.split("/")[0] for row in rows] == [
        "| CRASH |  | mish",
        "| FAIL | critical | large",
        "| FAIL | major | small",
    ]
    assert "killed by SIGSEGV" in rows[0]
    assert "| 10 times its limit | scaled-error; blame: runtime |" in rows[1]
    assert "actconform run mish/value/f32/torch --out conform-case" in text


def test_the_gravest_comes_first_however_large_another_error_is() -> None:
    nan = result("nan/value/f32/torch", findings=(finding(magnitude=1e9), finding("nan-made", regime="ordinary")))
    tail = result("tail/value/f32/torch", findings=(finding(magnitude=1e12),))
    text = summary(report(tail, nan))
    rows = [line for line in text.splitlines() if "/value/" in line and line.startswith("|")]
    assert [row.split("/")[0] for row in rows] == ["| FAIL | critical | nan", "| FAIL | minor | tail"]
    assert rows[0].endswith("| nan-made, tail; blame: runtime |")


def test_what_is_known_is_counted_and_listed_gravest_first_without_conventions() -> None:
    def known(subject: str, *findings: Finding) -> Result:
        return result(f"{subject}/value/f32/torch", Verdict.XFAIL, findings=findings)

    size = finding("scaled-error", magnitude=1e44, blame="exporter", deviation="d", regime="ordinary")
    agreed = finding("nan-made", blame="convention", deviation="d")
    text = summary(
        report(known("small", finding(deviation="d")), known("agreed", agreed), known("wrong", agreed, size), result())
    )
    assert text.splitlines()[2] == "1 PASS, 3 XFAIL (1 critical, 1 minor, 1 convention)"
    rows = [line.split("|")[2:4] for line in text.splitlines() if "/value/" in line]
    assert [(severity.strip(), case.strip()) for severity, case in rows] == [
        ("critical", "wrong/value/f32/torch"),
        ("minor", "small/value/f32/torch"),
        ("", "relu/value/f32/torch"),
    ]
    assert "scaled-error, nan-made; blame: exporter" in text


def test_what_passes_is_listed_by_its_share_and_once_a_subject() -> None:
    near = [
        result(f"k{n}/value/{dtype}/torch", measurements=(measurement(n / 4),))
        for n in range(30)
        for dtype in ("f32", "f16")
    ]
    text = summary(report(*near))
    rows = [line for line in text.splitlines() if "/value/" in line]
    assert rows[0] == "| pass |  | k29/value/f32/torch | 91 % of its limit |  |"
    assert len(rows) == len({row.split("/")[0] for row in rows}) == 15


def test_it_stays_short_whatever_the_run_was(tmp_path: Path) -> None:
    many = [
        result(f"{verdict}-{n}/value/f32/r{n}", verdict, reason=f"reason {n}\n" * 50, findings=(finding(),) * 20)
        for verdict in Verdict
        for n in range(200)
    ]
    Summary().write(report(*many, problems=tuple(f"problem {n}" for n in range(300))), tmp_path)
    text = (tmp_path / "summary.md").read_text()
    assert len(text.splitlines()) <= 100
    assert "… and 290 more problems" in text
    assert "… and 975 more cases" in text


def test_what_was_not_run_is_told_with_its_reason() -> None:
    gone = [
        result(f"relu/value/{dtype}/authored+ort-cuda", Verdict.UNAVAILABLE, reason="no driver: install it")
        for dtype in ("f32", "f16")
    ]
    assert "- 2 cases not run: no driver (authored+ort-cuda)" in summary(report(*gone))


def test_there_is_one_empty_line_between_parts() -> None:
    bad = result("elu/value/f32/torch", findings=(finding(),))
    for made in (report(result()), report(bad), report(bad, problems=("1 FAIL",)), report(result(), problems=("odd",))):
        assert "\n\n\n" not in summary(made)
