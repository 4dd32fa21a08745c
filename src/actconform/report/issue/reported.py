"""A finding of a run that is reported, and folders about findings that no element shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import onnx
from msgspec.structs import replace

from actconform.checking.reproduction import MODEL, Reproduction
from actconform.report.issue.from_check import replaced, write_texts

if TYPE_CHECKING:
    from pathlib import Path

    from actconform.types import Case, Finding, Kernel, Result
    from actconform.types.model import Model
    from actconform.types.training import Experiment

INVALID = '''"""Shows that a graph is no valid ONNX model: ends with 1 while it is none, with 0 for one that is valid."""

import sys
from pathlib import Path

import onnx

print(f"onnx {onnx.__version__}")
try:
    onnx.checker.check_model(onnx.load(Path(__file__).with_name("model.onnx")), full_check=True)
except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
    print(error)
    sys.exit(1)
print("the graph is valid")
'''


class ReportedFinding(NamedTuple):
    """A result with the finding that is reported, and what tells about all of it."""

    result: Result
    finding: Finding
    case: Case
    subject: Kernel | Model | Experiment
    about: Reproduction


def with_output(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Return the graph with that output alone."""
    single = onnx.ModelProto()
    single.CopyFrom(model)
    del single.graph.output[:]
    single.graph.output.extend(value for value in model.graph.output if value.name == name)
    return single


def without_elements(reported: ReportedFinding, graph: bytes, out: Path, program: str = "") -> Path:
    """Write the graph and the text about a finding that no element shows."""
    with replaced(out) as fresh:
        (fresh / MODEL).write_bytes(graph)
        write_texts(fresh, replace(reported.about, program=program))
    return out
