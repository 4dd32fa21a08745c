"""Each kind of layer as torch computes it: its own modules and functions; compositions where it has none.

`actconform.catalog.models.layer_kinds` defines the kinds. Where torch's own layer differs from the definition it is left as it is:
`torch.nn.BCELoss` bounds its logarithms at -100 instead of clipping probabilities at 1e-7, and `cosine_similarity` bounds each
norm at 1e-8 from below.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from actconform import Unsupported
from actconform.catalog.models.layer_kinds import CLIP, extent, same_pads, transposed_cut
from actconform_torch.kernels import implement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor
    from torch.nn import Module

    from actconform.plugin.framework import LayerContext

    Named = Mapping[str, Tensor]


class BuiltLayer(NamedTuple):
    """What computes a layer: in words, a torch.nn module or a function of its inputs, and the module's state.

    `state` gives the module's parameters and buffers by torch's names, from the canonical ones by short name ("kernel").
    Images come channels first, as torch.nn has them, or channels last where the layer works on the last axis.
    """

    text: str
    compute: Module | Callable[..., Tensor]
    state: Callable[[Named], dict[str, Tensor]] = lambda _: {}
    channels_last: bool = False


def own(
    *modules: Module, state: Callable[[Named], dict[str, Tensor]] = lambda _: {}, channels_last: bool = False
) -> BuiltLayer:
    """Return the layer that is torch's own modules, one after another; "N.weight" is then a name in the state."""
    from torch import nn

    text = ", ".join(f"torch.nn.{type(module).__name__}" for module in modules)
    return BuiltLayer(text, nn.Sequential(*modules), state, channels_last)


def _dense(context: LayerContext) -> BuiltLayer:
    from torch import nn

    module = nn.Linear(context.shapes[0][-1], int(context.number("units")))
    return own(module, state=lambda p: {"0.weight": p["kernel"].T, "0.bias": p["bias"]}, channels_last=True)


def _pads(context: LayerContext) -> tuple[int, int, int, int]:
    """Return the "same" padding in torch's order: left, right, top, bottom."""
    if context.layer.settings["padding"] == "valid":
        return 0, 0, 0, 0
    rows, columns = (
        same_pads(length, window, stride)
        for length, window, stride in zip(
            context.shapes[0], extent(context.layer), context.pair("strides"), strict=False
        )
    )
    return *columns, *rows


def _conv2d(context: LayerContext) -> BuiltLayer:
    from torch import nn

    def convolution(padding: str | tuple[int, int]) -> Module:
        channels, filters = context.shapes[0][-1], int(context.number("filters"))
        steps = context.pair("strides"), padding, context.pair("dilations")
        return nn.Conv2d(channels, filters, context.pair("size"), *steps, groups=int(context.number("groups")))

    left, right, top, bottom = pads = _pads(context)
    if context.layer.settings["padding"] == "same" and context.pair("strides") == (1, 1):
        modules = [convolution("same")]
    elif (left, top) == (right, bottom):
        modules = [convolution((top, left))]
    else:  # torch pads both sides alike
        modules = [nn.ZeroPad2d(pads), convolution("valid")]
    last = len(modules) - 1
    return own(*modules, state=lambda p: {f"{last}.weight": p["kernel"].permute(3, 2, 0, 1), f"{last}.bias": p["bias"]})


def _conv2d_transpose(context: LayerContext) -> BuiltLayer:
    from torch import nn

    size, strides, padding = context.pair("size"), context.pair("strides"), str(context.layer.settings["padding"])
    (top, bottom), (left, right) = (transposed_cut(*axis, padding) for axis in zip(size, strides, strict=True))
    longer = max(top - bottom, 0), max(left - right, 0)
    channels, filters = context.shapes[0][-1], int(context.number("filters"))
    modules: list[Module] = [nn.ConvTranspose2d(channels, filters, size, strides, (top, left), longer)]
    if bottom > top or right > left:  # torch cuts both sides alike
        modules.append(nn.ZeroPad2d((0, -max(right - left, 0), 0, -max(bottom - top, 0))))
    return own(*modules, state=lambda p: {"0.weight": p["kernel"].permute(3, 2, 0, 1), "0.bias": p["bias"]})


def _max_pool(context: LayerContext) -> BuiltLayer:
    from torch import nn

    left, right, top, bottom = pads = _pads(context)
    size, strides = context.pair("size"), context.pair("strides")
    if (left, top) == (right, bottom):
        return own(nn.MaxPool2d(size, strides, (top, left)))
    return own(nn.ConstantPad2d(pads, -math.inf), nn.MaxPool2d(size, strides))


def _average_pool(context: LayerContext) -> BuiltLayer:
    from torch import nn

    left, right, top, bottom = pads = _pads(context)
    size, strides = context.pair("size"), context.pair("strides")
    # Windows that reach over the end divide by the pixels that they have; at stride 1 there are no such.
    if all(
        before == after or stride > 1
        for before, after, stride in zip(pads[::2], pads[1::2], strides[::-1], strict=True)
    ):
        ceil = (left, top) != (right, bottom)
        return own(nn.AvgPool2d(size, strides, (top, left), ceil_mode=ceil, count_include_pad=False))
    raise Unsupported(
        f"layer {context.layer.name}: torch.nn.AvgPool2d pads both sides alike; at stride 1 that is no 'same'"
    )


def _global_average_pool(_: LayerContext) -> BuiltLayer:
    from torch import nn

    return own(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _up_sampling(context: LayerContext) -> BuiltLayer:
    from torch import nn

    return own(nn.Upsample(scale_factor=context.pair("size"), mode="nearest"))


def _bilinear_resize(context: LayerContext) -> BuiltLayer:
    from torch import nn

    return own(nn.Upsample(context.pair("size"), mode="bilinear", align_corners=False))


def _batch_norm(context: LayerContext) -> BuiltLayer:
    from torch import int64, nn

    (*outer, channels) = context.shapes[0]
    # torch's momentum is the part that is replaced, ours the part that is kept.
    epsilon, momentum = context.number("epsilon"), 1.0 - context.number("momentum")

    def state(p: Named, place: str) -> dict[str, Tensor]:
        return {
            f"{place}.weight": p["gamma"],
            f"{place}.bias": p["beta"],
            # In training torch writes the running statistics: into copies.
            f"{place}.running_mean": p["mean"].clone(),
            f"{place}.running_var": p["variance"].clone(),
            f"{place}.num_batches_tracked": p["mean"].new_zeros((), dtype=int64),
        }

    if len(outer) == 2:
        return own(nn.BatchNorm2d(channels, epsilon, momentum), state=lambda p: state(p, "0"))
    if not outer:
        return own(nn.BatchNorm1d(channels, epsilon, momentum), state=lambda p: state(p, "0"))
    rows = nn.Flatten(0, len(outer)), nn.BatchNorm1d(channels, epsilon, momentum), nn.Unflatten(0, (-1, *outer))
    return own(*rows, state=lambda p: state(p, "1"))


def _layer_norm(context: LayerContext) -> BuiltLayer:
    from torch import nn

    module = nn.LayerNorm(context.shapes[0][-1], eps=context.number("epsilon"))
    return own(module, state=lambda p: {"0.weight": p["gamma"], "0.bias": p["beta"]}, channels_last=True)


def _group_norm(context: LayerContext) -> BuiltLayer:
    from torch import nn

    module = nn.GroupNorm(int(context.number("groups")), context.shapes[0][-1], eps=context.number("epsilon"))
    return own(module, state=lambda p: {"0.weight": p["gamma"], "0.bias": p["beta"]})


def _instance_norm(context: LayerContext) -> BuiltLayer:
    from torch import nn

    module = nn.InstanceNorm2d(context.shapes[0][-1], eps=context.number("epsilon"), affine=True)
    return own(module, state=lambda p: {"0.weight": p["gamma"], "0.bias": p["beta"]})


def _rms_norm(context: LayerContext) -> BuiltLayer:
    from torch import nn

    module = nn.RMSNorm(context.shapes[0][-1], eps=context.number("epsilon"))
    return own(module, state=lambda p: {"0.weight": p["gamma"]}, channels_last=True)


def _l2_normalize(context: LayerContext) -> BuiltLayer:
    from torch.nn.functional import normalize

    epsilon = context.number("epsilon")
    return BuiltLayer("torch.nn.functional.normalize", lambda x: normalize(x, dim=-1, eps=epsilon), channels_last=True)


def _embedding(context: LayerContext) -> BuiltLayer:
    from torch import nn

    class Embedding(nn.Embedding):
        def forward(self, ids: Tensor) -> Tensor:
            return super().forward(ids.long())  # a model's tensors are of floating point all

    module = Embedding(int(context.number("tokens")), int(context.number("units")))
    return BuiltLayer("torch.nn.Embedding", module, lambda p: {"weight": p["table"]}, channels_last=True)


def _lstm(context: LayerContext) -> BuiltLayer:
    from torch import nn, zeros_like

    class LSTM(nn.LSTM):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            states: Tensor = super().forward(x)[0]
            return states

    def state(p: Named) -> dict[str, Tensor]:
        biases = {"bias_ih_l0": p["bias"], "bias_hh_l0": zeros_like(p["bias"])}
        return {"weight_ih_l0": p["kernel"].T, "weight_hh_l0": p["recurrent"].T, **biases}

    module = LSTM(context.shapes[0][-1], int(context.number("units")), batch_first=True)
    return BuiltLayer("torch.nn.LSTM", module, state)


def _gru(context: LayerContext) -> BuiltLayer:
    from torch import cat, nn

    class GRU(nn.GRU):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            states: Tensor = super().forward(x)[0]
            return states

    def gates(tensor: Tensor) -> Tensor:
        """Return a parameter's gates in torch's order, r before z."""
        z, r, n = tensor.chunk(3, dim=-1)
        return cat([r, z, n], dim=-1)

    def state(p: Named) -> dict[str, Tensor]:
        of_x, of_state = gates(p["bias"]).unbind()
        weights = {"weight_ih_l0": gates(p["kernel"]).T, "weight_hh_l0": gates(p["recurrent"]).T}
        return {**weights, "bias_ih_l0": of_x, "bias_hh_l0": of_state}

    module = GRU(context.shapes[0][-1], int(context.number("units")), batch_first=True)
    return BuiltLayer("torch.nn.GRU", module, state)


def _masked_softmax(x: Tensor, mask: Tensor) -> Tensor:
    return x.masked_fill(mask == 0, -math.inf).softmax(dim=-1)


def _dropout(context: LayerContext) -> BuiltLayer:
    from torch import nn

    rate = context.number("rate")
    if not context.training:
        dropout = nn.Dropout(rate)
        return BuiltLayer("torch.nn.Dropout", lambda x, *_: dropout.eval()(x))
    if len(context.layer.inputs) == 1:
        raise Unsupported(
            f"layer {context.layer.name}: torch.nn.Dropout draws its own mask in training; give the layer a mask"
        )
    return BuiltLayer(f"composition: x * mask / (1 - {rate:g})", lambda x, mask: x * mask / (1.0 - rate))


def _flatten(_: LayerContext) -> BuiltLayer:
    from torch import nn

    return own(nn.Flatten(), channels_last=True)


def _reshape(context: LayerContext) -> BuiltLayer:
    shape: tuple[int, ...] = context.layer.settings["shape"]  # type: ignore[assignment]
    return BuiltLayer("torch.reshape", lambda x: x.reshape(-1, *shape), channels_last=True)


def _activation(context: LayerContext) -> BuiltLayer:
    text, function, _ = implement(context.kernel)
    return BuiltLayer(text, function, channels_last=context.kernel.form != "unary")


def _add(_: LayerContext) -> BuiltLayer:
    return BuiltLayer("torch.add", lambda a, b: a + b)


def _multiply(_: LayerContext) -> BuiltLayer:
    return BuiltLayer("torch.mul", lambda a, b: a * b)


def _affine(context: LayerContext) -> BuiltLayer:
    scale, shift = context.number("scale"), context.number("shift")
    return BuiltLayer(f"composition: {scale:g} * x + {shift:g}", lambda x: scale * x + shift)


def _loss(name: str) -> Callable[[LayerContext], BuiltLayer]:
    def build(_: LayerContext) -> BuiltLayer:
        from torch import nn

        return BuiltLayer(f"torch.nn.{name}", getattr(nn, name)())

    return build


def _categorical_from_logits(_: LayerContext) -> BuiltLayer:
    from torch import nn

    loss = nn.CrossEntropyLoss()
    return BuiltLayer("torch.nn.CrossEntropyLoss", lambda z, t: loss(_rows(z), _rows(t)), channels_last=True)


def _categorical(_: LayerContext) -> BuiltLayer:
    import torch

    def loss(p: Tensor, target: Tensor) -> Tensor:
        p = (p / p.sum(dim=-1, keepdim=True)).clamp(*CLIP)
        return -(target * torch.log(p)).sum(dim=-1).mean()

    return BuiltLayer(
        "composition: -(target * torch.log((p / p.sum(-1)).clamp(1e-7, 1 - 2**-23))).sum(-1).mean()",
        loss,
        channels_last=True,
    )


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def _attention(_: LayerContext) -> BuiltLayer:
    from torch.nn.functional import scaled_dot_product_attention

    def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        # (batch, heads, t, d), as documented; torch-dynamo refuses what has no axis of heads.
        keys = None if mask is None else mask.bool()[:, None, None]
        return scaled_dot_product_attention(q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1), attn_mask=keys).squeeze(1)

    return BuiltLayer("torch.nn.functional.scaled_dot_product_attention", attention)


def _multi_head_attention(context: LayerContext) -> BuiltLayer:
    import torch

    class SelfAttention(torch.nn.MultiheadAttention):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x, x, x, need_weights=False)[0]

    module = SelfAttention(context.shapes[0][-1], int(context.number("heads")), batch_first=True)

    def state(p: Named) -> dict[str, Tensor]:
        return {
            "in_proj_weight": torch.cat([p[f"{one}-kernel"].T for one in "qkv"]),
            "in_proj_bias": torch.cat([p[f"{one}-bias"] for one in "qkv"]),
            "out_proj.weight": p["o-kernel"].T,
            "out_proj.bias": p["o-bias"],
        }

    return BuiltLayer("torch.nn.MultiheadAttention", module, state)


def _cosine_similarity(context: LayerContext) -> BuiltLayer:
    from torch.nn.functional import cosine_similarity

    one_key = len(context.shapes[1]) == 1

    def similarity(memory: Tensor, key: Tensor) -> Tensor:
        if one_key:
            return cosine_similarity(memory, key.unsqueeze(1), dim=-1)
        return cosine_similarity(memory.unsqueeze(1), key.unsqueeze(2), dim=-1)

    return BuiltLayer("torch.nn.functional.cosine_similarity", similarity)


def _interpolate(gate: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return gate * a + (1.0 - gate) * b


def _circular_shift(context: LayerContext) -> BuiltLayer:
    import torch

    width = context.shapes[1][0]

    def shift(w: Tensor, s: Tensor) -> Tensor:
        rolled = [torch.roll(w, j - (width - 1) // 2, dims=-1) for j in range(width)]
        return (torch.stack(rolled, dim=-1) * s.unsqueeze(1)).sum(dim=-1)

    return BuiltLayer("composition: sum of s_j * torch.roll(w, j - (k - 1) / 2)", shift)


def _sharpen(w: Tensor, gamma: Tensor) -> Tensor:
    powers = w.pow(gamma)
    return powers / powers.sum(dim=-1, keepdim=True)


def _read(context: LayerContext) -> BuiltLayer:
    if len(context.shapes[0]) == 1:
        return BuiltLayer("torch.matmul", lambda w, memory: (w.unsqueeze(1) @ memory).squeeze(1))
    return BuiltLayer("torch.matmul", lambda w, memory: w @ memory)


def _write(memory: Tensor, w: Tensor, erase: Tensor, add: Tensor) -> Tensor:
    w = w.unsqueeze(-1)
    return memory * (1.0 - w * erase.unsqueeze(1)) + w * add.unsqueeze(1)


def _retention(free: Tensor, w: Tensor) -> Tensor:
    return (1.0 - free.unsqueeze(-1) * w).prod(dim=1)


def _usage(u: Tensor, w: Tensor, retention: Tensor) -> Tensor:
    return (u + w - u * w) * retention


def _allocation(u: Tensor) -> Tensor:
    import torch

    ordered, order = torch.sort(u, dim=-1, stable=True)
    before = torch.cumprod(torch.cat([torch.ones_like(u[:, :1]), ordered[:, :-1]], dim=-1), dim=-1)
    return torch.zeros_like(u).scatter(-1, order, (1.0 - ordered) * before)


def _link(link: Tensor, w: Tensor, p: Tensor) -> Tensor:
    import torch

    rows, columns = w.unsqueeze(2), w.unsqueeze(1)
    moved = (1.0 - rows - columns) * link + rows * p.unsqueeze(1)
    return moved.masked_fill(torch.eye(link.shape[-1], dtype=torch.bool, device=link.device), 0.0)


def _precedence(p: Tensor, w: Tensor) -> Tensor:
    return (1.0 - w.sum(dim=-1, keepdim=True)) * p + w


def _directional(context: LayerContext) -> BuiltLayer:
    if context.number("transposed"):
        return BuiltLayer("torch.matmul", lambda link, w: w @ link)
    return BuiltLayer("torch.matmul", lambda link, w: w @ link.transpose(1, 2))


def _mix(modes: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return modes[..., 0:1] * a + modes[..., 1:2] * b + modes[..., 2:3] * c


def _written(text: str, function: Callable[..., Tensor]) -> Callable[[LayerContext], BuiltLayer]:
    return lambda _: BuiltLayer(f"composition: {text}", function)


def _written_of_rows(text: str, function: Callable[..., Tensor]) -> Callable[[LayerContext], BuiltLayer]:
    return lambda _: BuiltLayer(f"composition: {text}", function, channels_last=True)


BUILDERS: dict[str, Callable[[LayerContext], BuiltLayer]] = {
    "dense": _dense,
    "conv2d": _conv2d,
    "conv2d-transpose": _conv2d_transpose,
    "max-pool": _max_pool,
    "average-pool": _average_pool,
    "global-average-pool": _global_average_pool,
    "up-sampling": _up_sampling,
    "bilinear-resize": _bilinear_resize,
    "batch-norm": _batch_norm,
    "layer-norm": _layer_norm,
    "group-norm": _group_norm,
    "instance-norm": _instance_norm,
    "rms-norm": _rms_norm,
    "l2-normalize": _l2_normalize,
    "embedding": _embedding,
    "lstm": _lstm,
    "gru": _gru,
    "dropout": _dropout,
    "flatten": _flatten,
    "reshape": _reshape,
    "activation": _activation,
    "add": _add,
    "multiply": _multiply,
    "affine": _affine,
    "mean-squared-error": _loss("MSELoss"),
    "mean-absolute-error": _loss("L1Loss"),
    "binary-cross-entropy": _loss("BCELoss"),
    "binary-cross-entropy-from-logits": _loss("BCEWithLogitsLoss"),
    "categorical-cross-entropy": _categorical,
    "categorical-cross-entropy-from-logits": _categorical_from_logits,
    "masked-softmax": _written_of_rows("x.masked_fill(mask == 0, -inf).softmax(-1)", _masked_softmax),
    "attention": _attention,
    "multi-head-attention": _multi_head_attention,
    "cosine-similarity": _cosine_similarity,
    "interpolate": _written("gate * a + (1 - gate) * b", _interpolate),
    "circular-shift": _circular_shift,
    "sharpen": _written("w.pow(gamma) / w.pow(gamma).sum(-1)", _sharpen),
    "read": _read,
    "write": _written("memory * (1 - w * erase) + w * add", _write),
    "retention": _written("(1 - free * w).prod(1)", _retention),
    "usage": _written("(u + w - u * w) * retention", _usage),
    "allocation": _written("torch.sort(stable=True), torch.cumprod, scatter", _allocation),
    "link": _written("(1 - w_i - w_j) * l + w_i * p_j, masked_fill of the diagonal", _link),
    "precedence": _written("(1 - w.sum(-1)) * p + w", _precedence),
    "directional": _directional,
    "mix": _written("modes_0 * a + modes_1 * b + modes_2 * c", _mix),
}
