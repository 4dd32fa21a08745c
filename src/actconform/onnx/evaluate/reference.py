"""onnx's reference evaluator as an independent evaluation, with operators of ours where its own lose digits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_conv_transpose import ConvTranspose as UngroupedConvTranspose
from scipy import special

from actconform.oracle.float64.registry import FORMULAS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from actconform.types import Bundle


class Erf(OpRun):
    """Erf in float64: onnx's own computes it in float32 whatever the input."""

    op_domain = ""

    def _run(self, x: Any) -> tuple[Any]:
        return (special.erf(x.astype(np.float64)).astype(x.dtype),)


class Gelu(OpRun):
    """Gelu without the cancellation of 1 + erf, and NaN at -inf, as x Phi(x) is written."""

    op_domain = ""

    def _run(self, x: Any, approximate: str = "none") -> tuple[Any]:
        formula = FORMULAS["gelu-tanh" if approximate == "tanh" else "gelu-erf"]
        y = np.where(np.isneginf(x), np.nan, formula.value(x.astype(np.float64), {}))
        return (y.astype(x.dtype),)


class Swish(OpRun):
    """Swish without the overflow of exp(-x)."""

    op_domain = ""

    def _run(self, x: Any, alpha: float = 1.0) -> tuple[Any]:
        wide = x.astype(np.float64)
        return ((wide * special.expit(alpha * wide)).astype(x.dtype),)


class Softmax(OpRun):
    """Softmax rounded once."""

    op_domain = ""

    def _run(self, x: Any, axis: int = -1) -> tuple[Any]:
        return (special.softmax(x.astype(np.float64), axis=axis).astype(x.dtype),)


class LogSoftmax(OpRun):
    """LogSoftmax without the logarithm of a softmax that vanished."""

    op_domain = ""

    def _run(self, x: Any, axis: int = -1) -> tuple[Any]:
        return (special.log_softmax(x.astype(np.float64), axis=axis).astype(x.dtype),)


class GlobalMaxPool(OpRun):
    """GlobalMaxPool over all axes but two: onnx's own reduces others where there is but one spatial one."""

    op_domain = ""

    def _run(self, x: Any) -> tuple[Any]:
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


class Pad(OpRun):
    """Pad whose negative amounts cut, as the standard says: onnx's own refuses them."""

    op_domain = ""

    def _run(self, x: Any, pads: Any = None, value: Any = None, axes: Any = None, mode: Any = "constant") -> tuple[Any]:
        amounts = np.reshape([int(amount) for amount in pads], (2, -1)).T
        cuts, widths = [slice(None)] * x.ndim, [(0, 0)] * x.ndim
        for axis, (before, after) in zip(range(x.ndim) if axes is None else axes, amounts, strict=True):
            cuts[axis] = slice(max(-before, 0), x.shape[axis] + min(after, 0))
            widths[axis] = max(before, 0), max(after, 0)
        fill: dict[str, Any] = (
            {"constant_values": 0 if value is None else np.reshape(value, ())} if mode == "constant" else {}
        )
        return (np.pad(x[tuple(cuts)], widths, mode=mode, **fill).astype(x.dtype),)


class ConvTranspose(OpRun):
    """ConvTranspose group by group: onnx's own cuts the kernels of groups wrongly."""

    op_domain = ""

    def _run(self, x: Any, kernel: Any, bias: Any = None, group: int = 1, **attributes: Any) -> tuple[Any]:
        parts = zip(np.split(x, group, axis=1), np.split(kernel, group), strict=True)
        alone: Any = UngroupedConvTranspose._run  # noqa: SLF001  it reads nothing of its node
        y = np.concatenate([alone(self, *part, group=1, **attributes)[0] for part in parts], axis=1)
        return (y if bias is None else y + np.reshape(bias, (-1, *[1] * (x.ndim - 2))),)


def _spell_resize(node: onnx.NodeProto) -> None:
    """Write "tf_half_pixel_for_nn", which onnx knows at opset 11 alone, in words that it knows: floor((i + 1/2) / scale)."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    mode, rounded = attributes.get("coordinate_transformation_mode"), attributes.get("nearest_mode")
    if node.op_type == "Resize" and mode and mode.s == b"tf_half_pixel_for_nn" and rounded and rounded.s == b"floor":
        mode.s, rounded.s = b"half_pixel", b"round_prefer_ceil"


def reference(model: bytes) -> Callable[[Bundle], Mapping[str, Any]]:
    """Return what evaluates a graph in its own dtypes: inputs by name to outputs by name. Raises what onnx raises."""
    proto = onnx.load_from_string(model)
    for node in proto.graph.node:
        _spell_resize(node)
    operators = [Erf, Gelu, Swish, Softmax, LogSoftmax, GlobalMaxPool, Pad, ConvTranspose]
    evaluator = ReferenceEvaluator(proto, new_ops=operators)

    def forward(inputs: Bundle) -> Mapping[str, Any]:
        return dict(zip(evaluator.output_names, evaluator.run(None, dict(inputs)), strict=True))

    return forward
