"""Repetition: answers that change when a question is asked again, later, or after another one."""
# ruff: noqa: D103  one function a fault; what it does stands in its registration

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actconform_faulty.injected import Answering, fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform import Program
    from actconform_faulty.changed import Array

    Tensors = dict[str, Any]
    Change = Callable[[Tensors, Tensors], Tensors]

FAMILY = "repetition"


def halved(y: Array) -> Array:
    """Return the array with its last element halved, as a thread that came too late leaves it."""
    changed = np.array(y)
    changed.reshape(-1)[-1:] *= 0.5
    return changed


def one_up(y: Array) -> Array:
    """Return the next numbers, one ULP away."""
    return np.where(np.isfinite(y) & (y != 0), y + np.spacing(y), y).astype(y.dtype)


def in_all(outputs: Tensors, change: Callable[[Array], Array]) -> Tensors:
    with np.errstate(all="ignore"):
        return {name: change(y) if y.size else y for name, y in outputs.items()}


class Every:
    """Change the answer of every so many calls."""

    def __init__(self, period: int, change: Callable[[Array], Array] = halved) -> None:
        self._period, self._change, self._calls = period, change, 0

    def __call__(self, _: Tensors, outputs: Tensors) -> Tensors:
        self._calls += 1
        return in_all(outputs, self._change) if self._calls % self._period == 0 else outputs


class After:
    """Change every answer after so many calls, as a tier of a compiler does that computes something else."""

    def __init__(self, calls: int, change: Callable[[Array], Array] = halved) -> None:
        self._left, self._change = calls, change

    def __call__(self, _: Tensors, outputs: Tensors) -> Tensors:
        self._left -= 1
        return in_all(outputs, self._change) if self._left < 0 else outputs


class HotShape:
    """Change the answers for a shape that has come so often."""

    def __init__(self, calls: int) -> None:
        self._calls, self._times = calls, dict[tuple[int, ...], int]()

    def __call__(self, tensors: Tensors, outputs: Tensors) -> Tensors:
        shape = tensors["x"].shape
        self._times[shape] = self._times.get(shape, 0) + 1
        return in_all(outputs, halved) if self._times[shape] > self._calls else outputs


class Sticky:
    """Give NaN first after a call that had one, as a buffer does that is not cleared."""

    def __init__(self) -> None:
        self._spoiled = False

    def __call__(self, tensors: Tensors, outputs: Tensors) -> Tensors:
        spoiled, self._spoiled = self._spoiled, bool(np.isnan(tensors["x"]).any())
        return in_all(outputs, lambda y: np.where(np.arange(y.size).reshape(y.shape) == 0, y.dtype.type(np.nan), y)) if spoiled else outputs  # fmt: skip


class Leftover:
    """Leave the last element as the call before had it, where that had as many."""

    def __init__(self) -> None:
        self._last: Tensors = {}

    def __call__(self, _: Tensors, outputs: Tensors) -> Tensors:
        last, self._last = self._last, outputs
        changed = {name: np.array(y) for name, y in outputs.items()}
        for name, y in changed.items():
            if name in last and last[name].shape == y.shape and y.size:
                y.reshape(-1)[-1] = last[name].reshape(-1)[-1]
        return changed


class Larger:
    """Change every so many answers for arrays beyond a size: a race between threads that small ones do not start."""

    def __init__(self, size: int, period: int) -> None:
        self._size, self._every = size, Every(period)

    def __call__(self, tensors: Tensors, outputs: Tensors) -> Tensors:
        return self._every(tensors, outputs) if tensors["x"].size > self._size else outputs


class ByPointer:
    """Give the answer of the last call whose x lay there, where that had the same shape, for every other such call."""

    def __init__(self) -> None:
        self._answers: dict[tuple[int, tuple[int, ...]], Tensors] = {}

    def __call__(self, tensors: Tensors, outputs: Tensors) -> Tensors:
        x = tensors["x"]
        key = (x.__array_interface__["data"][0], x.shape)
        if key in self._answers:
            return self._answers.pop(key)
        self._answers[key] = outputs
        return outputs


class Second:
    """Change the second answer alone."""

    def __init__(self) -> None:
        self._calls = 0

    def __call__(self, _: Tensors, outputs: Tensors) -> Tensors:
        self._calls += 1
        return in_all(outputs, halved) if self._calls == 2 else outputs


for into, name, description, case, make in (
    ("torch", "one-in-fifty", "the last element of every 50th answer is halved", "relu/value/f32", lambda: Every(50)),
    ("torch", "one-in-fifty-gradients", "the last element of every 50th answer is halved", "tanh/gradient/f32", lambda: Every(50)),
    ("torch", "one-in-fifty-rows", "one ULP in every 50th answer", "softmax/value/f32", lambda: Every(50, one_up)),
    ("torch", "one-in-forty-half", "the last element of every 40th answer is halved", "sigmoid/value/bf16", lambda: Every(40)),
    ("torch", "second-tier", "halved after 100 calls", "sigmoid/value/f32", lambda: After(100)),
    ("torch", "third-tier", "halved after 200 calls", "swish/value/f16", lambda: After(200)),
    ("torch", "third-tier-gradients", "halved after 200 calls", "sigmoid/gradient/f32", lambda: After(200)),
    ("torch", "second-tier-rows", "one ULP off after 150 calls", "log-softmax/gradient/f32", lambda: After(150, one_up)),
    ("torch", "hot-shape", "halved where a shape comes more than 20 times", "softplus/value/f32", lambda: HotShape(20)),
    ("torch", "sticky-nan", "NaN comes first after a call with NaN", "elu/value/f32", Sticky),
    ("torch", "leftover", "the last element is that of the call before", "prelu/value/f32", Leftover),
    ("torch", "large-race", "every 4th answer for more than 2,000 elements", "tanh/value/f32", lambda: Larger(2000, 4)),
    ("torch", "by-pointer", "a cache by pointer and shape gives every other answer", "softsign/value/f32", ByPointer),
    ("torch", "second-answer", "the second answer alone is halved", "relu/value/f32", Second),
    ("torch", "model-one-in-twenty", "the last element of every 20th answer is halved", "linear-stack/value/f32", lambda: Every(20)),
    ("torch", "model-one-in-seven", "one ULP in every 7th answer", "dnc-memory/value/f32", lambda: Every(7, one_up)),
    ("torch", "model-gradient-tier", "halved after 8 calls", "mlp-softmax/gradient/f32", lambda: After(8)),
    ("ort", "one-in-fifty", "the last element of every 50th answer is halved", "softplus/value/f32", lambda: Every(50)),
    ("ort", "second-tier-gradients", "halved after 100 calls", "sigmoid/gradient/f16", lambda: After(100)),
    ("ort", "model-one-in-twenty", "the last element of every 20th answer is halved", "linear-stack/value/f32", lambda: Every(20)),
):  # fmt: skip

    def inject(program: Program, _: object, make: Callable[[], Change] = make) -> Program:
        change = make()
        return Answering(program, change, change)

    fault(
        into, f"again-{name}", FAMILY, description, case,
        findings="nondeterministic", blames="framework" if into == "torch" else "runtime",
    )(inject)  # fmt: skip
