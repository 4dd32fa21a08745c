"""Merges several reports into one, as if the jobs of a nightly were one run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from actconform.errors import UsageError
from actconform.text import number_of, visible
from actconform.types import Route, Verdict
from actconform.types.report import SCHEMA, Facts, Report

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from actconform.types import Result


def merge(reports: Mapping[str, Report], expect: Sequence[str] = ()) -> Report:
    """Return one report of the reports by name, with their results in that order, dated as the latest.

    The problems of every report are kept with its name; an expected backend or route of which no case ran is one too. Where two
    have a backend with different facts, both values are kept: "AVX2 | AVX512". Raises UsageError, naming both, where two have a case in
    common, are of one run, or were made by different versions of actconform or with different goldens.
    """
    _refuse_strangers(reports)
    _refuse_doubles(reports)
    results = tuple(result for report in reports.values() for result in report.results)
    problems = [f"{visible(name)}: {problem}" for name, report in reports.items() for problem in report.problems]
    problems += [
        f"{visible(name)}: does not conform"
        for name, report in reports.items()
        if not (report.conforms or report.problems)
    ]
    problems += _missing(results, expect)
    timings: Counter[str] = Counter()
    for report in reports.values():
        timings.update(report.timings)
    first = next(iter(reports.values())).facts
    return Report(
        schema=SCHEMA,
        when=max(report.when for report in reports.values()),
        facts=Facts(actconform=first.actconform, goldens=first.goldens, backends=_backends(reports)),
        conforms=not problems,
        problems=tuple(problems),
        timings=dict(timings),
        summary={str(verdict): count for verdict, count in Counter(result.verdict for result in results).items()},
        results=results,
    )


def _refuse_strangers(reports: Mapping[str, Report]) -> None:
    for fact, advice in (("actconform", "run them with one version"), ("goldens", "run them from one checkout")):
        values: dict[str, str] = {}
        for name, report in reports.items():
            values.setdefault(str(getattr(report.facts, fact)), name)
        if len(values) > 1:
            (first_value, first_name), (second_value, second_name), *_ = values.items()
            difference = f"{first_name} is of {fact} {first_value or 'unknown'}, {second_name} of {fact} {second_value or 'unknown'}"
            raise UsageError(f"these are not parts of one run: {difference}; {advice}")


def _refuse_doubles(reports: Mapping[str, Report]) -> None:
    owner: dict[str, str] = {}
    for name, report in reports.items():
        doubles: Counter[str] = Counter()
        case = ""
        for result in report.results:
            if result.case in owner:
                doubles[owner[result.case]] += 1
                case = case or result.case
            owner[result.case] = name
        if doubles:
            earlier_name, count = doubles.most_common(1)[0]
            dated = report.when and report.when == reports[earlier_name].when
            one_run = earlier_name != name and dated and count == len(report.results)
            reason = (
                "are reports of one run" if one_run else f"have {number_of(count, 'case')} in common, {case} the first"
            )
            raise UsageError(f"{earlier_name} and {name} {reason}: nothing was merged; leave one out")


def _missing(results: Sequence[Result], expect: Sequence[str]) -> list[str]:
    reported = _named(results)
    ran = _named(result for result in results if result.verdict is not Verdict.UNAVAILABLE)
    return [
        f"expected {name}: {'none of its cases could be run' if name in reported else 'there is no report of it'}"
        for name in dict.fromkeys(expect)
        if name not in ran
    ]


def _named(results: Iterable[Result]) -> set[str]:
    """Return the routes of the results, and the backends at their ends."""
    routes = {result.route for result in results}
    return routes | {Route.of(route).backend for route in routes}


def _backends(reports: Mapping[str, Report]) -> dict[str, dict[str, str]]:
    merged: dict[str, dict[str, dict[str, None]]] = {}
    for report in reports.values():
        for backend, facts in report.facts.backends.items():
            of_backend = merged.setdefault(backend, {})
            for fact, value in facts.items():
                of_backend.setdefault(fact, {})[value] = None
    return {backend: {fact: " | ".join(values) for fact, values in facts.items()} for backend, facts in merged.items()}
