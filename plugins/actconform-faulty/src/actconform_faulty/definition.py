"""Faults of definition: another function, another parameter or another axis than the kernel's."""
# ruff: noqa: D103  one function a fault; what it does stands in its registration

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace

from actconform_faulty.changed import with_y
from actconform_faulty.injected import Answering, fault

if TYPE_CHECKING:
    from actconform import Kernel, Program
    from actconform_faulty.changed import Tensors

FAMILY = "definition"
OFF = {"findings": "scaled-error", "blames": "framework"}
BUILT = {**OFF, "on_subject": True}


@fault("torch", "gelu-erf-as-tanh", FAMILY, "gelu of erf is its tanh approximation", "gelu-erf/value/f32", **BUILT)
def gelu_erf_as_tanh(kernel: Kernel) -> Kernel:
    return replace(kernel, name="gelu-tanh")


@fault("torch", "gelu-tanh-as-erf", FAMILY, "gelu's tanh approximation is that of erf", "gelu-tanh/value/f32", **BUILT)
def gelu_tanh_as_erf(kernel: Kernel) -> Kernel:
    return replace(kernel, name="gelu-erf")


@fault("torch", "elu-alpha", FAMILY, "alpha of elu is 1, not 0.5", "elu-half/value/f32", **BUILT)
def elu_alpha(kernel: Kernel) -> Kernel:
    return replace(kernel, parameters={"alpha": 1.0})


@fault("torch", "leaky-relu-slope", FAMILY, "the slope is 0.02, not 0.01", "leaky-relu/value/f32", **BUILT)
def leaky_relu_slope(kernel: Kernel) -> Kernel:
    return replace(kernel, parameters={"alpha": 0.02})


@fault(
    "torch", "thresholded-relu-threshold", FAMILY, "the threshold is 0.99, not 1", "thresholded-relu/value/f32", **BUILT
)
def thresholded_relu_threshold(kernel: Kernel) -> Kernel:
    return replace(kernel, parameters={"alpha": 0.99})


@fault(
    "torch",
    "thresholded-relu-inclusive",
    FAMILY,
    "x itself at the threshold, not 0",
    "thresholded-relu/value/f32",
    **OFF,
)
def thresholded_relu_inclusive(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda x, y: np.where(x == 1.0, x, y))


@fault(
    "torch", "threshold-default", FAMILY, "0 below the threshold, not the default -1", "threshold/value/f32", **BUILT
)
def threshold_default(kernel: Kernel) -> Kernel:
    return replace(kernel, parameters={**kernel.parameters, "default": 0.0})


@fault("torch", "softplus-beta", FAMILY, "beta is 1, not 2", "softplus-beta/value/f32", **BUILT)
def softplus_beta(kernel: Kernel) -> Kernel:
    return replace(kernel, parameters={"beta": 1.0})


@fault("torch", "selu-four-digits", FAMILY, "selu's constants are 1.0507 and 1.6733", "selu/value/f32", **OFF)
def selu_four_digits(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda x, _y: 1.0507 * np.where(x > 0.0, x, 1.6733 * np.expm1(np.minimum(x, 0.0))))


@fault(
    "torch", "hard-sigmoid-variant", FAMILY, "relu6(x + 3) / 6 for 0.2 x + 0.5", "hard-sigmoid-onnx/value/f32", **OFF
)
def hard_sigmoid_variant(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda x, _y: np.clip(x + 3.0, 0.0, 6.0) / 6.0)


@fault("torch", "softmax-axis", FAMILY, "softmax over the last axis, not axis 1", "softmax-axis1/value/f32", **BUILT)
def softmax_axis(kernel: Kernel) -> Kernel:
    return replace(kernel, axis=-1)


@fault("torch", "celu-alpha", FAMILY, "celu takes no notice of alpha", "celu/value/f32", **BUILT)
def celu_alpha(kernel: Kernel) -> Kernel:
    return replace(kernel, parameters={"alpha": 1.0})


@fault("torch", "prelu-shared-slope", FAMILY, "the first slope serves the whole axis", "prelu/value/f32", **OFF)
def prelu_shared_slope(program: Program, _: Kernel) -> Program:
    def shared(inputs: Tensors, _outputs: Tensors) -> Tensors:
        return dict(program.forward({**inputs, "slope": np.full_like(inputs["slope"], inputs["slope"][0])}))

    return Answering(program, shared)


@fault("torch", "hard-swish-sixth", FAMILY, "times 0.1666 for a sixth", "hard-swish/value/f32", **OFF)
def hard_swish_sixth(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda x, _y: x * np.clip(x + 3.0, 0.0, 6.0) * 0.1666)


@fault("torch", "swish-beta", FAMILY, "swish takes no notice of beta", "swish/value/f32", **BUILT)
def swish_beta(kernel: Kernel) -> Kernel:
    return replace(kernel, parameters={"beta": 1.0})


@fault("torch", "quick-gelu-alpha", FAMILY, "alpha is 1.7, not 1.702", "quick-gelu/value/f32", **BUILT)
def quick_gelu_alpha(kernel: Kernel) -> Kernel:
    return replace(kernel, parameters={"alpha": 1.7})


@fault("torch", "softsign-offset", FAMILY, "x / (1.00001 + |x|): an epsilon too many", "softsign/value/f32", **OFF)
def softsign_offset(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda x, _y: x / (1.00001 + np.abs(x)))


@fault(
    "torch", "soft-shrink-as-hard", FAMILY, "hard-shrink: lambda is not taken away", "soft-shrink/value/f32", **BUILT
)
def soft_shrink_as_hard(kernel: Kernel) -> Kernel:
    return replace(kernel, name="hard-shrink")


@fault("torch", "softmin-as-softmax", FAMILY, "softmin forgets the minus", "softmin/value/f32", **BUILT)
def softmin_as_softmax(kernel: Kernel) -> Kernel:
    return replace(kernel, name="softmax")


@fault("torch", "glu-halves", FAMILY, "the first half gates the second", "glu/value/f32", **OFF)
def glu_halves(program: Program, _: Kernel) -> Program:
    def swapped(inputs: Tensors, _outputs: Tensors) -> Tensors:
        a, b = np.split(inputs["x"], 2, axis=-1)
        return dict(program.forward({"x": np.concatenate([b, a], axis=-1)}))

    return Answering(program, swapped)


@fault("torch", "argmax-last", FAMILY, "the last of several maxima", "argmax/value/f32", **OFF)
def argmax_last(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda x, _y: x.shape[-1] - 1 - np.argmax(x[..., ::-1], axis=-1))
