"""Sequences: recurrent layers, embeddings, masks and the normalizations beside them go wrong; the finding must name the layer."""
# ruff: noqa: D103  one function a fault; what it does stands in its registration

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from actconform_faulty.graphs import drop_attribute, nodes, replace_operator, set_attribute
from actconform_faulty.graphs import graph_fault as fault_of_graph
from actconform_faulty.injected import fault
from actconform_faulty.layers import in_layer, with_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from onnx import ModelProto
    from torch import Tensor

    from actconform import Model, Program

FAMILY = "sequences"
TAGGER, ATTENTION, CNN = "token-tagger", "masked-attention", "group-norm-cnn"
WRONG = {"findings": "scaled-error", "blames": "framework"}


# Recurrent layers


def _lstm(
    layer: Any,
    x: Tensor,
    *,
    order: Sequence[int] = (0, 1, 2, 3),
    bias: Callable[[Tensor, int], Tensor] = lambda bias, _: bias,
    kept: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]] = lambda h, c, _: (h, c),
    shown: Callable[[Tensor], Tensor] = lambda c: c.tanh(),
) -> Tensor:
    """Return the states of torch's LSTM, its gates read in `order`: input, forget, cell, output."""
    import torch

    h = c = x.new_zeros(len(x), layer.hidden_size)
    units = layer.hidden_size
    states = []
    for time in range(x.shape[1]):
        h, c = kept(h, c, time)
        z = x[:, time] @ layer.weight_ih_l0.T + h @ layer.weight_hh_l0.T + bias(layer.bias_ih_l0, units)
        gates = z.chunk(4, dim=-1)
        i, f, g, o = (gates[place] for place in order)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * shown(c)
        states.append(h)
    return torch.stack(states, dim=1)


@fault("torch", "lstm-gates-ifog", FAMILY, "the gates of a cell and of its output change places",
       f"{TAGGER}/value/f32", tensor="lstm", **WRONG)  # fmt: skip
def lstm_gates_swapped(program: Program, _: object) -> Program:
    return in_layer(program, "lstm", lambda layer, x: _lstm(layer, x, order=(0, 1, 3, 2)))


@fault("torch", "lstm-gates-input-forget", FAMILY, "the gates for input and for forgetting change places",
       f"{TAGGER}/value/f32", tensor="lstm", **WRONG)  # fmt: skip
def lstm_forget_swapped(program: Program, _: object) -> Program:
    return in_layer(program, "lstm", lambda layer, x: _lstm(layer, x, order=(1, 0, 2, 3)))


@fault("torch", "lstm-forget-bias-dropped", FAMILY, "the gate for forgetting has no bias",
       f"{TAGGER}/value/f32", tensor="lstm", **WRONG)  # fmt: skip
def lstm_forget_bias(program: Program, _: object) -> Program:
    def without(bias: Tensor, units: int) -> Tensor:
        return bias * (bias.new_ones(4).index_fill(0, bias.new_ones(1).long(), 0).repeat_interleave(units))

    return in_layer(program, "lstm", lambda layer, x: _lstm(layer, x, bias=without))


@fault("torch", "lstm-state-reset", FAMILY, "the hidden state is zero again in each step",
       f"{TAGGER}/value/f32", tensor="lstm", **WRONG)  # fmt: skip
def lstm_state_reset(program: Program, _: object) -> Program:
    return in_layer(program, "lstm", lambda layer, x: _lstm(layer, x, kept=lambda h, c, _: (0.0 * h, c)))


@fault("torch", "lstm-chunked", FAMILY, "a sequence is cut into chunks of two steps, and each begins anew",
       f"{TAGGER}/value/f32", tensor="lstm", **WRONG)  # fmt: skip
def lstm_chunked(program: Program, _: object) -> Program:
    def kept(h: Tensor, c: Tensor, time: int) -> tuple[Tensor, Tensor]:
        return (h, c) if time % 2 else (0.0 * h, 0.0 * c)

    return in_layer(program, "lstm", lambda layer, x: _lstm(layer, x, kept=kept))


@fault("torch", "lstm-cell-clipped", FAMILY, "the cell is clipped to [-1/4, 1/4], which nobody asked for",
       f"{TAGGER}/value/f32", tensor="lstm", **WRONG)  # fmt: skip
def lstm_clipped(program: Program, _: object) -> Program:
    return in_layer(program, "lstm", lambda layer, x: _lstm(layer, x, kept=lambda h, c, _: (h, c.clamp(-0.25, 0.25))))


@fault("torch", "lstm-cell-not-squashed", FAMILY, "the cell leaves without its hyperbolic tangent",
       f"{TAGGER}/value/f32", tensor="lstm", **WRONG)  # fmt: skip
def lstm_not_squashed(program: Program, _: object) -> Program:
    return in_layer(program, "lstm", lambda layer, x: _lstm(layer, x, shown=lambda c: c))


@fault("torch", "lstm-gradient-truncated", FAMILY, "the gradient goes back one step alone",
       f"{TAGGER}/gradient/f32", tensor="d_lstm.recurrent", **WRONG)  # fmt: skip
def lstm_truncated(program: Program, _: object) -> Program:
    return in_layer(program, "lstm", lambda layer, x: _lstm(layer, x, kept=lambda h, c, _: (h.detach(), c.detach())))


def _gru(
    layer: Any,
    x: Tensor,
    *,
    inner: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = lambda h, r, weight, bias: r * (h @ weight.T + bias),
    mixed: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda z, h, n: z * h + (1 - z) * n,
) -> Tensor:
    """Return the states of torch's GRU: `inner` of the state, r, and the recurrent weights and bias of n."""
    import torch

    units = layer.hidden_size
    h = x.new_zeros(len(x), units)
    weight, bias = layer.weight_hh_l0, layer.bias_hh_l0
    states = []
    for time in range(x.shape[1]):
        from_x = (x[:, time] @ layer.weight_ih_l0.T + layer.bias_ih_l0).chunk(3, dim=-1)
        from_h = (h @ weight.T + bias).chunk(3, dim=-1)
        r, z = (from_x[gate].add(from_h[gate]).sigmoid() for gate in (0, 1))
        n = (from_x[2] + inner(h, r, weight[2 * units :], bias[2 * units :])).tanh()
        h = mixed(z, h, n)
        states.append(h)
    return torch.stack(states, dim=1)


@fault("torch", "gru-reset-before", FAMILY, "the state is reset before its product, not after it",
       f"{TAGGER}/value/f32", tensor="gru", **WRONG)  # fmt: skip
def gru_reset_before(program: Program, _: object) -> Program:
    return in_layer(
        program, "gru", lambda layer, x: _gru(layer, x, inner=lambda h, r, weight, bias: (r * h) @ weight.T + bias)
    )


@fault("torch", "gru-update-inverted", FAMILY, "the update gate keeps what it should replace",
       f"{TAGGER}/value/f32", tensor="gru", **WRONG)  # fmt: skip
def gru_update_inverted(program: Program, _: object) -> Program:
    return in_layer(program, "gru", lambda layer, x: _gru(layer, x, mixed=lambda z, h, n: (1 - z) * h + z * n))


@fault("torch", "gru-recurrent-bias-outside", FAMILY, "the recurrent bias is added behind the reset",
       f"{TAGGER}/value/f32", tensor="gru", **WRONG)  # fmt: skip
def gru_bias_outside(program: Program, _: object) -> Program:
    return in_layer(
        program, "gru", lambda layer, x: _gru(layer, x, inner=lambda h, r, weight, bias: r * (h @ weight.T) + bias)
    )


@fault("torch", "gru-backwards", FAMILY, "a sequence is read from its end",
       f"{TAGGER}/value/f32", tensor="gru", **WRONG)  # fmt: skip
def gru_backwards(program: Program, _: object) -> Program:
    return in_layer(program, "gru", lambda layer, x: layer(x.flip(1)).flip(1))


# Embeddings


@fault("torch", "embedding-off-by-one", FAMILY, "each id takes the row before its own",
       f"{TAGGER}/value/f32", tensor="embedded", **WRONG)  # fmt: skip
def embedding_off_by_one(program: Program, _: object) -> Program:
    return in_layer(program, "embedded", lambda layer, ids: layer.weight[ids.long() - 1])


@fault("torch", "embedding-clipped", FAMILY, "ids beyond 5 take the row of 5",
       f"{TAGGER}/value/f32", tensor="embedded", **WRONG)  # fmt: skip
def embedding_clipped(program: Program, _: object) -> Program:
    return in_layer(program, "embedded", lambda layer, ids: layer(ids.clamp(max=5)))


@fault("torch", "embedding-padding-row", FAMILY, "id 0 is taken for padding, and its row for zeros",
       f"{TAGGER}/value/f32", tensor="embedded", **WRONG)  # fmt: skip
def embedding_padding_row(program: Program, _: object) -> Program:
    return in_layer(program, "embedded", lambda layer, ids: layer(ids) * (ids != 0)[..., None])


@fault("torch", "embedding-gradient-overwritten", FAMILY, "of an id that stands twice the last place alone has a gradient",
       f"{TAGGER}/gradient/f32", tensor="d_embedded.table", **WRONG)  # fmt: skip
def embedding_overwritten(program: Program, _: object) -> Program:
    def embedded(layer: Any, ids: Tensor) -> Tensor:
        flat = ids.long().flatten().tolist()
        last = ids.new_tensor([token not in flat[place + 1 :] for place, token in enumerate(flat)])
        rows: Tensor = layer(ids)
        keeps = last.reshape(*ids.shape, 1)
        return rows * keeps + (rows * (1 - keeps)).detach()

    return in_layer(program, "embedded", embedded)


@fault("torch", "embedding-gradient-of-0-lost", FAMILY, "the row of id 0 has no gradient, as that of a padding index",
       f"{TAGGER}/gradient/f32", tensor="d_embedded.table", findings="scaled-error", blames="framework")  # fmt: skip
def embedding_padding_index(program: Program, _: object) -> Program:
    from torch.nn.functional import embedding

    return in_layer(program, "embedded", lambda layer, ids: embedding(ids.long(), layer.weight, padding_idx=0))


# Masks


@fault("torch", "mask-inverted", FAMILY, "a softmax runs over what is padding",
       f"{TAGGER}/value/f32", tensor="weights", findings="nan-made scaled-error", blames="framework")  # fmt: skip
def mask_inverted(program: Program, _: object) -> Program:
    return in_layer(program, "weights", lambda healthy, x, mask: healthy(x, 1 - mask))


@fault("torch", "mask-minus-10", FAMILY, "padding has 10 taken from its score, not infinity",
       f"{TAGGER}/value/f32", tensor="weights", **WRONG)  # fmt: skip
def mask_minus_10(program: Program, _: object) -> Program:
    return in_layer(program, "weights", lambda _, x, mask: (x - 10.0 * (1 - mask)).softmax(-1))


@fault("torch", "mask-after-softmax", FAMILY, "weights of padding become zero after the softmax, and the others do not sum to 1",
       f"{TAGGER}/value/f32", tensor="weights", **WRONG)  # fmt: skip
def mask_after_softmax(program: Program, _: object) -> Program:
    return in_layer(program, "weights", lambda _, x, mask: x.softmax(-1) * mask)


@fault("torch", "mask-as-zero-scores", FAMILY, "scores of padding are multiplied by 0, not left out",
       f"{TAGGER}/value/f32", tensor="weights", **WRONG)  # fmt: skip
def mask_zero_scores(program: Program, _: object) -> Program:
    return in_layer(program, "weights", lambda _, x, mask: (x * mask).softmax(-1))


@fault("torch", "mask-of-the-first-row", FAMILY, "every row has the mask of the first",
       f"{TAGGER}/value/f32", tensor="weights", **WRONG)  # fmt: skip
def mask_of_first(program: Program, _: object) -> Program:
    return in_layer(program, "weights", lambda healthy, x, mask: healthy(x, mask[:1].expand_as(mask)))


@fault("torch", "attention-mask-ignored", FAMILY, "attention reads padding",
       f"{ATTENTION}/value/f32", tensor="attention", **WRONG)  # fmt: skip
def attention_unmasked(program: Program, _: object) -> Program:
    return in_layer(program, "attention", lambda healthy, q, k, v, _mask: healthy(q, k, v))


@fault("torch", "attention-mask-of-queries", FAMILY, "the mask leaves out queries, not keys",
       f"{ATTENTION}/value/f32", tensor="attention", findings="nan-made scaled-error", blames="framework")  # fmt: skip
def attention_mask_of_queries(program: Program, _: object) -> Program:
    def attention(healthy: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        attended: Tensor = healthy(q, k, v)
        return attended * mask[..., None]

    return in_layer(program, "attention", attention)


@fault("torch", "attention-mask-by-one", FAMILY, "the last step that is no padding is left out",
       f"{ATTENTION}/value/f32", tensor="attention", findings="nan-made scaled-error", blames="framework")  # fmt: skip
def attention_mask_by_one(program: Program, _: object) -> Program:
    return in_layer(
        program, "attention", lambda healthy, q, k, v, mask: healthy(q, k, v, mask.roll(-1, 1).cummin(1)[0])
    )


@fault("torch", "attention-padding-has-gradient", FAMILY, "the values of padding have a gradient",
       f"{ATTENTION}/gradient/f32", tensor="d_x", **WRONG)  # fmt: skip
def attention_padding_gradient(program: Program, _: object) -> Program:
    def attention(healthy: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        leaked: Tensor = (v * (1 - mask)[..., None]).sum(1, keepdim=True)
        attended: Tensor = healthy(q, k, v, mask)
        return attended + leaked - leaked.detach()

    return in_layer(program, "attention", attention)


# Normalizations


@fault("torch", "group-norm-interleaved", FAMILY, "the groups take every third channel, not those side by side",
       f"{CNN}/value/f32", tensor="norm1", **WRONG)  # fmt: skip
def group_norm_interleaved(program: Program, _: object) -> Program:
    def interleaved(healthy: Any, x: Tensor) -> Tensor:
        norm = healthy[0]
        grouped = x.unflatten(1, (-1, norm.num_groups)).transpose(1, 2)
        mean, variance = (statistic.reshape(len(x), -1, 1, 1) for statistic in (
            grouped.mean((2, 3, 4)), grouped.var((2, 3, 4), unbiased=False)))  # fmt: skip
        mean, variance = (statistic.repeat(1, x.shape[1] // norm.num_groups, 1, 1) for statistic in (mean, variance))
        return (x - mean) / (variance + norm.eps).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]

    return in_layer(program, "norm1", interleaved)


@fault("torch", "group-norm-groups", FAMILY, "there are two groups for three",
       f"{CNN}/value/f32", tensor="norm1", on_subject=True, **WRONG)  # fmt: skip
def group_norm_groups(model: Model) -> Model:
    return with_settings(model, "norm1", groups=2)


@fault("torch", "group-norm-epsilon", FAMILY, "a group normalization has torch's epsilon of 1e-5 for 1e-3",
       f"{CNN}/value/f32", tensor="norm1", on_subject=True, **WRONG)  # fmt: skip
def group_norm_epsilon(model: Model) -> Model:
    return with_settings(model, "norm1", epsilon=1e-5)


@fault("torch", "group-norm-statistics-fixed", FAMILY, "mean and variance of a group have no gradient",
       f"{CNN}/gradient/f32", tensor="d_conv1.kernel", **WRONG)  # fmt: skip
def group_norm_fixed(program: Program, _: object) -> Program:
    def fixed(healthy: Any, x: Tensor) -> Tensor:
        norm = healthy[0]
        grouped = x.reshape(len(x), norm.num_groups, -1)
        mean, variance = grouped.mean(-1, keepdim=True).detach(), grouped.var(-1, unbiased=False, keepdim=True).detach()
        h = ((grouped - mean) / (variance + norm.eps).sqrt()).reshape(x.shape)
        return h * norm.weight[:, None, None] + norm.bias[:, None, None]

    return in_layer(program, "norm1", fixed)


@fault("torch", "instance-norm-over-batch", FAMILY, "a channel is normalized over all images",
       f"{CNN}/value/f32", tensor="norm2", **WRONG)  # fmt: skip
def instance_norm_over_batch(program: Program, _: object) -> Program:
    from torch.nn.functional import batch_norm

    return in_layer(
        program,
        "norm2",
        lambda healthy, x: batch_norm(x, None, None, healthy[0].weight, healthy[0].bias, training=True, eps=1e-5),
    )


@fault("torch", "instance-norm-not-affine", FAMILY, "an instance normalization has neither gamma nor beta",
       f"{CNN}/value/f32", tensor="norm2", **WRONG)  # fmt: skip
def instance_norm_not_affine(program: Program, _: object) -> Program:
    from torch.nn.functional import instance_norm

    return in_layer(program, "norm2", lambda _, x: instance_norm(x, eps=1e-5))


@fault("torch", "rms-norm-centred", FAMILY, "rows lose their mean before they are scaled",
       f"{ATTENTION}/value/f32", tensor="norm", **WRONG)  # fmt: skip
def rms_norm_centred(program: Program, _: object) -> Program:
    return in_layer(program, "norm", lambda healthy, x: healthy(x - x.mean(-1, keepdim=True)))


@fault("torch", "rms-norm-epsilon-outside", FAMILY, "epsilon is added to the root, not beneath it",
       f"{ATTENTION}/value/f32", tensor="norm", **WRONG)  # fmt: skip
def rms_norm_epsilon_outside(program: Program, _: object) -> Program:
    return in_layer(
        program, "norm", lambda healthy, x: x / (x.square().mean(-1, keepdim=True).sqrt() + 1e-5) * healthy[0].weight
    )


@fault("torch", "rms-norm-gamma-plus-1", FAMILY, "gamma is taken for an offset from 1",
       f"{ATTENTION}/value/f32", tensor="norm", **WRONG)  # fmt: skip
def rms_norm_offset(program: Program, _: object) -> Program:
    return in_layer(program, "norm", lambda healthy, x: healthy(x) / healthy[0].weight * (1 + healthy[0].weight))


@fault("torch", "l2-over-steps", FAMILY, "vectors are scaled along the steps, not each by its own length",
       f"{ATTENTION}/value/f32", tensor="unit", **WRONG)  # fmt: skip
def l2_over_steps(program: Program, _: object) -> Program:
    from torch.nn.functional import normalize

    return in_layer(program, "unit", lambda _, x: normalize(x, dim=1))


@fault("torch", "l2-squared", FAMILY, "vectors are divided by the square of their length",
       f"{ATTENTION}/value/f32", tensor="unit", **WRONG)  # fmt: skip
def l2_squared(program: Program, _: object) -> Program:
    return in_layer(program, "unit", lambda _, x: x / x.square().sum(-1, keepdim=True))


@fault("torch", "l2-gradient-not-projected", FAMILY, "the length of a vector has no gradient",
       f"{ATTENTION}/gradient/f32", tensor="d_x", **WRONG)  # fmt: skip
def l2_not_projected(program: Program, _: object) -> Program:
    return in_layer(program, "unit", lambda _, x: x / x.norm(dim=-1, keepdim=True).detach())


# Exports and runtimes


@fault_of_graph("export", "gru-reset-before", "a GRU is exported without its linear_before_reset",
                f"{TAGGER}/value/f32", findings="scaled-error", tensor="gru", family=FAMILY)  # fmt: skip
def exported_gru_reset_before(model: ModelProto) -> None:
    for node in nodes(model, "GRU"):
        drop_attribute(node, "linear_before_reset")


@fault_of_graph("export", "lstm-backwards", "an LSTM is exported as one that begins at the end",
                f"{TAGGER}/value/f32", findings="scaled-error", tensor="lstm", family=FAMILY)  # fmt: skip
def exported_lstm_backwards(model: ModelProto) -> None:
    for node in nodes(model, "LSTM"):
        set_attribute(node, "direction", "reverse")


@fault_of_graph("export", "mask-inverted", "what a mask leaves out and what it keeps change places",
                f"{ATTENTION}/value/f32", findings="nan-made scaled-error", tensor="attention", family=FAMILY)  # fmt: skip
def exported_mask_inverted(model: ModelProto) -> None:
    for node in nodes(model, "Where"):
        condition, kept, masked = node.input
        node.input[:] = [condition, masked, kept]


@fault_of_graph("export", "instance-norm-epsilon", "a group normalization is exported with an epsilon of 1e-5 for 1e-3",
                f"{CNN}/value/f32", findings="scaled-error", tensor="norm1", family=FAMILY)  # fmt: skip
def exported_epsilon(model: ModelProto) -> None:
    for node in nodes(model, "InstanceNormalization"):
        set_attribute(node, "epsilon", 1e-5)


@fault_of_graph("ort", "lstm-bias-dropped", "an LSTM is computed without its biases",
                f"{TAGGER}/value/f32", findings="scaled-error", tensor="lstm", family=FAMILY)  # fmt: skip
def runtime_lstm_bias(model: ModelProto) -> None:
    for node in nodes(model, "LSTM"):
        del node.input[3]


@fault_of_graph("ort", "lstm-cell-clipped", "what the gates of an LSTM read is clipped",
                f"{TAGGER}/value/f32", findings="scaled-error", tensor="lstm", family=FAMILY)  # fmt: skip
def runtime_lstm_clip(model: ModelProto) -> None:
    for node in nodes(model, "LSTM"):
        set_attribute(node, "clip", 0.125)


@fault_of_graph("ort", "gru-reset-before", "a GRU resets before its product, whatever it is told",
                f"{TAGGER}/value/f32", findings="scaled-error", tensor="gru", family=FAMILY)  # fmt: skip
def runtime_gru_reset_before(model: ModelProto) -> None:
    for node in nodes(model, "GRU"):
        set_attribute(node, "linear_before_reset", 0)


@fault_of_graph("ort", "mask-minus-4", "the scores of padding become -4, not -inf",
                f"{ATTENTION}/value/f32", findings="scaled-error", tensor="attention", family=FAMILY)  # fmt: skip
def runtime_mask_minus_4(model: ModelProto) -> None:
    from onnx import helper, numpy_helper

    for tensor in model.graph.initializer:
        if tensor.data_type == 1 and math.prod(tensor.dims) == 1 and numpy_helper.to_array(tensor) == -math.inf:
            tensor.CopyFrom(helper.make_tensor(tensor.name, 1, [], [-4.0]))


@fault_of_graph("ort", "rms-norm-as-layer-norm", "a scaling to the root mean square becomes a layer normalization",
                f"{ATTENTION}/value/f32", findings="scaled-error", tensor="norm", family=FAMILY)  # fmt: skip
def runtime_rms_norm(model: ModelProto) -> None:
    for node in nodes(model, "RMSNormalization"):
        replace_operator(node, "LayerNormalization", axis=-1, epsilon=1e-5)


@fault_of_graph("ort", "group-norm-one-group", "a group normalization takes all channels together",
                f"{CNN}/value/f32", findings="scaled-error", tensor="norm1", family=FAMILY)  # fmt: skip
def runtime_group_norm(model: ModelProto) -> None:
    for node in nodes(model, "GroupNormalization"):
        set_attribute(node, "num_groups", 1)


@fault_of_graph("ort", "instance-norm-epsilon", "an instance normalization has an epsilon of 1e-2 for 1e-5",
                f"{CNN}/value/f32", findings="scaled-error", tensor="norm2", family=FAMILY)  # fmt: skip
def runtime_instance_norm(model: ModelProto) -> None:
    for node in nodes(model, "InstanceNormalization"):
        set_attribute(node, "epsilon", 1e-2)
