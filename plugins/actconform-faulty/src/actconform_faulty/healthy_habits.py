"""Healthy but unusual: right answers in odd memory, and libraries that cache, start late or use threads, within bounds."""
# ruff: noqa: D103  one function a habit; what it is stands in its registration

from __future__ import annotations

import mmap
import tempfile
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import ml_dtypes  # noqa: F401  gives numpy bfloat16
import numpy as np

from actconform_faulty.injected import Answering, healthy

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from actconform import Program
    from actconform.types import Bundle

    Array = NDArray[Any]
    Habit = Callable[[Array], Array]

KERNELS = ("relu/value/f32", "softmax/value/f32", "relu/gradient/f32")
MODEL = "linear-stack/value/f32"
MOST = 200 << 20  # bytes of an arena
SHAPES = 8  # of a cache


def applied(program: Program, habit: Habit) -> Program:
    """Return the program whose answers are handed out as `habit` does."""

    def outputs(_: Bundle, answers: Bundle) -> Bundle:
        return {name: habit(array) if array.ndim else array for name, array in answers.items()}

    return Answering(program, outputs, outputs)


def in_fortran_order(array: Array) -> Array:
    return np.asfortranarray(array)


def with_strides(array: Array) -> Array:
    """Return every other element of twice as many, along every axis."""
    wide = np.full([2 * size for size in array.shape], 7, array.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in array.shape)]
    view[...] = array
    return view


def backwards(array: Array) -> Array:
    """Return an array whose memory runs backwards along every axis."""
    turn = tuple(slice(None, None, -1) for _ in array.shape)
    return np.ascontiguousarray(array[turn])[turn]


def read_only(array: Array) -> Array:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def not_aligned(array: Array) -> Array:
    """Return the array two bytes behind where its elements would be aligned."""
    memory = np.empty(array.nbytes + 2, np.uint8)
    view = memory[2:].view(array.dtype).reshape(array.shape) if array.nbytes else array.copy()
    view[...] = array
    return view


def in_fresh_pages(array: Array) -> Array:
    if not array.nbytes:
        return array
    view = np.frombuffer(mmap.mmap(-1, array.nbytes), array.dtype).reshape(array.shape)
    view[...] = array
    return view


def with_other_nan(array: Array) -> Array:
    """Give NaN a sign and a payload of its own."""
    changed = array.copy()
    changed[np.isnan(changed)] = np.array([0xFFC12345], np.uint32).view(np.float32)[0]
    return changed


for name, words, habit in (
    ("fortran-order", "answers in Fortran order", in_fortran_order),
    ("strides", "answers that are every other element of larger arrays", with_strides),
    ("backwards", "answers with negative strides", backwards),
    ("read-only", "answers that nobody may write to", read_only),
    ("not-aligned", "answers two bytes off their alignment", not_aligned),
    ("fresh-pages", "answers in pages mapped for each", in_fresh_pages),
    ("nan-payload", "NaN is negative and has a payload", with_other_nan),
):
    healthy("torch", f"answers-{name}", words, *KERNELS, MODEL)(
        lambda program, _, habit=habit: applied(program, habit)  # type: ignore[misc]
    )
healthy("ort", "answers-strides", "answers that are every other element of larger arrays", "softplus/value/f32", MODEL)(
    lambda program, _: applied(program, with_strides)
)
healthy("ort", "answers-fortran-order", "answers in Fortran order", "softplus/value/f32", MODEL)(
    lambda program, _: applied(program, in_fortran_order)
)


class OneBuffer:
    """Hands out views of one buffer, written anew at each call."""

    def __init__(self) -> None:
        self._buffer = np.empty(1 << 22, np.uint8)

    def __call__(self, array: Array) -> Array:
        if array.nbytes > self._buffer.nbytes:
            return array
        view = self._buffer[: array.nbytes].view(array.dtype).reshape(array.shape)
        view[...] = array
        return view


@healthy("torch", "one-buffer", "answers are views of one buffer, written anew at each call", *KERNELS)
@healthy("ort", "one-buffer", "answers are views of one buffer, written anew at each call", "softplus/value/f32")
def one_buffer(program: Program, _: object) -> Program:
    return applied(program, OneBuffer())


class Arena:
    """Grows with each call, up to a limit, and then stays."""

    def __init__(self, step: int) -> None:
        self._step = step
        self._blocks: list[Array] = []

    def __call__(self, array: Array) -> Array:
        if len(self._blocks) * self._step < MOST:
            self._blocks.append(np.ones(self._step, np.uint8))
        return array


@healthy("torch", "arena", "an arena grows by 8 MiB a call, up to 200 MiB", "tanh/value/f32")
@healthy("ort", "arena", "an arena grows by 8 MiB a call, up to 200 MiB", "softplus/value/f32")
def arena(program: Program, _: object) -> Program:
    return applied(program, Arena(8 << 20))


@healthy("torch", "arena-at-once", "an arena takes 200 MiB at the first call", "tanh/value/f32")
def arena_at_once(program: Program, _: object) -> Program:
    return applied(program, Arena(MOST))


class ByShape:
    """Keeps a workspace for each of the last eight shapes."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, ...], Array] = OrderedDict()

    def __call__(self, array: Array) -> Array:
        workspace = self._kept.pop(array.shape, None)
        self._kept[array.shape] = np.ones(4 << 20, np.uint8) if workspace is None else workspace
        if len(self._kept) > SHAPES:
            self._kept.popitem(last=False)
        return array


@healthy("torch", "cache-of-shapes", "a workspace of 4 MiB for each of the last eight shapes", *KERNELS)
def cache_of_shapes(program: Program, _: object) -> Program:
    return applied(program, ByShape())


class Late:
    """Starts at the first call: a wait, four threads that stay, and a temporary file that stays open."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._file: Any = None

    def __call__(self, array: Array) -> Array:
        if self._pool is None:
            time.sleep(0.2)
            self._pool = ThreadPoolExecutor(4)
            list(self._pool.map(lambda _: time.sleep(0.01), range(4)))
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  it stays open, as such a library's does
        return array


@healthy(
    "torch", "late-start", "the first call waits, starts four threads and opens a file, all of which stay", *KERNELS
)
@healthy("ort", "late-start", "the first call waits, starts four threads and opens a file, all of which stay", "softplus/value/f32")  # fmt: skip
def late_start(program: Program, _: object) -> Program:
    return applied(program, Late())


@healthy("torch", "slow-now-and-then", "every tenth call takes 30 ms longer", "relu/value/f32")
def slow_now_and_then(program: Program, _: object) -> Program:
    calls = iter(range(1 << 30))

    def waiting(array: Array) -> Array:
        if next(calls) % 10 == 9:
            time.sleep(0.03)
        return array

    return applied(program, waiting)
