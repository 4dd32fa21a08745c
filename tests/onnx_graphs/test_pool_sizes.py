"""Nodes of which onnx infers other sizes than runtimes compute: gradients run, and have the sizes that the model states."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser

from actconform.errors import GradientError
from actconform.onnx.evaluate.reference import reference
from actconform.onnx.grad.reverse_mode import add_gradients
from actconform.onnx.inference import expect_consistent

onnxruntime = pytest.importorskip("onnxruntime")


def parsed(text, opset=18):
    return parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> g {text}')


def run(model, feeds):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([each.name for each in session.get_outputs()], session.run(None, feeds), strict=True))


def slopes(model, x, g):
    """Return the gradient of sum(g y) by central differences, in float64 by onnx's own evaluator."""
    double = onnx.ModelProto()
    double.CopyFrom(model)
    for value in (*double.graph.input, *double.graph.output, *double.graph.value_info):
        value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    evaluate = reference(double.SerializeToString())
    steps = 1e-6 * np.eye(x.size).reshape(-1, *x.shape)

    def at(place):
        return float(np.sum(evaluate({"x": place})["y"] * g))

    return np.array([(at(x + step) - at(x - step)) / 2e-6 for step in steps]).reshape(x.shape)


def dims(value):
    return [dim.dim_value or dim.dim_param or None for dim in value.type.tensor_type.shape.dim]


# Pools of which at least one axis has a window that would begin behind the image, and the spatial sizes that runtimes give.
POOLS = {
    "a window of one": ("4,4", "MaxPool <kernel_shape = [1, 1], strides = [2, 2], ceil_mode = 1>", "2,2"),
    "padding alone": (
        "2,2",
        "AveragePool <kernel_shape = [3, 3], strides = [3, 3], pads = [1, 1, 1, 1], ceil_mode = 1>",
        "1,1",
    ),
    "one axis of two, cut off": ("4,6", "AveragePool <kernel_shape = [1, 3], strides = [2, 2], ceil_mode = 1>", "2,3"),
    "one axis of two, padded": (
        "5,6",
        "AveragePool <kernel_shape = [3, 3], strides = [4, 2], pads = [1, 0, 1, 0], ceil_mode = 1, count_include_pad = 1>",
        "2,3",
    ),
    "maximum, one axis of two": ("4,6", "MaxPool <kernel_shape = [1, 3], strides = [2, 2], ceil_mode = 1>", "2,3"),
    "no padding by name": (
        "4,4",
        'MaxPool <kernel_shape = [1, 2], strides = [2, 2], auto_pad = "VALID", ceil_mode = 1>',
        "2,2",
    ),
}


@pytest.mark.parametrize("stated", ["nothing", "symbols", "numbers", "onnx's own"])
@pytest.mark.parametrize("opset", [10, 18, 22])
@pytest.mark.parametrize("behind", ["", "Sigmoid"])
@pytest.mark.parametrize("name", POOLS)
def test_pools_that_round_upwards(name, behind, opset, stated):
    image, pool, sizes = POOLS[name]
    spatial = {"numbers": sizes, "symbols": "p,q"}.get(stated, "p,q")
    nodes = f"z = {pool} (x) y = {behind} (z)" if behind else f"y = {pool} (x)"
    model = parsed(f"(float[1, 1, {image}] x) => (float[1, 1, {spatial}] y) {{ {nodes} }}", opset)
    if stated in {"nothing", "onnx's own"}:
        for dim in model.graph.output[0].type.tensor_type.shape.dim[2:]:
            dim.Clear()
    if stated == "onnx's own":
        model = onnx.shape_inference.infer_shapes(model)
    rng = np.random.default_rng(0)
    x = rng.standard_normal([1, 1, *map(int, image.split(","))])
    single = x.astype(np.float32)
    y = run(model, {"x": single})["y"]
    assert list(y.shape[2:]) == [int(size) for size in sizes.split(",")]
    g = rng.standard_normal(y.shape)
    made = add_gradients(model, ["x"])
    got = run(made, {"x": single, "ct_y": g.astype(np.float32)})
    np.testing.assert_allclose(got["y"], y, rtol=1e-6)
    np.testing.assert_allclose(got["d_x"], slopes(model, x, g), atol=1e-5)
    ct = dims(made.graph.input[-1])
    if stated == "symbols":
        assert ct[2:] == ["p", "q"]
    else:
        assert all(size in {None, exact} for size, exact in zip(ct, y.shape, strict=True))
    if stated == "numbers":
        assert ct == list(y.shape)


def test_indices_still_count_in_the_whole_image():
    text = "(float[1, 1, 6, 6] x) => (float[1, 1, p, q] y, int64[1, 1, p, q] i) { y, i = MaxPool <kernel_shape = [1, 3], strides = [4, 2], pads = [0, 0, 0, 0], ceil_mode = 1> (x) }"
    model = parsed(text.replace("1, 6, 6", "1, 4, 6"))
    x = np.random.default_rng(0).standard_normal((1, 1, 4, 6)).astype(np.float32)
    before = run(model, {"x": x})
    got = run(add_gradients(model, ["x"]), {"x": x, "ct_y": np.ones_like(before["y"])})
    np.testing.assert_array_equal(got["i"], before["i"])
    wanted = np.zeros(24)
    np.add.at(wanted, before["i"].ravel(), 1.0)
    np.testing.assert_array_equal(got["d_x"].ravel(), wanted)


def test_a_pool_in_a_branch_and_one_behind_another():
    pool = "MaxPool <kernel_shape = [1], strides = [2], ceil_mode = 1>"
    branch = f"{{}} () => (float[1, 1, m] {{}}) {{{{ {{}} = {pool} (h) }}}}"
    model = parsed(
        f"""(float[1, 1, 8] x, bool c) => (float[1, 1, 2] y, float[1, 1, 2] z) {{
        h = {pool} (x)
        y = {pool} (h)
        z = If (c) <then_branch = {branch.format("t", "a", "a")}, else_branch = {branch.format("e", "b", "b")}>
    }}"""
    )
    x = np.arange(8, dtype=np.float32).reshape(1, 1, 8)
    made = add_gradients(model, ["x"], ["y"])
    assert dims(made.graph.input[-1]) == [1, 1, 2]
    got = run(made, {"x": x, "c": np.array(True), "ct_y": np.array([[[2, 3]]], np.float32)})
    np.testing.assert_array_equal(got["d_x"].ravel(), [2, 0, 0, 0, 3, 0, 0, 0])
    np.testing.assert_array_equal(got["z"], got["y"])


@pytest.mark.parametrize("condition", [True, False])
def test_branches_that_give_images_of_other_sizes_one_name(condition):
    """The last window of the pool begins behind an image of 6, not of 7."""
    pool = "MaxPool <kernel_shape = [2], strides = [3], ceil_mode = 1>"
    model = parsed(
        f"""(float[1, 1, 7] x, bool c) => (float[1, 1, 1] y) <int64[1] last = {{2}}> {{
        y = If (c) <
            then_branch = t () => (float[1, 1, 1] a) {{ image = Neg (x) p = {pool} (image) a = ReduceSum (p, last) }},
            else_branch = e () => (float[1, 1, 1] b) {{
                image = MaxPool <kernel_shape = [2]> (x) q = {pool} (image) b = ReduceSum (q, last) }}>
    }}"""
    )
    x = np.array([[[3, 1, 4, 1, 5, 9, 2]]], np.float32)
    got = run(add_gradients(model, ["x"]), {"x": x, "c": np.array(condition), "ct_y": np.ones((1, 1, 1), np.float32)})
    if condition:  # of -x: -1, -1 and -2
        wanted, slopes = -4, [0, -1, 0, -1, 0, 0, -1]
    else:  # of 3 4 4 5 9 9: 4 and 9
        wanted, slopes = 13, [0, 0, 1, 0, 0, 1, 0]
    np.testing.assert_array_equal(got["y"].ravel(), [wanted])
    np.testing.assert_array_equal(got["d_x"].ravel(), slopes)


def test_sizes_that_nobody_gives_are_refused_as_before():
    model = parsed(
        "(float[1, 1, 4] x) => (float[1, 1, 7] y) { y = MaxPool <kernel_shape = [1], strides = [2], ceil_mode = 1> (x) }"
    )
    with pytest.raises(GradientError, match=r"not a valid ONNX model.*MaxPool.*differ in dimension 2"):
        add_gradients(model, ["x"])


@pytest.mark.parametrize(
    "text",
    [
        "(float[1, 1, 4] x) => (float[1, 1, 2] y) { y = MaxPool <kernel_shape = [1], strides = [2], ceil_mode = 1> (x) }",
        '(float[1, 1, 4] x, float[1, 1, 3] w) => (float[1, 1, 8] y) { y = ConvTranspose <auto_pad = "SAME_UPPER", strides = [2], output_padding = [1]> (x, w) }',
        "(float[1, 1, 5] x, float[1, 1, 3] w) => (float[1, 1, 3] y) { y = ConvTranspose <output_shape = [3]> (x, w) }",
        '(float[1, 1, 6] x) => (float[1, 1, 4] y) { y = MaxPool <kernel_shape = [3], dilations = [2], auto_pad = "SAME_UPPER"> (x) }',
    ],
)
def test_what_runs_and_says_the_right_size_is_valid(text):
    model = parsed(text)
    feeds = {value.name: np.ones(dims(value), np.float32) for value in model.graph.input}
    assert list(run(model, feeds)["y"].shape) == dims(model.graph.output[0])
    with pytest.raises(onnx.shape_inference.InferenceError):
        onnx.checker.check_model(model, full_check=True)
    expect_consistent(model, check_type=True)
