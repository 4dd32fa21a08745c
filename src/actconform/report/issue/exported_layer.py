"""An exporter's fault in a user's trained model: the smallest layer that shows it when it is exported alone, with a program that does so."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
from msgspec.structs import replace

from actconform.checking import exported_standalone
from actconform.checking.copied_text import module_text
from actconform.checking.layer_program import LayerExport, layer_program
from actconform.checking.layer_standalone import ALLOWED, INPUTS
from actconform.checking.part import Accepted, PartialModel, accepted_by_bounds, accepted_by_spread
from actconform.checking.reproduction import PROGRAM, Reproduction, worst_elements
from actconform.checking.runs import RunFailure
from actconform.checking.trained.model_runs import NATIVE
from actconform.checking.trained.names import arrays_in_trained_layout
from actconform.checking.trained.runs import TrainedRuns
from actconform.errors import Unsupported
from actconform.report.issue.exported_part import TWICE, answers, attach_part, bound_of, within
from actconform.report.issue.from_check import MINIMAL_EXPORTER, replaced, write_texts
from actconform.report.issue.packages import packages_among
from actconform.text import number_of, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from actconform.checking.flatten import Array
    from actconform.checking.result import ModelFault, RuntimeCheck
    from actconform.checking.runs import RuntimeRuns
    from actconform.checking.session import CheckedGraph
    from actconform.checking.trained.column import TrainedColumn
    from actconform.types.trained import LayerCall

SECONDS = 300  # for a framework to open the model and export
NATIVE_ERRORS = 16  # of the layer itself that are explained by rounding, as spreads are


class ExporterFault(NamedTuple):
    """A fault of an exporter, and the trained model that shows it."""

    graph: CheckedGraph
    column: TrainedColumn
    check: RuntimeCheck
    fault: ModelFault


class _Evaluation(NamedTuple):
    """Who runs an exported graph in a program."""

    source: str
    packages: tuple[str, ...]
    facts: Mapping[str, str]


class _Shown(NamedTuple):
    """A layer whose graph alone is not what the layer is."""

    call: LayerCall
    exporter: str
    part: PartialModel
    got: dict[str, Array]
    accepted: dict[str, Accepted]


def exporter_fault(graph: CheckedGraph) -> ExporterFault | None:
    """Return the first fault of an exporter in a check's result."""
    for column, check in zip(graph.columns, graph.result.runtimes, strict=False):
        if check.fault is not None and check.fault.blame == "exporter" and not column.is_graph:
            return ExporterFault(graph, column, check, check.fault)
    return None


def attach_exporter_fault(fault: ExporterFault, folder: Path) -> bool:
    """Write `folder`/minimal-exporter about a fault of an exporter; return whether its program shows it. Without one nothing is written.

    The layer is exported alone, then the layers around it, until the program shows it. Where none does, as where the file was edited, the
    nodes between two tensors of the trained model are written. Raises OSError.
    """
    if fault.fault.tensor is None and fault.fault.output is None:
        return False  # no number shows it
    target = folder / MINIMAL_EXPORTER
    tried: list[str] = []
    for call, exporter in _candidates(fault):
        with tempfile.TemporaryDirectory(prefix="actconform-") as place:
            finding = _exported_alone(fault, call, exporter, Path(place), tried)
            if finding is not None:
                with replaced(target) as fresh:
                    for name in (INPUTS, ALLOWED):
                        shutil.copyfile(Path(place, name), fresh / name)
                    write_texts(fresh, finding)
                return True
        tried.append(f"{_layer_words(call)} by {exporter}")
    evidence = [*fault.fault.evidence]
    if tried:
        evidence.append(f"exported anew it does not show: {', '.join(tried)}")
    evaluation = next(_evaluations(fault.graph.runtimes))
    about = replace(_about(fault, evidence), source=evaluation.source, packages=evaluation.packages)
    about = replace(about, facts={**about.facts, **evaluation.facts})
    return attach_part(fault.graph, fault.column, fault.fault, about, target)


def _candidates(fault: ExporterFault) -> Iterator[tuple[LayerCall, str]]:
    """Yield which layer to export by what, the innermost first; of a file, whose exporter is not known, the layer and the whole model alone."""
    column, runs = fault.column, fault.column.runs
    if not isinstance(runs, TrainedRuns) or not runs.executable or column.mode != NATIVE:
        return
    opened = runs.open()
    names = () if isinstance(opened, RunFailure) else opened.exporters
    exporters = [name for name in ((column.exporter,) if column.exporter else names) if runs.reproductions.get(name)]
    inputs = arrays_in_trained_layout(column.inputs, fault.graph.samples[fault.fault.sample].inputs)
    layer: str | None = fault.fault.layer
    while layer is not None and exporters:
        call = runs.layer_call(inputs, layer)
        if isinstance(call, RunFailure):
            return
        yield from ((call, exporter) for exporter in exporters)
        layer = call.around if column.exporter or call.around is None else ""


def _exported_alone(
    fault: ExporterFault, call: LayerCall, exporter: str, place: Path, tried: Sequence[str]
) -> Reproduction | None:
    """Return the finding whose program, in `place`, shows the fault by a layer alone; None where it does not."""
    runs = fault.column.runs
    assert isinstance(runs, TrainedRuns)
    inputs: dict[str, Any] = {f"input_{k}": array for k, array in enumerate(call.inputs)}
    np.savez(place / INPUTS, **inputs)
    for evaluation in _evaluations(fault.graph.runtimes):
        packages = _packages(fault, evaluation)
        export = LayerExport(exporter, runs.reproductions[exporter], evaluation.source, packages)
        text = layer_program("", runs.source, fault.column.source, call, export)
        (place / PROGRAM).write_text(text, encoding="utf-8")
        np.savez(place / ALLOWED)
        exported = place / "layer.onnx"
        _program_result(runs, place, str(exported))
        shown = _compared(call, exporter, exported, fault.graph.runtimes) if exported.is_file() else None
        if shown is None:
            return None
        allowed: dict[str, Any] = {
            f"allowed_{k}": right.highest - right.truth for k, right in enumerate(shown.accepted.values())
        }
        np.savez(place / ALLOWED, **allowed)
        code, printed = _program_result(runs, place)
        if code == 1 and "the fault is there" in printed:
            return _finding(fault, shown, export, evaluation, tried)
        if code != 2:  # which says that something is missing there
            return None
    return None


def _evaluations(runtimes: Sequence[RuntimeRuns]) -> Iterator[_Evaluation]:
    """Yield the check's first runtime that says how it runs, then onnx's own evaluator, which runs wherever onnx is."""
    for runs in runtimes:
        facts = runs.start()
        if runs.reproduction and not isinstance(facts, RunFailure):
            yield _Evaluation(runs.reproduction, runs.packages[:1], facts)
            break
    yield _Evaluation(module_text(exported_standalone.__name__), (), {})


def _packages(fault: ExporterFault, evaluation: _Evaluation) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*packages_among(fault.check.facts), *evaluation.packages, "onnx", "numpy")))


def _program_result(runs: TrainedRuns, place: Path, *arguments: str) -> tuple[int, str]:
    """Run the program where the user's model is, and return its exit code and what it printed; 2 where it does not end."""
    try:
        done = subprocess.run(  # noqa: S603  our own program
            [runs.executable, str(place / PROGRAM), *arguments],
            cwd=runs.source.folder or None,
            capture_output=True,
            check=False,
            timeout=SECONDS,
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return 2, ""
    return done.returncode, done.stdout.decode(errors="replace")


def _compared(call: LayerCall, exporter: str, path: Path, runtimes: Sequence[RuntimeRuns]) -> _Shown | None:
    """Return where a layer's graph is not what the layer is, by the bounds of its nodes, else by its spread; None where it is, or cannot be judged."""
    try:
        model = onnx.load(path)
    except Exception:  # noqa: BLE001  protobuf's errors have no common base: what the exporter wrote is no graph
        return None
    names = {value.name for value in model.graph.input} - {tensor.name for tensor in model.graph.initializer}
    inputs = {f"input_{k}": array for k, array in enumerate(call.inputs) if f"input_{k}" in names}
    part = PartialModel(model, inputs)
    try:
        got = answers(part, runtimes)
        for bounds in (accepted_by_bounds(part, got), accepted_by_spread(part)):
            accepted = _accepted(call, list(got), bounds)
            if accepted and any(right.ratio(got[name]) > 1 for name, right in accepted.items()):
                return _Shown(call, exporter, part, got, accepted)
    except Exception:  # noqa: BLE001  whatever a graph raises that nobody has looked through: it is not judged
        return None
    return None


def _accepted(call: LayerCall, names: Sequence[str], bounds: Mapping[str, Accepted]) -> dict[str, Accepted]:
    """Return what a graph's outputs may be beside a layer's: both are off by the bound at most, and by what the layer is seen to be off.

    Raises Unsupported where an output cannot be judged.
    """
    if len(names) != len(call.outputs) or set(names) - set(bounds):
        raise Unsupported("its outputs cannot be judged")
    accepted = {}
    for k, (name, native) in enumerate(zip(names, call.outputs, strict=True)):
        right, number = bounds[name], native.astype(np.float64)
        if right.truth.shape != number.shape:
            accepted[name] = Accepted(number, number, number)
            continue
        with np.errstate(invalid="ignore"):
            off = np.abs(number - call.exact[k]) if call.exact else np.zeros(1)
        native_error = np.max(off, initial=0.0, where=np.isfinite(off))
        accepted[name] = within(number, TWICE * bound_of(right) + NATIVE_ERRORS * native_error)
    return accepted


def _finding(
    fault: ExporterFault, shown: _Shown, export: LayerExport, evaluation: _Evaluation, tried: Sequence[str]
) -> Reproduction:
    call, runs = shown.call, fault.column.runs
    assert isinstance(runs, TrainedRuns)
    worst = worst_elements(shown.got, shown.accepted, {})
    kind = re.search(r"\w+", call.about)
    element = max(worst, key=lambda each: each.error / each.allowed if each.allowed else np.inf, default=None)
    title = f"{shown.exporter}: {kind[0] if kind else 'a layer'} is exported wrong"
    if element is not None:
        title += f", {element.got:.6g} where the layer gives {element.wanted:.6g}"
    evidence = [f"the layer is {call.about}", *fault.fault.evidence]
    if tried:
        evidence.append(f"exported alone these are right: {', '.join(tried)}")
    about = _about(fault, evidence)
    return replace(
        about,
        title=title,
        runtime=f"The graph that {shown.exporter} writes",
        subject=f"{fault.column.source}, {_layer_words(call)}",
        criterion="layer",
        facts={**about.facts, **evaluation.facts},
        packages=export.packages,
        program=layer_program(title, runs.source, fault.column.source, call, export),
        worst=tuple(worst),
        shapes=tuple(_other_shapes(shown)),
        graph=_nodes(shown.part.model),
    )


def _other_shapes(shown: _Shown) -> Iterator[str]:
    for name, right in shown.accepted.items():
        if shown.got[name].shape != right.truth.shape:
            yield f"{name} has the shape {list(shown.got[name].shape)}, the layer gives {list(right.truth.shape)}"


def _nodes(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the exported graph as text, without the values of its weights."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.initializer[:]
    del copy.graph.value_info[:]
    return tuple(onnx.printer.to_text(copy).splitlines())


def _about(fault: ExporterFault, evidence: Sequence[str]) -> Reproduction:
    result, column = fault.graph.result, fault.column
    source = shlex.quote(column.source)
    command = (
        f"actconform check {source} --exporter {column.exporter} --minimize"
        if column.exporter
        else f"actconform check {shlex.quote(result.model)} --against {source} --minimize"
    )
    return Reproduction(
        title="",
        runtime="The graph",
        facts={"actconform": result.actconform, **fault.check.facts},
        blame=fault.fault.blame,
        subject=f"{result.model} ({number_of(result.nodes, 'node')}, opset {result.opset}, SHA-256 {result.sha256[:12]})",
        node=fault.fault.node,
        source_line=fault.fault.source,
        evidence=tuple(evidence),
        commands=(command,),
    )


def _layer_words(call: LayerCall) -> str:
    return f"layer {one_line(call.path, 120)}" if call.path else "the model itself"
