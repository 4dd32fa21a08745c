"""onnx's reference evaluator as a witness: where its own operators lose digits that the standard does not, they are ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from scipy import special

from actconform.oracle.formulas import FORMULAS

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


def reference(model: bytes) -> Callable[[Bundle], Mapping[str, Any]]:
    """Return what evaluates a graph in its own dtypes: inputs by name to outputs by name. Raises what onnx raises."""
    evaluator = ReferenceEvaluator(model, new_ops=[Erf, Gelu, Swish, Softmax, LogSoftmax])

    def forward(inputs: Bundle) -> Mapping[str, Any]:
        return dict(zip(evaluator.output_names, evaluator.run(None, dict(inputs)), strict=True))

    return forward
