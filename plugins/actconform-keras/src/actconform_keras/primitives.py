"""The elementary functions of TensorFlow, over numpy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actconform_keras.keras_module import keras_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from actconform_keras.engines import Engine

    Compute = Callable[..., NDArray[Any]]


def primitives(engine: Engine) -> dict[str, Compute]:
    """Return them by name, as `engine` computes them."""
    math = keras_on("tensorflow").math
    names = (
        "exp",
        "expm1",
        "log",
        "log1p",
        "tanh",
        "sigmoid",
        "erf",
        "erfc",
        "softplus",
        "sqrt",
        "rsqrt",
        "reciprocal",
    )
    functions = {name: getattr(math, name) for name in names} | {"division": math.divide}
    return {name: _over_arrays(function, engine) for name, function in functions.items()}


def _over_arrays(function: Callable[..., Any], engine: Engine) -> Compute:
    compiled = engine.compiled(lambda *operands: {"y": function(*operands)})

    def compute(*operands: NDArray[Any]) -> NDArray[Any]:
        tensors = engine.tensors({str(place): operand for place, operand in enumerate(operands)})
        return engine.arrays(engine.whole(compiled, *tensors.values())())["y"]

    return compute
