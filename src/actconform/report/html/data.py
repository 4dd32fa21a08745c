"""The data of the report page: every text once, numbers to as many digits as are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actconform.report.cells import NUMBERS, named
from actconform.report.error_ratio import worst_error_ratio
from actconform.report.html.bars import bars_of
from actconform.report.html.curves import curve_data
from actconform.report.html.page_values import Texts, short_number, shown
from actconform.report.html.reproduce import cotangent_of, reproduction
from actconform.report.html.selftest import selftest_of
from actconform.report.terminal.screen import DIGITS, WORDS
from actconform.text import visible
from actconform.types import RAN, Verdict
from actconform.types.dtypes import DTYPES
from actconform.types.finding import CLASSES, CONVENTION, Severity, Where
from actconform.verdict.severity import MARKS, ORDINARY_UP_TO, gravest, place_of, severity_order

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from actconform.types import Finding, Measurement, Result
    from actconform.types.cause import Cause
    from actconform.types.report import Report, Since, Trend

RANGES = {
    Where.ORDINARY: f"|x| ≤ {ORDINARY_UP_TO:g}",
    Where.LARGE: f"|x| > {ORDINARY_UP_TO:g}",
    Where.SPECIAL: "NaN, ∞",
    Where.SUBNORMAL: "subnormal",
}
CLEAN, BY_CONVENTION, KNOWN, NEW, BROKEN, REFUSED, NOT_RUN = range(7)  # the states of a case


def page_data(
    report: Report, folder: Path, *, trends: Mapping[str, Trend], register: Sequence[Cause]
) -> dict[str, Any]:
    """Return the data of the page for JSON: numbers that are not finite are "nan", "inf" and "-inf"."""
    texts = Texts()
    cases = [_case(result, texts, trends.get(result.case)) for result in report.results]
    page = {
        "conforms": report.conforms,
        "problems": list(report.problems),
        "when": report.when,
        "seconds": report.timings.get("total", 0.0),
        "actconform": report.facts.actconform,
        "goldens": report.facts.goldens,
        "backends": report.facts.backends,
        "words": {str(verdict): WORDS.get(verdict, "not run") for verdict in Verdict},
        "summary": report.summary,
        "digits": DIGITS,
        "classes": {name: [row.meaning, row.short] for name, row in CLASSES.items()},
        "severities": [[str(severity), MARKS[severity]] for severity in Severity],
        "ranges": [[str(place), words] for place, words in RANGES.items()],
        "numbers": [str(class_) for class_ in NUMBERS],
        "cases": cases,
        "register": [_registered(cause) for cause in register],
        "selftest": selftest_of(folder),
        "throughput": bars_of(folder),
        "texts": texts.all(),
    }
    return {part: value if part == "cases" else shown(value) for part, value in page.items()}


def _case(result: Result, texts: Texts, trend: Trend | None) -> dict[str, Any]:
    state, class_ = _state(result)
    worst = worst_error_ratio(result)
    case: dict[str, Any] = {
        "i": [texts(part) for part in (result.subject, result.aspect, result.dtype, result.route, result.verdict)],
        "k": state,
        "c": texts(class_),
        "g": _severity(gravest(result.findings)),
        "w": None if worst is None else short_number(worst.ratio),
        "p": short_number(_within(result.measurements)),
    }
    # fields that most cases lack are left out
    words = {"why": result.reason, "how": result.implementation, "blame": result.blame, "stage": result.stage}
    case |= {name: texts(text) for name, text in words.items() if text and text != "judge"}
    for name, pairs in (("on", result.placement), ("export", result.export)):
        if pairs:
            case[name] = {
                visible(key): texts(value if isinstance(value, str) else ", ".join(value))
                for key, value in pairs.items()
            }
    if result.measurements:
        case["m"] = [_measurement(measurement, texts) for measurement in result.measurements]
    if result.findings:
        case["f"] = [_finding(finding, result, texts) for finding in sorted(result.findings, key=severity_order)]
    if result.curve is not None:
        case["l"] = curve_data(result, texts)
    code = reproduction(result)
    if code:
        case["py"] = texts(code)
    if trend is not None and len(trend.points) > 1:
        case["t"] = [
            [texts(point.when), None if point.share is None else short_number(point.share), texts(point.verdict)]
            for point in trend.points
        ]
        case["since"] = [
            [texts(since.class_), texts(since.tensor), texts(since.regime), texts(_since(since))]
            for since in trend.since
        ]
    return case


def _state(result: Result) -> tuple[int, str]:
    """Return the state of a case, and the word for its cell: its gravest class, or the verdict."""
    verdict = result.verdict
    if verdict in (Verdict.ERROR, Verdict.CRASH, Verdict.TIMEOUT, Verdict.XPASS):
        return BROKEN, str(verdict)
    if verdict not in RAN:
        return (NOT_RUN if verdict is Verdict.UNAVAILABLE else REFUSED), ""
    worst, shown = gravest(result.findings), named(result.findings)
    if worst is None:
        return CLEAN, ""
    by_convention = worst.deviation is not None and worst.severity == CONVENTION
    state = NEW if worst.deviation is None else BY_CONVENTION if by_convention else KNOWN
    return state, shown.class_ if shown else ""


def _severity(finding: Finding | None) -> int:
    """Return the place of a finding's severity among all, 0 the gravest; behind the last where there is none."""
    places = [str(severity) for severity in Severity]
    return places.index(finding.severity) if finding and finding.severity in places else len(places)


def _within(measurements: Iterable[Measurement]) -> float:
    """Return the worst error ratio within the limit, as the screen shows it."""
    ratios = (m.max_scaled / m.limit for m in measurements if m.limit and m.max_scaled <= m.limit)
    return max(ratios, default=0.0)


def _measurement(m: Measurement, texts: Texts) -> list[Any]:
    used = [place for place, count in enumerate(m.histogram) if count]
    histogram = [used[0], *m.histogram[used[0] : used[-1] + 1]] if used else []
    numbers = [short_number(number) for number in (m.max_ulp, m.max_scaled, m.bias, m.limit)]
    profile = [] if m.profile is None else [m.profile.first, m.profile.width, m.profile.at, m.profile.share]
    return [texts(m.tensor), texts(m.regime), m.n, *numbers, histogram, profile]


def _finding(finding: Finding, result: Result, texts: Texts) -> list[Any]:
    worst: list[Any] = []
    if finding.worst is not None:
        digits = DIGITS.get(result.dtype, 9)
        numbers = (finding.worst.truth, finding.worst.got)
        worst = [finding.worst.input_hex, *(f"{number:.{digits}g}" for number in numbers)]
        worst += [short_number(finding.worst.ulp), short_number(finding.worst.scaled), cotangent_of(finding, result)]
    words = (finding.class_, finding.regime, finding.tensor, *finding.interval, finding.deviation or "", finding.blame)
    return [
        *(texts(word) for word in words),
        texts(finding.evidence),
        finding.count,
        short_number(finding.magnitude),
        worst,
        _severity(finding),
        list(RANGES).index(place_of(finding, DTYPES.get(result.dtype))),
    ]


def _since(since: Since) -> str:
    if not since.before:
        return f"since {since.when or 'the first report'}, the first that has the case"
    changed = ", ".join(f"{c.backend} {c.fact} {c.before or 'unknown'} → {c.after or 'unknown'}" for c in since.changed)
    return f"since {since.when}, not yet on {since.before}" + (
        f": {changed}" if changed else "; no fact changed between"
    )


def _registered(cause: Cause) -> dict[str, str]:
    return {"id": cause.id, "reason": " ".join(cause.reason.split()), "link": cause.link, "since": cause.since}
