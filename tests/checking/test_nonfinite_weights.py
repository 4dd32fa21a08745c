"""Weights that are NaN or infinite: where they spoil what is computed they are told, where they mask, bound or fill they are not."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from small_models import made

from actconform.checking.nonfinite_weights import nonfinite_weights
from actconform.checking.source import read_source, source_of_model

NAN, INF = np.nan, np.inf


def matrix(value: float, dtype: type = np.float32):
    weights = np.full((4, 4), 0.5)
    weights[1, 2] = value
    return weights.astype(dtype)


def row(value: float):
    return np.float32([0, 0, value, 0])


def weights_of(nodes: str, opset: int = 17, kind: str = "float", **weights):
    model = made(f"({kind}[n, 4] x) => ({kind}[n, m] y) {{ {nodes} }}", weights, opset)
    return nonfinite_weights(source_of_model(model, "model.onnx"))


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize(
    ("dtype", "kind"),
    [(np.float32, "float"), (np.float64, "double"), (np.float16, "float16"), (ml_dtypes.bfloat16, "bfloat16")],
)
def test_a_weight_of_a_product_is_told_with_its_first_place(value, dtype, kind):
    (weight,) = weights_of("y = MatMul (x, w)", kind=kind, w=matrix(value, dtype))
    assert (weight.name, weight.reader.op_type, weight.spoiled.op_type) == ("w", "MatMul", "MatMul")
    assert (weight.nan, weight.infinite) == ((1, 0) if np.isnan(value) else (0, 1))
    assert (weight.first, weight.size) == ((1, 2), 16)
    counted = "1 NaN" if np.isnan(value) else "1 infinity"
    assert weight.words == f"has {counted} among 16 numbers, the first at [1, 2]"


def test_a_sound_weight_is_not_told():
    assert weights_of("y = MatMul (x, w)", w=matrix(3e38)) == []


def test_nan_and_infinities_of_one_weight_are_counted_together():
    weights = matrix(NAN)
    weights[0, 3], weights[2] = INF, -INF
    (weight,) = weights_of("y = MatMul (x, w)", w=weights)
    assert (weight.nan, weight.infinite, weight.first) == (1, 5, (0, 3))


def test_weights_stand_in_the_order_of_the_nodes_that_read_them():
    nodes = "h = MatMul (x, a)  g = Mul (h, c)  y = Add (g, b)"
    told = weights_of(nodes, b=row(NAN), c=row(INF), a=matrix(NAN))
    assert [weight.name for weight in told] == ["a", "c", "b"]


BRANCHES = "then_branch = t () => (float[n, m] p) { p = MatMul (x, w) }, else_branch = e () => (float[n, m] q) { q = Identity (x) }"
SPOILED = {
    "a NaN that is added": ("y = Add (x, w)", row(NAN)),
    "a NaN that bounds": ("y = Max (x, w)", row(NAN)),
    "a product by an infinity": ("y = Mul (x, w)", row(INF)),
    "an infinite row of a table": ("i = Cast <to = 7> (x)  r = Gather (w, i)  s = Add (r, r)  y = LayerNormalization (s, v)", matrix(INF)),
    "a NaN in a row of a table": ("i = Cast <to = 7> (x)  r = Gather (w, i)  y = Add (r, r)", matrix(NAN)),
    "an infinite bias before a product": ("h = Gemm (x, v, w)  r = Relu (h)  y = MatMul (r, v)", row(INF)),
    "a transposed weight": ("t = Transpose (w)  y = MatMul (x, t)", matrix(-INF)),
    "a weight that is scaled first": ("t = Mul (w, s)  y = MatMul (x, t)", matrix(INF)),
    "a Constant node": ("w2 = Constant <value_floats = [1.0, nan, 0.0, 0.0]> ()  y = Mul (x, w2)", row(0)),
    "a weight that a branch reads": (f"c = Constant <value_int = 1> ()  b = Cast <to = 9> (c)  y = If (b) <{BRANCHES}>", matrix(NAN)),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILED)
def test_what_spoils_the_result_is_told(case):
    nodes, weights = SPOILED[case]
    sound = {"v": np.ones((4, 4), np.float32), "s": np.float32(0.125)}
    (weight,) = weights_of(nodes, w=weights, **sound)
    assert weight.nan + weight.infinite == 1
    assert weights_of(nodes.replace("nan", "2.0"), w=np.nan_to_num(weights, posinf=1, neginf=1), **sound) == []


SOFTMAX = "Softmax <axis = -1>"
LEFT_ALONE = {
    "a mask that is added": (f"h = Add (x, w)  y = {SOFTMAX} (h)", -INF),
    "a mask that is cut out of a table": (f"i = Cast <to = 7> (x)  m = Gather (t, i)  h = Add (m, m)  y = {SOFTMAX} (h)", -INF),
    "a scaled mask": (f"m = Mul (w, s)  h = Add (x, m)  y = {SOFTMAX} (h)", -INF),
    "scores that are scaled behind the mask": (f"h = Add (x, w)  k = Abs (x)  g = Mul (h, k)  y = {SOFTMAX} (g)", -INF),
    "a softmax of several nodes": (
        "h = Add (x, w)  m = ReduceMax <axes = [1]> (h)  d = Sub (h, m)  e = Exp (d)  s = ReduceSum (e)  p = Div (e, s)  y = MatMul (p, v)",
        -INF,
    ),
    "a mask of attention by relu": ("h = Add (x, w)  r = Relu (h)  y = MatMul (r, v)", -INF),
    "a fill of Where": ("c = IsNaN (x)  f = Where (c, w, x)  y = MatMul (f, v)", -INF),
    "a NaN that fills": ("c = IsInf (x)  y = Where (c, x, w)", NAN),
    "a NaN that pads": ("y = Pad (x, p, f)", NAN),
    "bounds": ("y = Clip (x, f, g)", -INF),
    "the start of a maximum": ("y = Max (x, w)", -INF),
    "distances to oneself": ("d = Add (x, w)  one = Div (s, d)  y = MatMul (one, v)", INF),
    "a divisor, which gives 0": ("y = Div (x, w)", INF),
    "a variance, which gives the bias": ("y = BatchNormalization (x, one4, one4, one4, w)", INF),
    "a comparison": ("c = Less (x, w)  y = Cast <to = 1> (c)", INF),
    "tokens that are never given": ("y = Gemm (x, v, w)", -INF),
    "a shape": ("n = Shape (w)  k = Cast <to = 1> (n)  y = Mul (x, k)", NAN),
    "what nothing reads": ("y = Identity (x)", NAN),
    "an operator that nobody defines": ("y = com.acme.Masked (x, w)", NAN),
}  # fmt: skip


@pytest.mark.parametrize("case", LEFT_ALONE)
def test_what_masks_bounds_or_fills_is_left_alone(case):
    nodes, value = LEFT_ALONE[case]
    weights = {
        "one4": np.ones(4, np.float32),
        "w": row(value),
        "t": matrix(value),
        "v": np.ones((4, 4), np.float32),
        "s": np.float32(0.125),
    }
    numbers = {"f": np.float32(value), "g": np.float32(INF), "p": np.int64([0, 1, 0, 0])}
    assert weights_of(nodes, **weights, **numbers) == []


def test_a_mask_of_zeros_and_ones_times_an_infinity_is_told():
    nodes = f"one = Sub (s, x)  m = Mul (one, w)  h = Add (x, m)  y = {SOFTMAX} (h)"
    (weight,) = weights_of(nodes, s=np.float32(1), w=np.float32(-INF))
    assert (weight.name, weight.reader.op_type, weight.words) == ("w", "Mul", "has 1 infinity among 1 number")


def test_a_large_weight_outside_the_file_is_read(tmp_path):
    weights = np.zeros((64, 64), np.float32)
    weights[40, 1] = NAN
    model = made("(float[n, 64] x) => (float[n, 64] y) { y = MatMul (x, w) }", {"w": weights})
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    for read in (True, False):
        (weight,) = nonfinite_weights(read_source(path, weights=read))
        assert (weight.name, weight.nan, weight.first) == ("w", 1, (40, 1))
