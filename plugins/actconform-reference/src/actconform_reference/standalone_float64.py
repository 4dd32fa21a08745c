"""How onnx's reference evaluator runs a graph in float64, for a program that stands alone: the text of this file is copied into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from actconform.onnx.widen import narrow_output_types, widened


def run(model: str, inputs: dict[str, Any], level: str) -> dict[str, Any]:  # noqa: ARG001  there are none
    """Return the outputs by name, rounded once to the types of the graph."""
    content = Path(model).read_bytes()
    evaluator = ReferenceEvaluator(onnx.load_model_from_string(widened(content)))
    feeds = {name: array if array.dtype.kind in "biu" else array.astype(np.float64) for name, array in inputs.items()}
    types = narrow_output_types(content)
    with np.errstate(all="ignore"):
        results = map(np.asarray, evaluator.run(None, feeds))
        outputs = dict(zip(evaluator.output_names, results, strict=True))
        return {name: array.astype(types.get(name, array.dtype)) for name, array in outputs.items()}
