"""Gradients of pools against torch's: windows, padding, rounding upwards, ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import parser

from actconform.errors import UnsupportedOperator
from actconform.onnx.grad.reverse_mode import add_gradients

torch = pytest.importorskip("torch")
functional = torch.nn.functional

MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
AVERAGE = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}

OPSETS = st.sampled_from([16, 18, 21, 22])  # up to 21 onnx infers other sizes with ceil_mode than anybody computes

LONG = 160_000


def normal(*shape):
    return np.random.default_rng(1).standard_normal(shape)


def tied(*shape):
    """Return few different numbers, so that windows have several largest ones."""
    return np.random.default_rng(1).integers(-1, 2, shape).astype(np.float64)


@st.composite
def pools(draw, *, dilated):
    axes = draw(st.sampled_from([1, 2, 2, 3]))
    steps = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2 if dilated else 1), st.integers(0, 3))
    kernel, strides, dilations, more = (list(c) for c in zip(*[draw(steps) for _ in range(axes)], strict=True))
    pads = [draw(st.integers(0, k // 2)) for k in kernel]
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    sizes = [span + n for span, n in zip(spans, more, strict=True)]
    return {
        "shape": [draw(st.integers(1, 2)), draw(st.integers(1, 2)), *sizes],
        "kernel": kernel,
        "strides": strides,
        "dilations": dilations,
        "pads": pads,
        "ceil": draw(st.booleans()),
    }


def attributes_of(case, **more):
    named = {"kernel_shape": case["kernel"], "strides": case["strides"], "pads": case["pads"] * 2}
    return named | {"ceil_mode": int(case["ceil"])} | more


@settings(max_examples=50, deadline=None)
@given(case=pools(dilated=True), ties=st.booleans(), free=st.sampled_from([(), (0,), (0, 2, 3, 4)]), opset=OPSETS)
def test_max_pool_goes_to_the_first_maximum(agrees, case, ties, free, opset):
    def forward(x):
        settings = case["kernel"], case["strides"], case["pads"], case["dilations"], case["ceil"]
        return MAX[x.ndim - 2](x, *settings)

    x = (tied if ties else normal)(*case["shape"])
    agrees("MaxPool", [x], forward, free={0: free}, opset=opset, **attributes_of(case, dilations=case["dilations"]))


@pytest.mark.parametrize("order", [0, 1])
def test_max_pool_that_gives_its_indices(agrees, order):
    def forward(x):
        return functional.max_pool2d(x, 2)

    agrees("MaxPool", [tied(2, 3, 4, 6)], forward, outputs=2, kernel_shape=[2, 2], strides=[2, 2], storage_order=order)


@pytest.mark.parametrize("placed", ["SAME_UPPER", "SAME_LOWER"])
def test_pools_with_automatic_pads(agrees, placed):
    ends = (0, 1) if placed == "SAME_UPPER" else (1, 0)

    def largest(x):
        return functional.max_pool1d(functional.pad(x, ends, value=-np.inf), 3, 2)

    def mean(x):
        counted = functional.avg_pool1d(functional.pad(torch.ones_like(x), ends), 3, 2)
        return functional.avg_pool1d(functional.pad(x, ends), 3, 2) / counted

    for op_type, forward in (("MaxPool", largest), ("AveragePool", mean)):
        for free in ((0,), (0, 2)):
            agrees(op_type, [normal(2, 2, 6)], forward, free={0: free}, auto_pad=placed, kernel_shape=[3], strides=[2])


@settings(max_examples=50, deadline=None)
@given(case=pools(dilated=False), counted=st.booleans(), free=st.sampled_from([(), (0,), (0, 2, 3, 4)]), opset=OPSETS)
def test_average_pool(agrees, case, counted, free, opset):
    def forward(x):
        return AVERAGE[x.ndim - 2](x, case["kernel"], case["strides"], case["pads"], case["ceil"], counted)

    attributes = attributes_of(case, count_include_pad=int(counted))
    agrees("AveragePool", [normal(*case["shape"])], forward, free={0: free}, opset=opset, **attributes)


@pytest.mark.parametrize("free", [(), (2,)], ids=["static", "any-size"])
@pytest.mark.parametrize("dilation", [1, 2])
def test_average_pool_dilated(agrees, dilation, free):
    def forward(x):
        return functional.conv1d(x, torch.full((1, 1, 3), 1 / 3, dtype=torch.float64), None, 2, 1, dilation)

    attributes = {"dilations": [dilation], "pads": [1, 1], "strides": [2], "kernel_shape": [3], "count_include_pad": 1}
    agrees("AveragePool", [normal(2, 1, 8)], forward, free={0: free}, **attributes)


@pytest.mark.parametrize("size", [str(LONG), "n"], ids=["static", "any-size"])
@pytest.mark.parametrize(("op_type", "more"), [("AveragePool", ""), ("LpPool", ", p = 1")])
def test_windows_over_a_long_signal_take_memory_as_the_signal_does(op_type, more, size):
    """A matrix of windows by elements would hold 1.6e8 numbers, and with the elements of each window 6e10."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model = parser.parse_model(f"""<ir_version: 8, opset_import: ["": 18]> sound (float[1, 1, {size}] x) => (float[1, 1, m] y) {{
        y = {op_type} <kernel_shape = [400], strides = [160], pads = [200, 200]{more}> (x)
    }}""")
    made = add_gradients(model, keep_outputs=False)
    assert made.ByteSize() < 100_000
    x, g = np.ones((1, 1, LONG), np.float32), np.ones((1, 1, LONG // 160 + 1), np.float32)
    (dx,) = onnxruntime.InferenceSession(made.SerializeToString()).run(None, {"x": x, "ct_y": g})
    seen = np.zeros(LONG + 400)
    for begin in range(0, LONG + 1, 160):
        inside = min(begin + 400, LONG + 200) - max(begin, 200)
        seen[begin : begin + 400] += 1 / inside if op_type == "AveragePool" else 1
    np.testing.assert_allclose(dx[0, 0], seen[200 : LONG + 200], rtol=1e-6)


def test_a_window_as_wide_as_a_graph_may_say_costs_nothing_to_differentiate(graph_of):
    given = {"kernel_shape": [300_000_000], "pads": [200_000_000, 100_000_000]}
    assert add_gradients(graph_of("AveragePool", [normal(1, 1, 8)], [3], **given)).ByteSize() < 10_000


@pytest.mark.parametrize("p", [1, 2, 3])
def test_norm_pools(agrees, p):
    def windows(x):
        return functional.conv2d(x.abs() ** p, torch.ones(1, 1, 2, 3, dtype=torch.float64), None, (1, 2), (1, 0))

    x = normal(2, 1, 4, 5)
    where = {"kernel_shape": [2, 3], "strides": [1, 2], "pads": [1, 0, 1, 0]}
    for free in ((0,), (0, 2, 3)):
        agrees("LpPool", [x], lambda x: windows(x) ** (1 / p), free={0: free}, p=p, **where)
    agrees("GlobalLpPool", [x], lambda x: (x.abs() ** p).sum((2, 3), keepdim=True) ** (1 / p), opset=21, p=p)


@pytest.mark.parametrize("opset", [18, 22])
def test_norm_pool_rounding_upwards(agrees, opset):
    """The window at 4 sees one element of five, and none begins at 8: torch scales what it does not see, so by hand."""

    def forward(x):
        padded = functional.pad(x.abs() ** 3, (0, 3))
        return functional.conv1d(padded, torch.ones(1, 1, 4, dtype=torch.float64), None, 4) ** (1 / 3)

    given = {"p": 3, "kernel_shape": [4], "strides": [4], "ceil_mode": 1}
    agrees("LpPool", [normal(2, 1, 5)], forward, exact=False, opset=opset, **given)  # onnx's own rounds downwards


@pytest.mark.parametrize("placed", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize(("opset", "refused"), [(18, True), (19, True), (22, False)])
def test_a_size_that_onnx_infers_wrongly_where_the_image_is_cut_is_refused(graph_of, placed, opset, refused):
    """ONNX Runtime folds the Shape of such a pool to onnx's size, so that the gradient's nodes would not fit."""
    onnxruntime = pytest.importorskip("onnxruntime")
    given = {"kernel_shape": [2], "strides": [3], "ceil_mode": 1, "auto_pad": placed}
    model = graph_of("AveragePool", [normal(1, 1, 9)], [3], opset=opset, element_type=1, **given)
    if refused:
        with pytest.raises(UnsupportedOperator, match="runtimes differ in where its windows lie: state pads"):
            add_gradients(model, ["x0"])
        return
    x, g = normal(1, 1, 9).astype(np.float32), np.ones((1, 1, 3), np.float32)
    graph = add_gradients(model, ["x0"], keep_outputs=False).SerializeToString()
    (dx,) = onnxruntime.InferenceSession(graph).run(None, {"x0": x, "ct_y0": g})
    np.testing.assert_allclose(dx[0, 0], [0.5, 0.5, 0] * 3)


@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool", "LpPool"])
def test_padding_that_runtimes_find_differently_is_refused(graph_of, op_type):
    """ONNX Runtime pads by the undilated window."""
    given = {"kernel_shape": [3], "dilations": [2], "auto_pad": "SAME_UPPER"}
    with pytest.raises(UnsupportedOperator, match="runtimes differ in where its windows lie: state pads"):
        add_gradients(graph_of(op_type, [normal(1, 1, 6)], [3], **given), ["x0"])


@pytest.mark.parametrize("free", [(), (0,), (0, 2, 3)], ids=["static", "batch", "all"])
def test_global_pools(agrees, free):
    agrees("GlobalAveragePool", [normal(2, 3, 4, 5)], lambda x: x.mean((2, 3), keepdim=True), free={0: free})
    for x in (normal(2, 3, 4, 5), tied(2, 3, 4, 5)):
        agrees("GlobalMaxPool", [x], lambda x: functional.max_pool2d(x, (4, 5)), free={0: free})


def test_max_unpool(agrees):
    x = normal(2, 1, 3)
    _, indices = functional.max_pool1d(torch.tensor(normal(2, 1, 6)), 2, return_indices=True)
    at = indices.numpy() + np.array([0, 6])[:, None, None]

    def forward(x, _):
        return functional.max_unpool1d(x, indices, 2)

    agrees("MaxUnpool", [x, at], forward, kernel_shape=[2], strides=[2])
