"""The text of a bug report, as Markdown: what happens, which output is right and why, and how to see it."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import onnx
from onnx import printer

from actconform.checking.reproduction import MODEL, PROGRAM, PROOFS
from actconform.checking.standalone import DATA
from actconform.files import read_bytes
from actconform.report.files.markdown import literal, table
from actconform.text import shortened, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from actconform.checking.reproduction import Reproduction, WorstElement

ISSUE = "issue.md"
MOST_LINES = 40  # of the printed graph
WIDEST = 400  # letters of a line of it
MOST_NODES = 12  # that are named where it is longer
DIGITS = 9
OF_TRAINED = {
    "layer": "The right output is that of the layer itself, called in its framework with the same inputs.",
    "trained": "The right output is what the trained model has there, given what it has where these nodes begin.",
}
EXPLAINED = {
    "bound": (
        "The bound is what any order of summation and one rounding of every step may be off, given the very inputs "
        "in `{data}` (a running error bound); a result outside of it is no matter of rounding."
    ),
    "spread": (
        "What is allowed is 64 times how far the true result moves where every tensor is off by one rounding "
        "(8 draws of stochastic arithmetic); a result outside of it is no matter of rounding."
    ),
    "layer": (
        "What is allowed is twice the error bound of the exported nodes, given the very inputs in `inputs.npz`, and 16 times what the "
        "layer itself is off in float32; a larger difference is no matter of rounding."
    ),
    "trained": (
        "What is allowed is twice the error bound of these nodes, given the very inputs in `{data}`: once for the graph and once "
        "for the trained model; a larger difference is no matter of rounding."
    ),
    "limit": "What is allowed is the limit of this function: the accuracy that a careful implementation has, with room to spare.",
}


def issue_text(reproduction: Reproduction, folder: Path) -> str:
    """Return the text about the finding in a folder; names that are not ours are escaped."""
    graph = list(_graph(onnx.load_from_string(read_bytes(folder / MODEL)))) if (folder / MODEL).exists() else []
    lines = [f"# {literal(reproduction.title)}", "", *_what_happens(reproduction), ""]
    if reproduction.worst and (graph or reproduction.graph):
        lines += ["## Which output is right", "", *_proof(reproduction), ""]
    if reproduction.graph:
        lines += ["## The exported graph", "", *_shortened(reproduction.graph), ""]
    if graph:
        lines += ["## The graph", "", *graph, ""]
    if reproduction.exporting:
        lines += ["## The program that exports", "", *fenced(reproduction.exporting.splitlines(), "python"), ""]
    if (folder / PROGRAM).exists():
        lines += ["## To reproduce", "", *_how_to_run(reproduction, with_graph=bool(graph)), ""]
    lines += ["## Where it comes from", "", *_origin(reproduction), ""]
    lines += ["## Versions and machine", "", *_facts(reproduction), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _what_happens(reproduction: Reproduction) -> Iterator[str]:
    level = f" at the optimization level {code(reproduction.level)}" if reproduction.level else ""
    computed = f"{literal(reproduction.runtime)}{level}" if reproduction.runtime else "The graph"
    wrong = [
        f"{worst.count:,}{f' of {worst.size:,}' if worst.size else ''} elements of {code(worst.output)}"
        for worst in reproduction.worst
    ]
    if reproduction.meaning and not wrong:
        yield f"{computed}: {literal(reproduction.meaning)}."
    elif reproduction.reproduced:
        yield f"{computed} computes {_listed(wrong)} wrong:" if wrong else f"{computed} gives a wrong output:"
    else:
        yield (
            f"{computed} does not show it on this graph alone: the whole model is attached, and the evidence below is from "
            "the run in which it was seen."
        )
    yield ""
    yield from (f"- {literal(shape)}" for shape in reproduction.shapes)
    if reproduction.worst:
        yield from table(["element", "got", "right", "error", "allowed"], map(_row, reproduction.worst))
        yield ""
        yield EXPLAINED[reproduction.criterion].format(data=DATA)


def _row(worst: WorstElement) -> list[str]:
    finite = math.isfinite(worst.error)
    ulp = f" = {worst.ulp:,.3g} ULP" if finite and worst.ulp else ""
    return [
        code(f"{worst.output}{list(worst.place) if worst.place else ''}"),
        f"{worst.got:.{DIGITS}g}{_pattern(worst.got_hex)}",
        f"{worst.wanted:.{DIGITS}g}{_pattern(worst.wanted_hex)}",
        f"{worst.error:.4g}{ulp}" if finite else "not finite",
        f"{worst.allowed:.3g}" if worst.allowed and math.isfinite(worst.allowed) else "exact",
    ]


def _pattern(pattern: str) -> str:
    return f" (`{pattern}`)" if pattern else ""


def _proof(reproduction: Reproduction) -> Iterator[str]:
    if reproduction.criterion in OF_TRAINED:
        yield OF_TRAINED[reproduction.criterion]
        return
    yield (
        "The right output is the function's true value, rounded once: from goldens computed in high precision."
        if reproduction.criterion == "limit"
        else "The right output is that of the graph in float64, from the operators' definitions in the ONNX standard."
    )
    names = {proof.__name__: title for proof, title in PROOFS.items()}
    agreeing = [names[name] for name in reproduction.proofs]
    if agreeing:
        yield f"It agrees, within the bound, with {_listed(agreeing)}, computed independently of it:"
        yield ""
        for worst in reproduction.worst:
            for title, value in worst.proofs.items():
                yield f"- {literal(title)}: {code(f'{worst.output}{list(worst.place)}')} = {value!r}; got {worst.got:.{DIGITS}g}"
    yield from (f"\n{literal(text)}: the standard may be read either way." for text in reproduction.disagreeing)
    if not agreeing and not reproduction.disagreeing:
        yield f"There is no second opinion: others cannot compute these operators. The values are in `{DATA}`."


def _graph(model: onnx.ModelProto) -> Iterator[str]:
    opsets = ", ".join(f"{literal(entry.domain) or 'ONNX'} {entry.version}" for entry in model.opset_import)
    count = len(model.graph.node)
    yield f"`{MODEL}`: {count} node{'s' * (count != 1)}, opset {opsets}, IR version {model.ir_version}."
    yield ""
    lines = visible(printer.to_text(model)).splitlines()
    if len(lines) <= MOST_LINES:
        yield from _shortened(lines)
        return
    nodes = [f"{node.op_type} {code(node.name or node.output[0])}" for node in model.graph.node]
    yield from (f"- {node}" for node in nodes[:MOST_NODES])
    if count > MOST_NODES:
        yield f"- and {count - MOST_NODES:,} more"


def _shortened(lines: Sequence[str]) -> list[str]:
    rest = [f"... {len(lines) - MOST_LINES:,} more lines"] if len(lines) > MOST_LINES else []
    return fenced([*(shortened(line, WIDEST) for line in lines[:MOST_LINES]), *rest])


def _how_to_run(reproduction: Reproduction, *, with_graph: bool) -> Iterator[str]:
    if reproduction.criterion == "layer":
        yield from _how_to_export(reproduction)
        return
    # Of a runtime's packages one suffices; it has the facts of the first, where it has any.
    packages = [name for name in reproduction.packages if name in reproduction.facts] or reproduction.packages[:1]
    names = " ".join(dict.fromkeys((*packages, *(("onnx", "numpy") if with_graph else ()))))
    yield f"Unpack the folder, `pip install {names}`, and run:" if names else "Unpack the folder, and run:"
    yield ""
    yield from fenced([f"python {PROGRAM}"])
    yield ""
    loads = f"loads `{MODEL}` with the inputs of `{DATA}`, " if with_graph else ""
    yield f"It {loads}prints what it got, and ends with 1 while the fault is there, with 0 once it is mended."


def _how_to_export(reproduction: Reproduction) -> Iterator[str]:
    yield f"Unpack the folder, `pip install {' '.join(reproduction.packages)}`, and run, in the directory from which the model is loaded:"
    yield ""
    yield from fenced([f"python FOLDER/{PROGRAM}"])
    yield ""
    yield (
        "It loads the model, exports the layer alone, runs the graph on what the layer read (`inputs.npz`), and ends with 1 while the "
        "graph differs from the layer, with 0 once it does not, with 2 where something is missing. The model is not attached: add it, or the layer's class."
    )


def _origin(reproduction: Reproduction) -> Iterator[str]:
    if reproduction.subject:
        yield f"- Found in {literal(reproduction.subject)}{f', node {code(reproduction.node)}' if reproduction.node else ''}."
    if reproduction.source_line:
        yield f"- Source: {code(reproduction.source_line)}"
    if reproduction.blame:
        yield f"- At fault: {literal(reproduction.blame)}."
    yield from (f"- {literal(text)}" for text in reproduction.evidence)
    if reproduction.commands:
        yield ""
        yield "Seen with:"
        yield ""
        yield from fenced(reproduction.commands)


def _facts(reproduction: Reproduction) -> Iterator[str]:
    yield from table(["", ""], [[literal(key), literal(value)] for key, value in reproduction.facts.items()])


def code(text: str) -> str:
    """Return foreign text on one line as a Markdown code span, whatever backticks it has."""
    line = " ".join(visible(text).split()).replace("|", "¦")
    ticks = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    padding = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{padding}{line}{padding}{ticks}"


def fenced(lines: Sequence[str], language: str = "") -> list[str]:
    """Return foreign lines as a Markdown code block, whatever backticks they have."""
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(longest + 1, 3)
    return [f"{fence}{language}", *map(visible, lines), fence]


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""
