"""The data of the page of a history: its runs, the versions of each backend, and each case with the runs in which it changed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from actconform.report.across_runs.changed_facts import change_in_words, changed, of_route
from actconform.report.html.page_values import Texts, short_number, shown
from actconform.types import Route

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from actconform.report.across_runs.history_store import PastFinding, PastResult, PastRun
    from actconform.types.report import Change, Facts

OF_HARNESS = ("", "actconform")  # the backend of facts that concern every case


def history_data(runs: Iterable[PastRun]) -> dict[str, Any]:
    """Return the data for JSON, from runs in the order of time, which are read once; every text in it is made visible.

    A run has the facts that changed in it, a case its events: number of the run, verdict, error over limit, findings, and the facts of its
    route that changed since its last event. A run that has a case not any more is an event without a verdict.
    """
    texts = Texts()
    page_runs: list[dict[str, Any]] = []
    cases: dict[str, list[list[Any]]] = {}
    versions: dict[str, list[dict[str, Any]]] = {}
    facts_of: list[Facts] = []
    for number, run in enumerate(runs):
        changes = changed(facts_of[-1], run.facts) if facts_of else ()
        facts_of.append(run.facts)
        for case in run.changed:
            events = cases.setdefault(case, [])
            since = changed(facts_of[events[-1][0]], run.facts) if events else ()
            events.append(_event(number, run.results[case], since, texts))
        for case in run.gone:
            cases[case].append([number, None, None, [], []])
        page_runs.append(_run(run, changes))
        _add_versions(versions, number, run, changes)
    return dict(
        shown(
            {
                "runs": page_runs,
                "cases": cases,
                "versions": versions,
                "texts": texts.all(),
            }
        )
    )


def _run(run: PastRun, changes: Sequence[Change]) -> dict[str, Any]:
    return {
        "when": run.when,
        "conforms": run.conforms,
        "problems": list(run.problems),
        "facts": list(map(change_in_words, changes)),
        "cases": len(run.results),
        "verdicts": _counts(run.results.values()),
        "changed": len(run.changed),
        "gone": len(run.gone),
    }


def _counts(results: Iterable[PastResult]) -> dict[str, int]:
    return dict(Counter(str(result.verdict) for result in results).most_common())


def _event(number: int, result: PastResult, since: Sequence[Change], texts: Texts) -> list[Any]:
    share = None if result.share is None else short_number(result.share)
    facts = [texts(change_in_words(change)) for change in of_route(since, result.route)]
    findings = [texts(words) for words in dict.fromkeys(map(past_finding_words, result.findings))]
    return [number, texts(str(result.verdict)), share, findings, facts]


def past_finding_words(finding: PastFinding) -> str:
    """Return a finding in words: "critical inf in y, edge; blame: runtime"."""
    cause = f"; known: {finding.deviation}" if finding.deviation else ""
    words = f"{finding.severity} {finding.class_} in {finding.tensor}, {finding.regime}; blame: {finding.blame}{cause}"
    return words.lstrip()


def _add_versions(
    versions: dict[str, list[dict[str, Any]]], number: int, run: PastRun, changes: Sequence[Change]
) -> None:
    """Extend the spans of runs in which a backend had the same facts: a new one begins where one of its facts changed.

    `moved` counts the cases of the backend that changed in the first run of the span.
    """
    by_backend: dict[str, list[PastResult]] = {}
    for result in run.results.values():
        by_backend.setdefault(_backend(result, run.facts.backends), []).append(result)
    for backend, results in by_backend.items():
        own = [change for change in changes if change.backend == backend or change.backend in OF_HARNESS]
        spans = versions.setdefault(backend, [])
        if own or not spans:
            moved = len(set(run.changed) & {result.case for result in results}) if spans else 0
            facts = run.facts.backends.get(backend, {})
            spans.append({"first": number, "facts": list(map(change_in_words, own)), "moved": moved, "has": facts})
        spans[-1] |= {"last": number, "verdicts": _counts(results)}


def _backend(result: PastResult, backends: Mapping[str, object]) -> str:
    """Return which of the backends of the facts computes a case: that of its route, else its base name."""
    route = Route.of(result.route)
    return route.backend if route.backend in backends else route.worker
