"""From a list of layers to a checked Model: what does not fit is refused with the layer and the shapes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from actconform.catalog.models.layer_kinds import KINDS, LOSSES
from actconform.errors import DescriptionError, ShapeError, near
from actconform.types.model import LOSS, OUTPUT, Input, Layer, Model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.types.model import Parameter, Setting, Shape

EXPECTED = {
    "rate": "a number in [0, 1)",
    "epsilon": "a number that is not negative",
    "momentum": "a number in [0, 1]",
    "transposed": "0 or 1",
}
ROLES = ("data", "target", "noise")
DRAWS = ("normal", "uniform", "unit", "softmax", "one-hot", "binary", "gumbel", "mask")
RATE = re.compile(r"0(\.\d+)?")  # a mask's, below 1
NAME = re.compile(r"[a-z][a-z0-9_-]*")


def layer(name: str, kind: str, *inputs: str, **settings: Setting) -> Layer:
    """Return a layer that reads `inputs`; underscores in the names of settings stand as they are."""
    return Layer(name=name, kind=kind, inputs=inputs, settings=settings)


def describe(
    name: str,
    source: str,
    inputs: Sequence[Input],
    layers: Sequence[Layer],
    *,
    output: str,
    batch: int,
    training: bool = False,
) -> Model:
    """Return the model of these layers, each with its defaults filled in, and all shapes and parameters worked out.

    The layers may stand in any order; they are put in one in which each reads only what stands before it. Raises
    DescriptionError, naming the layer, for an unknown kind or setting, a name that is taken or missing, a cycle, shapes that
    do not fit, a model whose only loss is not the layer "loss", an `output` that no layer bears, a layer or input that
    nothing reads, a target that other layers than the loss read, and dropout in training without a mask.
    """
    if type(batch) is not int or batch < 1:
        raise DescriptionError(f"model {name}: its batch is {batch!r}; expected a positive integer")
    shapes: dict[str, Shape] = {}
    for given in inputs:
        if given.name in shapes:
            raise DescriptionError(f"model {name}: two inputs are called {given.name!r}")
        _refuse_input(name, given)
        shapes[given.name] = given.shape
    parameters: list[Parameter] = []
    ordered = _ordered(name, layers, set(shapes))
    filled = []
    for one in ordered:
        try:
            complete = _complete(one)
            read = [shapes[source] for source in one.inputs]
            shapes[one.name] = KINDS[one.kind].shape(complete, read)
            parameters += KINDS[one.kind].parameters(complete, read)
        except ShapeError as error:
            raise DescriptionError(f"model {name}, layer {one.name} ({one.kind}): {error}") from error
        filled.append(complete)
    if output not in {one.name for one in filled}:
        raise DescriptionError(f"model {name}: output {output!r} is no layer{near(output, [o.name for o in filled])}")
    _refuse_misuse(name, inputs, filled, output=output, training=training)
    return Model(
        name=name,
        source=source,
        inputs=tuple(inputs),
        layers=tuple(filled),
        output=output,
        parameters=tuple(parameters),
        shapes={one.name: shapes[one.name] for one in filled},
        batch=batch,
        training=training,
    )


def _refuse_input(model: str, given: Input) -> None:
    """Raise DescriptionError for an input that cannot be drawn, or whose name is taken or unfit."""
    what = f"model {model}, input {given.name}"
    if given.name in (OUTPUT, LOSS):
        raise DescriptionError(f"model {model}: an input is called {given.name!r}, as what the model gives; rename it")
    if not NAME.fullmatch(given.name):
        wanted = "wanted lower case letters, digits, _ and -"
        raise DescriptionError(f"model {model}: an input is called {given.name!r}: {wanted}")
    if given.role not in ROLES:
        raise DescriptionError(f"{what}: its role is {given.role!r}; expected {', '.join(ROLES)}")
    if not given.shape or not all(type(size) is int and size > 0 for size in given.shape):
        raise DescriptionError(f"{what}: its shape without the batch is {given.shape}; expected positive integers")
    how, _, rate = given.draw.partition(":")
    if how not in DRAWS:
        raise DescriptionError(f"{what}: no way to draw is called {given.draw!r}{near(how, list(DRAWS))}")
    if (how == "mask") != bool(rate) or (rate and not RATE.fullmatch(rate)):
        raise DescriptionError(f"{what}: it draws {given.draw!r}; expected a rate for masks alone, such as mask:0.25")


def _refuse_misuse(name: str, inputs: Sequence[Input], layers: Sequence[Layer], *, output: str, training: bool) -> None:
    """Raise DescriptionError where the parts fit, and do not make a network with an output and a loss."""
    losses = [one.name for one in layers if one.kind in LOSSES]
    if losses != [LOSS] or layers[-1].name != LOSS or output == LOSS:
        expected = f"expected one loss, the last layer, called {LOSS!r}, which is not the output"
        raise DescriptionError(f"model {name}: {expected}; found {losses}, the last layer is {layers[-1].name}")
    targets = {one.name for one in inputs if one.role == "target"}
    read = {source for one in layers for source in one.inputs}
    names = [one.name for one in inputs] + [one.name for one in layers]
    unread = [one for one in names if one not in read | {LOSS}]
    if unread:
        raise DescriptionError(f"model {name}: nothing reads {', '.join(unread)}")
    for one in layers:
        wanted = targets & {one.inputs[1]} if one.kind in LOSSES else set()
        if targets & set(one.inputs) != wanted or (one.kind in LOSSES and not wanted):
            read_by = f"model {name}, layer {one.name} ({one.kind}) reads {', '.join(one.inputs)}"
            raise DescriptionError(f"{read_by}; expected the loss, and nothing else, to read a target, second")
        if one.kind == "dropout" and (len(one.inputs) == 2) != training:
            mend = "in training it reads a mask" if training else "a mask is for training"
            raise DescriptionError(f"model {name}, layer {one.name} (dropout) reads {', '.join(one.inputs)}: {mend}")


def _complete(one: Layer) -> Layer:
    """Return the layer with the defaults of its kind filled in; raise ShapeError for what its kind does not know or lacks."""
    kind = KINDS[one.kind]
    for setting in one.settings:
        if setting not in kind.settings:
            raise ShapeError(f"unknown setting {setting!r}{near(setting, list(kind.settings))}")
    settings = {**kind.settings, **one.settings}
    for setting, value in one.settings.items():
        _refuse_setting(setting, value)
    missing = [setting for setting, value in settings.items() if value is None]
    if missing:
        raise ShapeError(f"setting {', '.join(missing)} is missing")
    if len(one.inputs) not in kind.inputs:
        raise ShapeError(f"it reads {len(one.inputs)} inputs; expected {' or '.join(map(str, kind.inputs))}")
    return msgspec.structs.replace(one, settings=settings)


def _refuse_setting(setting: str, value: Setting) -> None:
    """Raise ShapeError for a value that no layer can have."""
    fits = {
        "units": type(value) is int and value > 0,
        "filters": type(value) is int and value > 0,
        "heads": type(value) is int and value > 0,
        "rate": isinstance(value, float) and 0.0 <= value < 1.0,
        "epsilon": isinstance(value, float) and value >= 0.0,
        "momentum": isinstance(value, float) and 0.0 <= value <= 1.0,
        "transposed": value in (0, 1),
    }
    if not fits.get(setting, True):
        raise ShapeError(f"its setting {setting} is {value!r}; expected {EXPECTED.get(setting, 'a positive integer')}")


def _ordered(model: str, layers: Sequence[Layer], known: set[str]) -> list[Layer]:
    """Return the layers in an order of computation, that of the list as far as it is one."""
    seen = set(known)
    for one in layers:
        if not NAME.fullmatch(one.name):
            raise DescriptionError(
                f"model {model}: a layer is called {one.name!r}: wanted lower case letters, digits, _ and -"
            )
        if one.name in seen:
            raise DescriptionError(f"model {model}: two layers or inputs are called {one.name!r}")
        seen.add(one.name)
        if one.kind not in KINDS:
            raise DescriptionError(
                f"model {model}, layer {one.name}: unknown kind {one.kind!r}{near(one.kind, list(KINDS))}"
            )
    for one in layers:
        for source in one.inputs:
            if source not in seen:
                raise DescriptionError(
                    f"model {model}, layer {one.name} ({one.kind}) reads {source!r}, which is nowhere{near(source, sorted(seen))}"
                )
    waiting, ready, ordered = list(layers), set(known), []
    while waiting:
        following = next((one for one in waiting if ready.issuperset(one.inputs)), None)
        if following is None:
            ring = " -> ".join(f"{one.name} (reads {', '.join(one.inputs)})" for one in waiting)
            raise DescriptionError(f"model {model}: cyclic connection among {ring}")
        waiting.remove(following)
        ready.add(following.name)
        ordered.append(following)
    return ordered
