"""From a fault of a check: the folder `minimal` with the smallest model that shows it, its program and the text."""

from __future__ import annotations

import secrets
import shlex
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from msgspec.structs import replace

from actconform.checking.layer_standalone import ALLOWED, INPUTS
from actconform.checking.minimize import minimize
from actconform.checking.reproduction import (
    EXPECTED,
    FINDING,
    MODEL,
    PROOFS,
    Reproduction,
    read_finding,
    second_opinions,
    worst_elements,
    write_finding,
    write_model,
)
from actconform.checking.standalone import DATA
from actconform.errors import UsageError
from actconform.report.issue.text import ISSUE, issue_text
from actconform.text import number_of, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from actconform.checking.checked_sample import CheckedSample
    from actconform.checking.minimize import Minimal
    from actconform.checking.reproduction import WorstElement
    from actconform.checking.result import CheckResult, ModelFault
    from actconform.checking.runs import RuntimeRuns

MINIMAL = "minimal"
MINIMAL_EXPORTER = "minimal-exporter"
CHECK = "check.json"
MOST_OPERATORS = 4  # that a title names


def attach(
    result: CheckResult, fault: ModelFault, sample: CheckedSample, runs: RuntimeRuns, folder: Path
) -> Reproduction:
    """Write `folder`/minimal about a fault of a runtime, whose process still runs, and return what it shows.

    What was there before is replaced, all of it or nothing. Raises OSError.
    """
    minimal = minimize(fault, sample.graph, sample.inputs, runs)
    facts = next((dict(runtime.facts) for runtime in result.runtimes if runtime.name == runs.name), {})
    finding = Reproduction(
        title="",
        runtime=runs.name,
        facts={"actconform": result.actconform, **facts},
        blame=fault.blame,
        subject=f"{result.model} ({number_of(result.nodes, 'node')}, opset {result.opset}, SHA-256 {result.sha256[:12]})",
        node=fault.node,
        source_line=fault.source,
        evidence=fault.evidence,
        commands=(f"actconform check {shlex.quote(result.model)} --runtime {runs.name} --minimize",),
    )
    return write_minimal(folder / MINIMAL, minimal, runs, finding)


def write_minimal(
    folder: Path,
    minimal: Minimal,
    runs: RuntimeRuns | None,
    finding: Reproduction,
    zero_signs: frozenset[str] = frozenset(),
) -> Reproduction:
    """Write a folder about what a search came to, and return `finding` with what it shows: elements, title, second opinions.

    Without `runs` the source and packages are those of `finding`; `zero_signs` are outputs in which the sign of a zero counts.
    """
    part = minimal.part
    opinions, disagreeing = (
        ({}, {}) if minimal.criterion == "trained" else second_opinions(part.model, part.inputs, minimal.accepted)
    )
    named = {title: opinions[proof.__name__] for proof, title in PROOFS.items() if proof.__name__ in opinions}
    worst = tuple(worst_elements(minimal.got, minimal.accepted, named))
    if runs is not None:
        finding = replace(finding, source=runs.reproduction, packages=runs.packages)
    finding = replace(
        finding,
        title=_title(minimal, worst),
        level=minimal.level,
        criterion=minimal.criterion,
        reproduced=minimal.reproduced,
        evidence=(*finding.evidence, _search(minimal)),
        worst=worst,
        shapes=tuple(_other_shapes(minimal)),
        proofs=tuple(opinions),
        disagreeing=tuple(disagreeing.values()) if minimal.criterion != "limit" else (),
    )
    with replaced(folder) as fresh:
        write_model(fresh, part.model, part.inputs, minimal.accepted, zero_signs)
        write_texts(fresh, finding)
    return finding


def issue_of_check(folder: Path, out: Path | None) -> Path:
    """Write the program and the text of a check's `minimal` folder anew, and return the folder; `out` gets a copy of it.

    Raises UsageError where there is none, and OSError.
    """
    minimal = next((folder / name for name in (MINIMAL, MINIMAL_EXPORTER) if (folder / name).is_dir()), folder)
    if not (minimal / FINDING).exists():
        made = "no fault was cut out of the model" if (folder / CHECK).exists() else "is no folder of a check"
        raise UsageError(
            f"{one_line(str(folder))}: {made}: make it with `actconform check MODEL --minimize --out FOLDER`"
        )
    finding = read_finding(minimal)
    target = out or minimal
    with replaced(target) as fresh:
        for name in (MODEL, EXPECTED, INPUTS, ALLOWED):
            if (minimal / name).exists():
                shutil.copyfile(minimal / name, fresh / name)
        if (minimal / DATA).exists():
            shutil.copytree(minimal / DATA, fresh / DATA)
        write_texts(fresh, finding)
    return target


def write_texts(folder: Path, finding: Reproduction) -> None:
    """Write the finding, its program and its text beside its model."""
    write_finding(folder, finding)
    (folder / ISSUE).write_text(issue_text(finding, folder), encoding="utf-8")


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Give a fresh folder that takes the place of `folder` at the end, unless an exception is raised."""
    fresh = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    fresh.mkdir(parents=True)
    try:
        yield fresh
        if folder.exists():
            shutil.rmtree(folder)
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _title(minimal: Minimal, worst: Sequence[WorstElement]) -> str:
    operators = list(dict.fromkeys(node.op_type for node in minimal.part.model.graph.node))
    graph = (
        " and ".join(operators)
        if len(operators) <= MOST_OPERATORS
        else f"a graph of {number_of(len(minimal.part.model.graph.node), 'node')}"
    )
    if not worst:
        return f"{minimal.runtime}: a wrong output in {graph}"
    element = max(worst, key=lambda each: each.ulp)
    return f"{minimal.runtime}: {element.got:.6g} where {element.wanted:.6g} is right, in {graph}"


def _search(minimal: Minimal) -> str:
    """Return how the graph was cut, as a sentence."""
    count = len(minimal.part.model.graph.node)
    if not minimal.reproduced:
        return "no part of the model shows it alone, nor does the model without the marks of the check"
    if minimal.criterion == "limit":
        return "the graph is attached whole, with the fewest inputs that show it"
    if minimal.criterion == "trained":
        what = "the graph whole" if minimal.is_whole_model else f"{number_of(count, 'node')} of the graph"
        return f"attached is {what}, with what the trained model has before and behind"
    if minimal.is_whole_model:
        return "the model is attached whole: no part of it shows it alone"
    return f"cut to {number_of(count, 'node')} of the model in {number_of(minimal.runs, 'run')}, on the inputs that they read there"


def _other_shapes(minimal: Minimal) -> Iterator[str]:
    for name, right in minimal.accepted.items():
        got = minimal.got[name]
        if got.shape != right.truth.shape:
            yield f"{name} has the shape {list(got.shape)}, and should have {list(right.truth.shape)}"
