"""The options of a check that a program gives: those of the command, with its defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict

from actconform.errors import near

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


class CheckOptions(TypedDict, total=False):
    """Options of `actconform.check`, all of which may be left out."""

    runtimes: str | Sequence[str]
    """"ort-cpu" by default."""
    exporters: str | Sequence[str]
    """Of a trained model; by default all that take it."""
    gradients: bool
    train_mode: bool
    dtype: Literal["f16", "bf16"] | None
    autocast: Literal["f16", "bf16"] | None
    ranges: str | Sequence[str]
    """Values of inputs that are drawn: "x=0:255"."""
    samples: int | None
    seed: int
    data: Any
    """Over which columns are compared: a path, "module:function", a dict of arrays with samples along their first axis, a function that
    yields samples, or an iterable of them, such as a DataLoader."""
    batch: int | None
    metric: str | Callable[..., Any] | None
    worst: int
    trust: bool
    max_memory: float | None
    """GiB."""
    timeout: float | None
    """Seconds a call of a runtime."""
    config: str | Path | None


def expect_known(options: CheckOptions, call: str) -> None:
    """Raise TypeError for an option that there is none of, with the nearest names."""
    for name in options:
        if name not in CheckOptions.__annotations__:
            raise TypeError(f"{call}() has no option {name!r}{near(name, list(CheckOptions.__annotations__))}")
