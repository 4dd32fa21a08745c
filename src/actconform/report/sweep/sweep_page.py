"""The page of sweeps: a table, and of each sweep the map of its errors over all binades, both signs."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

from actconform.exhaustive.patterns import BINADES, CHUNKS
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
SPECIAL = 0xFF  # the exponent of infinities and NaN, which have no error


def write_sweep_page(rows: Sequence[SweepRow], pairs: Sequence[SameBits], folder: Path) -> Path:
    """Write index.html into `folder` and return its path. Raises OSError."""
    assets = files("actconform.report.sweep") / "assets"
    scripts = [*(ASSETS / name for name in SHARED), *(assets / name for name in SCRIPTS)]
    data = {
        "rows": [_row(row) for row in rows],
        "pairs": [_pair(pair) for pair in pairs],
        "within": list(WITHIN),
        "texts": [],
    }
    path = folder / SWEEP_PAGE
    styles = [ASSETS / "page.css", assets / "sweep.css"]
    write_bytes(path, html_document(dict(shown(data)), "actconform sweep", SWEEP_CSV, styles, scripts).encode())
    return path


def _row(row: SweepRow) -> dict[str, Any]:
    case, counted = row.identity.case, row.statistics
    return {
        "kernel": case.subject,
        "aspect": case.aspect,
        "route": case.route,
        "version": row.version,
        "extent": row.identity.extent,
        "inputs": counted.inputs,
        "chunks": f"{row.chunks} of {CHUNKS}",
        "ulp": short_number(counted.ulp.error),
        "ulpAt": counted.ulp.input_hex,
        "scaled": short_number(counted.scaled.error),
        "scaledAt": counted.scaled.input_hex,
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
                finding.worst.input_hex if finding.worst else "",
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
