"""Convolutions and pools: kernels, strides, dilations, pads, groups, ceil_mode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from actconform.suite.drawn.drawer import FLOATS, PLAIN, Drawer, ValueRange
from actconform.suite.drawn.registry import drawn_operator

if TYPE_CHECKING:
    from actconform.suite.drawn.node import DrawnNode

POOLED = ValueRange(infinite=False)
AVERAGED = ValueRange(most=64, infinite=False)


class DrawnWindow(NamedTuple):
    """A window over spatial axes, which fits into the padded axes at least once."""

    spatial: tuple[int, ...]
    kernel: tuple[int, ...]
    attributes: dict[str, Any]


def drawn_window(
    d: Drawer, *, dilations: bool = True, automatic: bool = True, pads_below_kernel: bool = False
) -> DrawnWindow:
    """Return a window of one to three axes; pads are stated, or left to `auto_pad`."""
    rank = d.choice((2, 1, 3))
    kernel = tuple(d.choice((2, 1, 3, 4)) for _ in range(rank))
    strides = [d.choice((1, 2, 3)) for _ in range(rank)] if d.flag() else None
    dilated = [d.choice((1, 2, 3)) for _ in range(rank)] if dilations and d.flag() else None
    reach = [(size - 1) * factor + 1 for size, factor in zip(kernel, dilated or [1] * rank, strict=True)]
    spatial = tuple(size + d.choice((0, 1, 2, 3, 5, 8)) for size in reach)
    attributes: dict[str, Any] = {"strides": strides, "dilations": dilated}
    kind = d.choice(("none", "pads", "auto", "pads") if automatic else ("none", "pads"))
    if kind == "pads":
        most = [size - 1 if pads_below_kernel else min(size, 3) for size in kernel]
        attributes["pads"] = [d.integer(0, most[place % rank]) for place in range(2 * rank)]
    elif kind == "auto":
        attributes["auto_pad"] = d.choice(("VALID", "SAME_UPPER", "SAME_LOWER", "NOTSET"))
        if attributes["auto_pad"].startswith("SAME") and not d.flag():
            attributes["dilations"] = None
    return DrawnWindow(spatial, kernel, attributes)


@drawn_operator("Conv")
def _conv(d: Drawer) -> DrawnNode:
    window = drawn_window(d)
    group = d.choice((1, 2, 3))
    channels, filters = group * d.choice((1, 2, 3)), group * d.choice((1, 2, 4))
    dtype = d.dtype()
    x = d.array((d.choice((1, 2)), channels, *window.spatial), dtype, PLAIN)
    weight = d.array((filters, channels // group, *window.kernel), dtype, PLAIN)
    bias = d.array((filters,), dtype, PLAIN) if d.flag() else None
    attributes = {**window.attributes, "group": group if group > 1 or d.flag() else None}
    attributes["kernel_shape"] = list(window.kernel) if d.flag() else None
    return d.node([x, weight, bias], attributes)


@drawn_operator("ConvTranspose")
def _conv_transpose(d: Drawer) -> DrawnNode:
    window = drawn_window(d, automatic=False, pads_below_kernel=True)
    rank, group = len(window.kernel), d.choice((1, 2, 3))
    channels, filters = group * d.choice((1, 2, 3)), d.choice((1, 2, 4))
    attributes = {**window.attributes, "group": group if group > 1 else None}
    if attributes["strides"] and d.flag():  # an output padding is below the stride or the dilation
        attributes["output_padding"] = [d.integer(0, stride - 1) for stride in attributes["strides"]]
    attributes["kernel_shape"] = list(window.kernel) if d.flag() else None
    dtype = d.dtype()
    spatial = tuple(d.choice((2, 1, 3, 5)) + 2 for _ in range(rank))
    x = d.array((d.choice((1, 2)), channels, *spatial), dtype, PLAIN)
    weight = d.array((channels, filters, *window.kernel), dtype, PLAIN)
    bias = d.array((filters * group,), dtype, PLAIN) if d.flag() else None
    return d.node([x, weight, bias], attributes)


def _pooled(d: Drawer, values: ValueRange, window: DrawnWindow, attributes: dict[str, Any], **more: Any) -> DrawnNode:
    dtype = d.dtype(more.pop("among", FLOATS))
    x = d.array((d.choice((1, 2)), d.choice((1, 3)), *window.spatial), dtype, values)
    return d.node([x], {**window.attributes, **attributes, "kernel_shape": list(window.kernel)}, **more)


def _ceil_mode(d: Drawer, window: DrawnWindow) -> int | None:
    """Rounding up is asked with stated pads alone: what it means beside SAME the standard leaves open."""
    return d.choice((None, 0, 1)) if "auto_pad" not in window.attributes else None


@drawn_operator("MaxPool")
def _max_pool(d: Drawer) -> DrawnNode:
    """Windows begin within the padded input; padding is less than the kernel, so that each has an element."""
    window = drawn_window(d, pads_below_kernel=True)
    ceil = _ceil_mode(d, window)
    outputs = 2 if d.seldom(4) else 1
    values = POOLED if outputs == 1 else ValueRange(nan=False, infinite=False)
    among = (*FLOATS, "int8", "uint8")
    order = d.choice((None, 0, 1)) if outputs == 2 else None
    return _pooled(d, values, window, {"ceil_mode": ceil, "storage_order": order}, outputs=outputs, among=among)


@drawn_operator("AveragePool", since=19)
def _average_pool(d: Drawer) -> DrawnNode:
    window = drawn_window(d, pads_below_kernel=True)
    return _pooled(
        d, AVERAGED, window, {"ceil_mode": _ceil_mode(d, window), "count_include_pad": d.choice((None, 0, 1))}
    )


@drawn_operator("LpPool", since=18)
def _lp_pool(d: Drawer) -> DrawnNode:
    window = drawn_window(d, pads_below_kernel=True)
    values = ValueRange(most=8, infinite=False, tiny=False)
    return _pooled(d, values, window, {"ceil_mode": _ceil_mode(d, window), "p": d.choice((None, 1, 2, 3))})


@drawn_operator("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(d: Drawer) -> DrawnNode:
    return d.node([d.array(d.shape(low=3, high=5, empty=False), d.dtype(), AVERAGED)])


@drawn_operator("LRN")
def _lrn(d: Drawer) -> DrawnNode:
    shape = d.shape(low=3, high=5, empty=False)
    attributes = {
        "size": d.choice((1, 3, 5)),
        "alpha": d.number(0.0, 1.0) if d.flag() else None,
        "beta": d.number(0.25, 1.0) if d.flag() else None,
        "bias": d.number(0.5, 2.0) if d.flag() else None,
    }
    return d.node([d.array(shape, d.dtype(), PLAIN)], attributes)
