"""The page of sweeps: a table, and of each sweep the map of its errors over all binades, both signs."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

from actconform.exhaustive.patterns import BINADES, CHUNKS, PATTERNS, SAMPLE, Extent
from actconform.files import write_bytes
from actconform.report.html.page import ASSETS, html_document
from actconform.report.html.page_values import short_number, shown
from actconform.report.sweep.sweep_files import SWEEP_CSV
from actconform.sweep.summary import WITHIN

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from actconform.exhaustive.statistics import SweepStatistics
    from actconform.sweep.summary import SameBits, SweepRow

SWEEP_PAGE = "index.html"
SHARED = ("elements.js", "svg.js", "theme.js")
SCRIPTS = ("sweep_maps.js", "sweep_start.js")  # in the order of their use
OF_INPUT = ("y", "d_x")  # the tensors that most kernels have alone: only others are named
EXTENT_IN_WORDS: dict[Extent, str] = {
    "sample": f"a sample of {SAMPLE:,} numbers of each of the {BINADES} binades; a largest error is a lower bound",
    "quick": f"all numbers with 2^-15 ≤ |x| < 128, and a sample of {SAMPLE:,} of each other binade, where a largest error is a lower bound",
    "all": f"all {PATTERNS:,} numbers",
}
SPECIAL = 0xFF  # the exponent of infinities and NaN, which have no error


def write_sweep_page(rows: Sequence[SweepRow], pairs: Sequence[SameBits], folder: Path) -> Path:
    """Write index.html into `folder` and return its path. Raises OSError."""
    assets = files("actconform.report.sweep") / "assets"
    scripts = [*(ASSETS / name for name in SHARED), *(assets / name for name in SCRIPTS)]
    data = {
        "rows": [_row(row) for row in rows],
        "pairs": [_pair(pair) for pair in pairs],
        "title": _title(rows),
        "samples": _samples(rows),
        "within": list(WITHIN),
        "texts": [],
    }
    path = folder / SWEEP_PAGE
    styles = [ASSETS / "page.css", assets / "sweep.css"]
    write_bytes(path, html_document(dict(shown(data)), "actconform sweep", SWEEP_CSV, styles, scripts).encode())
    return path


def _title(rows: Sequence[SweepRow]) -> str:
    whole = [row.complete and row.identity.extent == "all" for row in rows]
    return f"Kernels at {'all' if all(whole) else 'some' if any(whole) else 'a sample of'} float32 numbers"


def _samples(rows: Sequence[SweepRow]) -> list[str]:
    """Return what was swept of each range, and of each kernel that has a sample of its own."""
    lines = [
        f"{row.identity.case.subject}, {row.identity.case.aspect}: {row.identity.sample}; a largest error is a lower bound"
        if row.identity.sample
        else f"range {row.identity.extent}: {EXTENT_IN_WORDS[row.identity.extent]}"
        for row in rows
    ]
    return list(dict.fromkeys(lines))


def _inputs(row: SweepRow) -> str:
    """Return how many inputs were swept, and of how many."""
    inputs = row.statistics.inputs
    if row.identity.sample:
        return f"{inputs:,} outputs of a sample"
    return f"all {inputs:,}" if inputs == PATTERNS else f"{inputs:,} of {PATTERNS:,}"


def _row(row: SweepRow) -> dict[str, Any]:
    case, counted = row.identity.case, row.statistics
    return {
        "kernel": case.subject,
        "aspect": case.aspect,
        "route": case.route,
        "version": row.version,
        "extent": row.identity.extent,
        "inputs": counted.inputs,
        "shownInputs": _inputs(row),
        "chunks": f"{row.chunks} of {CHUNKS}",
        "ulp": short_number(counted.ulp.error),
        "ulpAt": counted.ulp.at,
        "scaled": short_number(counted.scaled.error),
        "scaledAt": counted.scaled.at,
        "right": counted.correctly_rounded,
        "proven": not counted.undecided,
        "below": [counted.below(ulp) for ulp in WITHIN],
        "bias": short_number(counted.bias),
        "flushed": counted.flushed.count,
        "findings": [
            [
                finding.class_ if finding.tensor in OF_INPUT else f"{finding.class_} ({finding.tensor})",
                finding.count,
                *finding.interval,
                finding.evidence or (finding.worst.input_hex if finding.worst else ""),
                finding.deviation or ("new" if row.complete else "not looked for yet"),
            ]
            for finding in row.findings
        ],
        "map": _map(counted),
    }


def _pair(pair: SameBits) -> dict[str, Any]:
    case = pair.first.case
    return {
        "kernel": case.subject,
        "aspect": case.aspect,
        "first": case.route,
        "second": pair.second.case.route,
        "extent": pair.first.extent,
        "chunks": f"{pair.equal} of {pair.both}",
        "uncounted": pair.uncounted,
        "differing": pair.differing.count,
        "inputs": pair.inputs,
        "ends": [pair.differing.first, pair.differing.last] if pair.differing.count else [],
    }


def _map(counted: SweepStatistics) -> list[list[float | str | None]]:
    """Return the worst ULP, and the worst scaled error, of each binade from the largest negative to the largest positive."""
    by_binade = {each.binade: each for each in counted.binades}
    order = [*range(BINADES - 2, SPECIAL, -1), *range(SPECIAL)]
    errors = [by_binade.get(binade) for binade in order]
    return [
        [short_number(worst.error) if worst and worst.error >= 0 else None for worst in column]
        for column in ((each and each.ulp for each in errors), (each and each.scaled for each in errors))
    ]
