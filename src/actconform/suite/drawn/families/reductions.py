"""Reductions over axes, running sums, and functions of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.suite.drawn.drawer import ANY, FINITE, FLOATS, MODERATE, Drawer, ValueRange
from actconform.suite.drawn.registry import drawn_operator

if TYPE_CHECKING:
    from actconform.suite.drawn.node import DrawnNode

AXES_AS_INPUT = 18  # of all reductions but ReduceSum, whose axes are an input from opset 13 on
EMPTY_SETS = 20  # the opset from which the standard says what a reduction over nothing gives


def _reduced(d: Drawer, dtype: str, values: ValueRange, *, empty: bool = True) -> DrawnNode:
    shape = d.shape(huge=True, empty=empty and d.opset >= EMPTY_SETS)
    axes = d.axes(len(shape)) if d.flag() else None
    attributes = {"keepdims": d.choice((None, 0, 1))}
    if d.opset < (13 if d.op_type == "ReduceSum" else AXES_AS_INPUT):
        return d.node([d.array(shape, dtype, values)], {**attributes, "axes": axes or None})
    noop = d.choice((None, 0, 1)) if not axes else None
    axes_input = None if axes is None else np.array(axes, np.int64)
    return d.node([d.array(shape, dtype, values), axes_input], {**attributes, "noop_with_empty_axes": noop})


@drawn_operator("ReduceSum", "ReduceL1")
def _sum(d: Drawer) -> DrawnNode:
    """Integers whose sums stay in range."""
    dtype = d.dtype((*FLOATS, "int64", "int32"))
    return _reduced(d, dtype, ValueRange(most=64) if dtype in FLOATS else ValueRange(most=100))


@drawn_operator("ReduceProd")
def _product(d: Drawer) -> DrawnNode:
    """Of numbers near 1, so that no order of the factors overflows."""
    dtype = d.dtype(FLOATS)
    node = _reduced(d, dtype, ValueRange(most=4, infinite=False))
    first = np.asarray(node.inputs[0])
    with np.errstate(all="ignore"):
        near = np.where(np.abs(first) > 0.25, first / 4.0 + np.sign(first) * 0.75, first)
    values = np.where(np.arange(first.size).reshape(first.shape) < 16, near, 1.0).astype(first.dtype)
    return node._replace(inputs=(values, *node.inputs[1:]))


@drawn_operator("ReduceMean")
def _mean(d: Drawer) -> DrawnNode:
    """Of something: the mean of nothing the standard leaves open."""
    return _reduced(d, d.dtype(FLOATS), ValueRange(most=64), empty=False)


@drawn_operator("ReduceMax", "ReduceMin")
def _extremum(d: Drawer) -> DrawnNode:
    return _reduced(d, d.dtype((*FLOATS, "int64", "int32", "int8", "uint8")), ANY)


@drawn_operator("ReduceL2", "ReduceSumSquare")
def _squares(d: Drawer) -> DrawnNode:
    return _reduced(d, d.dtype(FLOATS), ValueRange(most=8, infinite=True))


@drawn_operator("ReduceLogSum")
def _log_sum(d: Drawer) -> DrawnNode:
    return _reduced(d, d.dtype(FLOATS), ValueRange(most=8, least=0.0, infinite=False))


@drawn_operator("ReduceLogSumExp")
def _log_sum_exp(d: Drawer) -> DrawnNode:
    """Of numbers whose exponentials do not overflow: as it is written the standard has them."""
    return _reduced(d, d.dtype(FLOATS), ValueRange(most=8, infinite=False))


@drawn_operator("ArgMax", "ArgMin")
def _arg(d: Drawer) -> DrawnNode:
    """Of numbers: where NaN stands, the standard leaves open. Of equal ones the first or the last, as the attribute says."""
    shape, dtype = d.shape(low=1, empty=False, huge=True), d.dtype((*FLOATS, "int32", "int8", "uint8", "int64"))
    attributes = {
        "axis": d.axis(len(shape)),
        "keepdims": d.choice((None, 0, 1)),
        "select_last_index": d.choice((None, 0, 1)),
    }
    return d.node([d.array(shape, dtype, ValueRange(nan=False))], attributes)


@drawn_operator("CumSum")
def _cumulative(d: Drawer) -> DrawnNode:
    shape, dtype = d.shape(low=1, huge=True), d.dtype((*FLOATS, "int32", "int64"))
    attributes = {"exclusive": d.choice((None, 0, 1)), "reverse": d.choice((None, 0, 1))}
    axis = np.array(d.axis(len(shape)), d.choice((np.int64, np.int32)))
    return d.node([d.array(shape, dtype, ValueRange(most=64, infinite=False)), axis], attributes)


@drawn_operator("Softmax", "LogSoftmax")
def _row_function(d: Drawer) -> DrawnNode:
    """Of finite numbers of any size, and NaN."""
    shape = d.shape(low=1, huge=True)
    values = ValueRange(infinite=False)
    return d.node([d.array(shape, d.dtype(), values)], {"axis": d.axis(len(shape)) if d.flag() else None})


@drawn_operator("Hardmax")
def _hardmax(d: Drawer) -> DrawnNode:
    shape = d.shape(low=1, empty=False)
    return d.node([d.array(shape, d.dtype(), FINITE)], {"axis": d.axis(len(shape)) if d.flag() else None})


@drawn_operator("TopK")
def _top_k(d: Drawer) -> DrawnNode:
    """Sorted, which is the one order that the standard states; of equal ones that of the lower place comes first. Without NaN."""
    shape, dtype = d.shape(low=1, empty=False, huge=True), d.dtype((*FLOATS, "int64", "int32", "int8", "uint8"))
    axis = d.axis(len(shape))
    count = np.array([d.integer(1, min(shape[axis], 40))], np.int64)
    attributes = {
        "axis": axis if d.flag() or axis not in (-1, len(shape) - 1) else None,
        "largest": d.choice((None, 0, 1)),
    }
    return d.node([d.array(shape, dtype, ValueRange(nan=False)), count], attributes, outputs=2)


@drawn_operator("LpNormalization")
def _lp_normalization(d: Drawer) -> DrawnNode:
    shape = d.shape(low=1, empty=False)
    values = ValueRange(most=8, least=0.0, nan=False, infinite=False, tiny=False)
    array = d.array(shape, d.dtype(), values)
    return d.node(
        [(array + np.array(1, array.dtype)).astype(array.dtype)], {"axis": d.axis(len(shape)), "p": d.choice((2, 1))}
    )


@drawn_operator("MeanVarianceNormalization")
def _mean_variance(d: Drawer) -> DrawnNode:
    """In float32, with its axes stated: onnx's inference takes no other, for the body of the operator is written so."""
    shape = d.shape(low=4, high=4, empty=False)
    return d.node([d.array(shape, "float32", MODERATE)], {"axes": d.choice(([0, 2, 3], [2, 3], [1, 2, 3], [1]))})
