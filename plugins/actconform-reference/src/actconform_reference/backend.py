"""The backends onnx-reference and onnx-reference-float64: onnx.reference.ReferenceEvaluator, node by node in numpy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from actconform import Backend, Library, Program, Unsupported
from actconform.machine.cpu import cpu_capability
from actconform.plugin.framework import error_line, fate_of_subnormals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actconform import Artifact
    from actconform.types import Bundle


class OnnxReference(Backend):
    """onnx's own evaluator, unpatched, in the types of the graph: slow, and what the standard's authors take it to mean."""

    name = "onnx-reference"
    kind = "runtime"
    extra = True
    packages = ("onnx",)

    def facts(self) -> dict[str, str]:
        """Return versions, what numpy finds in the processor, which decides how its functions round, and the fate of subnormals."""
        import onnx

        tiny = np.full(1, 2.0**-140, np.float32)
        return {
            "onnx": onnx.__version__,
            "numpy": np.__version__,
            "device": "cpu",
            "cpu_capability": cpu_capability(),
            "subnormals": fate_of_subnormals(float((tiny + tiny)[0])),
            "threads": "1",
        }

    standalone: ClassVar[str] = "standalone.py"

    @classmethod
    def reproduction(cls) -> str:
        """Return the text of the file `standalone`."""
        return Path(__file__).with_name(cls.standalone).read_text(encoding="utf-8")

    def library(self) -> Library:
        """Return numpy, and Python's erf."""
        return Library("numpy", ("numpy",))

    def load(self, artifact: Artifact, dtype: str, level: str = "") -> Program:  # noqa: ARG002  the graph is typed
        """Return the graph as a program; raise `Unsupported` in the evaluator's words where it refuses it."""
        return GraphProgram(artifact.model, artifact.path)


class OnnxReferenceFloat64(OnnxReference):
    """The same evaluator on the graph in float64 throughout; what comes out is rounded once to the types of the graph."""

    name = "onnx-reference-float64"
    standalone = "standalone_float64.py"

    def load(self, artifact: Artifact, dtype: str, level: str = "") -> Program:  # noqa: ARG002  the graph is typed
        """Return the widened graph as a program; raise `Unsupported` in the evaluator's words where it refuses it."""
        from actconform.onnx.widen import narrow_output_types, widened

        return GraphProgram(
            widened(artifact.model), f"{artifact.path}; in float64", narrow_output_types(artifact.model)
        )


class GraphProgram(Program):
    """A graph under the evaluator; with `types` inputs are taken to float64 and the outputs of these names rounded to them."""

    def __init__(self, model: bytes, path: str, types: Mapping[str, np.dtype[Any]] | None = None) -> None:
        import onnx
        from onnx.reference import ReferenceEvaluator

        self.implementation = path
        self._types = types
        try:
            self._evaluator = ReferenceEvaluator(onnx.load_model_from_string(model))
        except (NotImplementedError, RuntimeError) as error:  # the evaluator's own errors are of these two kinds
            raise Unsupported(error_line(error)) from error

    def forward(self, inputs: Bundle) -> Bundle:
        """Return every output by name, in memory of its own; what numpy warns of (overflow, NaN) is what is measured.

        Raises `Unsupported` where an operator's implementation raises: it does not say beforehand what it does not do.
        """
        wide = self._types is not None
        feeds = {name: _wide(array) if wide else np.array(array) for name, array in inputs.items()}
        with np.errstate(all="ignore"):
            try:
                found = self._evaluator.run(None, feeds)
            except MemoryError:
                raise
            except Exception as error:
                raise Unsupported(f"the evaluator stops at {error_line(error)}") from error
            outputs = dict(zip(self._evaluator.output_names, map(np.array, found), strict=True))
            return {name: array.astype((self._types or {}).get(name, array.dtype)) for name, array in outputs.items()}


def _wide(array: Any) -> Any:
    return np.array(array, np.float64 if array.dtype.kind not in "biu" else array.dtype)
