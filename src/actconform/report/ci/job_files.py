"""What a job of GitHub shows of an outcome: annotations, the job's page, the text of a comment, and JUnit XML."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from actconform.files import write_bytes
from actconform.report.files.markdown import literal, table
from actconform.text import one_line, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from actconform.report.ci.outcome import JobOutcome, Remark

COMMENT = "comment.md"
NEW_JUNIT = "new.xml"
MOST_ANNOTATIONS = 10  # of a kind that GitHub shows of a step
MOST_ROWS = 20  # of a comment
WORDS_LETTERS = 400  # of a remark
MOST_LETTERS = 60_000  # of a comment; GitHub takes 65,536


def marker(name: str) -> str:
    """Return the first line of a job's comment, which nobody sees and by which its last comment is recognized."""
    return f"<!-- actconform: {name} -->"


def annotation_lines(outcome: JobOutcome) -> Iterator[str]:
    """Yield lines that GitHub shows at the job: an error for everything worse, a warning for what was there before."""
    yield from _commands("error", outcome.worse)
    if not outcome.compared:
        yield _command("warning", "actconform", "there is no baseline: everything that does not conform counts as new")
    if outcome.earlier:
        words = (
            f"{len(outcome.earlier):,} that do not conform, as in the baseline: {outcome.earlier[0].where} the first"
        )
        yield _command("warning", "actconform", words)


def _commands(kind: str, remarks: Sequence[Remark]) -> Iterator[str]:
    shown = remarks if len(remarks) <= MOST_ANNOTATIONS else remarks[: MOST_ANNOTATIONS - 1]
    for remark in shown:
        yield _command(kind, remark.where or "actconform", remark.words)
    if len(shown) < len(remarks):
        yield _command(kind, "actconform", f"and {len(remarks) - len(shown):,} more, in the summary of the job")


def _command(kind: str, title: str, words: str) -> str:
    """Return a command of a job's log: no foreign text ends its title or, since `one_line` leaves no line ends, its line."""
    title = one_line(title).replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
    return f"::{kind} title={title}::{one_line(words).replace('%', '%25')}"


def comment(outcome: JobOutcome, name: str) -> str:
    """Return the Markdown of a job's comment, shorter than GitHub's limit."""
    lines = [marker(name), f"## actconform, {name}: {literal(outcome.headline)}", ""]
    if outcome.worse:
        rows = [
            [literal(remark.where), literal(one_line(remark.words, WORDS_LETTERS))]
            for remark in outcome.worse[:MOST_ROWS]
        ]
        lines += [*table(("where", "what is worse" if outcome.compared else "what does not conform"), rows), ""]
        if len(outcome.worse) > MOST_ROWS:
            lines += [f"… and {len(outcome.worse) - MOST_ROWS:,} more", ""]
    details = outcome.details.rstrip()
    text = "\n".join([*lines, "<details><summary>Details</summary>", "", details, "", "</details>"]) + "\n"
    if len(text) <= MOST_LETTERS:
        return text
    return "\n".join([*lines, "The details are in the job's artifact."]) + "\n"


def new_junit(outcome: JobOutcome, name: str) -> bytes:
    """Return JUnit XML: a failed test for everything worse, a skipped one for what was there before, and a test of the whole job."""
    suite = ET.Element("testsuite", {"name": f"actconform {name}"})
    job = ET.SubElement(suite, "testcase", {"name": "nothing got worse", "classname": name})
    if outcome.worse:
        ET.SubElement(job, "failure", {"message": visible(outcome.headline)})
    for tag, remarks in (("failure", outcome.worse), ("skipped", outcome.earlier)):
        for remark in remarks:
            title = visible(remark.where or "the run")
            test = ET.SubElement(suite, "testcase", {"name": title, "classname": name})
            words = remark.words if tag == "failure" else f"as in the baseline: {remark.words}"
            ET.SubElement(test, tag, {"message": visible(words)})
    suite.set("tests", str(len(suite.findall("testcase"))))
    for count, tag in (("failures", "failure"), ("skipped", "skipped"), ("errors", "error")):
        suite.set(count, str(len(suite.findall(f"testcase/{tag}"))))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    content: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return content + b"\n"


def write_job_files(outcome: JobOutcome, name: str, folder: Path) -> list[Path]:
    """Write comment.md and new.xml into the folder, and return them. Raises OSError."""
    contents = {folder / COMMENT: comment(outcome, name).encode(), folder / NEW_JUNIT: new_junit(outcome, name)}
    for path, content in contents.items():
        write_bytes(path, content)
    return list(contents)
