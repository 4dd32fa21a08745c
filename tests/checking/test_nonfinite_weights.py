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
CARRYING = """body = g (int64 i, bool go, float[n, 4] s, float[n, 4] t) => (bool on, float[n, 4] next, float[n, 4] after)
    { on = Identity (go)  next = Identity (w)  after = Add (s, t) }"""
SPOILED = {
    "a NaN that is added": ("y = Add (x, w)", row(NAN)),
    "a NaN that bounds": ("y = Max (x, w)", row(NAN)),
    "a product by an infinity": ("y = Mul (x, w)", row(INF)),
    "an infinite row of a table": ("i = Cast <to = 7> (x)  r = Gather (w, i)  s = Add (r, r)  y = LayerNormalization (s, v)", matrix(INF)),
    "a NaN in a row of a table": ("i = Cast <to = 7> (x)  r = Gather (w, i)  y = Add (r, r)", matrix(NAN)),
    "an infinite bias before a product": ("h = Gemm (x, v, w)  r = Relu (h)  y = MatMul (r, v)", row(INF)),
    "a transposed weight": ("t = Transpose (w)  y = MatMul (x, t)", matrix(-INF)),
    "a weight that is scaled first": ("t = Mul (w, s)  y = MatMul (x, t)", matrix(INF)),
    "a NaN beside inputs": ("c = Concat <axis = 0> (x, w)  y = Exp (c)", matrix(NAN)),
    "a Constant node": ("w2 = Constant <value_floats = [1.0, nan, 0.0, 0.0]> ()  y = Mul (x, w2)", row(0)),
    "a NaN that a Slice keeps": ("c = Slice (w, two, three, axis1)  y = MatMul (x, c)", matrix(NAN)),
    "a NaN that a Concat of weights moves": ("c = Concat <axis = 1> (v, w)  y = MatMul (x, c)", matrix(NAN)),
    "what is scaled to infinity before a product": ("t = Div (w, zero)  m = Mul (t, zero)  y = MatMul (x, m)", matrix(INF)),
    "a NaN that comes to an output as it is": ("t = Transpose (w)  y = Identity (t)", matrix(NAN)),
    "a state that a loop carries to its next round": (f"n = Constant <value_int = 3> ()  a, y = Loop (n, , x, v) <{CARRYING}>", matrix(NAN)),
    "a weight that a branch reads": (f"c = Constant <value_int = 1> ()  b = Cast <to = 9> (c)  y = If (b) <{BRANCHES}>", matrix(NAN)),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILED)
def test_what_spoils_the_result_is_told(case):
    nodes, weights = SPOILED[case]
    sound = {
        "v": np.ones((4, 4), np.float32),
        "s": np.float32(0.125),
        "zero": np.float32(0),
        "two": np.int64([2]),
        "three": np.int64([3]),
        "axis1": np.int64([1]),
    }
    (weight,) = weights_of(nodes, w=weights, **sound)
    assert weight.nan + weight.infinite == 1
    assert weights_of(nodes.replace("nan", "2.0"), w=np.nan_to_num(weights, posinf=1, neginf=1), **sound) == []


SOFTMAX = "Softmax <axis = -1>"
UNTAKEN = """then_branch = t () => (float[n, m] p) { p = MatMul (x, t) }, else_branch = e () => (float[n, m] q) { q = Identity (x) }"""
UNUSED = "body = g (int64 i, bool go, float[n, 4] s) => (bool on, float[n, 4] next) { on = Identity (go)  next = Exp (s)  d = MatMul (s, t) }"
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
    "what no output depends on": ("d = MatMul (x, t)  e = Exp (d)  y = Identity (x)", NAN),
    "what no output depends on beside a comparison": ("d = MatMul (x, t)  c = IsNaN (t)  k = Cast <to = 1> (c)  y = MatMul (x, k)", NAN),
    "what no output of a loop depends on": (f"n = Constant <value_int = 3> ()  y = Loop (n, , x) <{UNUSED}>", NAN),
    "a branch that is never taken": (f"c = Constant <value_int = 0> ()  b = Cast <to = 9> (c)  y = If (b) <{UNTAKEN}>", NAN),
    "what a Slice cuts off": ("c = Slice (t, first, second, second)  y = MatMul (x, c)", NAN),
    "a row that a Gather leaves out": ("c = Gather (t, first)  y = Add (x, c)", NAN),
    "a part of a Split that nothing reads": ("c, d = Split <axis = 1> (t, parts)  y = MatMul (x, c)", NAN),
    "what GatherElements leaves out": ("i = Constant <value = int64[1, 4] {0, 0, 0, 0}> ()  c = GatherElements (t, i)  y = Add (x, c)", NAN),
    "what a Compress leaves out": ("c = Compress <axis = 0> (t, taken)  y = Add (x, c)", NAN),
    "what a Pad of negative sizes cuts off": ("c = Pad (t, cut)  y = MatMul (x, c)", NAN),
    "what a Slice cuts off beside another weight": ("c = Slice (t, first, second, second)  d = Concat <axis = 1> (c, v)  y = MatMul (x, d)", NAN),
    "an infinity that a sigmoid of constants bounds": ("c = Sigmoid (t)  y = MatMul (x, c)", INF),
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
    cuts = {
        "first": np.int64([0]),
        "second": np.int64([1]),
        "parts": np.int64([2, 2]),
        "taken": np.bool_([True, False, False, False]),
        "cut": np.int64([0, 0, 0, -2]),
    }
    assert weights_of(nodes, **weights, **numbers, **cuts) == []


def test_a_weight_is_not_accused_of_what_another_has():
    nodes = "c = Slice (t, first, second, second)  d = Concat <axis = 1> (c, w)  y = MatMul (x, d)"
    cuts = {"first": np.int64([0]), "second": np.int64([1])}
    (weight,) = weights_of(nodes, t=matrix(NAN), w=matrix(NAN), **cuts)
    assert (weight.name, weight.reader.op_type, weight.spoiled.op_type) == ("w", "Concat", "MatMul")


def test_a_weight_that_comes_to_an_output_as_it_is_has_its_name():
    (weight,) = weights_of("z = Relu (x)  t = Transpose (w)  y = Identity (t)", w=matrix(NAN))
    assert (weight.reader.op_type, weight.spoiled.op_type, weight.output) == ("Transpose", "Identity", "y")
    assert weights_of("t = Transpose (w)  y = Identity (t)", w=matrix(-INF)) == [], "a mask that is an output"


def with_attribute(text: str, name: str, value: float, opset: int = 17):
    model = made(f"(float[n, 4] x) => (float[n, m] y) {{ {text} }}", {"s": np.int64([4, 4])}, opset)
    (attribute,) = [each for node in model.graph.node for each in node.attribute if each.name == name]
    if attribute.HasField("t"):
        attribute.t.CopyFrom(onnx.numpy_helper.from_array(np.float32([value])))
    else:
        attribute.f = value
    return nonfinite_weights(source_of_model(model, "model.onnx"))


FILLED = "f = ConstantOfShape <value = float[1] {1.0}> (s)  y = MatMul (x, f)"


@pytest.mark.parametrize(
    ("text", "name", "value", "words", "spoiled"),
    [
        ("y = LeakyRelu <alpha = 0.5> (x)", "alpha", NAN, "is NaN", "LeakyRelu"),
        ("y = LeakyRelu <alpha = 0.5> (x)", "alpha", INF, "is infinite", "LeakyRelu"),
        ("y = Elu <alpha = 0.5> (x)", "alpha", NAN, "is NaN", "Elu"),
        (FILLED, "value", NAN, "is NaN", "MatMul"),
        (FILLED, "value", -INF, "is infinite", "MatMul"),
    ],
)
def test_an_attribute_is_told_by_its_name(text, name, value, words, spoiled):
    (weight,) = with_attribute(text, name, value)
    assert (weight.label, weight.words) == (f"attribute {name}", words)
    assert (weight.reader.op_type, weight.spoiled.op_type) == (text.split()[2], spoiled)
    assert with_attribute(text, name, 2.0) == []


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("y = Clip <max = 1.0> (x)", "max", INF),
        ("y = Clip <min = 1.0> (x)", "min", -INF),
        ("y = Pad <pads = [0, 1, 0, 0], value = 1.0> (x)", "value", NAN),
        ("f = ConstantOfShape <value = float[1] {1.0}> (s)  h = MatMul (x, x)  y = Add (h, f)", "value", -INF),
        ("f = ConstantOfShape <value = float[1] {1.0}> (s)  c = IsNaN (f)  y = Cast <to = 1> (c)", "value", NAN),
        ("f = LeakyRelu <alpha = 1.0> (x)  y = Exp (x)", "alpha", NAN),
    ],
)
def test_an_attribute_that_bounds_fills_or_masks_is_left_alone(text, name, value):
    assert with_attribute(text, name, value, opset=10) == []


def test_the_bounds_of_an_old_clip_may_not_be_nan():
    (weight,) = with_attribute("y = Clip <max = 1.0> (x)", "max", NAN, opset=10)
    assert weight.label == "attribute max"


def sparse(value: float) -> onnx.SparseTensorProto:
    values = onnx.numpy_helper.from_array(np.float32([1.0, value]), "w")
    return onnx.helper.make_sparse_tensor(values, onnx.numpy_helper.from_array(np.int64([1, 6])), [4, 4])


def sparse_model(text: str, *, constant: bool) -> onnx.ModelProto:
    cuts = {"first": np.int64([0]), "second": np.int64([1])}
    model = made(f"(float[n, 4] x) => (float[n, m] y) {{ {text} }}", cuts)
    if constant:
        attribute = onnx.AttributeProto(
            name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR, sparse_tensor=sparse(NAN)
        )
        model.graph.node.insert(0, onnx.NodeProto(op_type="Constant", output=["w"], attribute=[attribute]))
    else:
        model.graph.sparse_initializer.append(sparse(NAN))
    return model


@pytest.mark.parametrize("constant", [False, True])
def test_a_weight_that_is_stored_sparse_is_told_with_its_place_among_all_elements(constant):
    model = sparse_model("y = MatMul (x, w)", constant=constant)
    (weight,) = nonfinite_weights(source_of_model(model, "model.onnx"))
    assert (weight.name, weight.words) == ("w", "has 1 NaN among 16 numbers, the first at [1, 2]")
    cut = sparse_model("c = Slice (w, first, second, second)  y = MatMul (x, c)", constant=constant)
    assert nonfinite_weights(source_of_model(cut, "model.onnx")) == []


def test_a_mask_of_zeros_and_ones_times_an_infinity_is_told():
    nodes = f"one = Sub (s, x)  m = Mul (one, w)  h = Add (x, m)  y = {SOFTMAX} (h)"
    (weight,) = weights_of(nodes, s=np.float32(1), w=np.float32(-INF))
    assert (weight.name, weight.reader.op_type, weight.words) == ("w", "Mul", "is infinite")


def test_a_large_weight_outside_the_file_is_read(tmp_path):
    weights = np.zeros((64, 64), np.float32)
    weights[40, 1] = NAN
    model = made("(float[n, 64] x) => (float[n, 64] y) { y = MatMul (x, w) }", {"w": weights})
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    for read in (True, False):
        (weight,) = nonfinite_weights(read_source(path, weights=read))
        assert (weight.name, weight.nan, weight.first) == ("w", 1, (40, 1))
