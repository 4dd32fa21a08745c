"""How long `actconform lint` takes beyond reading the file."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from actconform.checking.source import read_source
from actconform.linting.linted_model import LintedModel
from actconform.linting.registry import OWN_RULES
from actconform.linting.session import rule_findings

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDTH, LAYERS = 512, 100  # 105 MB of float32 in 300 nodes
ROUNDS = 3


def lint_of_large_models() -> Iterator[tuple[str, float, float]]:
    """Seconds that reading for a lint takes beyond onnx.load, and all rules beyond that, for an ONNX file of 100 MB."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(_perceptron(), path)
        size = path.stat().st_size / 1e6
        beyond = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            onnx.load(path)
            loaded = time.perf_counter()
            list(rule_findings(OWN_RULES, LintedModel(read_source(path, weights=False))))
            beyond.append((time.perf_counter() - loaded) - (loaded - started))
    yield f"seconds of lint beyond onnx.load, {size:.0f} MB, {3 * LAYERS} nodes", min(beyond), 1.0


def _perceptron() -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    nodes, weights = [], []
    for i in range(LAYERS):
        weights.append(numpy_helper.from_array(rng.standard_normal((WIDTH, WIDTH), np.float32), f"w{i}"))
        weights.append(numpy_helper.from_array(rng.standard_normal(WIDTH, np.float32), f"b{i}"))
        nodes.append(helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"m{i}"]))
        nodes.append(helper.make_node("Add", [f"m{i}", f"b{i}"], [f"a{i}"]))
        nodes.append(helper.make_node("Relu", [f"a{i}"], [f"x{i + 1}"]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", WIDTH]) for name in ("x0", f"x{LAYERS}")]
    graph = helper.make_graph(nodes, "perceptron", ends[:1], ends[1:], weights)
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model
