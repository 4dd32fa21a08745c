"""Layers: one layer of a model computes something else, and the finding must name it; the others are as they were."""
# ruff: noqa: D103  one function a fault; what it does stands in its registration

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from actconform_faulty.injected import fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from actconform import Model, Program
    from actconform.types.model import Setting

FAMILY = "layers"
BLOCK, CNN, REGRESSION = "attention-block", "image-cnn-softmax2", "regression-softmax-hidden"
WRONG = {"findings": "scaled-error", "blames": "framework"}


def with_settings(model: Model, layer: str, **settings: Setting) -> Model:
    """Return the model with other settings of one layer."""
    layers = tuple(
        msgspec.structs.replace(candidate, settings={**candidate.settings, **settings})
        if candidate.name == layer
        else candidate
        for candidate in model.layers
    )
    return msgspec.structs.replace(model, layers=layers)


def in_layer(program: Any, layer: str, compute: Callable[..., Tensor]) -> Program:
    """Compute one layer of a TorchModel by `compute(healthy, *inputs)`; images come channels first, as torch has them.

    `healthy` is what computed it, a torch.nn.Sequential with the caller's parameters where the layer has any.
    """
    network = program._network  # noqa: SLF001  a fault lies where no seam is
    built = network._built  # noqa: SLF001  likewise
    healthy = built[layer].compute
    built[layer] = built[layer]._replace(compute=lambda *inputs: compute(healthy, *inputs))
    faulty: Program = program
    return faulty


@fault(
    "torch", "layer-norm-epsilon-1e-3", FAMILY, "one layer normalization has Keras' epsilon of 1e-3 for 1e-5",
    f"{BLOCK}/value/f32", tensor="norm2", on_subject=True, **WRONG,
)  # fmt: skip
def layer_norm_epsilon(model: Model) -> Model:
    return with_settings(model, "norm2", epsilon=1e-3)


@fault(
    "torch", "layer-norm-epsilon-0", FAMILY, "one layer normalization has no epsilon",
    f"{REGRESSION}/value/f32", tensor="norm1", on_subject=True, **WRONG,
)  # fmt: skip
def layer_norm_without_epsilon(model: Model) -> Model:
    return with_settings(model, "norm1", epsilon=0.0)


@fault(
    "torch", "batch-norm-epsilon-1e-5", FAMILY, "one batch normalization has torch's epsilon of 1e-5 for 1e-3",
    f"{CNN}/value/f32", tensor="norm2", on_subject=True, **WRONG,
)  # fmt: skip
def batch_norm_epsilon(model: Model) -> Model:
    return with_settings(model, "norm2", epsilon=1e-5)


@fault(
    "torch", "batch-norm-inference", FAMILY, "batch normalization uses its running statistics in training",
    f"{CNN}@training/value/f32", tensor="norm1", on_subject=True, **WRONG,
)  # fmt: skip
def batch_norm_inference(model: Model) -> Model:
    return msgspec.structs.replace(model, training=False)


@fault(
    "torch", "batch-norm-unbiased", FAMILY, "batch normalization divides by n - 1 in the variance",
    f"{CNN}@training/value/f32", tensor="norm1", **WRONG,
)  # fmt: skip
def batch_norm_unbiased(program: Program, _: object) -> Program:
    def unbiased(healthy: Any, x: Tensor) -> Tensor:
        norm, over = healthy[0], (0, 2, 3)
        wide = (x.var(over, unbiased=True, keepdim=True) + norm.eps).sqrt()
        return (x - x.mean(over, keepdim=True)) / wide * norm.weight[:, None, None] + norm.bias[:, None, None]

    return in_layer(program, "norm1", unbiased)


@fault(
    "torch", "conv-padding-side", FAMILY, "a convolution pads by 2 before and 0 after, not 1 and 1",
    "autoencoder-sigmoid/value/f32", tensor="conv1", **WRONG,
)  # fmt: skip
def conv_padding_side(program: Program, _: object) -> Program:
    from torch.nn.functional import conv2d, pad

    return in_layer(
        program,
        "conv1",
        lambda healthy_layer, x: conv2d(pad(x, (2, 0)), healthy_layer[0].weight, healthy_layer[0].bias),
    )


@fault(
    "torch", "conv-flipped", FAMILY, "a convolution turns its kernel round instead of correlating",
    "autoencoder-sigmoid/value/f32", tensor="conv2", **WRONG,
)  # fmt: skip
def conv_flipped(program: Program, _: object) -> Program:
    from torch.nn.functional import conv2d

    return in_layer(
        program,
        "conv2",
        lambda healthy_layer, x: conv2d(x, healthy_layer[0].weight.flip(2, 3), healthy_layer[0].bias, padding="same"),
    )


@fault(
    "torch", "pool-average", FAMILY, "a max pooling takes the average",
    f"{CNN}/value/f32", tensor="pool1", **WRONG,
)  # fmt: skip
def pool_average(program: Program, _: object) -> Program:
    from torch.nn.functional import avg_pool2d

    return in_layer(program, "pool1", lambda _, x: avg_pool2d(x, 2))


@fault(
    "torch", "flatten-channels-first", FAMILY, "an image is flattened channels first",
    f"{CNN}/value/f32", tensor="flatten", **WRONG,
)  # fmt: skip
def flatten_channels_first(program: Program, _: object) -> Program:
    return in_layer(program, "flatten", lambda _, x: x.permute(0, 3, 1, 2).flatten(1))


@fault(
    "torch", "resize-rounding", FAMILY, "nearest neighbours are looked up one pixel to the left",
    "autoencoder-relu/value/f32", tensor="up4", **WRONG,
)  # fmt: skip
def resize_rounding(program: Program, _: object) -> Program:
    return in_layer(program, "up4", lambda healthy, x: healthy(x).roll(1, dims=-1))


@fault(
    "torch", "dropout-unscaled", FAMILY, "dropout in training does not divide by 1 - rate",
    f"{REGRESSION}@training/value/f32", tensor="dropout1", on_subject=True, **WRONG,
)  # fmt: skip
def dropout_unscaled(model: Model) -> Model:
    return with_settings(model, "dropout1", rate=0.0)


@fault(
    "torch", "dropout-mask-reused", FAMILY, "the second dropout has the mask of the first",
    f"{REGRESSION}@training/value/f32", tensor="dropout2", **WRONG,
)  # fmt: skip
def dropout_mask_reused(program: Program, _: object) -> Program:
    masks: list[Tensor] = []

    def remember(healthy: Any, x: Tensor, mask: Tensor) -> Tensor:
        masks[:] = [mask]
        dropped: Tensor = healthy(x, mask)
        return dropped

    in_layer(program, "dropout1", remember)
    return in_layer(program, "dropout2", lambda healthy, x, _: healthy(x, masks[0][:, : x.shape[1]]))


@fault(
    "torch", "gelu-tanh-in-layer", FAMILY, "one layer has the gelu by tanh for that by erf",
    f"{BLOCK}/value/f32", tensor="gelu", on_subject=True, **WRONG,
)  # fmt: skip
def gelu_tanh_in_layer(model: Model) -> Model:
    return with_settings(model, "gelu", kernel="gelu-tanh")


@fault(
    "torch", "softmax-over-batch", FAMILY, "one softmax runs over the batch",
    "mlp-softmax/value/f32", tensor="act3", **WRONG,
)  # fmt: skip
def softmax_over_batch(program: Program, _: object) -> Program:
    return in_layer(program, "act3", lambda _, x: x.softmax(dim=0))


@fault(
    "torch", "bias-forgotten", FAMILY, "one dense layer leaves out its bias",
    f"{REGRESSION}/value/f32", tensor="dense3", **WRONG,
)  # fmt: skip
def bias_forgotten(program: Program, _: object) -> Program:
    return in_layer(program, "dense3", lambda healthy_layer, x: x @ healthy_layer[0].weight.T)


@fault(
    "torch", "weights-transposed", FAMILY, "the square kernel of one dense layer is transposed",
    "attention-softmax/value/f32", tensor="key", **WRONG,
)  # fmt: skip
def weights_transposed(program: Program, _: object) -> Program:
    return in_layer(program, "key", lambda healthy_layer, x: x @ healthy_layer[0].weight + healthy_layer[0].bias)


@fault(
    "torch", "layer-in-f16", FAMILY, "one dense layer of a float32 model computes in float16",
    "linear-stack/value/f32", tensor="dense2", **WRONG,
)  # fmt: skip
def layer_in_f16(program: Program, _: object) -> Program:
    return in_layer(
        program,
        "dense2",
        lambda healthy_layer, x: (x.half() @ healthy_layer[0].weight.half().T + healthy_layer[0].bias.half()).float(),
    )


@fault(
    "torch", "layer-in-bf16-sums", FAMILY, "one dense layer rounds its operands to bfloat16, as some matrix units do",
    "blobs-mlp/value/f32", tensor="dense3", **WRONG,
)  # fmt: skip
def layer_in_bf16(program: Program, _: object) -> Program:
    return in_layer(
        program,
        "dense3",
        lambda healthy_layer, x: (
            x.bfloat16().float() @ healthy_layer[0].weight.bfloat16().float().T + healthy_layer[0].bias
        ),
    )


@fault(
    "torch", "attention-unscaled", FAMILY, "attention does not divide by the root of the width",
    "attention-softmax/value/f32", tensor="attention", **WRONG,
)  # fmt: skip
def attention_unscaled(program: Program, _: object) -> Program:
    return in_layer(program, "attention", lambda healthy, q, k, v: healthy(q * q.shape[-1] ** 0.5, k, v))


@fault(
    "torch", "attention-causal", FAMILY, "attention looks back only, unasked",
    "attention-softmax/value/f32", tensor="attention", **WRONG,
)  # fmt: skip
def attention_causal(program: Program, _: object) -> Program:
    from torch.nn.functional import scaled_dot_product_attention

    return in_layer(program, "attention", lambda _, q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True))


@fault(
    "torch", "loss-summed", FAMILY, "a loss is the sum, not the mean",
    "linear-stack/value/f32", tensor="loss", **WRONG,
)  # fmt: skip
def loss_summed(program: Program, _: object) -> Program:
    return in_layer(program, "loss", lambda healthy, y, target: healthy(y, target) * y.numel())


@fault(
    "torch", "sharpen-ignores-gamma", FAMILY, "sharpening takes no power",
    "ntm-addressing/value/f32", tensor="weights", **WRONG,
)  # fmt: skip
def sharpen_ignores_gamma(program: Program, _: object) -> Program:
    return in_layer(program, "weights", lambda healthy, w, gamma: healthy(w, gamma.new_ones(gamma.shape)))


@fault(
    "torch", "shift-backwards", FAMILY, "the circular shift moves the other way",
    "ntm-addressing/value/f32", tensor="shifted", **WRONG,
)  # fmt: skip
def shift_backwards(program: Program, _: object) -> Program:
    return in_layer(program, "shifted", lambda healthy, w, s: healthy(w, s.flip(-1)))


@fault(
    "torch", "link-direction", FAMILY, "the forward weighting follows the temporal links backwards",
    "dnc-memory/value/f32", tensor="ahead", on_subject=True, **WRONG,
)  # fmt: skip
def link_direction(model: Model) -> Model:
    return with_settings(model, "ahead", transposed=1)
