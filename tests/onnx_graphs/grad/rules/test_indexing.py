"""Gradients of picking, placing and resampling, and of the losses that pick, against torch's."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from actconform.errors import UnsupportedOperator
from actconform.onnx.grad.reverse_mode import add_gradients

torch = pytest.importorskip("torch")
functional = torch.nn.functional


def normal(*shape):
    return np.random.default_rng(1).standard_normal(shape)


def integers(high, *shape, low=0):
    return np.random.default_rng(3).integers(low, high, shape)


FREE = st.sampled_from([(), (0,), (0, 1, 2)])


@settings(max_examples=30, deadline=None)
@given(axis=st.sampled_from([0, 1, 2, -1, -3]), shape=st.sampled_from([(), (1,), (5,), (2, 4)]), free=FREE)
def test_gather(agrees, axis, shape, free):
    indices = integers(2, *shape, low=-2)

    def forward(x, _):
        return x[(slice(None),) * (axis % 3) + (torch.tensor(indices),)]

    agrees("Gather", [normal(2, 3, 4), np.asarray(indices)], forward, free={0: free}, axis=axis)


@pytest.mark.parametrize("free", [(), (0,), (0, 1, 2)], ids=["static", "batch", "all"])
@pytest.mark.parametrize("shape", [(2, 3, 4), (3,)], ids=str)
@pytest.mark.parametrize("index", [np.array(-1), np.array([1]), np.array([[0]])], ids=lambda index: str(index.tolist()))
def test_gather_at_one_constant_index(agrees, setting, index, shape, free):
    def forward(x, _):
        return x.movedim(-1, 0)[torch.tensor(index)].movedim(
            tuple(range(index.ndim)), tuple(range(x.ndim - 1, x.ndim - 1 + index.ndim))
        )

    agrees("Gather", [normal(*shape), setting(index)], forward, free={0: free[: len(shape)]}, axis=-1)


def test_float16_sums_of_repeated_indices_do_not_stop_at_2048(graph_of):
    indices = np.zeros(3000, np.int64)
    for op_type, inputs, shape in (
        ("Gather", [normal(2), indices], (2,)),
        ("GatherElements", [normal(2), indices], (2,)),
        ("GatherND", [normal(2), indices[:, None]], (2,)),
    ):
        model = graph_of(op_type, inputs, [1], element_type=onnx.TensorProto.FLOAT16)
        feeds = {"x0": np.zeros(shape, np.float16), "x1": inputs[1], "ct_y0": np.ones(3000, np.float16)}
        (dx,) = ReferenceEvaluator(add_gradients(model, ["x0"], keep_outputs=False)).run(None, feeds)
        assert dx.dtype == np.float16
        assert dx.tolist() == [3000, 0]


@settings(max_examples=20, deadline=None)
@given(axis=st.sampled_from([0, 1, -1]), shape=st.sampled_from([(2, 3, 4), (1, 2, 3)]), free=FREE)
def test_gather_elements(agrees, axis, shape, free):
    indices = integers(2, *shape)

    def forward(x, _):
        return torch.gather(x, axis, torch.tensor(indices))

    agrees("GatherElements", [normal(2, 3, 4), indices], forward, free={0: free}, axis=axis)


@pytest.mark.parametrize("free", [(), (0, 1, 2)], ids=["static", "all"])
def test_gather_nd(agrees, free):
    x, pairs, singles = normal(2, 3, 4), integers(2, 4, 2), integers(3, 2, 5, 1)
    agrees("GatherND", [x, pairs], lambda x, _: x[pairs[:, 0], pairs[:, 1]], free={0: free})

    def by_batch(x, _):
        return torch.stack([each[row[:, 0]] for each, row in zip(x, singles, strict=True)])

    agrees("GatherND", [x, singles], by_batch, free={0: free}, batch_dims=1)


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_compress(agrees, axis):
    taken = np.array([True, False, True] if axis != 0 else [False, True])
    axes = {} if axis is None else {"axis": axis}

    def forward(x, _):
        x, places = (x.reshape(-1), np.flatnonzero(taken)) if axis is None else (x, np.flatnonzero(taken))
        return x.index_select(axis or 0, torch.tensor(places))

    agrees("Compress", [normal(2, 3, 4), taken], forward, free={0: (0,)}, **axes)


TORCH_REDUCTIONS = {"add": "sum", "max": "amax", "min": "amin", "mul": "prod"}


@settings(max_examples=40, deadline=None)
@given(
    axis=st.sampled_from([0, 1, -1]),
    reduction=st.sampled_from(["none", "add", "max", "min", "mul"]),
    tied=st.booleans(),
    free=FREE,
)
def test_scatter_elements(agrees, axis, reduction, tied, free):
    rng = np.random.default_rng(4)
    data, updates = normal(3, 3, 4), normal(2, 3, 3)
    if tied:
        data, updates = data.round(), updates.round()
    indices = integers(3, 2, 3, 3)
    if reduction == "none":  # without repetition
        indices = np.argsort(rng.random(data.shape), axis)[:2, :3, :3]
        indices = np.argsort(rng.random((3, 3, 3)), axis)[:2] if axis == 0 else np.argsort(rng.random((2, 3, 3)), axis)

    def forward(data, _, updates):
        if reduction == "none":
            return data.scatter(axis, torch.tensor(indices), updates)
        return data.scatter_reduce(axis, torch.tensor(indices), updates, TORCH_REDUCTIONS[reduction])

    agrees("ScatterElements", [data, indices, updates], forward, free={0: free}, axis=axis, reduction=reduction)


@pytest.mark.parametrize("free", [(), (0, 1)], ids=["static", "all"])
@pytest.mark.parametrize("reduction", ["none", "add", "max", "min", "mul"])
def test_scatter_nd(agrees, reduction, free):
    rows = np.array([[2], [0]] if reduction == "none" else [[2], [0], [2]])

    def forward(data, _, updates):
        if reduction == "none":
            return data.index_copy(0, torch.tensor(rows[:, 0]), updates)
        index = torch.tensor(rows).expand(-1, 4)
        return data.scatter_reduce(0, index, updates, TORCH_REDUCTIONS[reduction])

    inputs = [normal(3, 4), rows, normal(len(rows), 4) * 2]
    agrees("ScatterND", inputs, forward, free={0: free}, reduction=reduction)


@pytest.mark.parametrize("zeros", [[(0, 1)], [(0, 1), (2, 1)]], ids=["one", "two"])
def test_a_scattered_product_of_zeros(agrees, zeros):
    """Rows 0 and 2 of the updates fall on row 1 of the data: one zero leaves the others' product, two leave nothing."""
    data, updates, rows = normal(3, 4), normal(3, 4), np.array([[1], [0], [1]])
    for at in zeros:
        updates[at] = 0.0
    data[2, 2] = 0.0

    def forward(data, _, updates):
        return data.scatter_reduce(0, torch.tensor(rows).expand(-1, 4), updates, "prod")

    agrees("ScatterND", [data, rows, updates], forward, reduction="mul")


@pytest.mark.parametrize("axis", [-1, 0])
def test_one_hot(agrees, setting, axis):
    indices = integers(4, 2, 3, low=-1)

    def forward(_, __, values):
        on = functional.one_hot(torch.tensor(indices) % 4, 4).double().movedim(-1, axis)
        return values[0] * (1 - on) + values[1] * on

    agrees("OneHot", [indices, setting(4), normal(2)], forward, axis=axis)


# Resize: torch's half_pixel and align_corners for linear and cubic, its asymmetric floor for nearest.


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    by=st.sampled_from(["sizes", "scales", "axes"]),
    free=st.sampled_from([(), (0,)]),
    aligned=st.booleans(),
    mode=st.sampled_from(["linear", "nearest", "cubic"]),
)
def test_resize(agrees, setting, sizes, by, free, aligned, mode):
    shape = (2, 2, 4, 2)  # over which the scales are exact
    how = {"linear": "bilinear", "nearest": "nearest", "cubic": "bicubic"}[mode]
    ends = {} if mode == "nearest" else {"align_corners": aligned}

    def forward(x, *_):
        return functional.interpolate(x, sizes, mode=how, **ends)

    if mode == "nearest":
        attributes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    else:
        attributes = {"coordinate_transformation_mode": "align_corners" if aligned else "half_pixel"}
    if by == "scales":
        inputs = [None, setting([1, 1, sizes[0] / 4, sizes[1] / 2], np.float32)]
    else:
        inputs = [None, None, setting(sizes if by == "axes" else [*shape[:2], *sizes])]
    if by == "axes":
        attributes["axes"] = [2, 3]
    if mode == "cubic":
        attributes["cubic_coeff_a"] = -0.75
    exact = mode != "cubic"  # of which onnx's evaluator rounds the weights to float32
    free = {0: () if by == "sizes" else free}
    agrees("Resize", [normal(*shape), *inputs], forward, exact=exact, free=free, mode=mode, **attributes)


# Of a linear operator R the gradient is the transpose: <g, R x> = <R^T g, x>, whatever the rules of its coordinates.
COORDINATES = ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"]
NEAREST = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
LINEAR = [
    *(
        {"mode": "nearest", "nearest_mode": how, "coordinate_transformation_mode": of}
        for how in NEAREST
        for of in COORDINATES
    ),
    *({"mode": mode, "coordinate_transformation_mode": of} for mode in ("linear", "cubic") for of in COORDINATES),
    {"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5},
    {"mode": "linear", "antialias": 1},
]


@pytest.mark.parametrize("scales", [(1, 1, 1.75, 0.6), (1, 1, 1, 2.4), (1, 1, 1.1, 1)], ids=str)
@pytest.mark.parametrize("attributes", LINEAR, ids=lambda attributes: "-".join(map(str, attributes.values())))
def test_resize_is_transposed(transposes, setting, attributes, scales):
    inputs = [normal(2, 1, 5, 6), None, setting(scales, np.float32)]
    transposes("Resize", inputs, **attributes)


@pytest.mark.parametrize("shape", [(5,), (2, 5), (2, 5, 3), (1, 2, 3, 2, 3)], ids=str)
def test_resize_of_any_rank(transposes, setting, shape):
    scales = np.ones(len(shape), np.float32)
    scales[-1] = 1.5
    transposes("Resize", [normal(*shape), None, setting(scales, np.float32)], runs=len(shape) > 1, mode="linear")


def test_resize_of_the_first_axis(transposes, setting):
    transposes("Resize", [normal(4, 2, 3), None, setting([1.5, 1, 1], np.float32)], mode="nearest")


def test_resize_of_a_part_of_the_image(transposes, setting):
    roi = setting([0, 0, 0.25, 0.25, 1, 1, 0.75, 1.5], np.float32)  # a sixth lies outside, where y is constant
    how = {"coordinate_transformation_mode": "tf_crop_and_resize", "mode": "linear"}
    transposes("Resize", [normal(2, 1, 5, 6), roi, setting([1, 1, 1.5, 1], np.float32)], **how)


def test_resize_of_a_batch_of_any_size_to_sizes_that_are_computed():
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 18]>
        upsample (float[batch, 3, 4, 4] x) => (float[batch, 3, 8, 8] y) <int64[2] image = {8, 8}> {
            kept = Shape <end = 2> (x)
            sizes = Concat <axis = 0> (kept, image)
            y = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (x, , , sizes)
        }""")
    g = normal(2, 3, 8, 8).astype(np.float32)
    run = ReferenceEvaluator(add_gradients(model, ["x"], keep_outputs=False)).run
    (dx,) = run(None, {"x": np.zeros((2, 3, 4, 4), np.float32), "ct_y": g})
    np.testing.assert_allclose(dx, g.reshape(2, 3, 4, 2, 4, 2).sum((3, 5)), atol=1e-5)


@pytest.mark.parametrize("by", ["scales", "sizes", "constant scales"])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize_of_an_image_of_any_size(transposes, setting, mode, by):
    """Scales and sizes, and the sizes of the image, are known at run time alone."""
    scales = np.array([1, 1, 1.5, 0.75], np.float32)
    last = {"scales": scales, "sizes": np.array([2, 1, 9, 3]), "constant scales": setting(scales, np.float32)}[by]
    inputs = [normal(2, 1, 5, 6), None, *[None] * (by == "sizes"), last]
    transposes("Resize", inputs, free={0: (0, 2, 3)}, mode=mode, coordinate_transformation_mode="half_pixel")


@pytest.mark.parametrize("how", [{"axes": [3, 2]}, {"axes": [-1, -2], "antialias": 1}], ids=str)
def test_resize_of_named_axes_of_any_size(transposes, how):
    scales = np.array([0.75, 1.5], np.float32)
    transposes("Resize", [normal(2, 1, 5, 6), None, scales], free={0: (0, 2, 3)}, mode="linear", exact=False, **how)


def test_resize_that_keeps_the_aspect_ratio_is_refused(graph_of):
    inputs = [normal(1, 1, 4, 4), None, None, np.array([8, 8])]
    model = graph_of("Resize", inputs, [4], axes=[2, 3], keep_aspect_ratio_policy="not_larger")
    with pytest.raises(UnsupportedOperator, match=r"Resize .*at node node: .*keep_aspect_ratio_policy.*give scales"):
        add_gradients(model, ["x0"])


@pytest.mark.parametrize("free", [(), (0,)], ids=["static", "batch"])
def test_col2im(agrees, setting, free):
    def forward(x, *_):
        return functional.fold(x, (5, 6), (2, 3), dilation=(2, 1), padding=(1, 0), stride=(1, 2))

    inputs = [normal(2, 12, 10), setting([5, 6]), setting([2, 3])]
    where = {"dilations": [2, 1], "pads": [1, 0, 1, 0], "strides": [1, 2]}
    agrees("Col2Im", inputs, forward, free={0: free}, **where)


@pytest.mark.parametrize(("sizes", "axes"), [((3, 5), (1, -1)), ((2, 2, 4), None), ((4, 1, 1), None)], ids=str)
def test_center_crop_pad(transposes, setting, sizes, axes):
    transposes("CenterCropPad", [normal(3, 2, 2), setting(sizes)], **({"axes": axes} if axes else {}))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("ignored", [None, 1, -1])
def test_losses(agrees, setting, reduction, weighted, ignored):
    weights = np.array([0.5, 1.5, 1.0, 0.25]) if weighted else None
    target = integers(4, 3, 2)
    if ignored is not None:
        target[0, 0] = ignored
    how = {"reduction": reduction, "ignore_index": -100 if ignored is None else ignored}

    def likelihood(x, *_):
        return functional.nll_loss(x, torch.tensor(target), None if weights is None else torch.tensor(weights), **how)

    def entropy(x, *_):
        return likelihood(torch.log_softmax(x, 1))

    attributes = {"reduction": reduction} | ({} if ignored is None else {"ignore_index": ignored})
    for op_type, forward in (("NegativeLogLikelihoodLoss", likelihood), ("SoftmaxCrossEntropyLoss", entropy)):
        inputs = [normal(3, 4, 2), target] + [weights] * weighted
        agrees(op_type, inputs, forward, wrt=["x0"], **attributes)


def test_cross_entropy_whose_log_probabilities_are_used(agrees):
    target = integers(4, 3)

    def forward(x, _):
        return functional.cross_entropy(x, torch.tensor(target)), torch.log_softmax(x, 1)

    agrees("SoftmaxCrossEntropyLoss", [normal(3, 4), target], forward)


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("heads", [(2, 2), (4, 2)], ids=str)
def test_attention_by_its_definition(agrees, heads, causal):
    queries, keys = heads

    def forward(q, k, v):
        return functional.scaled_dot_product_attention(
            q, k, v, is_causal=bool(causal), scale=1.0, enable_gqa=queries > keys
        )

    inputs = [normal(2, queries, 3, 4), normal(2, keys, 3, 4) * 2, normal(2, keys, 3, 5)]
    agrees("Attention", inputs, forward, opset=23, is_causal=causal, scale=1.0)


def test_rotary_embedding_by_its_definition(transposes):
    angles = normal(2, 3, 2)
    transposes("RotaryEmbedding", [normal(2, 2, 3, 4), np.cos(angles), np.sin(angles)], opset=23)


def test_an_operator_without_a_rule_is_refused_by_name(graph_of):
    inputs = [normal(1, 1, 4, 4), normal(2, 4), np.array([0, 0])]
    with pytest.raises(UnsupportedOperator, match=r"operator RoiAlign .*opset 22.* at node node: it has no rule"):
        add_gradients(graph_of("RoiAlign", inputs, [4]), ["x0"])
