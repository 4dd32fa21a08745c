"""Every rule with an ONNX model that has its mistake, and with the same model mended: the column of ONNX in docs/lint.md's table."""

from __future__ import annotations

import numpy as np
import pytest
from linted import codes_of
from small_models import made, numbers

from actconform.linting.linted_model import RuntimeAnswer
from actconform.linting.losses import named_loss
from actconform.linting.registry import OWN_RULES

ONES = {name: np.ones(3, np.float32) for name in ("scale", "shift", "mean", "variance")}
LAYERS = {"w": numbers(1, 4, 8), "b": numbers(2, 8), "v": numbers(3, 8, 3), "c": numbers(4, 3), "one": numbers(5, 8, 1)}
SAMPLES = [{"x": numbers(7, 40, 4)}]


def dense(nodes: str, **more):
    return made(f"(float[n, 4] x) => (float[n, m] y) {{ h = Gemm (x, w, b)  {nodes} }}", LAYERS | more)


def biased(activation: str, bias: float):
    offset = np.array([bias] + [0.0] * 7, np.float32)
    return dense(f"a = {activation} (h)  y = MatMul (a, v)", w=numbers(1, 4, 8, scale=0.1), b=offset)


def image(nodes: str, opset: int = 17):
    return made(f"(float[n, 3, 4, 4] x) => (float[n, 3, 4, 4] y) {{ {nodes} }}", ONES, opset)


def torch_slope(slope: float):
    model = dense(f"y = LeakyRelu <alpha = {slope}> (h)")
    model.producer_name = "pytorch"
    return model


def norms(*epsilons: float):
    steps = enumerate(epsilons)
    nodes = "  ".join(f"h{i + 1} = LayerNormalization <axis = -1, epsilon = {e:f}> (h{i}, b)" for i, e in steps)
    return dense(f"h0 = Identity (h)  {nodes}  y = Identity (h{len(epsilons)})")


def half(weight: float):
    return made(
        "(float16[n, 1] x) => (float16[n, 1] y) { y = MatMul (x, w) }", {"w": np.full((1, 1), weight, np.float16)}
    )


def weighted(weight: float):
    return dense("y = MatMul (h, v)", v=np.full((8, 3), weight, np.float32))


def half_root(epsilon: float):
    nodes = "s = Mul (x, x)  v = ReduceMean <axes = [1]> (s)  a = Add (v, e)  y = Sqrt (a)"
    return made(f"(float16[n, 4] x) => (float16[n, 1] y) {{ {nodes} }}", {"e": np.float16(epsilon)})


SOFTMAX = "Softmax <axis = -1>"
PROBABILITIES, LOGITS = dense(f"g = Gemm (h, v, c)  y = {SOFTMAX} (g)"), dense("y = Gemm (h, v, c)")
NORM = "BatchNormalization <{}> (x, scale, shift, mean, variance)"
# By code the model with the mistake, the mended one, and what else a lint of either is given.
CASES = {
    "AC101": (dense(f"g = MatMul (h, one)  y = {SOFTMAX} (g)"), dense("g = MatMul (h, one)  y = Sigmoid (g)"), {}),
    "AC102": (dense(f"s = {SOFTMAX} (h)  y = Gemm (s, v, c)"), dense("s = Tanh (h)  y = Gemm (s, v, c)"), {}),
    "AC103": (dense(f"s = {SOFTMAX} (h)  y = {SOFTMAX} (s)"), dense(f"s = Tanh (h)  y = {SOFTMAX} (s)"), {}),
    "AC104": (dense("s = Sigmoid (h)  y = Sigmoid (s)"), dense("s = Tanh (h)  y = Sigmoid (s)"), {}),
    "AC105": (dense(f"r = Relu (h)  y = {SOFTMAX} (r)"), dense(f"r = Elu (h)  y = {SOFTMAX} (r)"), {}),
    "AC111": (PROBABILITIES, LOGITS, {"losses": [named_loss("CrossEntropyLoss")]}),
    "AC112": (LOGITS, PROBABILITIES, {"losses": [named_loss("categorical_crossentropy")]}),
    "AC113": (PROBABILITIES, dense("y = Sigmoid (h)"), {"losses": [named_loss("BCELoss")]}),
    "AC114": (dense("y = Relu (h)"), dense("y = Elu (h)"), {"targets": {"y": np.array([-0.5, 2.0])}}),
    "AC121": (biased("Relu", -50.0), biased("Relu", 0.0), {"samples": SAMPLES}),
    "AC122": (biased("Tanh", 50.0), biased("Tanh", 0.0), {"samples": SAMPLES}),
    "AC201": (
        image(f"y, m, v = {NORM.format('training_mode = 1')}"),
        image(f"y = {NORM.format('training_mode = 0')}"),
        {},
    ),
    "AC202": (
        dense("y = Dropout (h, ratio, mode)", ratio=np.float32(0.3), mode=np.array(True)),
        dense("y = Dropout (h, ratio, mode)", ratio=np.float32(0.3), mode=np.array(False)),
        {},
    ),
    "AC203": (
        dense("y = Reshape (h, s)", s=np.array([32, 8])),
        dense("y = Reshape (h, s)", s=np.array([-1, 8])),
        {},
    ),
    "AC204": (
        dense("d = Cast <to = 11> (h)  t = Mul (d, k)  y = Cast <to = 1> (t)", k=np.array(2.1)),
        dense("y = Mul (h, k)", k=np.float32(2.1)),
        {},
    ),
    "AC205": (image("y = Softmax <axis = 1> (x)", 12), image("y = Softmax <axis = 1> (x)", 13), {}),
    "AC206": (half(np.inf), half(60000.0), {}),
    "AC207": (half_root(1e-9), half_root(1e-3), {}),
    "AC209": (torch_slope(0.3), torch_slope(0.01), {}),
    "AC210": (norms(1e-5, 1e-5, 1e-4, 1e-5, 1e-5), norms(1e-5, 1e-5, 1e-5, 1e-5, 1e-5), {}),
    "AC211": (weighted(np.nan), weighted(0.5), {}),
    "AC212": (dense("y = MatMul (h, v)", v=np.ones((8, 3), np.float16)), dense("y = MatMul (h, v)"), {}),
    "AC213": (image("y = Softmax <axes = [1]> (x)"), image("y = Softmax <axis = 1> (x)"), {}),
}


def test_every_rule_has_its_models():
    assert {rule.code for rule in OWN_RULES} == CASES.keys() | {"AC208"}


@pytest.mark.parametrize("code", CASES)
def test_a_mistake_is_found_and_the_mended_model_is_not_accused(code):
    bad, good, more = CASES[code]
    assert code in codes_of(bad, **more)
    assert code not in codes_of(good, **more)


def test_a_runtime_that_refuses_the_opset_is_found_and_one_that_takes_it_is_not():
    assert codes_of(LOGITS, runtimes=[RuntimeAnswer("old", "1.0", "Opset 17 is too new")]) == ["AC208"]
    assert codes_of(LOGITS, runtimes=[RuntimeAnswer("new", "2.0", "")]) == []
