"""torch.onnx.export as exporters: by way of torch.export, and by TorchScript's tracing."""

from __future__ import annotations

import logging
import re
from io import BytesIO
from typing import TYPE_CHECKING, ClassVar

from actconform import Artifact, Exporter, Unavailable, Unsupported
from actconform_torch.backend import _torch
from actconform_torch.kernels import implement

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from torch.nn import Module

    from actconform import Kernel

TORCH_DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}

# The sizes exported at: none is 0 or 1, which exporters take for constants, no two are equal, n can be halved.
SIZES = {"b": 5, "n": 6, "m": 3}

# Colours, the class of a wrapped error, objects' addresses, where to ask for support, values of the trace.
_NOISE = re.compile(
    r"\x1b\[[0-9;]*m|<class '[^']*'>: | object at 0x[0-9a-f]+|\.? Please feel free to request support.*|  \[Caused by .*"
)


class TorchDynamo(Exporter):
    """`torch.onnx.export(dynamo=True)` at its default opset, every dimension a `torch.export.Dim`."""

    name: ClassVar[str] = "torch-dynamo"
    source: ClassVar[str] = "torch"

    def export(self, kernel: Kernel, dtype: str) -> Artifact:
        torch = _torch()
        try:
            import onnxscript  # noqa: F401  what torch lacks without it shows only in the midst of an export
        except ImportError as error:
            raise Unavailable(f"torch exports by way of onnxscript: {error}; pip install actconform[torch]") from error
        # It says at every export that torchvision's operators are not there: nothing about the graph.
        logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
        module, samples = _module(kernel), _samples(kernel, dtype)
        dims = {name: torch.export.Dim(name) for name in SIZES}
        shapes = tuple({axis: dims[dim] for axis, dim in enumerate(kernel.dims(name))} for name in kernel.inputs)
        try:
            program = torch.onnx.export(
                module,
                samples,
                dynamo=True,
                dynamic_shapes=(shapes,),  # of *tensors: one tuple
                input_names=list(kernel.inputs),
                output_names=["y"],
                verbose=False,
            )
            model = program.model_proto.SerializeToString()
        except Exception as error:
            raise _refusal(error) from error
        return _artifact(model, "dynamo")


class TorchScript(Exporter):
    """`torch.onnx.export(dynamo=False)` at its default opset, every dimension in `dynamic_axes`."""

    name: ClassVar[str] = "torch-torchscript"
    source: ClassVar[str] = "torch"

    def export(self, kernel: Kernel, dtype: str) -> Artifact:
        torch = _torch()
        module, samples = _module(kernel), _samples(kernel, dtype)
        written = BytesIO()
        try:
            torch.onnx.export(
                module,
                samples,
                written,
                dynamo=False,
                dynamic_axes={name: dict(enumerate(kernel.dims(name))) for name in kernel.inputs},
                input_names=list(kernel.inputs),
                output_names=["y"],
            )
        except Exception as error:
            raise _refusal(error) from error
        return _artifact(written.getvalue(), "torchscript")


def _module(kernel: Kernel) -> Module:
    torch = _torch()
    function: Callable[..., Tensor] = implement(kernel).function

    class Wrapped(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, *tensors: Tensor) -> Tensor:
            return function(*tensors)

    return Wrapped().eval()


def _samples(kernel: Kernel, dtype: str) -> tuple[Tensor, ...]:
    torch = _torch()
    kind = getattr(torch, TORCH_DTYPES[dtype])
    return tuple(torch.zeros([SIZES[dim] for dim in kernel.dims(name)], dtype=kind) for name in kernel.inputs)


def _artifact(model: bytes, path: str) -> Artifact:
    import onnx

    proto = onnx.load_from_string(model)
    opset = next(entry.version for entry in proto.opset_import if not entry.domain)
    return Artifact(model, opset, path, ir_version=proto.ir_version)


def _refusal(error: Exception) -> Exception:
    """Return `Unsupported` in the words of the first cause; what is short of memory or missing stays what it is."""
    if isinstance(error, MemoryError):
        return error
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    lines = [line.strip() for line in _NOISE.sub("", str(error)).splitlines() if line.strip()]
    said = lines[0] if lines else ""
    if said.endswith(":"):  # a heading: the first point below it says what
        said = " ".join([said, *lines[1:2]])
    return Unsupported(f"{type(error).__name__}: {said}")
