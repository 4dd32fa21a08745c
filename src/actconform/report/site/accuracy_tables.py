"""The worst error of every case that was measured, to cite: accuracy.csv and accuracy.tex, the same as accuracy.json."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from actconform.report.files.foreign_cells import csv_cell, latex_cell, latex_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ACCURACY_CSV, ACCURACY_TEX = "accuracy.csv", "accuracy.tex"
COLUMNS = {
    "kernel": "kernel",
    "dtype": "dtype",
    "aspect": "aspect",
    "route": "route",
    "verdict": "verdict",
    "error": "error",
    "limit": "limit",
    "unit": "unit",
    "share": "error_over_limit",
    "max_ulp": "max_ulp",
    "tensor": "tensor",
    "regime": "regime",
    "n": "elements",
    "known": "causes",
}
IN_ULP = ("ulp", "scaled")  # units of kernels; an error of a model is counted in its own bound


def accuracy_csv(entries: Iterable[Mapping[str, Any]]) -> str:
    """Return a line for each entry of accuracy.json; numbers as they are there, "inf" and "nan" as words."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS.values())
    writer.writerows([_cell(entry[key]) for key in COLUMNS] for entry in entries)
    return text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, list | tuple):
        return csv_cell(" ".join(map(str, value)))
    return csv_cell(value) if isinstance(value, str) else value


def accuracy_latex(entries: Sequence[Mapping[str, Any]], versions: str) -> str:
    """Return tables for booktabs, one for each dtype and aspect: largest errors in ULP, a row a kernel, a column a route.

    An error is a lower bound where not all inputs were tried, as in float32. A dagger marks an error that a registered cause explains, an
    asterisk a case that does not conform. Models, whose errors are counted in bounds, are left out.
    """
    kernels = [entry for entry in entries if entry["unit"] in IN_ULP]
    lines = [
        "% Largest errors in ULP, by actconform; cite CITATION.cff.",
        f"% {latex_cell(versions)}",
        r"% \dag: explained by a registered cause; *: does not conform. Needs the package booktabs.",
    ]
    for dtype, aspect in dict.fromkeys((entry["dtype"], entry["aspect"]) for entry in kernels):
        chosen = [entry for entry in kernels if (entry["dtype"], entry["aspect"]) == (dtype, aspect)]
        lines += ["", f"% {latex_cell(f'{aspect} in {dtype}')}", *_tabular(chosen)]
    return "\n".join(lines) + "\n"


def _tabular(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    routes = list(dict.fromkeys(entry["route"] for entry in entries))
    cells = {(entry["kernel"], entry["route"]): _ulp(entry) for entry in entries}
    rows = [
        " & ".join([latex_cell(kernel), *(cells.get((kernel, route), "--") for route in routes)])
        for kernel in dict.fromkeys(entry["kernel"] for entry in entries)
    ]
    return [
        rf"\begin{{tabular}}{{l{'r' * len(routes)}}}",
        r"\toprule",
        rf"{' & '.join(['kernel', *map(latex_cell, routes)])} \\",
        r"\midrule",
        *(rf"{row} \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _ulp(entry: Mapping[str, Any]) -> str:
    mark = {"PASS": "", "XFAIL": r"\textsuperscript{\dag}"}.get(entry["verdict"], r"\textsuperscript{*}")
    return f"${latex_number(float(entry['max_ulp']))}${mark}"
