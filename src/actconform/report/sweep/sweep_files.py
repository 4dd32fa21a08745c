"""sweep.csv, a line a sweep; bits.csv, a line for every two routes; and sweep.tex: the table of maximal errors by kernel, runtime and version."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from actconform.files import write_bytes
from actconform.report.files.foreign_cells import csv_cell, latex_cell, latex_number
from actconform.sweep.summary import COUNTED, WITHIN

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from actconform.sweep.summary import SameBits, SweepRow

SWEEP_CSV, BITS_CSV, SWEEP_TEX = "sweep.csv", "bits.csv", "sweep.tex"


def write_sweep_csv(rows: Sequence[SweepRow], folder: Path) -> Path:
    """Write sweep.csv into `folder`, a line a sweep, and return its path. Errors have 9 digits, inputs are patterns. Raises OSError."""
    return _write_csv([_line(row) for row in rows], folder / SWEEP_CSV)


def write_bits_csv(pairs: Sequence[SameBits], folder: Path) -> Path:
    """Write bits.csv into `folder`, a line for every two routes of a kernel, aspect and range, and return its path. Raises OSError."""
    return _write_csv([_bits_line(pair) for pair in pairs], folder / BITS_CSV)


def _write_csv(lines: Sequence[dict[str, Any]], path: Path) -> Path:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_bytes(path, text.getvalue().encode())
    return path


def _bits_line(pair: SameBits) -> dict[str, Any]:
    case = pair.first.case
    return {
        "kernel": csv_cell(case.subject),
        "aspect": case.aspect,
        "range": pair.first.extent,
        "first": csv_cell(case.route),
        "second": csv_cell(pair.second.case.route),
        "chunks": pair.both,
        "bit_identical_chunks": pair.equal,
        "uncounted_chunks": pair.uncounted,
        "inputs": pair.inputs,
        "differing": pair.differing.count,
        "differing_first": pair.differing.first,
        "differing_last": pair.differing.last,
    }


def _line(row: SweepRow) -> dict[str, Any]:
    case, counted, findings = row.identity.case, row.statistics, row.findings
    return {
        "kernel": csv_cell(case.subject),
        "aspect": case.aspect,
        "route": csv_cell(case.route),
        "computed_by": csv_cell(row.version),
        "actconform": csv_cell(row.identity.actconform),
        "range": row.identity.extent,
        "chunks": row.chunks,
        "inputs": counted.inputs,
        "max_ulp": f"{counted.ulp.error:.9g}",
        "max_ulp_input": counted.ulp.input_hex,
        "max_scaled": f"{counted.scaled.error:.9g}",
        "max_scaled_input": counted.scaled.input_hex,
        "correctly_rounded": counted.correctly_rounded,
        **{f"below_{ulp}_ulp": counted.below(ulp) for ulp in WITHIN},
        "bias": f"{counted.bias:.9g}",
        **{class_.value.replace("-", "_"): row.count(class_) for class_ in COUNTED},
        "flushed": counted.flushed.count,
        "flushed_first": counted.flushed.first,
        "flushed_last": counted.flushed.last,
        "findings": len(findings),
        "unexplained": sum(not finding.deviation for finding in findings) if row.complete else "",
        "decided_by_arb": counted.near_midway - counted.undecided,
        "undecided": counted.undecided,
        "sha256": row.sha256,
        "sample": csv_cell(row.identity.sample),
        "max_ulp_place": csv_cell(counted.ulp.place),
        "max_scaled_place": csv_cell(counted.scaled.place),
    }


def write_sweep_table(rows: Sequence[SweepRow], folder: Path) -> Path:
    """Write sweep.tex into `folder`, for booktabs: maximal errors in ULP, a row a kernel and aspect, a column a route. Raises OSError.

    A sweep that is not complete has a dagger, one of fewer than all inputs gives a lower bound, and an asterisk. Of several ranges of a route the
    sweep of most inputs counts.
    """
    columns = list(dict.fromkeys((row.identity.case.route, row.version) for row in rows))
    cells = {
        (row.identity.case.subject, row.identity.case.aspect, row.identity.case.route, row.version): _ulp(row)
        for row in sorted(rows, key=lambda row: row.statistics.inputs)
    }
    head = " & ".join(["kernel", "", *(latex_cell(f"{route} ({version})") for route, version in columns)])
    body = [
        " & ".join([latex_cell(kernel), aspect, *(cells.get((kernel, aspect, *column), "--") for column in columns)])
        for kernel, aspect in dict.fromkeys((row.identity.case.subject, row.identity.case.aspect) for row in rows)
    ]
    lines = [
        "% Maximal errors in ULP over float32 inputs, by actconform sweep; cite CITATION.cff.",
        r"% *: a lower bound, of fewer than all $2^{32}$ inputs; \dag: not all chunks are done.",
        rf"\begin{{tabular}}{{ll{'r' * len(columns)}}}",
        r"\toprule",
        rf"{head} \\",
        r"\midrule",
        *(rf"{line} \\" for line in body),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    path = folder / SWEEP_TEX
    write_bytes(path, ("\n".join(lines) + "\n").encode())
    return path


def _ulp(row: SweepRow) -> str:
    shown = latex_number(row.statistics.ulp.error)
    mark = r"\dag" if not row.complete else "" if row.identity.extent == "all" else "*"
    return rf"${shown}$\textsuperscript{{{mark}}}" if mark else f"${shown}$"
