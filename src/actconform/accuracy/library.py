"""One library measured in this process: what to ask, of which backend, and the function that computes each primitive."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec

from actconform.accuracy.measure import Accuracy, measured
from actconform.accuracy.primitives import PRIMITIVES
from actconform.errors import Unavailable, Unsupported
from actconform.onnx.author.exporter import artifact_of
from actconform.onnx.nodes import Nodes

if TYPE_CHECKING:
    from actconform.accuracy.measure import Compute
    from actconform.accuracy.primitives import Primitive
    from actconform.plugin.interfaces import Backend, Library


class AccuracyRequest(msgspec.Struct, frozen=True):
    """What is measured of a library: primitives by name, dtypes, how many float32 inputs (None: all)."""

    primitives: tuple[str, ...]
    dtypes: tuple[str, ...]
    points: int | None


class MeasuredLibrary(msgspec.Struct, frozen=True, kw_only=True):
    """A library as measured. `when` names the facts by which it is known; `unsupported` maps PRIMITIVE/DTYPE to the library's words."""

    library: str
    when: tuple[str, ...]
    facts: tuple[dict[str, str], ...]
    accuracies: tuple[Accuracy, ...]
    unsupported: dict[str, str] = {}


def measure_library(backend_class: type[Backend], vector: AccuracyRequest) -> MeasuredLibrary | str:
    """Return the accuracies of the library of a backend, or in words why it does not run here.

    Says on a terminal what is being measured.
    """
    backend = backend_class()
    try:
        facts, library = backend.facts(), backend.library()
    except Unavailable as error:
        return str(error)
    accuracies, unsupported = [], {}
    for dtype in vector.dtypes:
        for name in vector.primitives:
            primitive = PRIMITIVES[name]
            if dtype not in primitive.dtypes:
                continue
            _progress(f"{library.name} {name} {dtype}")
            try:
                compute = _function(backend, library, primitive, dtype)
                accuracies.append(measured(primitive, compute, dtype, vector.points))
            except Unsupported as error:
                unsupported[f"{name}/{dtype}"] = str(error)
    _progress("")
    return MeasuredLibrary(
        library=library.name,
        when=library.when,
        facts=(facts,),
        accuracies=tuple(accuracies),
        unsupported=unsupported,
    )


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _function(backend: Backend, library: Library, primitive: Primitive, dtype: str) -> Compute:
    """Return the library's own function, or a graph of one node in a runtime; raise `Unsupported` where there is neither."""
    if primitive.name in library.primitives:
        return library.primitives[primitive.name]
    if backend.kind == "framework" or not primitive.operator:
        raise Unsupported("no such function")
    names = ("x", "z")[: primitive.operands]
    nodes = Nodes(dtype)
    nodes.rename(getattr(nodes, primitive.operator)(*names), "y")
    artifact = artifact_of(primitive.name, nodes, dict.fromkeys(names, ("n",)), ["y"])
    program = backend.load(artifact, dtype)
    return lambda *operands: program.forward(dict(zip(names, operands, strict=True)))["y"]
