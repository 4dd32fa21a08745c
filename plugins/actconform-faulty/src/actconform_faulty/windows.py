"""Windows over images: what strides, dilations, groups, padding and half pixels mean, in each layer, its gradient and its graph."""
# ruff: noqa: D103  one function a fault; what it does stands in its registration

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import NodeProto, helper, numpy_helper

from actconform_faulty.graphs import change_constants, drop_attribute, graph_fault, nodes, set_attribute
from actconform_faulty.injected import fault
from actconform_faulty.layers import in_layer

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnx import ModelProto
    from torch import Tensor

FAMILY = "windows"
WINDOWS, GROUPS = "image-windows", "image-groups"


def convolved(healthy: Any, x: Tensor, pads: tuple[int, ...] = (0, 0, 0, 0), **settings: Any) -> Tensor:
    """Convolve with the layer's own numbers, padded by (left, right, top, bottom), with other settings."""
    from torch.nn.functional import conv2d, pad

    module = next(part for part in healthy if hasattr(part, "weight"))
    weight = settings.pop("weight", module.weight)
    return conv2d(pad(x, pads), weight, module.bias, **settings)


def dilation_ignored(healthy: Any, x: Tensor) -> Tensor:
    return convolved(healthy, x, (0, 1, 1, 1))


def dilations_exchanged(healthy: Any, x: Tensor) -> Tensor:
    return convolved(healthy, x, (1, 1, 3, 3), dilation=(3, 2))


def dilated_of_two(healthy: Any, x: Tensor) -> Tensor:
    return convolved(healthy, x, (1, 1, 2, 2), dilation=2)


def larger_half_first(healthy: Any, x: Tensor) -> Tensor:
    return convolved(healthy, x, (2, 1, 1, 0), stride=2)


def strided_from_the_second(healthy: Any, x: Tensor) -> Tensor:
    return convolved(healthy, x[:, :, 1:, 1:], (1, 3, 0, 2), stride=2)


def groups_interleaved(healthy: Any, x: Tensor) -> Tensor:
    return healthy(x.unflatten(1, (2, 3)).transpose(1, 2).flatten(1, 2))  # type: ignore[no-any-return]


def groups_shuffled(healthy: Any, x: Tensor) -> Tensor:
    return healthy(x).unflatten(1, (3, 3)).transpose(1, 2).flatten(1, 2)  # type: ignore[no-any-return]


def last_group_as_first(healthy: Any, x: Tensor) -> Tensor:
    import torch

    y = healthy(x)
    first = healthy(torch.cat([x[:, :4], x[:, :2]], 1))
    return torch.cat([y[:, :6], first[:, 6:]], 1)


def multipliers_first(healthy: Any, x: Tensor) -> Tensor:
    return convolved(healthy, x.repeat(1, 2, 1, 1), stride=2, groups=8)


def depthwise_shares_a_kernel(healthy: Any, x: Tensor) -> Tensor:
    return convolved(healthy, x, stride=2, groups=4, weight=healthy[0].weight[:2].repeat(4, 1, 1, 1))


def transposed(healthy: Any, x: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the whole of the transposed convolution, nothing cut."""
    from torch.nn.functional import conv_transpose2d

    part = healthy[0]
    return conv_transpose2d(x, part.weight if weight is None else weight, part.bias, part.stride)


def transposed_flipped(healthy: Any, x: Tensor) -> Tensor:
    return transposed(healthy, x, healthy[0].weight.flip(2, 3))[:, :, :6, :9]


def transposed_cut_before(healthy: Any, x: Tensor) -> Tensor:
    return transposed(healthy, x)[:, :, 1:, 1:]


def gaps_before(healthy: Any, x: Tensor) -> Tensor:
    return healthy(x).roll((1, 1), (2, 3))  # type: ignore[no-any-return]


def gaps_without_bias(healthy: Any, x: Tensor) -> Tensor:
    from torch.nn.functional import pad

    return pad(transposed(healthy, x), (0, 1, 0, 1))


def full_window(_: Any, x: Tensor) -> Tensor:
    from torch.nn.functional import avg_pool2d, pad

    return avg_pool2d(pad(x, (0, 1, 1, 1)), (3, 2), (2, 2))


def full_columns(_: Any, x: Tensor) -> Tensor:
    from torch.nn.functional import avg_pool2d, pad

    return avg_pool2d(pad(x, (0, 1, 0, 0)), (3, 2), (2, 2), (1, 0), count_include_pad=False)


def zeros_counted(_: Any, x: Tensor) -> Tensor:
    from torch.nn.functional import avg_pool2d

    return avg_pool2d(x, 3, 1, 1, count_include_pad=True)


def edges_repeated(_: Any, x: Tensor) -> Tensor:
    from torch.nn.functional import avg_pool2d, pad

    return avg_pool2d(pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)


def without_last_row(_: Any, x: Tensor) -> Tensor:
    return x[:, :, :-1].mean((2, 3))


def interpolated(**settings: Any) -> Callable[[Any, Tensor], Tensor]:
    def resized(_: Any, x: Tensor) -> Tensor:
        from torch.nn.functional import interpolate

        return interpolate(x, (9, 7), **settings)

    return resized


def resized_from_corners(_: Any, x: Tensor) -> Tensor:
    """Pixel i of m is at i n / m: asymmetric."""
    import torch

    for axis, count in ((2, 9), (3, 7)):
        length = x.shape[axis]
        places = torch.arange(count, device="cpu") * (length / count)
        low = places.floor().long().clamp(max=length - 1)
        weight = (places - low).reshape([-1 if n == axis else 1 for n in range(4)])
        high = (low + 1).clamp(max=length - 1)
        x = (1 - weight) * x.index_select(axis, low) + weight * x.index_select(axis, high)
    return x


def with_backward_of(other: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """Return a layer of the right value that goes back as another one does."""

    def compute(healthy: Any, x: Tensor) -> Tensor:
        wrong = other(healthy, x)
        return healthy(x).detach() + (wrong - wrong.detach())  # type: ignore[no-any-return]

    return compute


ALIGNED = interpolated(mode="bilinear", align_corners=True)
for name, description, model, layer, compute in (
    ("dilation-ignored", "a dilated convolution has no dilation", WINDOWS, "dilated", dilation_ignored),
    ("dilations-exchanged", "rows have the columns' dilation", WINDOWS, "dilated", dilations_exchanged),
    ("dilation-square", "both axes have the rows' dilation", WINDOWS, "dilated", dilated_of_two),
    ("same-larger-half-first", "uneven padding begins with the larger half", WINDOWS, "strided", larger_half_first),
    ("stride-origin", "strides begin at the second pixel", WINDOWS, "strided", strided_from_the_second),
    ("groups-interleaved", "a group reads every third channel", GROUPS, "grouped", groups_interleaved),
    ("groups-shuffled", "the outputs of groups are interleaved", GROUPS, "grouped", groups_shuffled),
    ("groups-remainder", "the last group reads the first one's channels", GROUPS, "grouped", last_group_as_first),
    ("depthwise-multiplier-order", "outputs go through the channels first", WINDOWS, "depthwise", multipliers_first),
    ("depthwise-one-kernel", "all channels have the first one's kernel", WINDOWS, "depthwise", depthwise_shares_a_kernel),
    ("transposed-flipped", "a transposed convolution turns its kernel", WINDOWS, "transposed", transposed_flipped),
    ("transposed-cut-before", "what is too much is cut off before", WINDOWS, "transposed", transposed_cut_before),
    ("transposed-gaps-before", "output padding stands before", GROUPS, "spread", gaps_before),
    ("transposed-gaps-zero", "output padding has no bias", GROUPS, "spread", gaps_without_bias),
    ("average-full-window", "windows at the border divide by the whole window", WINDOWS, "average", full_window),
    ("average-full-columns", "padding of columns counts, that of rows does not", WINDOWS, "average", full_columns),
    ("average-zeros-counted", "padding counts at stride 1", WINDOWS, "smoothed", zeros_counted),
    ("average-edges-repeated", "padding repeats the edge and counts", WINDOWS, "smoothed", edges_repeated),
    ("global-average-last-row", "the last row is left out", WINDOWS, "global", without_last_row),
    ("resize-align-corners", "corners are aligned", WINDOWS, "resized", ALIGNED),
    ("resize-asymmetric", "pixels begin at 0, not at a half", WINDOWS, "resized", resized_from_corners),
    ("resize-antialiased", "what shrinks is smoothed", WINDOWS, "resized", interpolated(mode="bilinear", antialias=True)),
    ("resize-bicubic", "cubic for linear", WINDOWS, "resized", interpolated(mode="bicubic")),
):  # fmt: skip
    fault(
        "torch",
        name,
        FAMILY,
        description,
        f"{model}/value/f32",
        findings="scaled-error",
        blames="framework",
        tensor=layer,
    )(lambda program, _, layer=layer, compute=compute: in_layer(program, layer, compute))  # type: ignore[misc]

for name, description, model, layer, compute in (
    ("average-gradient-full-window", "it divides by the whole window at borders", WINDOWS, "average", full_window),
    ("average-gradient-zeros-counted", "padding counts at stride 1", WINDOWS, "smoothed", zeros_counted),
    ("resize-gradient-aligned", "it aligns corners", WINDOWS, "resized", ALIGNED),
    ("resize-gradient-nearest", "it goes to the nearest pixel", WINDOWS, "resized", interpolated(mode="nearest")),
    ("dilated-gradient", "it has no dilation", WINDOWS, "dilated", dilation_ignored),
    ("strided-gradient", "it pads the larger half first", WINDOWS, "strided", larger_half_first),
    ("depthwise-gradient-order", "it goes through the channels first", WINDOWS, "depthwise", multipliers_first),
    ("transposed-gradient-cut", "it is cut off before", WINDOWS, "transposed", transposed_cut_before),
    ("grouped-gradient-interleaved", "groups are interleaved", GROUPS, "grouped", groups_interleaved),
):  # fmt: skip
    fault(
        "torch",
        name,
        FAMILY,
        f"the gradient: {description}",
        f"{model}/gradient/f32",
        findings="scaled-error",
        blames="framework",
    )(lambda program, _, layer=layer, compute=compute: in_layer(program, layer, with_backward_of(compute)))  # type: ignore[misc]


# Graphs, by their exporter or in their runtime


def halves_exchanged(node: NodeProto) -> None:
    pads = next(list(attribute.ints) for attribute in node.attribute if attribute.name == "pads")
    set_attribute(node, "pads", pads[2:] + pads[:2])


def attribute_of(node: NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)


def exchange_uneven_pads(model: ModelProto, operator: str) -> None:
    for node in nodes(model, operator):
        halves_exchanged(node) if attribute_of(node, "pads", None) else None


def cut_before(model: ModelProto) -> None:
    """Exchange the halves of what is cut, by a transposed convolution itself or by a Pad behind it."""
    exchange_uneven_pads(model, "ConvTranspose")
    for node in nodes(model, "Pad"):
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
        amounts = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(np.roll(amounts, len(amounts) // 2), tensor.name))


def count_padding(model: ModelProto) -> None:
    for node in nodes(model, "AveragePool"):
        set_attribute(node, "count_include_pad", 1)


def lose_dilations(model: ModelProto) -> None:
    for node in nodes(model, "Conv"):
        if max(attribute_of(node, "dilations", [1])) > 1:
            drop_attribute(node, "dilations")
            drop_attribute(node, "pads")
            set_attribute(node, "auto_pad", "SAME_UPPER")


def lose_groups(model: ModelProto) -> None:
    for node in nodes(model, "Conv"):
        drop_attribute(node, "group")


def resize_by(**attributes: str) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        for node in nodes(model, "Resize"):
            for name, value in attributes.items():
                set_attribute(node, name, value)

    return change


def reorder_kernels(model: ModelProto, group: int, order: list[int]) -> None:
    """Gather the kernels of grouped convolutions in another order."""
    added = []
    for node in nodes(model, "Conv"):
        if attribute_of(node, "group", 1) == group:
            index = f"{node.output[0]}/order"
            model.graph.initializer.append(numpy_helper.from_array(np.array(order), index))
            added.append(helper.make_node("Gather", [node.input[1], index], [f"{index}ed"], axis=0))
            node.input[1] = f"{index}ed"
    for node in reversed(added):
        place = next(i for i, each in enumerate(model.graph.node) if node.output[0] in each.input)
        model.graph.node.insert(place, node)


EXPECTED = {"findings": "scaled-error", "family": FAMILY}
CHANGES: tuple[tuple[str, str, str, str, Callable[[ModelProto], None]], ...] = (
    ("count-include-pad", "padding counts in averages", WINDOWS, "average", count_padding),
    ("dilations-lost", "dilations are lost, and the padding is found anew", WINDOWS, "dilated", lose_dilations),
    ("conv-pads-exchanged", "padding after stands before", WINDOWS, "strided", lambda m: exchange_uneven_pads(m, "Conv")),
    ("transposed-cut-exchanged", "what is cut off after is cut off before", WINDOWS, "transposed", cut_before),
    ("resize-aligned", "corners are aligned", WINDOWS, "resized", resize_by(coordinate_transformation_mode="align_corners")),
    ("resize-from-corners", "pixels begin at 0", WINDOWS, "resized", resize_by(coordinate_transformation_mode="asymmetric")),
    ("resize-by-nearest", "nearest for linear", WINDOWS, "resized", resize_by(mode="nearest", nearest_mode="round_prefer_floor")),
    ("depthwise-order", "kernels go through the channels first", WINDOWS, "depthwise", lambda m: reorder_kernels(m, 4, [0, 2, 4, 6, 1, 3, 5, 7])),
    ("groups-order", "kernels of groups are interleaved", GROUPS, "grouped", lambda m: reorder_kernels(m, 3, [0, 3, 6, 1, 4, 7, 2, 5, 8])),
)  # fmt: skip
for into, part in (("export", CHANGES), ("ort", CHANGES[:2] + CHANGES[3:5] + CHANGES[7:])):
    for name, description, model, layer, change in part:
        graph_fault(into, f"{name}-{into}", description, f"{model}/value/f32", tensor=layer, **EXPECTED)(change)


@graph_fault(
    "export",
    "group-lost",
    "a grouped convolution loses its groups",
    f"{GROUPS}/value/f32",
    findings="invalid-model",
    family=FAMILY,
)
def group_lost(model: ModelProto) -> None:
    lose_groups(model)


@graph_fault(
    "ort",
    "average-counts-whole",
    "the gradient of averages divides by the whole window at borders",
    f"{WINDOWS}/gradient/f32",
    **EXPECTED,
)
def average_counts_whole(model: ModelProto) -> None:
    """The counts of windows are what constants of small whole numbers are that are not all equal."""
    change_constants(
        model.graph, lambda v: np.full_like(v, v.max()) if v.size > 1 and set(v.ravel()) <= {1.0, 2.0, 3.0} else v
    )
