"""Sessions of ONNX Runtime and the program that runs one, alike for all execution providers."""

from __future__ import annotations

import ctypes
import os
import re
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from actconform import Program, Unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from actconform.types import Bundle

BFLOAT16 = 16  # TensorProto.BFLOAT16

# What `level` may be, the one that optimizes nothing first.
LEVELS = {
    "disabled": "DISABLE_ALL",
    "basic": "ENABLE_BASIC",
    "extended": "ENABLE_EXTENDED",
    "all": "ENABLE_ALL",
}
# The graph transformers that touch the operators of kernels; ONNX Runtime lists them nowhere, unknown names change nothing.
OPTIMIZERS = (
    "ConstantFolding",
    "CommonSubexpressionElimination",
    "EliminateIdentity",
    "CastElimination",
    "CastChainElimination",
    "NotWhereFusion",
    "Level1_RuleBasedTransformer",
    "GeluFusionL1",
    "GeluFusionL2",
    "FastGeluFusion",
    "QuickGeluFusion",
    "BiasGeluFusion",
    "LayerNormFusionL1",
    "LayerNormFusionL2",
    "TransposeOptimizer",
    "Level2_RuleBasedTransformer",
    "InsertCastTransformer",
)

_NOISE = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : |This is an invalid model\. |Load model from \S* ?failed: ?"
    r"| node with name '\w*'|/\S+\.(?:cc|h):\d+ .*\) (?=[A-Z])"  # the last is a place in its source
)


def threads() -> int:
    """Return the number of threads of one operator: ACTCONFORM_THREADS, by default 1."""
    return int(os.environ.get("ACTCONFORM_THREADS", "1"))


def options(**config: str) -> Any:
    """Return SessionOptions as a user has them, but silent, and with a fixed number of threads that sleep in waiting.

    The optimization level stays at its default, all. `config` are entries "session.<name>".
    """
    import onnxruntime

    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = threads()
    chosen.inter_op_num_threads = 1
    chosen.log_severity_level = 4
    for key, value in {"intra_op.allow_spinning": "0", "record_ep_graph_assignment_info": "1", **config}.items():
        chosen.add_session_config_entry(f"session.{key}", value)
    return chosen


def refusals() -> tuple[type[Exception], ...]:
    """Return what ONNX Runtime raises where it will not load a graph; a damaged file raises other types."""
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, NotImplemented  # noqa: A004

    return NotImplemented, InvalidGraph, Fail


def words(error: Exception) -> str:
    """Return the first line of ONNX Runtime's message without codes, names of nodes and places in its source.

    "NOT_IMPLEMENTED: Could not find an implementation for Elu(22)"
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return _NOISE.sub("", lines[0]).replace(" : ", ": ", 1).strip()


def load(model: bytes, provider: str, level: str = "", **config: str) -> Any:
    """Return a session of `model` on `provider`; raise `Unsupported`, in ONNX Runtime's words, where it refuses.

    `level` is one of LEVELS, or "without NAME" with one of OPTIMIZERS, or empty for the default, all.

    ONNX Runtime's own retreat to the CPU, on creation and on every run, is off: it would answer in another's name.
    """
    import onnxruntime

    chosen = options(**config)
    extra: dict[str, Any] = {}
    if level.startswith("without "):
        extra["disabled_optimizers"] = [level.removeprefix("without ")]
    elif level:
        chosen.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{LEVELS[level]}")
    try:
        return onnxruntime.InferenceSession(model, chosen, providers=[provider], enable_fallback=0, **extra)
    except refusals() as error:
        raise Unsupported(words(error)) from error


def assigned(session: Any) -> dict[str, tuple[str, ...]] | None:
    """Return for each execution provider the operators that it was given, or None in versions that do not tell.

    Taken after functions are expanded (Mish becomes Softplus, Tanh, Mul) and before fusions.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return None
    operators: dict[str, dict[str, None]] = {}
    for part in session.get_provider_graph_assignment_info():
        operators.setdefault(part.ep_name, {}).update(dict.fromkeys(node.op_type for node in part.get_nodes()))
    return {provider: tuple(names) for provider, names in operators.items()}


class GraphProgram(Program):
    """A loaded graph. Tensors go in and out as numpy arrays in main memory; the inputs are read, never written."""

    def __init__(self, session: Any, path: str) -> None:
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]
        types = [value.type for value in (*session.get_inputs(), *session.get_outputs())]
        self._bfloat16 = "tensor(bfloat16)" in types
        self.placement = assigned(session) or {}
        self.implementation = _implementation(path, self.placement)

    def forward(self, inputs: Bundle) -> Bundle:
        """Return every output by name; ONNX Runtime raises where names, ranks or types of `inputs` are wrong."""
        if self._bfloat16:
            return self._forward_bfloat16(inputs)
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))

    def _forward_bfloat16(self, inputs: Bundle) -> Bundle:
        # ONNX Runtime neither takes nor gives ml_dtypes arrays: both ways go through the bit patterns.
        kept = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        feeds = {name: _to_ort(array) for name, array in kept.items()}
        values = self._session.run_with_ort_values(self._outputs, feeds)
        return dict(zip(self._outputs, map(_from_ort, values), strict=True))


def _implementation(path: str, placement: Mapping[str, tuple[str, ...]]) -> str:
    operators = ", ".join(name for names in placement.values() for name in names)
    return path if not operators or path.endswith(f": {operators}") else f"{path}; run as {operators}"


def _to_ort(array: NDArray[Any]) -> Any:
    from onnxruntime import OrtValue

    if array.dtype == ml_dtypes.bfloat16:
        return OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), BFLOAT16)
    return OrtValue.ortvalue_from_numpy(array)


def _from_ort(value: Any) -> NDArray[Any]:
    if value.data_type() != "tensor(bfloat16)":
        array: NDArray[Any] = value.numpy()
        return array
    shape = tuple(value.shape())
    size = int(np.prod(shape, dtype=np.int64))
    if size == 0:
        return np.empty(shape, ml_dtypes.bfloat16)
    if value.device_name() != "cpu":
        raise RuntimeError(f"a bfloat16 output lies on {value.device_name()}, expected main memory")
    bits = np.ctypeslib.as_array((ctypes.c_uint16 * size).from_address(value.data_ptr()))
    result: NDArray[Any] = bits.copy().view(ml_dtypes.bfloat16).reshape(shape)
    return result
