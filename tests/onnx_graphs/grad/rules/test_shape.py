"""Gradients of operators that move data against torch's, or against the transpose of the very same movement."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from actconform.onnx.evaluate.reference import reference
from actconform.onnx.grad.reverse_mode import add_gradients

torch = pytest.importorskip("torch")
NONE: dict[int, tuple[int, ...]] = {}
SOME = settings(max_examples=25, deadline=None)


def normal(*shape):
    return np.random.default_rng(1).standard_normal(shape)


@pytest.fixture(scope="session")
def transposes(graph_of):
    """Check <g, J t> = <J^T g, t> for a random t, J being linear: the movement itself by onnx's reference evaluator."""

    def check(op_type, inputs, opset=22, free=NONE, **attributes):
        model = graph_of(op_type, inputs, [inputs[0].ndim], opset=opset, free=free, **attributes)
        x = inputs[0]
        feeds = {f"x{i}": each for i, each in enumerate(inputs) if isinstance(each, np.ndarray)}
        y = reference(model.SerializeToString())(feeds)["y0"]
        g = np.random.default_rng(2).standard_normal(y.shape)
        graph = add_gradients(model, ["x0"]).SerializeToString()
        pulled = reference(graph)(feeds | {"ct_y0": g})["d_x0"]
        assert pulled.shape == x.shape
        np.testing.assert_allclose((pulled * x).sum(), (g * y).sum(), rtol=1e-12, atol=1e-12)

    return check


@pytest.mark.parametrize("free", [(), (0,), (0, 1, 2)], ids=["static", "batch", "all"])
def test_reshape_and_its_kin(agrees, setting, free):
    x = normal(2, 1, 6)
    agrees("Reshape", [x, setting([3, -1])], lambda x, _: x.reshape(3, -1), free={0: free})
    agrees("Flatten", [x], lambda x: x.reshape(2, 6), free={0: free})
    agrees("Squeeze", [x, setting([1])], lambda x, _: x.squeeze(1), free={0: free})
    agrees("Unsqueeze", [x, setting([0, -1])], lambda x, _: x[None, ..., None], free={0: free})


def test_reshape_of_nothing(agrees, setting):
    agrees("Reshape", [normal(0, 4), setting([0, 2, 2])], lambda x, _: x.reshape(0, 2, 2))


@pytest.mark.parametrize("perm", [None, (0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_transpose(agrees, perm):
    attributes = {} if perm is None else {"perm": perm}
    agrees("Transpose", [normal(2, 3, 4)], lambda x: x.permute(perm or (2, 1, 0)), **attributes)


@pytest.mark.parametrize("free", [(), (0,), (0, 1)], ids=["static", "batch", "all"])
def test_expand(agrees, setting, free):
    agrees("Expand", [normal(3, 1), setting([2, 1, 4])], lambda x, _: x.expand(2, 3, 4), free={0: free})


@SOME
@given(st.sampled_from([0, 1, 2, -1, -2, -3]), st.integers(1, 3), st.sampled_from([(), (0,), (0, 1, 2)]))
def test_concat(agrees, axis, count, free):
    parts = []
    for i in range(count):
        shape = [2, 3, 4]
        shape[axis] = i + 1
        parts.append(normal(*shape))
    agrees("Concat", parts, lambda *xs: torch.cat(xs, axis), axis=axis, free=dict.fromkeys(range(count), free))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_split(agrees, setting, axis):
    x = normal(4, 4, 4)
    agrees("Split", [x, setting([1, 3])], lambda x, _: x.split([1, 3], axis), outputs=2, axis=axis)
    agrees("Split", [x], lambda x: x.split(2, axis), outputs=2, axis=axis, num_outputs=2)
    # only the first part is used
    agrees("Split", [x, setting([1, 3])], lambda x, _: x.split([1, 3], axis)[0], outputs=2, axis=axis)


bounds = st.integers(-9, 9)


@SOME
@given(
    st.lists(st.tuples(bounds, bounds, st.sampled_from([1, 1, 2, 3, -1, -2])), min_size=1, max_size=3),
    st.permutations([0, 1, -1]),
    st.sampled_from([(), (0,), (0, 1, 2)]),
)
def test_slice(transposes, setting, cuts, axes, free):
    starts, ends, steps = zip(*cuts, strict=True)
    inputs = [normal(3, 4, 5), setting(starts), setting(ends), setting(axes[: len(cuts)]), setting(steps)]
    transposes("Slice", inputs, free={0: free})


def test_slice_in_onnxruntime(agrees, setting):
    inputs = [normal(3, 8), setting([1]), setting([-1]), setting([1])]
    agrees("Slice", inputs, lambda x, *_: x[:, 1:-1])
    agrees("Slice", [*inputs, setting([2])], lambda x, *_: x[:, 1:-1:2])
    agrees("Slice", inputs, lambda x, *_: x[:, 1:-1], free={0: (0, 1)})


def test_slice_by_inputs(agrees):
    inputs = [normal(3, 8), np.array([1]), np.array([7]), np.array([1])]
    agrees("Slice", inputs, lambda x, *_: x[:, 1:7])


@SOME
@given(st.tuples(st.integers(1, 3), st.integers(0, 3), st.integers(1, 2)), st.sampled_from([(), (0,), (0, 1, 2)]))
def test_tile(agrees, setting, repeats, free):
    agrees("Tile", [normal(2, 3, 1), setting(repeats)], lambda x, _: x.tile(repeats), free={0: free})


@SOME
@given(
    st.lists(st.integers(0, 2), min_size=6, max_size=6),
    st.sampled_from(["constant", "reflect", "edge", "wrap"]),
    st.sampled_from([(), (0,), (0, 1, 2)]),
)
def test_pad(transposes, setting, pads, mode, free):
    transposes("Pad", [normal(3, 4, 5), setting(pads)], mode=mode, free={0: free})


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_pad_of_some_axes(agrees, setting, mode):
    torch_mode = {"edge": "replicate"}.get(mode, mode)
    agrees(
        "Pad",
        [normal(2, 3, 5), setting([2, 1]), None, setting([-1])],
        lambda x, *_: torch.nn.functional.pad(x, (2, 1), torch_mode),
        mode=mode,
    )


def test_pad_that_cuts(graph_of, setting):
    """In ONNX Runtime: onnx's reference evaluator cannot pad by negative numbers."""
    onnxruntime = pytest.importorskip("onnxruntime")
    x = normal(3, 4).astype(np.float32)
    model = graph_of("Pad", [normal(3, 4), setting([-1, 2, 0, -1])], [2], element_type=TensorProto.FLOAT)
    session = onnxruntime.InferenceSession(add_gradients(model, ["x0"], keep_outputs=False).SerializeToString())
    g = np.arange(10, dtype=np.float32).reshape(2, 5)
    (got,) = session.run(None, {"x0": x, "ct_y0": g})
    np.testing.assert_array_equal(got, np.pad(g[:, 2:], ((1, 0), (0, 1))))


def test_the_constant_of_a_pad_gets_the_sum_over_the_padding(agrees, setting):
    def pad(x, _, value):
        inside = torch.nn.functional.pad(torch.ones_like(x), (1, 2))
        return torch.nn.functional.pad(x, (1, 2)) + (1 - inside) * value

    agrees("Pad", [normal(2, 3), setting([0, 1, 0, 2]), np.array(1.5)], pad)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
@pytest.mark.parametrize("free", [(), (0,), (0, 2, 3)], ids=["static", "batch", "image"])
def test_depth_to_space(transposes, mode, free):
    transposes("DepthToSpace", [normal(2, 8, 3, 2)], mode=mode, blocksize=2, free={0: free})


def test_crd_is_torchs_pixel_shuffle(agrees):
    shuffle = torch.nn.PixelShuffle(2)
    agrees("DepthToSpace", [normal(2, 8, 3, 2)], shuffle, mode="CRD", blocksize=2)


def test_space_to_depth(transposes):
    transposes("SpaceToDepth", [normal(2, 3, 4, 6)], blocksize=2)


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("k", [None, -1, 0, 2])
def test_trilu(agrees, setting, upper, k):
    cut = torch.triu if upper else torch.tril
    agrees("Trilu", [normal(2, 3, 4), None if k is None else setting(k)], lambda x, _: cut(x, k or 0), upper=upper)


@pytest.mark.parametrize(("time", "batch"), [(0, 1), (1, 0)])
def test_reverse_sequence(transposes, setting, time, batch):
    inputs = [normal(4, 4, 2), setting([1, 4, 2, 3])]
    transposes("ReverseSequence", inputs, time_axis=time, batch_axis=batch)
