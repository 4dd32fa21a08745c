"""Each node of a run against its error bound, given what the node read; fused nodes as the segment between tensors that were seen."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from msgspec.structs import replace

from actconform.checking.flatten import as_held, wide
from actconform.checking.result import TensorCheck, Unjudged
from actconform.checking.runs import Marks
from actconform.checking.undefined_values import integers_of, undefined_outputs
from actconform.errors import Unsupported
from actconform.onnx.evaluate.element_types import FORMATS
from actconform.onnx.evaluate.error_bounds import Approximation, bounded_outputs
from actconform.onnx.gates import standard_opset
from actconform.text import one_line
from actconform.tolerance.row_bounds import flushes

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence

    from actconform.checking.checked_sample import CheckedSample
    from actconform.checking.flatten import Array, FlatGraph, FlatNode
    from actconform.checking.result import LevelCheck
    from actconform.checking.runs import MarkedTensors, RuntimeRuns
    from actconform.oracle.rounding import F64
    from actconform.types.case import Bundle
    from actconform.types.dtypes import FloatFormat


PIECE_BYTES = 256 << 20  # of marked tensors that a runtime shows in one run
NOTHING_ROUNDED: Mapping[str, float] = {}
BINS = 24  # of a histogram


class Judge:
    """Holds the nodes of a flat graph against their bounds, piece by piece as a run shows its tensors.

    `visible` are the tensors that the run will show; all others are carried from the last ones that were, with their errors.
    Of the graph's outputs `expected` keeps the values and bounds. `rounded` are constants that are right but for rounding, with
    the error that this may be, absolute; 0 where nothing is known of how they were computed.
    """

    def __init__(
        self,
        graph: FlatGraph,
        sample: Bundle,
        visible: Iterable[str],
        *,
        doubt: bool = True,
        rounded: Mapping[str, float] = NOTHING_ROUNDED,
    ) -> None:
        self.unjudged: list[Unjudged] = []
        self.expected: dict[str, Approximation] = {}
        self._graph = graph
        self._visible = set(visible)
        self._doubt = doubt
        self._rounded = rounded
        self._values = {name: Approximation(wide(array)) for name, array in sample.items()}
        self._carried: dict[str, int] = {}
        """The places of the nodes that give the tensors which were not seen."""
        self._dead = graph.last_readers()
        self._opset = standard_opset(graph.model)
        self._undefined: dict[str, str] = {}
        """By tensor why the standard does not define it."""
        self.place = 0
        """How many nodes are done with."""
        self._shown: dict[str, Array] = {}

    def take(self, piece: Bundle) -> Iterator[TensorCheck]:
        """Take tensors that a run showed, and yield verdicts on the nodes that can be judged now, in order."""
        self._shown.update(piece)
        while self.place < len(self._graph.nodes):
            node = self._graph.nodes[self.place]
            if any(name in self._visible and name not in self._shown for name in node.outputs):
                return
            yield from self._judged(node)
            for name in self._dead[self.place]:
                for tensors in (self._values, self._shown):
                    tensors.pop(name, None)
            self.place += 1

    def hide(self, names: Iterable[str]) -> None:
        """Carry tensors that the run cannot show after all."""
        self._visible.difference_update(names)

    def _judged(self, node: FlatNode) -> Iterator[TensorCheck]:
        bounded = self._bounded(node)
        undefined = undefined_outputs(node, self._opset, self._read_nan(node))
        self._undefined |= undefined
        if bounded is not None and undefined.keys() >= {*node.outputs}:
            self.unjudged.append(Unjudged(node.name, node.proto.op_type, next(iter(undefined.values()))))
        for i, name in enumerate(node.proto.output):
            shown = self._shown.get(name) if name else None
            expected = bounded[i] if bounded is not None and i < len(bounded) and name not in undefined else None
            if name in self._graph.outputs and expected is not None:
                self.expected[name] = expected
            if shown is not None and expected is not None:
                exact = with_exact_specials(expected, [self._values.get(read) for read in node.inputs])
                yield _verdict(node, name, shown, exact, FORMATS.get(node.types[i]), self._segment())
            if shown is not None:
                self._values[name] = read_as(shown, doubt=self._doubt)
            elif name and expected is not None:
                self._values[name] = carried_as(expected, FORMATS.get(node.types[i]))
                self._carried[name] = self.place

    def _read_nan(self, node: FlatNode) -> str:
        """Return which input of a node that gives integers held NaN as it was read, in words; empty where none did."""
        for name in node.inputs if integers_of(node) else ():
            read = self._approximation(name)
            if read is not None and read.value.dtype.kind == "f" and np.isnan(read.value).any():
                return f"{one_line(name, 80)}, which it read, holds NaN"
        return ""

    def _segment(self) -> tuple[str, ...]:
        """Return the nodes since the last tensors that were seen, up to the one that is judged now, in the order of the graph."""
        places, waiting = {self.place}, [self.place]
        while waiting:
            names = self._graph.nodes[waiting.pop()].inputs
            before = {self._carried[name] for name in names if name in self._carried} - places
            places |= before
            waiting += before
        return tuple(self._graph.nodes[place].name for place in sorted(places))

    def _bounded(self, node: FlatNode) -> list[Approximation] | None:
        missing = [name for name in node.inputs if name not in self._graph.constants and name not in self._values]
        if node.computation is None or missing:
            unknown = {**self._undefined, **self._graph.unknown}
            reason = node.unsupported or unknown.get(missing[0], f"its input {missing[0]} is not known")
            self.unjudged.append(Unjudged(node.name, node.proto.op_type, reason))
            return None
        inputs = [self._approximation(name) if name else None for name in node.proto.input]
        observed = [wide(self._shown[name]) if name in self._shown else None for name in node.proto.output]
        try:
            return bounded_outputs(node.computation, node.types, inputs, observed)
        except Unsupported as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001  what a runtime gave may be no input to a node at all
            reason = f"cannot be computed from what it read: {error}"
        self.unjudged.append(Unjudged(node.name, node.proto.op_type, reason))
        return None

    def _approximation(self, name: str) -> Approximation | None:
        if name in self._graph.constants:
            value = as_held(self._graph.constants[name])
            return Approximation(value, self._rounding(name, value))
        return self._values.get(name)

    def _rounding(self, name: str, value: Array) -> Array | None:
        """Return the error of a constant that was rounded: two roundings of its largest value, or more where it was computed by more."""
        fmt = FORMATS.get(self._graph.types.get(name, 0))
        if name not in self._rounded or fmt is None or value.size == 0 or (np.rint(value) == value).all():
            return None
        with np.errstate(all="ignore"):
            largest = np.max(np.abs(value), where=np.isfinite(value), initial=0.0)
        return np.full(value.shape, max(2.0 * fmt.unit_roundoff * float(largest), self._rounded[name]))


def judged_level(
    check: LevelCheck,
    runs: RuntimeRuns,
    sample: CheckedSample,
    level: str,
    surviving: Sequence[str] | None,
    step: Callable[[int], None] = lambda _: None,
    earlier: list[ShownLevel] | None = None,
) -> LevelCheck:
    """Return `check` with its verdicts: of a run at `level` with all tensors marked, or those that survive optimization.

    A tensor that the runtime cannot show is carried with its error as one that was not marked; its node is unjudged where nothing
    that was shown depends on it. `earlier` are levels of the same sample: what shows the same bits is judged alike; this one is added.
    """
    graph = sample.graph
    markable = graph.types if surviving is None else {*surviving, *graph.outputs}
    marks = marks_of(graph, markable)
    names = list(marks.names)
    for shown in earlier or ():
        if shown.names == names and shown.is_shown_by(
            runs.marked(sample.file, sample.inputs, marks, budget_bytes=PIECE_BYTES, level=level)
        ):
            step(len(graph.nodes))
            return replace(shown.check, name=check.name)
    digests: list[bytes] = []
    judge = Judge(graph, sample.inputs, names)
    tensors: list[TensorCheck] = []
    moved: dict[str, None] = {}
    hidden: dict[str, str] = {}
    failure = ""
    for piece in runs.marked(sample.file, sample.inputs, marks, budget_bytes=PIECE_BYTES, level=level):
        moved.update(dict.fromkeys(piece.moved))
        if earlier is not None:
            digests.append(_digest(piece))
        done = judge.place
        if piece.failure:
            failure = f"{piece.failure.kind}: {piece.failure.message}"
            judge.hide(piece.names)
            hidden.update(dict.fromkeys(piece.names, failure))
        tensors += judge.take(piece.values)
        step(judge.place - done)
    tensors += judge.take({})  # nodes none of whose tensors can be marked
    unjudged = [*judge.unjudged, *_unseen(graph, hidden, tensors, judge.unjudged)]
    check = replace(check, tensors=tensors, unjudged=unjudged, moved=tuple(moved), failure=failure)
    if earlier is not None and not failure:
        earlier.append(ShownLevel(names, digests, check))
    return check


def marks_of(graph: FlatGraph, markable: Container[str]) -> Marks:
    """Return marks for the tensors of known type that nodes give, as far as they are markable, in the order of the graph."""
    names = [name for node in graph.nodes for name in node.outputs if name in graph.types and name in markable]
    return Marks(names, graph.types, {name: graph.nbytes(name) for name in names})


def shown_values(runs: RuntimeRuns, sample: CheckedSample, names: Iterable[str], level: str) -> dict[str, Array]:
    """Return the tensors `names` of a graph as a runtime shows them at a level, and the inputs; one that it does not show is left out."""
    graph = sample.graph
    wanted = [name for name in dict.fromkeys(names) if name not in graph.constants and name not in sample.inputs]
    marks = Marks(wanted, graph.types, {name: graph.nbytes(name) for name in wanted})
    values: dict[str, Array] = dict(sample.inputs)
    for piece in runs.marked(sample.file, sample.inputs, marks, budget_bytes=PIECE_BYTES, level=level, final={}):
        values.update(piece.values)
    return values


class ShownLevel(NamedTuple):
    """A level that was judged, and what it showed."""

    names: list[str]
    digests: list[bytes]
    """Of each piece of its tensors."""
    check: LevelCheck

    def is_shown_by(self, pieces: Iterable[MarkedTensors]) -> bool:
        """Return whether a run shows the same bits, and moves the same outputs."""
        count = 0
        for piece in pieces:
            if count >= len(self.digests) or _digest(piece) != self.digests[count]:
                return False
            count += 1
        return count == len(self.digests)


def _digest(piece: MarkedTensors) -> bytes:
    digest = hashlib.blake2b(repr((piece.names, piece.moved, piece.failure)).encode(), digest_size=16)
    for name in piece.names:
        if name in piece.values:
            digest.update(np.ascontiguousarray(piece.values[name]).view(np.uint8).data)
    return digest.digest()


def _unseen(
    graph: FlatGraph, hidden: Mapping[str, str], tensors: Sequence[TensorCheck], unjudged: Sequence[Unjudged]
) -> Iterator[Unjudged]:
    """Yield the nodes of tensors that were not shown, and why, which no verdict on a later tensor spans."""
    spanned = {name for tensor in tensors for name in (tensor.node, *tensor.segment)}
    spanned.update(node.node for node in unjudged)
    for node in graph.nodes:
        reason = next((hidden[name] for name in node.outputs if name in hidden), "")
        if reason and node.name not in spanned:
            yield Unjudged(node.name, node.proto.op_type, reason)


def with_exact_specials(expected: Approximation, inputs: Iterable[Approximation | None]) -> Approximation:
    """Return what a node must give that read `inputs`: NaN and infinities exactly, where nothing that it read is in doubt."""
    special = ~np.isfinite(expected.value) if np.asarray(expected.value).dtype.kind == "f" else np.zeros((), bool)
    if expected.error is None or not special.any() or any(x is not None and x.error is not None for x in inputs):
        return expected
    return Approximation(expected.value, np.where(special, 0.0, expected.error))


def read_as(array: Array, *, doubt: bool = True) -> Approximation:
    """Return what a consumer may have read where `array` is seen.

    Runtimes without 16-bit kernels put casts around wider ones and take adjacent casts out; a mark puts one back for itself
    alone. So of a 16-bit tensor the number may have been read from which it was rounded.
    """
    value = wide(array)
    unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8}.get(array.dtype.name)
    if unit is None or not doubt:
        return Approximation(value)
    with np.errstate(invalid="ignore", over="ignore"):
        return Approximation(value, np.nan_to_num(unit * np.abs(value) + 2.0**-25, posinf=np.inf))


def carried_as(expected: Approximation, fmt: FloatFormat | None) -> Approximation:
    """Return what a consumer may have read of a tensor that was not seen.

    Where the true value lies beyond the format, that is its true value, held wider, or an infinity, and what follows may be NaN: anything
    is possible there.
    """
    if fmt is None or expected.value.dtype.kind != "f":
        return expected
    beyond = np.isfinite(expected.value) & (expected.size >= fmt.overflow)
    if not beyond.any():
        return expected
    return Approximation(expected.value, np.where(beyond, np.inf, 0.0 if expected.error is None else expected.error))


def _verdict(
    node: FlatNode,
    name: str,
    shown: Array,
    expected: Approximation,
    fmt: FloatFormat | None,
    segment: tuple[str, ...],
) -> TensorCheck:
    got, wanted = np.asarray(wide(shown)), np.asarray(expected.value)
    tensor = TensorCheck(
        node=node.name,
        op_type=node.proto.op_type,
        tensor=name,
        shape=got.shape,
        wanted_shape=wanted.shape,
        ratio=0.0,
        error=0.0,
        bound=0.0,
        segment=segment,
    )
    if got.shape != wanted.shape:
        return replace(tensor, ratio=np.inf, error=np.inf)
    if got.size == 0:
        return tensor
    comparison = against_bound(got, wanted, expected.error, fmt)
    worst = int(np.argmax(comparison.ratio))
    lowest, highest, histogram = _distribution(got)
    return replace(
        tensor,
        ratio=float(comparison.ratio.flat[worst]),
        error=comparison.error,
        bound=float(comparison.allowed.flat[worst]),
        place=tuple(int(i) for i in np.unravel_index(worst, got.shape)),
        got=float(got.flat[worst]),
        wanted=float(wanted.flat[worst]),
        magnitude=comparison.magnitude,
        lowest=lowest,
        highest=highest,
        histogram=histogram,
        looseness=comparison.looseness,
        overflowed=comparison.overflowed,
        nonfinite=comparison.nonfinite,
    )


def _distribution(array: Array) -> tuple[float, float, tuple[int, ...]]:
    """Return the range of the finite values, and how many lie in each of BINS equal parts of it."""
    numbers = array.astype(np.float64).ravel()
    numbers = numbers[np.isfinite(numbers)]
    if not numbers.size:
        return 0.0, 0.0, ()
    lowest, highest = float(numbers.min()), float(numbers.max())
    if not highest > lowest:
        return lowest, highest, (numbers.size,)
    with np.errstate(all="ignore"):
        width = highest / BINS - lowest / BINS
        bins = (
            np.minimum(((numbers - lowest) / width).astype(np.int64), BINS - 1) if width > 0 else np.zeros(1, np.int64)
        )
    return lowest, highest, tuple(int(count) for count in np.bincount(bins, minlength=BINS))


class Compared(NamedTuple):
    """The error of each element over its bound, that bound, and what they come to."""

    ratio: F64
    allowed: F64
    error: float
    magnitude: float
    looseness: float
    overflowed: int
    nonfinite: int


def against_bound(got: Array, wanted: Array, bound: F64 | None, fmt: FloatFormat | None) -> Compared:
    """Return error over bound, element by element: 0 where both are the same number, NaN, or an overflow of the format."""
    floats = got.dtype.kind == "f"
    with np.errstate(all="ignore"):
        error = np.abs(got.astype(np.float64) - wanted.astype(np.float64))
        allowed = np.broadcast_to(np.asarray(0.0 if bound is None else bound, np.float64), got.shape)
        same = got == wanted
        if floats:
            same |= np.isnan(got) & np.isnan(wanted)
        overflowed = np.zeros(got.shape, bool)
        if fmt is not None:
            overflowed = np.isinf(got) & np.isfinite(wanted) & (np.sign(got) * wanted + allowed >= fmt.overflow)
            flushed = flushes(fmt) & (got == 0) & (np.abs(wanted) < fmt.smallest_normal)
            same |= overflowed | flushed
        ratio = np.where(same | np.isposinf(allowed), 0.0, error / allowed)
        ratio = np.nan_to_num(ratio, nan=np.inf, posinf=np.inf)
    finite = np.isfinite(error)
    magnitudes = np.abs(wanted.astype(np.float64))
    magnitude = float(np.max(magnitudes, where=np.isfinite(magnitudes), initial=0.0))
    largest_bound = float(np.max(allowed))
    return Compared(
        ratio,
        allowed,
        float(np.max(error, where=finite, initial=0.0)),
        magnitude,
        largest_bound / magnitude if magnitude else 0.0,
        int(np.count_nonzero(overflowed)),
        int(np.count_nonzero(~same & ~finite)) if floats else 0,
    )
