"""Gradients of reductions, CumSum and TopK against torch's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actconform.errors import UnsupportedOperator
from actconform.onnx.evaluate.reference import reference
from actconform.onnx.grad.reverse_mode import add_gradients

torch = pytest.importorskip("torch")
SOME = settings(max_examples=40, deadline=None)
X = np.random.default_rng(1).standard_normal((2, 3, 4))
POSITIVE = np.abs(X) + 0.1


def _product(x, axes, keepdims):
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keepdims)
    return x


FORWARD = {
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keepdim=keep),
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "ReduceSumSquare": lambda x, axes, keep: (x * x).sum(axes, keepdim=keep),
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep),
    "ReduceL2": lambda x, axes, keep: (x * x).sum(axes, keepdim=keep).sqrt(),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keepdim=keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: x.logsumexp(axes, keepdim=keep),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keepdim=keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keepdim=keep),
    "ReduceProd": _product,
}
axes_ = st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True)


@SOME
@given(
    axes_,
    st.tuples(st.booleans(), st.booleans()),
    st.sampled_from([17, 18, 22]),
    st.sampled_from([(), (0,), (0, 1, 2)]),
)
@pytest.mark.parametrize("op_type", FORWARD)
def test_over_axes(agrees, setting, op_type, axes, choices, opset, free):
    keep, negative = choices
    x = POSITIVE if op_type == "ReduceLogSum" else X
    given_ = [axis - 3 for axis in axes] if negative else axes
    forward = FORWARD[op_type]
    attributes = {"keepdims": int(keep), "opset": opset, "free": {0: free}, "runs": False}
    if opset < 18 and op_type != "ReduceSum":
        agrees(op_type, [x], lambda x: forward(x, tuple(axes), keep), axes=given_, **attributes)
    else:
        agrees(op_type, [x, setting(given_)], lambda x, _: forward(x, tuple(axes), keep), **attributes)


@pytest.mark.parametrize("op_type", FORWARD)
def test_in_onnxruntime(agrees, setting, op_type):
    x = POSITIVE if op_type == "ReduceLogSum" else X
    agrees(op_type, [x, setting([1])], lambda x, _: FORWARD[op_type](x, (1,), False), keepdims=0, free={0: (0,)})


@pytest.mark.parametrize("op_type", FORWARD)
def test_over_all_where_no_axes_are_given(agrees, op_type):
    x = POSITIVE if op_type == "ReduceLogSum" else X
    agrees(op_type, [x], lambda x: FORWARD[op_type](x, (0, 1, 2), True))


def test_over_none_where_no_axes_mean_none(agrees, graph_of):
    agrees("ReduceSum", [X], lambda x: x * 1, noop_with_empty_axes=1)
    with pytest.raises(UnsupportedOperator, match=r"ReduceL2 .* noop_with_empty_axes"):
        add_gradients(graph_of("ReduceL2", [X], [3], noop_with_empty_axes=1), ["x0"])


def test_axes_that_come_at_run_time_are_refused(graph_of):
    with pytest.raises(
        UnsupportedOperator, match=r"ReduceSum .* at node node: its axes, x1, are known only at run time"
    ):
        add_gradients(graph_of("ReduceSum", [X, np.array([1])], [3]), ["x0"])


def test_equal_extrema_share(agrees, setting):
    ties = np.array([[1.0, 3.0, 3.0, 3.0], [2.0, 2.0, 0.0, 1.0]])
    agrees("ReduceMax", [ties, setting([1])], lambda x, _: x.amax(1, keepdim=True))
    agrees("ReduceMin", [ties], lambda x: x.amin((0, 1), keepdim=True))


@pytest.mark.parametrize("zeros", [0, 1, 2])
def test_product_with_zeros(agrees, setting, zeros):
    x = np.array([[2.0, -3.0, 4.0, 0.5], [1.0, 2.0, 3.0, 4.0]])
    x[0, :zeros] = 0.0
    agrees("ReduceProd", [x, setting([1])], lambda x, _: x.prod(1, keepdim=True))


def test_norm_of_nothing_is_flat(agrees):
    with np.errstate(divide="ignore", invalid="ignore"):
        agrees("ReduceL2", [np.zeros((2, 2))], lambda x: torch.linalg.vector_norm(x, keepdim=True, dim=(0, 1)))


def test_log_sum_exp_of_far_and_infinite_numbers(graph_of, setting):
    x = np.array([[1000.0, 0.0], [-np.inf, -np.inf], [-np.inf, 1.0]])
    graph = add_gradients(graph_of("ReduceLogSumExp", [x, setting([1])], [2]), ["x0"], keep_outputs=False)
    with np.errstate(all="ignore"):
        got = reference(graph.SerializeToString())({"x0": x, "ct_y0": np.ones((3, 1))})["d_x0"]
    np.testing.assert_allclose(got[[0, 2]], [[1.0, 0.0], [0.0, 1.0]])


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("axis", [0, -1])
def test_cumulative_sum(agrees, setting, axis, exclusive, reverse):
    def forward(x, _):
        x = x.flip(axis) if reverse else x
        total = x.cumsum(axis) - (x if exclusive else 0)
        return total.flip(axis) if reverse else total

    agrees("CumSum", [X, setting(axis)], forward, exclusive=exclusive, reverse=reverse)


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("largest", [0, 1])
def test_top_values(agrees, setting, axis, largest):
    agrees(
        "TopK",
        [X, setting([2])],
        lambda x, _: x.topk(2, axis, largest=bool(largest)).values,
        outputs=2,
        axis=axis,
        largest=largest,
        free={0: (0,)},
    )
