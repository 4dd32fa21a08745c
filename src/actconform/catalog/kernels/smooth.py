"""Unary kernels that are smooth, or smooth on both sides of zero."""

from __future__ import annotations

from math import inf, nan

from actconform.types import Convention, Kernel, Kink, f32

SELU_SCALE = 1.0507009873554804934193349852946
SELU_SCALE_ALPHA = 1.0507009873554804934193349852946 * 1.6732632423543772848170429916717
SILU_ROOT = -1.278464542761073795109358739
TORCH = "torch.nn.functional"
KERAS = "keras.activations"
ONNX = "ONNX"

COMPOSED = "x * g(x) is -inf * 0 where it is computed as written; the limit is -0"
COMPOSED_GRADIENT = "products of inf and 0 in the derivative as written; the limit is finite"
AT_INFINITY = (
    Convention("value", (-inf,), COMPOSED, (nan,)),
    Convention("gradient", (-inf, inf), COMPOSED_GRADIENT, (nan,)),
)


def _gelu_erf(name: str, *, defaults_only: bool = False) -> Kernel:
    return Kernel(
        name=name,
        definition="x Phi(x) = x/2 (1 + erf(x / sqrt 2))",
        source="Hendrycks and Gimpel 2016; torch gelu, ONNX Gelu approximate=none",
        range=(-0.172, inf),
        scale="input",
        argument="square",
        gradient_roots=(-0.751791524693564457457904947,),
        at_infinity=(-0.0, inf),
        gradient_at_infinity=(-0.0, 1.0),
        conventions=AT_INFINITY,
        defaults_only=defaults_only,
    )


def _sigmoid_product(name: str, definition: str, source: str, parameters: dict[str, float], root: float) -> Kernel:
    return Kernel(
        name=name,
        definition=definition,
        source=source,
        parameters=parameters,
        range=(1.01 * (1 + SILU_ROOT) * root / SILU_ROOT, inf),
        scale="input",
        argument="product" if parameters else "x",
        gradient_roots=(root,),
        at_infinity=(-0.0, inf),
        gradient_at_infinity=(-0.0, 1.0),
        conventions=AT_INFINITY,
    )


SMOOTH = (
    Kernel(
        name="sigmoid",
        definition="1 / (1 + exp(-x))",
        source=ONNX,
        range=(0.0, 1.0),
        at_infinity=(0.0, 1.0),
        gradient_at_infinity=(0.0, 0.0),
    ),
    Kernel(
        name="tanh",
        signed_zero=True,
        definition="tanh(x)",
        source=ONNX,
        range=(-1.0, 1.0),
        at_infinity=(-1.0, 1.0),
        gradient_at_infinity=(0.0, 0.0),
    ),
    Kernel(
        name="elu",
        definition="x where x > 0, else expm1(x)",
        source="Clevert et al. 2015; ONNX Elu alpha=1",
        range=(-1.0, inf),
        kinks=(Kink(0.0, 1.0, 1.0),),
        at_infinity=(-1.0, inf),
        gradient_at_infinity=(0.0, 1.0),
    ).with_pieces(),
    Kernel(
        name="elu-half",
        definition="x where x > 0, else alpha expm1(x)",
        source="ONNX Elu alpha=0.5",
        parameters={"alpha": 0.5},
        range=(-0.5, inf),
        kinks=(Kink(0.0, 0.5, 1.0),),
        at_infinity=(-0.5, inf),
        gradient_at_infinity=(0.0, 1.0),
    ).with_pieces(),
    Kernel(
        name="selu",
        definition="lambda x where x > 0, else lambda alpha expm1(x); lambda 1.0507009873554805, alpha 1.6732632423543772",
        source="Klambauer et al. 2017; ONNX Selu",
        range=(-1.7581, inf),
        kinks=(Kink(0.0, SELU_SCALE_ALPHA, SELU_SCALE),),
        at_infinity=(-SELU_SCALE_ALPHA, inf),
        gradient_at_infinity=(0.0, SELU_SCALE),
    ).with_pieces(),
    Kernel(
        name="celu",
        definition="x where x > 0, else alpha expm1(x / alpha)",
        source="Barron 2017; ONNX Celu",
        parameters={"alpha": 1.5},
        range=(-1.5, inf),
        kinks=(Kink(0.0, 1.0, 1.0),),
        at_infinity=(-1.5, inf),
        gradient_at_infinity=(0.0, 1.0),
    ).with_pieces(),
    Kernel(
        name="softsign",
        signed_zero=True,
        definition="x / (1 + |x|)",
        source=ONNX,
        range=(-1.0, 1.0),
        at_infinity=(-1.0, 1.0),
        gradient_at_infinity=(0.0, 0.0),
        conventions=(
            Convention("value", (-inf, inf), "inf / inf as written; the limit is +-1", (nan,)),
            Convention("gradient", (-inf, inf), COMPOSED_GRADIENT, (nan,)),
        ),
    ),
    _gelu_erf("gelu-erf"),
    Kernel(
        name="gelu-tanh",
        definition="x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))",
        source="Hendrycks and Gimpel 2016; ONNX Gelu approximate=tanh",
        range=(-0.172, inf),
        scale="input",
        gradient_scale="gelu-tanh",
        gradient_roots=(-0.752461422071016258487954443,),
        argument="x",
        at_infinity=(-0.0, inf),
        gradient_at_infinity=(-0.0, 1.0),
        conventions=AT_INFINITY,
    ),
    _sigmoid_product("silu", "x sigmoid(x)", "torch silu; ONNX Swish alpha=1 (opset 24)", {}, SILU_ROOT),
    _sigmoid_product(
        "swish", "x sigmoid(beta x)", "Ramachandran et al. 2017; ONNX Swish", {"beta": 1.5}, SILU_ROOT / 1.5
    ),
    _sigmoid_product(
        "quick-gelu",
        "x sigmoid(alpha x)",
        "Hendrycks and Gimpel 2016; CLIP",
        {"alpha": f32(1.702)},
        SILU_ROOT / f32(1.702),
    ),
    Kernel(
        name="mish",
        definition="x tanh(softplus(x))",
        source="Misra 2019; ONNX Mish",
        range=(-0.312, inf),
        scale="input",
        gradient_roots=(-1.192431214515495212137588340,),
        argument="x",
        at_infinity=(-0.0, inf),
        gradient_at_infinity=(-0.0, 1.0),
        conventions=AT_INFINITY,
    ),
    Kernel(
        name="softplus",
        definition="log(1 + exp(x))",
        source="ONNX Softplus",
        range=(0.0, inf),
        at_infinity=(0.0, inf),
        gradient_at_infinity=(0.0, 1.0),
    ),
    Kernel(
        name="softplus-beta",
        definition="log(1 + exp(beta x)) / beta",
        source=f"{TORCH}.softplus beta=2",
        parameters={"beta": 2.0},
        range=(0.0, inf),
        at_infinity=(0.0, inf),
        gradient_at_infinity=(0.0, 1.0),
    ),
    Kernel(
        name="log-sigmoid",
        definition="-log(1 + exp(-x))",
        source=f"{TORCH}.logsigmoid",
        range=(-inf, 0.0),
        at_infinity=(-inf, -0.0),
        gradient_at_infinity=(1.0, 0.0),
    ),
    Kernel(
        name="tanh-shrink",
        definition="x - tanh(x)",
        source=f"{TORCH}.tanhshrink, {KERAS}.tanh_shrink",
        scale="input",
        at_infinity=(-inf, inf),
        gradient_at_infinity=(1.0, 1.0),
    ),
    Kernel(
        name="squareplus",
        definition="(x + sqrt(x^2 + b)) / 2",
        source=f"Barron 2021; {KERAS}.squareplus b=4",
        parameters={"b": 4.0},
        range=(0.0, inf),
        scale="input",
        at_infinity=(0.0, inf),
        gradient_at_infinity=(0.0, 1.0),
        conventions=(
            Convention("value", (-inf,), "-inf + inf as written; the limit is 0", (nan,)),
            Convention("gradient", (-inf, inf), COMPOSED_GRADIENT, (nan,)),
        ),
    ),
    Kernel(
        name="exponential",
        definition="exp(x)",
        source=f"{KERAS}.exponential; ONNX Exp",
        range=(0.0, inf),
        at_infinity=(0.0, inf),
        gradient_at_infinity=(0.0, inf),
    ),
    _gelu_erf("gelu-default", defaults_only=True),
)
