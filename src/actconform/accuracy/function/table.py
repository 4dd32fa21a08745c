"""A measurement as people read it: some ten lines of text, or a small table for a notebook."""

from __future__ import annotations

import math
from collections import defaultdict
from html import escape
from typing import TYPE_CHECKING

from actconform.text import number_of
from actconform.types.dtypes import DTYPES
from actconform.types.finding import CLASSES
from actconform.verdict.severity import mark

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.accuracy.function.measurement import AspectMeasurement, FunctionMeasurement, WorstInput
    from actconform.types import Finding

SHOWN = 6  # lines of findings of an aspect; the others are counted
NAMES = {"value": "values", "gradient": "gradients"}
# Up to this many ULP, and in what words.
BINS = ((0.5, "to 1/2"), (1.0, "to 1"), (2.0, "to 2"), (8.0, "to 8"), (math.inf, "more"))


def text(measurement: FunctionMeasurement) -> str:
    """Return what was measured in some ten lines: the verdict, then figures, worst input and findings of each aspect."""
    lines = [_headline(measurement)]
    for aspect in measurement.aspects:
        lines += _figures(aspect)
        new = [finding for finding in aspect.findings if finding.deviation is None]
        groups = _by_class(new)
        lines += [f"  {_line(group, aspect, measurement.dtype)}" for group in groups[:SHOWN]]
        if len(groups) > SHOWN:
            lines.append(f"  and {number_of(len(groups) - SHOWN, 'more kind')} in .findings")
        if conventions := len(aspect.findings) - len(new):
            lines.append(f"  {number_of(conventions, 'difference')} where both answers are defensible (convention)")
        if aspect.not_judged:
            lines.append(f"  not judged: {aspect.not_judged}")
    return "\n".join(lines)


def html(measurement: FunctionMeasurement) -> str:
    """Return the same as a small table of HTML without styles or scripts."""
    head, *lines = text(measurement).splitlines()
    rows = "".join(f'<tr><td style="text-align:left"><code>{escape(line.strip())}</code></td></tr>' for line in lines)
    return (
        f'<table><thead><tr><th style="text-align:left">{escape(head)}</th></tr></thead><tbody>{rows}</tbody></table>'
    )


def _headline(measurement: FunctionMeasurement) -> str:
    parameters = ", ".join(f"{name} {value:.9g}" for name, value in measurement.parameters.items())
    definition = measurement.definition + (f" with {parameters}" if parameters else "")
    verdict = "conforms" if measurement.conforms else "DOES NOT CONFORM"
    return f"{measurement.function} as {measurement.kernel} in {measurement.dtype}: {verdict}    ({definition})"


def _figures(aspect: AspectMeasurement) -> list[str]:
    """Return the lines of an aspect's figures: how accurate, how the errors are spread, and the worst input."""
    name = f"{NAMES[aspect.aspect]:<9}"
    if not aspect.n:
        return [f"{name} none could be compared"]
    unit = next((measurement.unit for measurement in aspect.measurements), "")
    accuracy = f"{100 * aspect.correctly_rounded:.2f} % correctly rounded, at most {_size(aspect.max_ulp)} ULP"
    bias = f"bias {aspect.bias:+.3f} {'ULP' if unit == 'ulp' else f'{unit} units'}"
    lines = [f"{name} {number_of(aspect.n, 'element')}, {accuracy}, {bias}", f"  |error| in ULP: {_spread(aspect)}"]
    if worst := aspect.worst:
        lines.append(f"  worst at x = {_worst(worst)}")
    return lines


def _spread(aspect: AspectMeasurement) -> str:
    """Return the shares of the elements with errors of some sizes."""
    counted, low, parts = sum(count for _, _, count in aspect.histogram), -1.0, []
    for high, words in BINS:
        n = sum(count for edge, _, count in aspect.histogram if low <= edge < high)
        low = high
        if n:
            parts.append(f"{words} {100 * n / counted:.2f} %")
    return ", ".join(parts) or "no number was compared with a number"


def _worst(worst: WorstInput) -> str:
    size = f"{_size(worst.ulp)} ULP, {_times(worst.share)}" if worst.share < math.inf else "which no limit allows"
    return f"{worst.input:.9g} ({worst.input_hex}): got {worst.got:.9g}, truth {worst.truth:.9g}, {size}"


def _by_class(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Return the findings of one severity, class and tensor together, in the order of the first of each."""
    groups: dict[tuple[str, str, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        groups[finding.severity, finding.class_, finding.tensor].append(finding)
    return list(groups.values())


def _line(group: Sequence[Finding], aspect: AspectMeasurement, dtype: str) -> str:
    """Return what findings of one class say together: how grave, what, how many elements, between which inputs, how far off."""
    first = group[0]
    row = CLASSES[first.class_]
    count = sum(finding.count for finding in group)
    words = f"{mark(first)} {first.severity:<8} {row.meaning}: {count:,} in {', '.join(_regimes(group)) or 'all'}"
    ends = [end for finding in group if finding.interval.first for end in finding.interval.ends(DTYPES[dtype])]
    numbers = [end for end in ends if not math.isnan(end)]
    if numbers:
        low, high = min(numbers), max(numbers)
        words += f", x = {low:.6g}" if low == high else f", x from {low:.6g} to {high:.6g}"
    elif ends:
        words += ", x = NaN"
    limits = [m.limit for m in aspect.measurements if (m.regime, m.tensor) == (first.regime, first.tensor)]
    if row.unit == "scaled" and limits and limits[0]:
        words += f", up to {_times(max(finding.magnitude for finding in group) / limits[0])}"
    elif row.unit == "ulp":
        words += f", up to {_size(max(finding.magnitude for finding in group))} ULP"
    return words + (f" ({first.evidence})" if first.evidence else "")


def _regimes(group: Sequence[Finding]) -> list[str]:
    return list(dict.fromkeys(finding.regime for finding in group if finding.regime))


def _times(share: float) -> str:
    return f"{100 * share:.0f} % of its limit" if share <= 1 else f"{_size(share)} times its limit"


def _size(value: float) -> str:
    return f"{value:.3g}" if value < 1e4 else f"{value:.2e}"
