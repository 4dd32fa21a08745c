"""The kinds of layers: what each computes, its settings, parameters and the shape that it gives.

Shapes are without the batch, except the loss's, which is (). Every kind, by what it computes of its inputs:

dense                y = x W + b over the last axis; settings units, init, bias (how each parameter is initialized);
                     parameters kernel (in, units), bias (units)
conv2d               correlation of (h, w, c) with kernel (kh, kw, c / groups, filters) plus bias; settings filters, size, strides,
                     padding "valid" or "same" (the total max((ceil(n / s) - 1) s + k - n, 0), the smaller half first),
                     dilations (k is then (k - 1) dilation + 1), groups (channels and filters fall into as many parts, in order,
                     and each filter reads its own part: depthwise where there are as many as channels), init
conv2d-transpose     each pixel times kernel (kh, kw, filters, c), added at s times its place, plus bias: n s + max(k - s, 0)
                     pixels under "valid"; n s under "same", k - s fewer, the smaller half cut off first; settings filters, size,
                     strides, padding, init
max-pool             the maximum of each window; settings size, strides, padding; padding never wins
average-pool         the mean of the pixels of each window; settings size, strides, padding; padding does not count
global-average-pool  the mean of all pixels, (h, w, c) -> (c)
up-sampling          every pixel repeated size = (rows, columns) times
bilinear-resize      size = (rows, columns) pixels; of n, pixel i of m is at (i + 1/2) n / m - 1/2, within 0 and n - 1, between its
                     two neighbours; nothing is smoothed where m < n
batch-norm           gamma (x - mean) / sqrt(variance + epsilon) + beta over the last axis; inference uses the parameters mean
                     and variance, training the batch's own mean and biased variance; settings epsilon, momentum (the kept part)
layer-norm           the same over each row's last axis, biased variance; settings epsilon; parameters gamma, beta
group-norm           the same over all pixels of an image (h, w, c) and the channels of a group; settings groups, epsilon: groups of
                     c / groups channels side by side; parameters gamma, beta (c)
instance-norm        the same over all pixels of one channel; settings epsilon; parameters gamma, beta
rms-norm             gamma x / sqrt(mean(x^2) + epsilon) over each row's last axis; settings epsilon; parameters gamma
l2-normalize         x / max(sqrt(sum x^2), epsilon) over each row's last axis; settings epsilon
dropout              training: x mask / (1 - rate), inputs x, mask; inference: x; settings rate
flatten              (h, w, c) -> (h w c), channels last
reshape              settings shape
activation           a kernel over the last axis; settings kernel: the name of a built-in one, or a plugin's Kernel itself
add, multiply        of two inputs, broadcast as in NumPy
affine               scale x + shift; settings scale, shift
embedding            of ids, whole numbers from 0 on, the rows of a table; settings tokens, units, init; parameters table (tokens, units)
lstm                 of x (t, d) the states h of all steps, from h = c = 0: with the gates i, f, g, o = x W + h U + b,
                     c' = sigmoid(f) c + sigmoid(i) tanh(g), h' = sigmoid(o) tanh(c'); settings units, init, bias; parameters kernel (d, 4 u),
                     recurrent (u, 4 u), bias (4 u), each gate by gate in that order
gru                  the same from h = 0 with z, r, n: h' = z h + (1 - z) tanh(x W_n + b_n + r (h U_n + c_n)), z and r the sigmoids of
                     x W + b + h U + c; settings units, init, bias; parameters kernel (d, 3 u), recurrent (u, 3 u), bias (2, 3 u): b and c
masked-softmax       inputs x, mask, of one shape: softmax over the last axis of the x whose mask is 1, and 0 where it is 0
attention            inputs q, k, v (t, d): softmax(q k^T / sqrt(d)) v; with a mask (s) as fourth input keys whose mask is 0 are not
                     attended to
multi-head-attention self-attention of x (t, d): softmax(q k^T / sqrt(d / heads)) v in each head; settings heads; parameters
                     q-kernel, q-bias, k-kernel, ..., o-kernel, o-bias; kernels (d, d), heads side by side in the columns
cosine-similarity    inputs memory (n, w), key (w) or (r, w): memory . key / (|memory| |key|), (n) or (r, n)
interpolate          inputs gate, a, b: gate a + (1 - gate) b
circular-shift       inputs w (n), s (k), k odd: y_i = sum_j s_j w_((i - j + (k - 1) / 2) mod n), the middle of s moves nothing
sharpen              inputs w (n), gamma (1): w^gamma / sum w^gamma
read                 inputs w (n) or (r, n), memory (n, m): w memory
write                inputs memory (n, m), w (n), erase (m), add (m): memory (1 - w erase^T) + w add^T
retention            inputs free (r), w (r, n): prod_r (1 - free_r w_r)
usage                inputs u (n), w (n), retention (n): (u + w - u w) retention
allocation           inputs u (n): with phi the ascending, stable order of u, a_phi(j) = (1 - u_phi(j)) prod_(i < j) u_phi(i)
link                 inputs l (n, n), w (n), p (n): (1 - w_i - w_j) l_ij + w_i p_j, and 0 on the diagonal
precedence           inputs p (n), w (n): (1 - sum w) p + w
directional          inputs l (n, n), w (r, n): w l^T, or w l with the setting transposed = 1
mix                  inputs modes (r, 3), a, b, c (r, n): modes_0 a + modes_1 b + modes_2 c

Losses, of a prediction and a target of one shape, are means over all elements, of categorical ones over all rows:
mean-squared-error, mean-absolute-error, binary-cross-entropy, binary-cross-entropy-from-logits,
categorical-cross-entropy, categorical-cross-entropy-from-logits. Those of probabilities clip them into
[f32(1e-7), 1 - 2^-23], as Keras does in float32; the categorical one first divides them by their sum.

Masks are 0 or 1, with a 1 in every row. Masks and ids are inputs of role "noise": they have no gradient.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, cast

from actconform.catalog.kernels import KERNELS
from actconform.errors import ShapeError, Unsupported, near
from actconform.types import Kernel, f32
from actconform.types.model import Parameter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actconform.types.model import Layer, Setting, Shape

    Infer = Callable[[Layer, Sequence[Shape]], Shape]

LOSSES = (
    "mean-squared-error",
    "mean-absolute-error",
    "binary-cross-entropy",
    "binary-cross-entropy-from-logits",
    "categorical-cross-entropy",
    "categorical-cross-entropy-from-logits",
)
CLIP = (f32(1e-7), 1.0 - 2.0**-23)  # what losses of probabilities clip them into


class Kind(NamedTuple):
    """One kind of layer: how many inputs it takes, its settings with their defaults (None: required), its output's shape."""

    inputs: tuple[int, ...]
    settings: dict[str, Setting | None]
    shape: Infer
    parameters: Callable[[Layer, Sequence[Shape]], list[Parameter]] = lambda _, __: []


def same_pads(length: int, window: int, stride: int) -> tuple[int, int]:
    """Return the padding before and after an axis under "same": the smaller half before it."""
    total = max((math.ceil(length / stride) - 1) * stride + window - length, 0)
    return total // 2, total - total // 2


def transposed_cut(window: int, stride: int, padding: str) -> tuple[int, int]:
    """Return what a transposed convolution cuts off before and after an axis; less than 0 after it: what nothing reaches."""
    total = window - stride
    if padding == "valid":
        total = min(total, 0)
    before = max(total, 0) // 2
    return before, total - before


def extent(layer: Layer) -> tuple[int, int]:
    """Return how many rows and columns a window covers, those that dilation leaves out among them."""
    (rows, columns), (down, right) = (
        cast("tuple[int, int]", layer.settings.get(name, (1, 1))) for name in ("size", "dilations")
    )
    return (rows - 1) * down + 1, (columns - 1) * right + 1


def _wanted(condition: bool, shapes: Sequence[Shape], expected: str) -> None:
    if not condition:
        raise ShapeError(
            f"its inputs have shapes {', '.join(map(str, map(list, shapes)))} beside the batch; expected {expected}"
        )


def _pair(layer: Layer, name: str) -> tuple[int, int]:
    value = layer.settings[name]
    if not (isinstance(value, tuple) and len(value) == 2 and min(value) > 0):
        raise ShapeError(f"its setting {name} is {value!r}; expected two positive integers")
    return value[0], value[1]


def _parameter(layer: Layer, name: str, shape: Shape, init: str, *, trainable: bool = True) -> Parameter:
    return Parameter(name=f"{layer.name}.{name}", shape=shape, init=init, trainable=trainable)


def _dense_shape(layer: Layer, shapes: Sequence[Shape]) -> Shape:
    _wanted(len(shapes[0]) >= 1, shapes, "at least one axis")
    return (*shapes[0][:-1], int(layer.settings["units"]))  # type: ignore[arg-type]


def _dense_parameters(layer: Layer, shapes: Sequence[Shape]) -> list[Parameter]:
    units = int(layer.settings["units"])  # type: ignore[arg-type]
    kernel = _parameter(layer, "kernel", (shapes[0][-1], units), str(layer.settings["init"]))
    return [kernel, _parameter(layer, "bias", (units,), str(layer.settings["bias"]))]


def _window_shape(layer: Layer, shapes: Sequence[Shape]) -> Shape:
    _wanted(len(shapes[0]) == 3, shapes, "(height, width, channels)")
    sizes = []
    _refuse_padding(layer)
    _pair(layer, "size")
    for length, window, stride in zip(shapes[0], extent(layer), _pair(layer, "strides"), strict=False):
        if layer.settings["padding"] == "same":
            sizes.append(math.ceil(length / stride))
        else:
            _wanted(length >= window, shapes, f"an image of at least {extent(layer)}")
            sizes.append((length - window) // stride + 1)
    return (*sizes, int(layer.settings.get("filters", shapes[0][2])))  # type: ignore[arg-type]


def _refuse_padding(layer: Layer) -> None:
    if layer.settings["padding"] not in ("valid", "same"):
        raise ShapeError(f"its setting padding is {layer.settings['padding']!r}; expected 'valid' or 'same'")


def _conv_shape(layer: Layer, shapes: Sequence[Shape]) -> Shape:
    _pair(layer, "dilations")
    shape = _window_shape(layer, shapes)
    groups = int(layer.settings["groups"])  # type: ignore[arg-type]
    fits = shapes[0][2] % groups == 0 and shape[2] % groups == 0
    _wanted(fits, shapes, f"channels and filters that fall into {groups} groups")
    return shape


def _conv_parameters(layer: Layer, shapes: Sequence[Shape]) -> list[Parameter]:
    read = shapes[0][2] // int(layer.settings["groups"])  # type: ignore[arg-type]
    return _kernel_and_bias(layer, (read, int(layer.settings["filters"])))  # type: ignore[arg-type]


def _transposed_parameters(layer: Layer, shapes: Sequence[Shape]) -> list[Parameter]:
    return _kernel_and_bias(layer, (int(layer.settings["filters"]), shapes[0][2]))  # type: ignore[arg-type]


def _kernel_and_bias(layer: Layer, channels: tuple[int, int]) -> list[Parameter]:
    kernel = _parameter(layer, "kernel", (*_pair(layer, "size"), *channels), str(layer.settings["init"]))
    return [kernel, _parameter(layer, "bias", (int(layer.settings["filters"]),), str(layer.settings["bias"]))]  # type: ignore[arg-type]


def _transposed_shape(layer: Layer, shapes: Sequence[Shape]) -> Shape:
    _wanted(len(shapes[0]) == 3, shapes, "(height, width, channels)")
    _refuse_padding(layer)
    sizes = []
    for length, window, stride in zip(shapes[0], _pair(layer, "size"), _pair(layer, "strides"), strict=False):
        cut = transposed_cut(window, stride, str(layer.settings["padding"]))
        sizes.append((length - 1) * stride + window - sum(cut))
    return (*sizes, int(layer.settings["filters"]))  # type: ignore[arg-type]


def _resize_shape(layer: Layer, shapes: Sequence[Shape]) -> Shape:
    _wanted(len(shapes[0]) == 3, shapes, "(height, width, channels)")
    return (*_pair(layer, "size"), shapes[0][2])


def _global_shape(_: Layer, shapes: Sequence[Shape]) -> Shape:
    _wanted(len(shapes[0]) == 3, shapes, "(height, width, channels)")
    return shapes[0][2:]


def _up_shape(layer: Layer, shapes: Sequence[Shape]) -> Shape:
    _wanted(len(shapes[0]) == 3, shapes, "(height, width, channels)")
    rows, columns = _pair(layer, "size")
    return shapes[0][0] * rows, shapes[0][1] * columns, shapes[0][2]


def _norm_parameters(layer: Layer, shapes: Sequence[Shape]) -> list[Parameter]:
    width = shapes[0][-1:]
    parameters = [_parameter(layer, "gamma", width, "near:1"), _parameter(layer, "beta", width, "near:0")]
    if layer.kind == "rms-norm":
        return parameters[:1]
    if layer.kind == "batch-norm":
        parameters += [_parameter(layer, "mean", width, "near:0", trainable=False)]
        parameters += [_parameter(layer, "variance", width, "near:1", trainable=False)]
    return parameters


def _image_norm_shape(layer: Layer, shapes: Sequence[Shape]) -> Shape:
    groups = int(layer.settings.get("groups", 1))  # type: ignore[arg-type]
    fits = len(shapes[0]) == 3 and shapes[0][2] % groups == 0
    _wanted(fits, shapes, f"(height, width, channels), channels a multiple of {groups} groups")
    return shapes[0]


def _embedding_shape(layer: Layer, shapes: Sequence[Shape]) -> Shape:
    return (*shapes[0], int(layer.settings["units"]))  # type: ignore[arg-type]


def _embedding_parameters(layer: Layer, _: Sequence[Shape]) -> list[Parameter]:
    tokens, units = (int(layer.settings[name]) for name in ("tokens", "units"))  # type: ignore[arg-type]
    return [_parameter(layer, "table", (tokens, units), str(layer.settings["init"]))]


def _recurrent_shape(layer: Layer, shapes: Sequence[Shape]) -> Shape:
    _wanted(len(shapes[0]) == 2, shapes, "(t, d)")
    return shapes[0][0], int(layer.settings["units"])  # type: ignore[arg-type]


def _recurrent_parameters(layer: Layer, shapes: Sequence[Shape]) -> list[Parameter]:
    units = int(layer.settings["units"])  # type: ignore[arg-type]
    gates = {"lstm": 4, "gru": 3}[layer.kind] * units
    kernel, recurrent = ((shapes[0][-1], gates), (units, gates))
    return [
        _parameter(layer, "kernel", kernel, str(layer.settings["init"])),
        _parameter(layer, "recurrent", recurrent, str(layer.settings["init"])),
        _parameter(layer, "bias", (gates,) if layer.kind == "lstm" else (2, gates), str(layer.settings["bias"])),
    ]


def _mask_shape(layer: Layer, shapes: Sequence[Shape]) -> Shape:
    _wanted(len(set(shapes)) == 1, shapes, "a mask of the shape of x")
    return _same(layer, shapes)


def _same(_: Layer, shapes: Sequence[Shape]) -> Shape:
    return shapes[0]


def _reshape_shape(layer: Layer, shapes: Sequence[Shape]) -> Shape:
    shape = layer.settings["shape"]
    _wanted(
        isinstance(shape, tuple) and math.prod(shape) == math.prod(shapes[0]), shapes, f"as many elements as {shape}"
    )
    return tuple(shape)  # type: ignore[arg-type]


def kernel_of(layer: Layer) -> Kernel:
    """Return the kernel of an activation layer; raise `Unsupported` for a name of none, or inputs beside x."""
    setting = layer.settings["kernel"]
    kernel = setting if isinstance(setting, Kernel) else KERNELS.get(str(setting))
    if kernel is None:
        raise Unsupported(
            f"layer {layer.name}: no built-in kernel is called {setting!r}{near(str(setting), [*KERNELS])}"
        )
    if kernel.inputs != ("x",):
        raise Unsupported(f"layer {layer.name}: kernel {kernel.name} has inputs beside x; an activation has x alone")
    return kernel


def _is_activation(kernel: Kernel) -> bool:
    """Say whether it has one input and works along the last axis, which it keeps or halves, and has a gradient."""
    return kernel.inputs == ("x",) and kernel.axis == -1 and kernel.output_width != "one" and kernel.differentiable


ACTIVATIONS = {name: kernel for name, kernel in KERNELS.items() if _is_activation(kernel)}


def _activation_shape(layer: Layer, shapes: Sequence[Shape]) -> Shape:
    setting = layer.settings["kernel"]
    kernel = setting if isinstance(setting, Kernel) else KERNELS.get(str(setting))
    if kernel is None:
        meant = near(str(setting), sorted(ACTIVATIONS))
        raise ShapeError(
            f"no built-in kernel is called {setting!r}{meant}; a plugin's kernel is given itself, kernel=KERNEL, not by name"
        )
    if not _is_activation(kernel):
        raise ShapeError(
            f"its kernel {kernel.name!r} cannot be a layer; expected one input x, worked on along the last axis, which it "
            "keeps or halves, and a gradient"
        )
    if kernel.output_width == "same":
        return shapes[0]
    _wanted(shapes[0][-1] % 2 == 0, shapes, "an even last axis")
    return (*shapes[0][:-1], shapes[0][-1] // 2)


def _broadcast(_: Layer, shapes: Sequence[Shape]) -> Shape:
    _wanted(len({len(shape) for shape in shapes}) == 1, shapes, "equal ranks")
    lengths = [set(axis) - {1} for axis in zip(*shapes, strict=True)]
    _wanted(all(len(axis) <= 1 for axis in lengths), shapes, "axes that are equal or 1")
    return tuple(max(axis, default=1) for axis in lengths)


def _attention_shape(_: Layer, shapes: Sequence[Shape]) -> Shape:
    q, k, v, *mask = shapes
    fits = len(q) == len(k) == len(v) == 2 and q[1] == k[1] and k[0] == v[0] and mask in ([], [k[:1]])
    _wanted(fits, shapes, "q (t, d), k (s, d), v (s, m), and a mask (s) if any")
    return q[0], v[1]


def _heads_shape(layer: Layer, shapes: Sequence[Shape]) -> Shape:
    heads = int(layer.settings["heads"])  # type: ignore[arg-type]
    _wanted(len(shapes[0]) == 2 and shapes[0][1] % heads == 0, shapes, f"(t, d), d a multiple of {heads} heads")
    return shapes[0]


def _heads_parameters(layer: Layer, shapes: Sequence[Shape]) -> list[Parameter]:
    width = shapes[0][1]
    parameters = []
    for projection in "qkvo":
        parameters.append(_parameter(layer, f"{projection}-kernel", (width, width), "glorot_uniform"))
        parameters.append(_parameter(layer, f"{projection}-bias", (width,), "near:0"))
    return parameters


def _fits(names: str, result: str) -> Infer:
    """Return the shape rule of inputs whose axes are spelled in letters, "nw,rw" -> "rn": one letter is one length."""

    def shape(_: Layer, shapes: Sequence[Shape]) -> Shape:
        spelled = names.split(",")
        lengths: dict[str, int] = {}
        fits = len(spelled) == len(shapes) and all(len(s) == len(n) for s, n in zip(shapes, spelled, strict=True))
        for axes, dims in zip(spelled, shapes, strict=False):
            for axis, length in zip(axes, dims, strict=False):
                fits &= lengths.setdefault(axis, length) == length and (not axis.isdigit() or length == int(axis))
        expected = ", ".join("(" + ", ".join(axes) + ")" for axes in spelled)
        _wanted(fits, shapes, f"{expected}, equal where the letters are")
        return tuple(lengths[axis] for axis in result)

    return shape


def _either(*rules: Infer) -> Infer:
    def shape(layer: Layer, shapes: Sequence[Shape]) -> Shape:
        for rule in rules[:-1]:
            try:
                return rule(layer, shapes)
            except ShapeError:
                continue
        return rules[-1](layer, shapes)

    return shape


def _shift_shape(layer: Layer, shapes: Sequence[Shape]) -> Shape:
    fits = len(shapes[0]) == len(shapes[1]) == 1 and shapes[1][0] % 2 == 1 and shapes[1][0] <= shapes[0][0]
    _wanted(fits, shapes, "w (n), s (k) with k odd and at most n")
    return _same(layer, shapes)


def _loss_shape(_: Layer, shapes: Sequence[Shape]) -> Shape:
    _wanted(shapes[0] == shapes[1], shapes, "prediction and target of one shape")
    return ()


_WINDOW: dict[str, Setting | None] = {"size": None, "strides": (1, 1), "padding": "valid"}
_INIT: dict[str, Setting | None] = {"init": "glorot_uniform", "bias": "near:0"}

KINDS: dict[str, Kind] = {
    "dense": Kind((1,), {"units": None, **_INIT}, _dense_shape, _dense_parameters),
    "conv2d": Kind(
        (1,), {"filters": None, **_WINDOW, "dilations": (1, 1), "groups": 1, **_INIT}, _conv_shape, _conv_parameters
    ),
    "conv2d-transpose": Kind((1,), {"filters": None, **_WINDOW, **_INIT}, _transposed_shape, _transposed_parameters),
    "max-pool": Kind((1,), _WINDOW, _window_shape),
    "average-pool": Kind((1,), _WINDOW, _window_shape),
    "global-average-pool": Kind((1,), {}, _global_shape),
    "up-sampling": Kind((1,), {"size": None}, _up_shape),
    "bilinear-resize": Kind((1,), {"size": None}, _resize_shape),
    "batch-norm": Kind((1,), {"epsilon": None, "momentum": None}, _same, _norm_parameters),
    "layer-norm": Kind((1,), {"epsilon": None}, _same, _norm_parameters),
    "group-norm": Kind((1,), {"groups": None, "epsilon": None}, _image_norm_shape, _norm_parameters),
    "instance-norm": Kind((1,), {"epsilon": None}, _image_norm_shape, _norm_parameters),
    "rms-norm": Kind((1,), {"epsilon": None}, _same, _norm_parameters),
    "l2-normalize": Kind((1,), {"epsilon": 1e-12}, _same),
    "dropout": Kind((1, 2), {"rate": None}, _mask_shape),
    "flatten": Kind((1,), {}, lambda _, shapes: (math.prod(shapes[0]),)),
    "reshape": Kind((1,), {"shape": None}, _reshape_shape),
    "activation": Kind((1,), {"kernel": None}, _activation_shape),
    "add": Kind((2,), {}, _broadcast),
    "multiply": Kind((2,), {}, _broadcast),
    "affine": Kind((1,), {"scale": 1.0, "shift": 0.0}, _same),
    "embedding": Kind(
        (1,), {"tokens": None, "units": None, "init": "he_uniform"}, _embedding_shape, _embedding_parameters
    ),
    "lstm": Kind((1,), {"units": None, **_INIT}, _recurrent_shape, _recurrent_parameters),
    "gru": Kind((1,), {"units": None, **_INIT}, _recurrent_shape, _recurrent_parameters),
    "masked-softmax": Kind((2,), {}, _mask_shape),
    "attention": Kind((3, 4), {}, _attention_shape),
    "multi-head-attention": Kind((1,), {"heads": None}, _heads_shape, _heads_parameters),
    "cosine-similarity": Kind((2,), {}, _either(_fits("nw,w", "n"), _fits("nw,rw", "rn"))),
    "interpolate": Kind((3,), {}, _either(_fits("1,n,n", "n"), _fits("n,n,n", "n"))),
    "circular-shift": Kind((2,), {}, _shift_shape),
    "sharpen": Kind((2,), {}, _fits("n,1", "n")),
    "read": Kind((2,), {}, _either(_fits("n,nm", "m"), _fits("rn,nm", "rm"))),
    "write": Kind((4,), {}, _fits("nm,n,m,m", "nm")),
    "retention": Kind((2,), {}, _fits("r,rn", "n")),
    "usage": Kind((3,), {}, _fits("n,n,n", "n")),
    "allocation": Kind((1,), {}, _fits("n", "n")),
    "link": Kind((3,), {}, lambda _, shapes: _square(shapes)),
    "precedence": Kind((2,), {}, _fits("n,n", "n")),
    "directional": Kind((2,), {"transposed": 0}, _fits("nk,rn", "rn")),
    "mix": Kind((4,), {}, _fits("r3,rn,rn,rn", "rn")),
    **dict.fromkeys(LOSSES, Kind((2,), {}, _loss_shape)),
}


def _square(shapes: Sequence[Shape]) -> Shape:
    n = shapes[1][:1]
    _wanted([*shapes] == [n + n, n, n], shapes, "l (n, n), w (n), p (n)")
    return shapes[0]
