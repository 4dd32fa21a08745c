"""New findings as a local, dated register: formulas where one of the known ones explains every element, else what was seen."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from actconform._version import __version__
from actconform.text import number_of
from actconform.types import Route

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from actconform.types import Finding, Result
    from actconform.types.cause import Cause, Register
    from actconform.types.report import Report

MARGIN = 1.25  # other thread counts and array lengths move an observed maximum a little


class Adopted(NamedTuple):
    """The text of a register, and its findings by how they are explained: by a formula, or as seen, not explained."""

    text: str
    explained: list[str]
    unexplained: list[str]


def adopt(report: Report, register: Register, date: str) -> Adopted:
    """Return the causes that cover the new findings of a report, those explained by known formulas first."""
    by_formula: dict[tuple[str, str], list[tuple[Result, Finding]]] = defaultdict(list)
    as_seen: dict[str, list[tuple[Result, Finding]]] = defaultdict(list)
    causes = {cause.id: cause for cause in register.causes}
    for result in report.results:
        for finding in result.findings:
            if finding.deviation is not None:
                continue
            candidate = next((name for name in finding.candidates if name in causes), None)
            if candidate is not None and (causes[candidate].graph or causes[candidate].library):
                by_formula[candidate, result.route].append((result, finding))
            else:
                as_seen[result.route].append((result, finding))
    tables = [
        _by_formula(causes[name], route, findings, date) for (name, route), findings in sorted(by_formula.items())
    ]
    tables += [_as_seen(route, findings, report.facts.backends, date) for route, findings in sorted(as_seen.items())]
    head = f"# adopted on {date}: what new findings there were, by the formula that explains each, else as they were seen\n"
    return Adopted(
        "\n\n".join([head.rstrip("\n"), *tables]) + "\n",
        [_words(result, finding) for findings in by_formula.values() for result, finding in findings],
        [_words(result, finding) for findings in as_seen.values() for result, finding in findings],
    )


def _words(result: Result, finding: Finding) -> str:
    where = " ".join(filter(None, (finding.class_, finding.tensor, finding.regime)))
    return f"{result.case}: {where}, {number_of(finding.count, 'element')}"


def _by_formula(cause: Cause, route: str, findings: Iterable[tuple[Result, Finding]], date: str) -> str:
    """Return the cause of another route for this one, with the formulas of the kernels that need them alone."""
    lines = [
        "[[cause]]",
        f"id = {_toml(f'local-{route}-{cause.id}'.replace('+', '-'))}",
        f"reason = {_toml(cause.reason)}",
        f"link = {_toml(cause.link)}",
        f"since = {_toml(f'{__version__}, adopted {date}')}",
        f"routes = {_toml([route])}",
        f"library = {_toml(cause.library)}",
        "test = false",
    ]
    if cause.graph:
        lines.append("graph = true")
    needed = {(result.aspect, result.subject, finding.tensor) for result, finding in findings}
    for aspect, table in (("value", cause.value), ("gradient", cause.gradient)):
        texts = {
            (f"{kernel}/{tensor}" if f"{kernel}/{tensor}" in table else kernel): cause.texts_of(aspect, kernel, tensor)
            for needed_aspect, kernel, tensor in sorted(needed)
            if needed_aspect == aspect
        }
        rows = [f"{_toml(name)} = {_toml(list(text))}" for name, text in texts.items() if text]
        lines += [f"[cause.{aspect}]", *rows] if rows else []
    return "\n".join(lines)


def _as_seen(
    route: str, findings: Iterable[tuple[Result, Finding]], facts: Mapping[str, Mapping[str, str]], date: str
) -> str:
    backend_facts = facts.get(Route.of(route).backend, {})
    wanted = ("cpu_capability", "cpu_features", "onednn", "machine")
    when = {fact: [backend_facts[fact]] for fact in wanted if fact in backend_facts}
    bounds: dict[tuple[str, ...], float] = {}
    for result, finding in findings:
        key = (finding.class_, result.aspect, result.subject, result.dtype, finding.tensor, finding.regime)
        bounds[key] = max(bounds.get(key, 0.0), finding.magnitude)
    rows = []
    for (class_, aspect, kernel, dtype, tensor, regime), bound in sorted(bounds.items()):
        fields: dict[str, Any] = {"class": class_, "aspect": aspect, "kernels": [kernel], "dtypes": [dtype]}
        fields |= {"tensors": [tensor], "regimes": [regime], "bound": MARGIN * bound}
        rows.append(f"    {_toml(fields)},")
    lines = [
        "[[cause]]",
        f"id = {_toml(f'local-{route}-seen-{date}'.replace('+', '-'))}",
        f"reason = {_toml(f'adopted {date}: seen here, explained by no known formula')}",
        'link = "unreported"',
        f"since = {_toml(f'{__version__}, adopted {date}')}",
        f"routes = {_toml([route])}",
        f"when = {_toml(when)}",
        "covers = [",
        *rows,
        "]",
    ]
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(item)}" for name, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value) if isinstance(value, str) else repr(value)
