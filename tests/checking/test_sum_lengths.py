"""How many terms an operator adds up for one element: counted in what it is defined by."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import made, numbers

from actconform.checking.flatten import flatten
from actconform.checking.sum_lengths import sum_length

IMAGE = {"x": numbers(1, 2, 4, 6, 6)}
CASES = [
    ("y = MatMul (x, w)", {"x": numbers(1, 3, 7), "w": numbers(2, 7, 5)}, 7),
    ("y = Gemm (x, w)", {"x": numbers(1, 3, 7), "w": numbers(2, 7, 5)}, 7),
    ("y = Gemm <transA = 1> (x, w)", {"x": numbers(1, 7, 3), "w": numbers(2, 7, 5)}, 7),
    ("y = Conv (x, w)", {**IMAGE, "w": numbers(2, 8, 4, 3, 3)}, 36),
    ("y = Conv <group = 4> (x, w)", {**IMAGE, "w": numbers(2, 8, 1, 3, 3)}, 9),
    ("y = ConvTranspose (x, w)", {**IMAGE, "w": numbers(2, 4, 8, 3, 3)}, 36),
    ("y = ReduceSum (x, axes)", {**IMAGE, "axes": np.int64([2, 3])}, 36),
    ("y = ReduceMean <axes = [1]> (x)", IMAGE, 4),
    ("y = GlobalAveragePool (x)", IMAGE, 36),
    ("y = AveragePool <kernel_shape = [2, 3]> (x)", IMAGE, 6),
    ("y = Softmax <axis = 1> (x)", IMAGE, 4),
    ("y = CumSum (x, axis)", {**IMAGE, "axis": np.array(3)}, 6),
    ("y = LayerNormalization <axis = 2> (x, w)", {**IMAGE, "w": numbers(2, 6, 6)}, 36),
    ("y = InstanceNormalization (x, s, b)", {**IMAGE, "s": numbers(2, 4), "b": numbers(3, 4)}, 36),
    ('y = Einsum <equation = "ij,jk->ik"> (x, w)', {"x": numbers(1, 3, 7), "w": numbers(2, 7, 3)}, 7),
    ('y = Einsum <equation = "ij, jk"> (x, w)', {"x": numbers(1, 3, 7), "w": numbers(2, 7, 3)}, 7),
    ('y = Einsum <equation = "...ij,...kj->...ik"> (x, w)', {"x": numbers(1, 2, 3, 7), "w": numbers(2, 2, 5, 7)}, 7),
    ('y = Einsum <equation = "ijk->i"> (x)', {"x": numbers(1, 3, 7, 2)}, 14),
    (
        "y = LSTM <hidden_size = 4> (x, w, r)",
        {"x": numbers(1, 5, 1, 3), "w": numbers(2, 1, 16, 3), "r": numbers(3, 1, 16, 4)},
        7,
    ),
    ("y = Exp (x)", IMAGE, 1),
    ("y = Add (x, x)", IMAGE, 1),
    ("y = Relu (x)", {"x": np.float32(3)}, 1),
    ("y = ReduceSum <keepdims = 0> (x)", {"x": np.zeros((0, 3), np.float32)}, 1),
]


@pytest.mark.parametrize(("text", "inputs", "terms"), CASES, ids=[case[0] for case in CASES])
def test_terms_of_an_element(text, inputs, terms):
    model = made(f"({', '.join(f'{_type(array)} {name}' for name, array in inputs.items())}) => (float y) {{ {text} }}")
    (node,) = flatten(model, inputs).nodes
    arrays = [inputs[name].astype(np.float64) for name in node.proto.input]
    output = flatten(model, inputs).truth["y"]
    assert sum_length(node.computation.node, arrays, output) == terms


def test_softmax_before_opset_13_has_all_axes_behind_its_own_in_one_row():
    model = made("(float[2, 3, 4] x) => (float[2, 3, 4] y) { y = Softmax <axis = 1> (x) }", opset=11)
    x = numbers(1, 2, 3, 4)
    (node,) = flatten(model, {"x": x}).nodes
    assert sum_length(node.computation.node, [x], x) == 12


def _type(array):
    kind = {"float32": "float", "int64": "int64"}[array.dtype.name]
    return f"{kind}[{', '.join(map(str, array.shape))}]" if array.ndim else f"{kind}[]"
