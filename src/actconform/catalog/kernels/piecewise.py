"""Unary kernels made of straight or quadratic pieces."""

from __future__ import annotations

from math import inf, nan

from actconform.types import Convention, Kernel, Kink, f32

TORCH = "torch.nn.functional"
KERAS = "keras.activations"
ONNX = "ONNX"
POSITIVE_ZERO = "f(+-0) = +0"
PRODUCT = "x * g(x) is -inf * 0 where it is computed as written; the limit is -0"


def _leaky(name: str, slope: float, source: str, *, defaults_only: bool = False) -> Kernel:
    return Kernel(
        name=name,
        definition="x where x > 0, else alpha x",
        source=source,
        parameters={"alpha": f32(slope)},
        tier="exact",
        exact_ulp=0.5,
        kinks=(Kink(0.0, f32(slope), 1.0),),
        at_infinity=(-inf, inf),
        gradient_at_infinity=(f32(slope), 1.0),
        defaults_only=defaults_only,
    )


def _hard_sigmoid_onnx(name: str, *, defaults_only: bool = False) -> Kernel:
    alpha = f32(0.2)
    return Kernel(
        name=name,
        definition="min(1, max(0, alpha x + beta))",
        source="ONNX HardSigmoid (alpha 0.2, beta 0.5); Keras 2",
        parameters={"alpha": alpha, "beta": 0.5},
        range=(0.0, 1.0),
        kinks=(Kink(-0.5 / alpha, 0.0, alpha), Kink(0.5 / alpha, alpha, 0.0)),
        at_infinity=(0.0, 1.0),
        gradient_at_infinity=(0.0, 0.0),
        defaults_only=defaults_only,
    )


_PIECEWISE = (
    Kernel(
        name="linear",
        signed_zero=True,
        definition="x",
        source=f"{KERAS}.linear, ONNX Identity",
        tier="exact",
        at_infinity=(-inf, inf),
        gradient_at_infinity=(1.0, 1.0),
    ),
    Kernel(
        name="relu",
        definition="x where x > 0, else +0 (IEEE 754-2019 maximum(x, +0))",
        source=ONNX,
        tier="exact",
        range=(0.0, inf),
        kinks=(Kink(0.0, 0.0, 1.0),),
        at_infinity=(0.0, inf),
        gradient_at_infinity=(0.0, 1.0),
        zero_sign=POSITIVE_ZERO,
    ),
    _leaky("leaky-relu", 0.01, "torch and ONNX default slope"),
    _leaky("leaky-relu-0.2", 0.2, "Keras function's default slope"),
    _leaky("leaky-relu-0.3", 0.3, "Keras layer's default slope"),
    _hard_sigmoid_onnx("hard-sigmoid-onnx"),
    Kernel(
        name="hard-sigmoid-relu6",
        definition="relu6(x + 3) / 6",
        source="MobileNetV3; torch, Keras 3",
        range=(0.0, 1.0),
        kinks=(Kink(-3.0, 0.0, 1 / 6), Kink(3.0, 1 / 6, 0.0)),
        at_infinity=(0.0, 1.0),
        gradient_at_infinity=(0.0, 0.0),
    ),
    Kernel(
        name="hard-swish",
        definition="x relu6(x + 3) / 6",
        source="MobileNetV3; ONNX HardSwish",
        range=(-0.379, inf),
        scale="input",
        kinks=(Kink(-3.0, 0.0, -0.5), Kink(3.0, 1.5, 1.0)),
        gradient_roots=(-1.5,),
        at_infinity=(-0.0, inf),
        gradient_at_infinity=(0.0, 1.0),
        conventions=(Convention("value", (-inf,), PRODUCT, (nan,)),),
    ),
    Kernel(
        name="hard-tanh",
        signed_zero=True,
        definition="min(1, max(-1, x))",
        source=f"{TORCH}.hardtanh; ONNX Clip",
        tier="exact",
        range=(-1.0, 1.0),
        kinks=(Kink(-1.0, 0.0, 1.0), Kink(1.0, 1.0, 0.0)),
        at_infinity=(-1.0, 1.0),
        gradient_at_infinity=(0.0, 0.0),
    ),
    Kernel(
        name="relu6",
        definition="min(6, max(0, x))",
        source=f"{TORCH}.relu6; ONNX Clip",
        tier="exact",
        range=(0.0, 6.0),
        kinks=(Kink(0.0, 0.0, 1.0), Kink(6.0, 1.0, 0.0)),
        at_infinity=(0.0, 6.0),
        gradient_at_infinity=(0.0, 0.0),
        zero_sign=POSITIVE_ZERO,
    ),
    Kernel(
        name="relu-squared",
        definition="max(0, x)^2",
        source="So et al. 2021 (Primer)",
        tier="exact",
        exact_ulp=0.5,
        range=(0.0, inf),
        at_infinity=(0.0, inf),
        gradient_at_infinity=(0.0, inf),
        zero_sign=POSITIVE_ZERO,
    ),
    Kernel(
        name="thresholded-relu",
        definition="x where x > alpha, else 0",
        source="Konda et al. 2014; ONNX ThresholdedRelu alpha=1",
        parameters={"alpha": 1.0},
        tier="exact",
        range=(0.0, inf),
        kinks=(Kink(1.0, 0.0, 1.0),),
        at_infinity=(0.0, inf),
        gradient_at_infinity=(0.0, 1.0),
        zero_sign=POSITIVE_ZERO,
    ),
    Kernel(
        name="threshold",
        definition="x where x > threshold, else default",
        source=f"{TORCH}.threshold, {KERAS}.threshold",
        parameters={"threshold": 0.5, "default": -1.0},
        tier="exact",
        range=(-1.0, inf),
        kinks=(Kink(0.5, 0.0, 1.0),),
        at_infinity=(-1.0, inf),
        gradient_at_infinity=(0.0, 1.0),
    ),
    Kernel(
        name="hard-shrink",
        signed_zero=True,
        definition="x where |x| > lambda, else +0",
        source=f"{TORCH}.hardshrink; ONNX Shrink",
        parameters={"lambda": 0.5},
        tier="exact",
        kinks=(Kink(-0.5, 1.0, 0.0), Kink(0.5, 0.0, 1.0)),
        at_infinity=(-inf, inf),
        gradient_at_infinity=(1.0, 1.0),
        zero_sign=POSITIVE_ZERO,
    ),
    Kernel(
        name="soft-shrink",
        definition="x - lambda where x > lambda, x + lambda where x < -lambda, else +0",
        source=f"{TORCH}.softshrink; ONNX Shrink",
        parameters={"lambda": 0.5},
        tier="exact",
        exact_ulp=0.5,
        kinks=(Kink(-0.5, 1.0, 0.0), Kink(0.5, 0.0, 1.0)),
        at_infinity=(-inf, inf),
        gradient_at_infinity=(1.0, 1.0),
        zero_sign=POSITIVE_ZERO,
    ),
    Kernel(
        name="sparse-plus",
        definition="0 where x <= -1, (x + 1)^2 / 4 where |x| < 1, x where x >= 1",
        source=f"{KERAS}.sparse_plus",
        range=(0.0, inf),
        at_infinity=(0.0, inf),
        gradient_at_infinity=(0.0, 1.0),
    ),
    Kernel(
        name="sparse-sigmoid",
        definition="0 where x <= -1, (x + 1) / 2 where |x| < 1, 1 where x >= 1",
        source=f"{KERAS}.sparse_sigmoid",
        range=(0.0, 1.0),
        kinks=(Kink(-1.0, 0.0, 0.5), Kink(1.0, 0.5, 0.0)),
        at_infinity=(0.0, 1.0),
        gradient_at_infinity=(0.0, 0.0),
    ),
    _leaky("leaky-relu-default", 0.01, "called without a slope; ONNX's default is the definition", defaults_only=True),
    _hard_sigmoid_onnx("hard-sigmoid-default", defaults_only=True),
)
PIECEWISE = tuple(kernel.with_pieces() for kernel in _PIECEWISE)
