"""Graphs as ONNX Runtime's optimizer saves them are evaluated, and are the functions that they were before."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser

from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator

RNG = np.random.default_rng(17)
HEAD = '<ir_version: 8, opset_import: ["": {opset}]> g '

LAYER_NORM = """
    axes = Constant<value = int64[1] {-1}>() mean = ReduceMean<axes = [-1]>(s) d = Sub(s, mean) two = Constant<value = float {2.0}>()
    d2 = Pow(d, two) v = ReduceMean<axes = [-1]>(d2) e = Constant<value = float {1e-5}>() ve = Add(v, e) r = Sqrt(ve) n = Div(d, r)
    ng = Mul(n, gamma) z = Add(ng, beta)
"""
GELU = """
    c = Constant<value = float {1.4142135381698608}>() q = Div(h, c) erf = Erf(q) one = Constant<value = float {1.0}>()
    p = Add(erf, one) hp = Mul(h, p) half = Constant<value = float {0.5}>() y = Mul(hp, half)
"""
# what the optimizer writes, at which opset, the graph, and the shapes of its constants
GRAPHS = {
    "FusedConv": (
        13,
        "(float[1,3,6,6] x) => (float[1,4,6,6] y) { c = Conv<pads = [1,1,1,1]>(x, w) y = LeakyRelu<alpha = 0.1>(c) }",
        {"w": (4, 3, 3, 3)},
    ),
    "FusedGemm": (
        13,
        "(float[2,3] x) => (float[2,4] y) { c = Gemm<transB = 1>(x, w, b) y = HardSigmoid<alpha = 0.3>(c) }",
        {"w": (4, 3), "b": (4,)},
    ),
    "FusedMatMul": (
        17,
        """(float[2,5,8] x) => (float[2,5,5] y) { t = Transpose<perm = [0,2,1]>(x) s = Constant<value = float {0.125}>()
           p = MatMul(x, t) y = Mul(p, s) }""",
        {},
    ),
    "QuickGelu": (
        17,
        "(float[2,5] x) => (float[2,5] y) { a = Constant<value = float {1.702}>() ax = Mul(x, a) g = Sigmoid(ax) y = Mul(x, g) }",
        {},
    ),
    "BiasGelu": (
        17,
        "(float[2,3,8] x) => (float[2,3,8] y) { h = Add(x, b)" + GELU + "}",
        {"b": (8,)},
    ),
    "LayerNormalization": (
        12,
        "(float[2,3,8] s) => (float[2,3,8] z) {" + LAYER_NORM + "}",
        {"gamma": (8,), "beta": (8,)},
    ),
    "SkipLayerNormalization": (
        17,
        "(float[2,3,8] x, float[2,3,8] skip) => (float[2,3,8] z) { s = Add(x, skip)" + LAYER_NORM + "}",
        {"gamma": (8,), "beta": (8,)},
    ),
    "SimplifiedLayerNormalization": (
        17,
        """(float[2,3,8] x) => (float[2,3,8] y) { two = Constant<value = float {2.0}>() x2 = Pow(x, two)
           v = ReduceMean<axes = [-1]>(x2) e = Constant<value = float {1e-6}>() ve = Add(v, e) r = Sqrt(ve) n = Div(x, r)
           y = Mul(gamma, n) }""",
        {"gamma": (8,)},
    ),
    "MatMulIntegerToFloat": (
        17,
        """(uint8[3,5] x, uint8 zero, float step) => (float[3,4] y) { p = MatMulInteger(x, w, zero) f = Cast<to = 1>(p)
           c = Constant<value = float {0.01}>() s = Mul(step, c) y = Mul(f, s) }""",
        {"w": (5, 4)},
    ),
    "DynamicQuantizeMatMul": (
        17,
        """(float[3,5] x) => (float[3,4] y) { q, step, zero = DynamicQuantizeLinear(x) p = MatMulInteger(q, w, zero)
           f = Cast<to = 1>(p) c = Constant<value = float {0.01}>() s = Mul(step, c) y = Mul(f, s) }""",
        {"w": (5, 4)},
    ),
}
ELEMENTS = {onnx.TensorProto.FLOAT: np.float32, onnx.TensorProto.UINT8: np.uint8}


def model_of(name):
    opset, text, shapes = GRAPHS[name]
    model = parser.parse_model(HEAD.format(opset=opset) + text)
    for tensor, shape in shapes.items():
        weights = RNG.standard_normal(shape).astype(np.float32)
        if "MatMulInteger" in text:
            weights = RNG.integers(-63, 64, shape).astype(np.int8)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, tensor))
    return model


def optimized(model, tmp_path):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimized.onnx"), 4
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(tmp_path / "optimized.onnx")


def drawn(value):
    dtype = ELEMENTS[value.type.tensor_type.elem_type]
    shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    return np.asarray(RNG.integers(0, 256, shape) if dtype == np.uint8 else RNG.standard_normal(shape)).astype(dtype)


@pytest.mark.parametrize("name", GRAPHS)
def test_what_the_optimizer_writes_is_the_same_function(name, tmp_path):
    model = model_of(name)
    written = optimized(model, tmp_path)
    assert name in {node.op_type for node in written.graph.node}
    inputs = {value.name: drawn(value) for value in model.graph.input}
    for rounding, tolerance in ((False, 3e-8), (True, 3e-6)):  # constants of the graph have 32 bits
        (before,), (after,) = (
            CorrectlyRoundedEvaluator(each.SerializeToString(), rounding=rounding).forward(inputs).values()
            for each in (model, written)
        )
        np.testing.assert_allclose(after, before, rtol=0, atol=tolerance * np.abs(before).max())
