"""Gradients of Conv and ConvTranspose against torch's, over groups, strides, dilations, pads and ways to pad."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

CONV = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}
TRANSPOSED = {
    1: torch.nn.functional.conv_transpose1d,
    2: torch.nn.functional.conv_transpose2d,
    3: torch.nn.functional.conv_transpose3d,
}


def normal(*shape):
    return np.random.default_rng(1).standard_normal(shape)


@st.composite
def convolutions(draw):
    """Draw what an axis is made of: size, kernel, stride, dilation, pads; and channels a group, groups, batch."""
    axes = draw(st.sampled_from([1, 2, 2, 2, 3]))
    each = [
        draw(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.integers(0, 2), st.integers(0, 2)))
        for _ in range(axes)
    ]
    kernel, strides, dilations, before, after = (list(column) for column in zip(*each, strict=True))
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    more = [draw(st.integers(0, 3)) for _ in range(axes)]
    sizes = [max(span - p - q, 1) + n for span, p, q, n in zip(spans, before, after, more, strict=True)]
    group, inner, outer = draw(
        st.sampled_from([(1, 1, 1), (1, 2, 3), (1, 8, 2), (1, 9, 1), (2, 1, 1), (2, 4, 3), (3, 1, 2)])
    )
    return {
        "shape": [draw(st.integers(1, 2)), group * inner, *sizes],
        "weights": [group * outer, inner, *kernel],
        "attributes": {"strides": strides, "dilations": dilations, "pads": before + after, "group": group},
        "bias": draw(st.booleans()),
        "free": draw(st.sampled_from([(), (0,), (0, 2), (0, 2, 3, 4)])),
    }


def conv_of(attributes):
    """Return torch's convolution with these attributes of ONNX's, its padding written out."""

    def forward(x, w, *bias):
        axes = x.ndim - 2
        pads = attributes.get("pads", [0] * 2 * axes)
        ends = [pad for axis in reversed(range(axes)) for pad in (pads[axis], pads[axes + axis])]
        ones = [1] * axes
        return CONV[axes](
            torch.nn.functional.pad(x, ends),
            w,
            *(bias or [None]),
            attributes.get("strides", ones),
            0,
            attributes.get("dilations", ones),
            attributes.get("group", 1),
        )

    return forward


@settings(max_examples=60, deadline=None)
@given(case=convolutions())
def test_conv(agrees, case):
    inputs = [normal(*case["shape"]), normal(*case["weights"])] + [normal(case["weights"][0])] * case["bias"]
    agrees("Conv", inputs, conv_of(case["attributes"]), free={0: case["free"]}, **case["attributes"])


SAME_SIZE = [  # the outputs are as large as the image: dx by the turned kernel
    ((2, 8, 5), (3, 8, 3), {"pads": [1, 1]}),
    ((2, 8, 5), (3, 8, 3), {"pads": [2, 0]}),
    ((2, 8, 5), (3, 8, 2), {"pads": [0, 1]}),
    ((2, 9, 5, 4), (3, 9, 3, 1), {"pads": [2, 0, 2, 0], "dilations": [2, 1]}),
    ((2, 8, 3, 4), (5, 8, 1, 1), {}),
    ((2, 8, 5, 4), (6, 4, 3, 3), {"pads": [1, 1, 1, 1], "group": 2}),
    ((2, 8, 5, 4), (16, 1, 3, 3), {"pads": [1, 1, 1, 1], "group": 8}),
]


@pytest.mark.parametrize("free", [(), (0,), (0, 2, 3)], ids=["static", "batch", "all"])
@pytest.mark.parametrize(("shape", "weights", "attributes"), SAME_SIZE, ids=str)
def test_conv_that_keeps_the_size(agrees, shape, weights, attributes, free):
    agrees("Conv", [normal(*shape), normal(*weights)], conv_of(attributes), free={0: free}, **attributes)


@pytest.mark.parametrize("size", [5, 6])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("placed", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_conv_with_automatic_pads(agrees, placed, kernel, stride, size):
    total = 0 if placed == "VALID" else max((-(-size // stride) - 1) * stride + kernel - size, 0)
    less, more = total // 2, total - total // 2
    pads = [less, more] if placed == "SAME_UPPER" else [more, less]
    forward = conv_of({"strides": [stride], "pads": pads})
    inputs = [normal(2, 2, size), normal(3, 2, kernel)]
    agrees("Conv", inputs, forward, free={0: (0,)}, auto_pad=placed, strides=[stride], kernel_shape=[kernel])


@pytest.mark.parametrize("sizes", [(6, 5), (7, 3)], ids=str)
@pytest.mark.parametrize("placed", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize(("stride", "kernel", "dilation"), [(1, 3, 1), (2, 3, 1), (3, 2, 1), (1, 2, 2), (3, 1, 1)])
def test_conv_with_automatic_pads_over_an_image_of_any_size(agrees, placed, stride, kernel, dilation, sizes):
    span = (kernel - 1) * dilation + 1
    totals = [max((-(-n // stride) - 1) * stride + span - n, 0) for n in sizes]
    less, more = [n // 2 for n in totals], [n - n // 2 for n in totals]
    before, after = (less, more) if placed == "SAME_UPPER" else (more, less)

    def forward(x, w, bias):
        padded = torch.nn.functional.pad(x, [before[1], after[1], before[0], after[0]])
        return torch.nn.functional.conv2d(padded, w, bias, stride, dilation=dilation, groups=2)

    inputs = [normal(2, 4, *sizes), normal(2, 2, kernel, kernel), normal(2)]
    how = {"strides": [stride] * 2, "dilations": [dilation] * 2, "group": 2}
    agrees("Conv", inputs, forward, free={0: (0, 2, 3)}, auto_pad=placed, exact="ours", runs=dilation == 1, **how)


@st.composite
def transposed_convolutions(draw):
    axes = draw(st.sampled_from([1, 2, 2, 3]))
    columns = [draw(st.tuples(*[st.integers(1, 3)] * 3, st.integers(0, 2), st.integers(1, 3))) for _ in range(axes)]
    kernel, strides, dilations, pads, sizes = (list(column) for column in zip(*columns, strict=True))
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    natural = [(n - 1) * s + span for n, s, span in zip(sizes, strides, spans, strict=True)]
    pads = [min(pad, (n - 1) // 2) for pad, n in zip(pads, natural, strict=True)]
    growth = [draw(st.integers(0, s - 1)) for s in strides]
    group, inner, outer = draw(st.sampled_from([(1, 1, 1), (1, 2, 3), (1, 2, 8), (2, 1, 1), (2, 2, 3), (3, 1, 2)]))
    return {
        "shape": [draw(st.integers(1, 2)), group * inner, *sizes],
        "weights": [group * inner, outer, *kernel],
        "bias": draw(st.booleans()),
        "group": group,
        "settings": (strides, pads, growth, dilations),
        "free": draw(st.sampled_from([(), (0,), (0, 2), (0, 2, 3, 4)])),
    }


@settings(max_examples=60, deadline=None)
@given(case=transposed_convolutions())
def test_conv_transpose(agrees, case):
    (strides, pads, growth, dilations), group = case["settings"], case["group"]

    def forward(x, w, *bias):
        return TRANSPOSED[x.ndim - 2](x, w, *(bias or [None]), strides, pads, growth, group, dilations)

    inputs = [normal(*case["shape"]), normal(*case["weights"])] + [normal(group * case["weights"][1])] * case["bias"]
    attributes = {"strides": strides, "pads": pads + pads, "output_padding": growth, "dilations": dilations}
    agrees("ConvTranspose", inputs, forward, free={0: case["free"]}, group=group, **attributes)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [2, 3, 4])
@pytest.mark.parametrize("placed", ["SAME_UPPER", "SAME_LOWER"])
def test_conv_transpose_with_automatic_pads(agrees, placed, kernel, stride):
    less, more = (kernel - stride) // 2, (kernel - stride) - (kernel - stride) // 2
    first = less if placed == "SAME_UPPER" else more

    def forward(x, w):
        return TRANSPOSED[1](x, w, None, stride)[..., first : first + 4 * stride]

    agrees("ConvTranspose", [normal(2, 2, 4), normal(2, 3, kernel)], forward, auto_pad=placed, strides=[stride])


@pytest.mark.parametrize("length", [7, 8, 9])
def test_conv_transpose_of_a_given_size(agrees, length):
    def forward(x, w):
        first = (9 - length) - (9 - length) // 2
        return TRANSPOSED[1](x, w, None, 2)[..., first : first + length]

    agrees("ConvTranspose", [normal(2, 2, 4), normal(2, 3, 3)], forward, output_shape=[length], strides=[2])


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ({"output_shape": [12]}, 12),
        ({"auto_pad": "SAME_UPPER"}, 10),
        ({"auto_pad": "SAME_LOWER", "output_padding": [1]}, 11),
    ],
)
def test_conv_transpose_beyond_its_kernel(agrees, given, size):
    """What nothing reaches is 0."""

    def forward(x, w):
        y = TRANSPOSED[1](x, w, None, 3)
        return torch.nn.functional.pad(y, (0, size - y.shape[-1]))

    agrees("ConvTranspose", [normal(1, 2, 4), normal(2, 1, 1)], forward, exact=False, opset=18, strides=[3], **given)


@pytest.mark.parametrize(("placed", "first"), [("SAME_UPPER", 1), ("SAME_LOWER", 2)])
def test_conv_transpose_of_a_multiple_whatever_its_output_padding(agrees, placed, first):
    """strides times as large as the image, of which onnx infers more with output_padding."""

    def forward(x, w):
        y = TRANSPOSED[1](x, w, None, 2, output_padding=1)
        return y[..., first : first + 8]

    given = {"strides": [2], "output_padding": [1], "auto_pad": placed}
    agrees("ConvTranspose", [normal(1, 2, 4), normal(2, 1, 4)], forward, exact=False, opset=18, **given)


@pytest.mark.parametrize("placed", ["VALID", "NOTSET"])
def test_conv_transpose_smaller_than_its_image(agrees, placed):
    """onnx infers an output of fewer axes."""

    def forward(x, w):
        return TRANSPOSED[1](x, w, None)[..., 2:5]

    agrees(
        "ConvTranspose",
        [normal(1, 2, 5), normal(2, 1, 3)],
        forward,
        exact=False,
        opset=18,
        output_shape=[3],
        auto_pad=placed,
    )
