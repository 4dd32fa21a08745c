"""Inputs of a model drawn from its signature and its graph: at several sizes, within what the graph does with them, by seed."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import onnx

from actconform.checking.inputs import Array, InputSample
from actconform.checking.sample_size import expect_sample_fits, inferred_shapes
from actconform.checking.size_search import sizing_in_words, sizings
from actconform.checking.sizes import Symbol, readings, shape_at, symbols_of
from actconform.checking.value_domains import Domain, domain_of
from actconform.checking.value_flow import value_flow
from actconform.errors import UsageError, near
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from actconform.checking.sizes import Sizing
    from actconform.checking.source import Source, TensorType
    from actconform.checking.value_domains import Shapes

Accepts: TypeAlias = "Callable[[Mapping[str, Array]], str | None]"

MOST_REFUSED_RUNS = 400  # of all readings of the inputs together
FEW_ELEMENTS = 2**18  # of inputs, whose run no machine minds
MOST_WORDS = 300  # letters of a refusal that are shown


class Range(NamedTuple):
    """The values that a user allows for an input, both ends included."""

    low: float
    high: float


@dataclass(frozen=True)
class DrawnSample(InputSample):
    """Inputs of one run that were drawn."""

    sizes: Mapping[str, int] = field(default_factory=dict)
    """By the name of each open dimension."""
    words: Mapping[str, str] = field(default_factory=dict)
    """What was drawn, by input: "normal, 2 x 3 x 224 x 224"."""


def parsed_range(text: str) -> tuple[str, Range]:
    """Return the name of an input and its range, as "x=0:255" or "x=16000" state them. Raises UsageError for another text."""
    name, equals, ends = text.rpartition("=")
    numbers = ends.split(":")
    try:
        low, high = float(numbers[0]), float(numbers[-1])
    except ValueError:
        low = high = math.nan
    if not (name and equals) or len(numbers) > 2 or not (math.isfinite(low) and math.isfinite(high)):
        raise UsageError(
            f"--range {one_line(text)}: expected NAME=LOW:HIGH with finite numbers, as x=0:255, or NAME=VALUE"
        )
    if low > high:
        raise UsageError(f"--range {one_line(text)}: {low:g} is larger than {high:g}; expected NAME=LOW:HIGH")
    return name, Range(low, high)


def draw_samples(
    source: Source,
    *,
    seed: int,
    count: int | None = None,
    ranges: Mapping[str, Range] | None = None,
    accepts: Accepts | None = None,
    max_memory: int | None = None,
) -> list[DrawnSample]:
    """Return inputs at every kind of sizes that was found, `count` of them if it is stated.

    `accepts` runs inputs and returns None or why they are refused; without it, what onnx infers decides. What it raises ends
    the search: so a runtime that refuses the model at any size is not asked again. A sample depends on the model, `seed`, its
    own number and what `accepts` answers alone. Raises UsageError for ranges of no input, for inputs that cannot be drawn,
    and where no sizes are accepted.
    """
    drawer = _Drawer(source, seed, dict(ranges or {}), accepts, max_memory)
    return drawer.samples(count)


class _Drawer:
    """Draws inputs of one model with one seed."""

    def __init__(
        self,
        source: Source,
        seed: int,
        ranges: dict[str, Range],
        accepts: Accepts | None,
        max_memory: int | None,
    ) -> None:
        for name, ends in ranges.items():
            if name not in source.inputs:
                raise UsageError(f"--range: the model has no input {one_line(name)!r}{near(name, list(source.inputs))}")
            _expect_held(name, ends, source.inputs[name])
        self._source = source
        self._shown = one_line(str(source.path))
        self._seed = seed
        self._ranges = ranges
        self._accepts = accepts
        self._max_memory = max_memory
        self._flow = value_flow(source.light)
        self._inputs: Mapping[str, TensorType] = source.inputs
        self._refused_runs = 0
        self._inferences: dict[tuple[tuple[int, ...], ...], Mapping[str, Sequence[int]]] = {}

    def samples(self, count: int | None) -> list[DrawnSample]:
        sizes = self._sizings()
        number = len(sizes) if count is None else count
        return [self._accepted(i, sizes[i % len(sizes)]) for i in range(number)]

    def _accepted(self, number: int, sizing: Sizing) -> DrawnSample:
        """Return the sample of a number; where its values are refused at sizes that are taken, those of the first number."""
        sample = self._drawn(number, sizing)
        if number and self._accepts is not None and self._accepts(sample.arrays) is not None:
            return replace(self._drawn(0, sizing), name=sample.name)
        return sample

    def _sizings(self) -> list[Sizing]:
        """Return sizings under the first reading of the inputs' dimensions under which one is taken."""
        first_refusal = ""
        for inputs in readings(self._source.inputs, self._flow):
            self._inputs = inputs
            results, words = sizings([*symbols_of(inputs, self._flow), *self._choices()], self._refusal)
            if results:
                return results
            first_refusal = first_refusal or words
        raise UsageError(
            f"{self._shown}: no inputs were found that are taken; the first that were tried, {first_refusal}; give inputs with "
            "--inputs, or their values with --range"
        )

    def _choices(self) -> list[Symbol]:
        """Return the inputs of which a few values decide what the graph does."""
        domains = {name: self._domain(name, tensor, dict) for name, tensor in self._inputs.items()}
        return [
            Symbol(_choice_of(name), "choice", tuple(range(len(domain.choices))))
            for name, domain in domains.items()
            if domain.kind == "choice"
        ]

    def _refusal(self, sizing: Sizing) -> str | None:
        """Return why inputs of these sizes are refused, in words; None where they are taken.

        What they need of memory is estimated first where they are many, else only once they are taken: it takes longer.
        """
        elements = sum(math.prod(shape) for shape in self._shapes(sizing))
        if elements > FEW_ELEMENTS and (words := self._needs_too_much(sizing)) is not None:
            return words
        if self._accepts is None:
            try:
                inferred_shapes(self._source, self._shapes_by_name(sizing))
            except onnx.shape_inference.InferenceError as error:
                return one_line(str(error), MOST_WORDS)
        elif self._refused_runs >= MOST_REFUSED_RUNS:
            return "too many sizes were refused before"
        elif (words := self._accepts(self._drawn(0, sizing).arrays)) is not None:
            self._refused_runs += 1
            return one_line(words, MOST_WORDS)
        return self._needs_too_much(sizing)

    def _needs_too_much(self, sizing: Sizing) -> str | None:
        try:
            expect_sample_fits(self._source, self._inferred(sizing), self._max_memory, f" at {sizing_in_words(sizing)}")
        except UsageError as error:
            return str(error)
        return None

    def _inferred(self, sizing: Sizing) -> Mapping[str, Sequence[int]]:
        """Return the shapes of the tensors of the main graph that onnx infers; none where it finds that they cannot fit."""
        key = tuple(self._shapes(sizing))
        if key not in self._inferences:
            try:
                self._inferences[key] = inferred_shapes(self._source, self._shapes_by_name(sizing))
            except onnx.shape_inference.InferenceError:  # a run decides
                self._inferences[key] = {}
        return self._inferences[key]

    def _shapes_by_name(self, sizing: Sizing) -> dict[str, tuple[int, ...]]:
        return dict(zip(self._inputs, self._shapes(sizing), strict=True))

    def _shapes(self, sizing: Sizing) -> list[tuple[int, ...]]:
        return [shape_at(tensor, sizing) for tensor in self._inputs.values()]

    def _drawn(self, number: int, sizing: Sizing) -> DrawnSample:
        arrays, words = {}, {}
        for (name, tensor), shape in zip(self._inputs.items(), self._shapes(sizing), strict=True):
            domain = self._domain(name, tensor, lambda: self._inferred(sizing))
            if domain.kind == "choice":
                domain = replace(domain, low=domain.choices[sizing[_choice_of(name)]])
            generator = np.random.default_rng([self._seed, number, zlib.crc32(name.encode())])
            arrays[name] = _values(generator, domain, shape, tensor.dtype)
            reason = f", {domain.reason}" if domain.reason else ""
            words[name] = f"{_in_words(domain)}, {' x '.join(map(str, shape)) or 'a scalar'}{reason}"
        sizes = {name: size for name, size in sizing.items() if name not in map(_choice_of, self._inputs)}
        return DrawnSample(f"drawn_{number}", arrays, sizes, words)

    def _domain(self, name: str, tensor: TensorType, shapes: Shapes) -> Domain:
        if name in self._ranges:
            low, high = self._ranges[name]
            return Domain("integers" if tensor.dtype.kind in "iub" else "uniform", low, high, reason="by --range")
        domain = domain_of(name, tensor, self._flow, shapes)
        if domain.kind == "strings":
            raise UsageError(
                f"{self._shown}: input {one_line(name)!r} takes strings, which are not drawn: give inputs with --inputs"
            )
        return domain


def _expect_held(name: str, ends: Range, tensor: TensorType) -> None:
    """Raise UsageError where an input cannot hold the ends of a range."""
    numbers = np.array(ends)
    with np.errstate(all="ignore"):
        stored = numbers.astype(tensor.dtype).astype(np.float64) if tensor.dtype.kind != "O" else np.full(2, np.nan)
    exact = tensor.dtype.kind in "iub"
    if not np.isfinite(stored).all() or (exact and (stored != numbers).any()):
        expected = "whole numbers that it holds" if exact else "numbers that it holds"
        raise UsageError(
            f"--range {one_line(name)}={ends.low:g}:{ends.high:g}: the input is {tensor}; expected {expected}"
        )


def _choice_of(name: str) -> str:
    return f"the value of {name}"


def _mask(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return rows of ones, then zeros, at least half of each ones, so that what reads them has work.

    A row that is masked altogether would give NaN in models that are right.
    """
    if not shape:
        return np.ones((), bool)
    length = shape[-1]
    ends = generator.integers((length + 1) // 2, length, (*shape[:-1], 1), endpoint=True)
    return np.broadcast_to(np.arange(length) < ends, shape)


def _values(generator: np.random.Generator, domain: Domain, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return values of a domain."""
    match domain.kind:
        case "normal":
            values: Array = generator.standard_normal(shape)
        case "positive":
            values = domain.low + np.abs(generator.standard_normal(shape)) + 1e-3
        case "uniform":
            values = generator.uniform(domain.low, domain.high, shape)
        case "choice":
            values = np.full(shape, domain.low)
        case "mask":
            values = _mask(generator, shape)
        case "boxes":
            values = generator.uniform(domain.low, domain.high, shape)
            if shape and shape[-1] == 4:  # x1, y1, x2, y2
                corners = np.sort(values.reshape(*shape[:-1], 2, 2), axis=-2)
                values = corners.reshape(shape)
        case _:
            low, high = int(domain.low), int(domain.high)
            if dtype.kind in "iu":
                low, high = (min(max(end, np.iinfo(dtype).min), np.iinfo(dtype).max) for end in (low, high))
            bits = np.uint64 if high > np.iinfo(np.int64).max else np.int64
            values = generator.integers(low, high, shape, bits, endpoint=True)
    return np.asarray(values).astype(dtype)


def _in_words(domain: Domain) -> str:
    match domain.kind:
        case "normal":
            return "normal"
        case "positive":
            return f"absolute values of normal numbers above {domain.low:g}"
        case "choice":
            return f"{domain.low:g}"
        case "mask":
            return "ones, then zeros"
        case "uniform" | "boxes":
            return f"{domain.kind} from {domain.low:g} to {domain.high:g}"
    return f"integers {domain.low:g} to {domain.high:g}"
