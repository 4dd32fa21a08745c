"""A small model of the user's, and rows that it can learn, as files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper, parser

if TYPE_CHECKING:
    from pathlib import Path

HEAD = '<ir_version: 9, opset_import: ["" : 18]>\n'
TWO_LAYERS = """g (float[{batch}, 4] x) => (float[{batch}, 3] logits)
{{
    h = Gemm (x, fc1_w, fc1_b)
    r = Tanh (h)
    logits = Gemm (r, fc2_w, fc2_b)
}}"""
SHAPES = {"fc1_w": (4, 16), "fc1_b": (16,), "fc2_w": (16, 3), "fc2_b": (3,)}
LOSS = "categorical-cross-entropy-from-logits"


def save_model(path: Path | str, text: str, arrays: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Write the model that the text describes, with these initializers."""
    model = parser.parse_model(HEAD + text)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    onnx.save(model, path)
    return model


def save_two_layers(path: Path | str = "model.onnx", *, batch: str = "n", seed: int = 0) -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    arrays = {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in SHAPES.items()}
    return save_model(path, TWO_LAYERS.format(batch=batch), arrays)


def rows(count: int = 240) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(count, 4)).astype(np.float32)
    classes = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)
    return {"x": x, "label": np.eye(3, dtype=np.float32)[classes]}
