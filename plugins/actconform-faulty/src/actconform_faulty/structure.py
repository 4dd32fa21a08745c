"""Structure: right numbers at the wrong place, in the wrong shape or dtype, or under the wrong name; some elements never computed."""
# ruff: noqa: D103  one function a fault; what it does stands in its registration

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actconform_faulty.injected import Answering, fault

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform import Program
    from actconform.types import Bundle

FAMILY = "structure"


def repeat_first_row(_: Bundle, outputs: Bundle) -> Bundle:
    """As a graph that was exported at batch 1 and broadcast."""
    return {"y": np.repeat(outputs["y"][:1], len(outputs["y"]), axis=0)}


def leave_tail(inputs: Bundle, outputs: Bundle) -> Bundle:
    """As a vector loop of 8 without the scalar rest after it: the last elements are what came in."""
    y = outputs["y"].copy()
    whole = y.size - y.size % 8
    y.ravel()[whole:] = inputs["x"].ravel()[whole:]
    return {"y": y}


def spoil_element(outputs: Bundle, index: int) -> Bundle:
    """Double one element, where the array is long enough."""
    y = outputs["y"].copy()
    y.ravel()[index : index + 1] *= y.dtype.type(2)
    return {"y": y}


def give_constant(_: Bundle, outputs: Bundle) -> Bundle:
    """As a graph whose input was folded to a constant."""
    return {"y": np.full_like(outputs["y"], outputs["y"].ravel()[0])}


def _exchanged(outputs: Bundle, one: str, other: str) -> Bundle:
    return {**outputs, one: outputs[other], other: outputs[one]}


def _cast(outputs: Bundle, dtype: Any) -> dict[str, NDArray[Any]]:
    with np.errstate(over="ignore"):
        return {name: array.astype(dtype) for name, array in outputs.items()}


@fault(
    "torch", "outputs-swapped", FAMILY, "y and loss of a model are exchanged",
    "linear-stack/value/f32", findings="shape", blames="framework", tensor="y",
)  # fmt: skip
def outputs_swapped(program: Program, _: object) -> Program:
    return Answering(program, lambda _, outputs: _exchanged(outputs, "y", "loss"))


@fault(
    "torch", "gradients-swapped", FAMILY, "the gradients of two kernels of one shape are exchanged",
    "attention-softmax/gradient/f32", findings="scaled-error", blames="framework", tensor="d_query.kernel",
)  # fmt: skip
def gradients_swapped(program: Program, _: object) -> Program:
    return Answering(program, vjp=lambda _, outputs: _exchanged(outputs, "d_query.kernel", "d_key.kernel"))


@fault(
    "torch", "output-transposed", FAMILY, "rows and columns of the output are exchanged",
    "softmax/value/f32", findings="shape", blames="framework",
)  # fmt: skip
def output_transposed(program: Program, _: object) -> Program:
    return Answering(program, lambda _, outputs: {"y": outputs["y"].T})


@fault(
    "torch", "rows-reversed", FAMILY, "the rows come in the opposite order",
    "softmax/value/f32", findings="scaled-error", blames="framework",
)  # fmt: skip
def rows_reversed(program: Program, _: object) -> Program:
    return Answering(program, lambda _, outputs: {"y": outputs["y"][::-1]})


@fault(
    "torch", "output-f64", FAMILY, "float32 in, float64 out",
    "sigmoid/value/f32", findings="dtype", blames="framework",
)  # fmt: skip
def output_f64(program: Program, _: object) -> Program:
    return Answering(program, lambda _, outputs: _cast(outputs, np.float64))


@fault(
    "torch", "output-f16", FAMILY, "float32 in, float16 out",
    "relu/value/f32", findings="dtype", blames="framework",
)  # fmt: skip
def output_f16(program: Program, _: object) -> Program:
    return Answering(program, lambda _, outputs: _cast(outputs, np.float16))


@fault(
    "torch", "output-flat", FAMILY, "a matrix comes back as one long row",
    "softmax/value/f32", findings="shape", blames="framework",
)  # fmt: skip
def output_flat(program: Program, _: object) -> Program:
    return Answering(program, lambda _, outputs: {"y": outputs["y"].ravel()})


@fault(
    "torch", "extra-axis", FAMILY, "the output has a leading axis of length 1",
    "relu/value/f32", findings="shape", blames="framework",
)  # fmt: skip
def extra_axis(program: Program, _: object) -> Program:
    return Answering(program, lambda _, outputs: {"y": outputs["y"][np.newaxis]})


@fault(
    "torch", "batch-fixed", FAMILY, "every row is the first",
    "softmax/value/f32", findings="scaled-error", blames="framework",
)  # fmt: skip
def batch_fixed(program: Program, _: object) -> Program:
    return Answering(program, repeat_first_row)


@fault(
    "torch", "tail-left", FAMILY, "the last n % 8 elements are not computed",
    "sigmoid/value/f32", findings="scaled-error range", blames="framework",
)  # fmt: skip
def tail_left(program: Program, _: object) -> Program:
    return Answering(program, leave_tail)


@fault(
    "torch", "element-17", FAMILY, "element 17 alone is doubled",
    "tanh/value/f32", findings="scaled-error range", blames="framework",
)  # fmt: skip
def element_17(program: Program, _: object) -> Program:
    return Answering(program, lambda _, outputs: spoil_element(outputs, 17))


@fault(
    "torch", "last-element", FAMILY, "the last element alone is doubled",
    "softplus/value/f32", findings="scaled-error", blames="framework",
)  # fmt: skip
def last_element(program: Program, _: object) -> Program:
    return Answering(program, lambda _, outputs: spoil_element(outputs, outputs["y"].size - 1))


@fault(
    "torch", "last-row-missing", FAMILY, "the last row is left out",
    "softmax/value/f32", findings="shape", blames="framework",
)  # fmt: skip
def last_row_missing(program: Program, _: object) -> Program:
    return Answering(program, lambda _, outputs: {"y": outputs["y"][:-1]})


@fault(
    "torch", "output-renamed", FAMILY, "the output is called output_0",
    "relu/value/f32", findings="names", blames="framework",
)  # fmt: skip
def output_renamed(program: Program, _: object) -> Program:
    return Answering(program, lambda _, outputs: {"output_0": outputs["y"]})


@fault(
    "torch", "extra-output", FAMILY, "a second output that nobody asked for",
    "relu/value/f32", findings="names", blames="framework",
)  # fmt: skip
def extra_output(program: Program, _: object) -> Program:
    return Answering(program, lambda _, outputs: {**outputs, "mask": outputs["y"]})


@fault(
    "torch", "gradient-missing", FAMILY, "one parameter's gradient is left out",
    "linear-stack/gradient/f32", findings="names", blames="framework", tensor="d_dense2.bias",
)  # fmt: skip
def gradient_missing(program: Program, _: object) -> Program:
    without = lambda _, outputs: {n: array for n, array in outputs.items() if n != "d_dense2.bias"}  # noqa: E731
    return Answering(program, vjp=without)


@fault(
    "torch", "constant-output", FAMILY, "every element is the first",
    "gelu-erf/value/f32", findings="scaled-error", blames="framework",
)  # fmt: skip
def constant_output(program: Program, _: object) -> Program:
    return Answering(program, give_constant)


@fault(
    "ort", "batch-fixed", FAMILY, "every row is the first",
    "softmax/value/f32", findings="scaled-error", blames="runtime",
)  # fmt: skip
def runtime_batch_fixed(program: Program, _: object) -> Program:
    return Answering(program, repeat_first_row)


@fault(
    "ort", "tail-left", FAMILY, "the last n % 8 elements are not computed",
    "sigmoid/value/f32", findings="scaled-error range", blames="runtime",
)  # fmt: skip
def runtime_tail_left(program: Program, _: object) -> Program:
    return Answering(program, leave_tail)


@fault(
    "ort", "element-17", FAMILY, "element 17 alone is doubled",
    "softplus/value/f32", findings="scaled-error", blames="runtime",
)  # fmt: skip
def runtime_element_17(program: Program, _: object) -> Program:
    return Answering(program, lambda _, outputs: spoil_element(outputs, 17))


@fault(
    "ort", "constant-output", FAMILY, "every element is the first",
    "gelu-erf/value/f32", findings="scaled-error", blames="runtime",
)  # fmt: skip
def runtime_constant_output(program: Program, _: object) -> Program:
    return Answering(program, give_constant)


@fault(
    "ort", "output-f64", FAMILY, "float32 in, float64 out",
    "relu/value/f32", findings="dtype", blames="runtime",
)  # fmt: skip
def runtime_output_f64(program: Program, _: object) -> Program:
    return Answering(program, lambda _, outputs: _cast(outputs, np.float64))


@fault(
    "ort", "last-row-missing", FAMILY, "the last row is left out",
    "softmax/value/f32", findings="shape", blames="runtime",
)  # fmt: skip
def runtime_last_row_missing(program: Program, _: object) -> Program:
    return Answering(program, lambda _, outputs: {"y": outputs["y"][:-1]})


@fault(
    "ort", "output-renamed", FAMILY, "the output is called output_0",
    "relu/value/f32", findings="names", blames="runtime",
)  # fmt: skip
def runtime_output_renamed(program: Program, _: object) -> Program:
    return Answering(program, lambda _, outputs: {"output_0": outputs["y"]})
