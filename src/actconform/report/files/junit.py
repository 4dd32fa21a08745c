"""junit.xml: a test suite for each route, a test for each case, as CI systems read it."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from actconform.plugin.interfaces import Reporter
from actconform.report.rerun_command import rerun_command
from actconform.text import number_of, visible
from actconform.types import Route, Verdict, base_name
from actconform.verdict.severity import gravest, severity_order

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from actconform.types import Finding, Result
    from actconform.types.report import Report
    from actconform.verdict.severity import SeverityOrder

FAILURES = (Verdict.FAIL, Verdict.XPASS)
ERRORS = (Verdict.ERROR, Verdict.CRASH, Verdict.TIMEOUT)
SKIPPED = (Verdict.UNSUPPORTED, Verdict.UNAVAILABLE)
FINDINGS_SHOWN = 50


class Junit(Reporter):
    """The report as JUnit XML, valid whatever is in a message: what XML cannot hold is written out.

    FAIL and XPASS are failures, ERROR, CRASH and TIMEOUT errors, what was not run is skipped with its reason; what is known
    passes and says so. What fails stands first in its suite, gravest first, with its severity as a property. One more test, "the run conforms", fails with the problems of the whole run.
    """

    name = "junit"
    filename = "junit.xml"

    def write(self, report: Report, folder: Path) -> None:
        """Write junit.xml."""
        tree = ET.ElementTree(junit(report))
        ET.indent(tree)
        tree.write(folder / self.filename, encoding="utf-8", xml_declaration=True)


def junit(report: Report) -> ET.Element:
    """Return the element <testsuites> of a report."""
    by_route: dict[str, list[Result]] = defaultdict(list)
    for result in report.results:
        by_route[result.route].append(result)
    root = ET.Element("testsuites", {"name": "actconform"})
    run = _suite("run", [_run(report)], _clock(report.timings.get("total", 0.0)), report.when)
    suites = [_of_route(route, results, report) for route, results in by_route.items()]
    root.extend([run, *suites])
    for count in ("tests", "failures", "errors", "skipped"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in root)))
    root.set("time", run.get("time", "0"))
    return root


def _run(report: Report) -> ET.Element:
    test = _element("testcase", name="the run conforms", classname="run", time="0")
    if not report.conforms:
        message = report.problems[0] if report.problems else "the run does not conform"
        test.append(_element("failure", "\n".join(report.problems), message=message, type="problem"))
    return test


def _of_route(route: str, results: Iterable[Result], report: Report) -> ET.Element:
    tests, seconds = [], 0.0
    for result in sorted(results, key=_gravest_first):
        tests.append(_test(result))
        seconds += result.seconds if math.isfinite(result.seconds) else 0.0
    suite = _suite(route, tests, _clock(seconds), report.when)
    backend = Route.of(route).backend
    facts = report.facts.backends.get(backend) or report.facts.backends.get(base_name(backend), {})
    properties = _element("properties")
    properties.extend(_element("property", name=fact, value=value) for fact, value in facts.items())
    if facts:
        suite.insert(0, properties)
    return suite


def _suite(name: str, tests: list[ET.Element], time: str, when: str) -> ET.Element:
    suite = _element("testsuite", name=name, tests=str(len(tests)), time=time)
    for count, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(count, str(sum(test.find(tag) is not None for test in tests)))
    if when:
        suite.set("timestamp", when.removesuffix("Z"))  # the schema in use has no time zone
    suite.extend(tests)
    return suite


def _test(result: Result) -> ET.Element:
    test = _element("testcase", name=result.case, classname=result.route, time=_clock(result.seconds))
    verdict = result.verdict
    finding = gravest(result.findings)
    if finding is not None:
        properties = _element("properties")
        properties.append(_element("property", name="severity", value=finding.severity))
        test.append(properties)
    if verdict in FAILURES:
        text = "\n".join([result.reason, *_findings(result.findings), rerun_command(result.case)])
        new = [each for each in sorted(result.findings, key=severity_order) if each.deviation is None]
        classes = dict.fromkeys(each.class_ for each in new)
        test.append(_element("failure", text, message=result.reason, type=", ".join(classes) or str(verdict)))
    elif verdict in ERRORS:
        first = (result.reason.strip().splitlines() or [""])[0]
        test.append(
            _element("error", result.reason, message=f"{verdict} in {result.stage}: {first}", type=str(verdict))
        )
    elif verdict in SKIPPED:
        test.append(_element("skipped", message=f"{verdict}: {result.reason}"))
    elif verdict is Verdict.XFAIL:
        test.append(_element("system-out", "\n".join([result.reason, *_findings(result.findings)])))
    return test


def _gravest_first(result: Result) -> tuple[int, list[SeverityOrder]]:
    finding = gravest(result.findings)
    bad = result.verdict in FAILURES + ERRORS
    return (0 if result.verdict in ERRORS else 1 if bad else 2), [severity_order(finding)] if bad and finding else []


def _findings(findings: Iterable[Finding]) -> list[str]:
    """Return a line for each finding, gravest first, those that are not known before all others."""
    ordered = sorted(findings, key=severity_order)
    lines = [_line(finding) for finding in ordered[:FINDINGS_SHOWN]]
    return lines + ([f"... and {len(ordered) - FINDINGS_SHOWN} more"] if len(ordered) > FINDINGS_SHOWN else [])


def _line(finding: Finding) -> str:
    words = [f"{finding.severity} {finding.class_} in {finding.tensor}, {finding.regime}:".lstrip()]
    if finding.worst is not None:
        worst = finding.worst
        words.append(f"x={worst.input_hex} truth {worst.truth:.9g} got {worst.got:.9g} ({worst.ulp:.3g} ULP),")
    words.append(f"{number_of(finding.count, 'element')}; blame: {finding.blame};")
    words.append(f"known: {finding.deviation}" if finding.deviation else finding.evidence)
    return " ".join(words).rstrip("; ")


def _element(tag: str, text: str = "", **attributes: str) -> ET.Element:
    element = ET.Element(tag, {key: visible(value) for key, value in attributes.items()})
    element.text = visible(text) or None
    return element


def _clock(seconds: float) -> str:
    return f"{seconds:.3f}" if math.isfinite(seconds) else "0"
