"""Inputs of a model drawn from its signature and its graph: at several sizes, within what the graph does with them, by seed."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx

from actconform.check.inputs import InputSample
from actconform.check.memory import estimated_bytes, expect_fits
from actconform.check.sizes import Sizing, described, sizings, symbol_at, symbols_of
from actconform.check.value_domains import Domain, domain_of
from actconform.check.value_flow import value_flow
from actconform.errors import UsageError, near
from actconform.onnx.grad.arguments import fix_shapes
from actconform.onnx.inference import infer
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from actconform.check.source import Source, TensorType

Array = np.ndarray[Any, Any]
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
    accepts: Callable[[Mapping[str, Array]], str | None] | None = None,
    max_memory: int | None = None,
) -> list[DrawnSample]:
    """Return inputs at every kind of sizes that was found, `count` of them if it is stated.

    `accepts` runs inputs and returns None or why they are refused; without it, what onnx infers decides. A sample depends on
    the model, `seed` and its own number alone. Raises UsageError for ranges of no input, for inputs that cannot be drawn, and
    where no sizes are accepted.
    """
    drawer = _Drawer(source, seed, dict(ranges or {}), accepts, max_memory)
    return drawer.samples(count)


class _Drawer:
    def __init__(
        self,
        source: Source,
        seed: int,
        ranges: dict[str, Range],
        accepts: Callable[[Mapping[str, Array]], str | None] | None,
        max_memory: int | None,
    ) -> None:
        for name in ranges:
            if name not in source.inputs:
                raise UsageError(f"--range: the model has no input {one_line(name)!r}{near(name, list(source.inputs))}")
        self._source = source
        self._seed = seed
        self._ranges = ranges
        self._accepts = accepts
        self._max_memory = max_memory
        self._flow = value_flow(source.light)
        self._tied = True

    def samples(self, count: int | None) -> list[DrawnSample]:
        sizes = self._sizings()
        number = len(sizes) if count is None else count
        return [self._drawn(i, sizes[i % len(sizes)]) for i in range(number)]

    def _sizings(self) -> list[Sizing]:
        refusal = ""
        for tied in (True, False):
            self._tied = tied
            symbols = symbols_of(self._source.inputs, self._flow, tied=tied)
            try:
                return sizings(symbols, self._refusal)
            except UsageError as error:
                refusal = refusal or str(error)
        raise UsageError(
            f"{one_line(str(self._source.path))}: no inputs were found that are taken; the first that were tried, with {refusal}; "
            "give inputs with --inputs, or their values with --range"
        )

    def _refusal(self, sizing: Sizing) -> str | None:
        """Return why inputs of these sizes are refused, in words; None where they are taken."""
        shapes, words = self._inferred(sizing)
        if words is not None:
            return words
        try:
            expect_fits(estimated_bytes(self._source.model, shapes), self._max_memory, f" at {described(sizing)}")
        except UsageError as error:
            return str(error)
        if self._accepts is None:
            return None
        words = self._accepts(self._drawn(0, sizing).arrays)
        return None if words is None else one_line(words, MOST_WORDS)

    def _inferred(self, sizing: Sizing) -> tuple[dict[str, Sequence[int]], str | None]:
        """Return the shapes of the tensors of the main graph that onnx infers, and its words where they cannot fit."""
        light = onnx.ModelProto()
        light.CopyFrom(self._source.light)
        fix_shapes(light.graph, {name: self._shape(name, sizing) for name in self._source.inputs})
        try:
            graph = infer(light)
        except onnx.shape_inference.InferenceError as error:
            return {}, one_line(str(error), MOST_WORDS)
        shapes: dict[str, Sequence[int]] = {}
        for value in (*graph.input, *graph.value_info, *graph.output):
            dims = value.type.tensor_type.shape.dim
            if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
                shapes[value.name] = [dim.dim_value for dim in dims]
        return shapes, None

    def _shape(self, name: str, sizing: Sizing) -> tuple[int, ...]:
        tensor = self._source.inputs[name]
        if tensor.dims is None:
            raise UsageError(
                f"{one_line(str(self._source.path))}: input {one_line(name)!r} has no declared rank, so that nothing can be drawn for it: give "
                "inputs with --inputs"
            )
        symbols = (symbol_at(name, tensor, axis, tied=self._tied) for axis in range(len(tensor.dims)))
        return tuple(
            sizing[symbol] if symbol is not None else int(dim or 0)
            for symbol, dim in zip(symbols, tensor.dims, strict=True)
        )

    def _drawn(self, number: int, sizing: Sizing) -> DrawnSample:
        arrays, words = {}, {}
        shapes, _ = self._inferred(sizing)
        for name, tensor in self._source.inputs.items():
            domain = self._domain(name, tensor, shapes)
            shape = self._shape(name, sizing)
            generator = np.random.default_rng([self._seed, number, zlib.crc32(name.encode())])
            arrays[name] = _values(generator, domain, shape, tensor.dtype)
            words[name] = (
                f"{_in_words(domain)}, {' x '.join(map(str, shape)) or 'a scalar'}{f', {domain.reason}' if domain.reason else ''}"
            )
        return DrawnSample(f"drawn_{number}", arrays, dict(sizing), words)

    def _domain(self, name: str, tensor: TensorType, shapes: Mapping[str, Sequence[int]]) -> Domain:
        if name in self._ranges:
            low, high = self._ranges[name]
            return Domain("uniform" if tensor.dtype.kind not in "iub" else "integers", low, high, reason="by --range")
        domain = domain_of(name, tensor, self._flow, shapes)
        if domain.kind == "strings":
            raise UsageError(
                f"{one_line(str(self._source.path))}: input {one_line(name)!r} takes strings, which are not drawn: give inputs with --inputs"
            )
        return domain


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
            values = np.full(shape, domain.choices[0])
        case "boxes":
            values = generator.uniform(domain.low, domain.high, shape)
            if shape and shape[-1] == 4:  # x1, y1, x2, y2
                corners = np.sort(values.reshape(*shape[:-1], 2, 2), axis=-2)
                values = corners.reshape(shape)
        case _:
            values = generator.integers(int(domain.low), int(domain.high), shape, np.int64, endpoint=True)
    return np.asarray(values).astype(dtype)


def _in_words(domain: Domain) -> str:
    match domain.kind:
        case "normal":
            return "normal"
        case "positive":
            return f"absolute values of normal numbers above {domain.low:g}"
        case "choice":
            return f"{domain.choices[0]:g}"
        case "uniform" | "boxes":
            return f"{domain.kind} from {domain.low:g} to {domain.high:g}"
    return f"integers {domain.low:g} to {domain.high:g}"
