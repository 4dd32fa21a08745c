"""Which input and output of a trained model is which of a graph: by name, else by order, with the layout where it differs."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from actconform.errors import UsageError
from actconform.text import listed, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from actconform.types.trained import Dims, TensorSpec

    Array = NDArray[Any]


EXPORTED_FROM = "name the model that this graph was exported from"


class NamedPair(NamedTuple):
    """A tensor of the graph and the same one of the trained model; graph = trained.transpose(permutation), () where the layout is the same."""

    graph: str
    trained: str
    permutation: tuple[int, ...] = ()

    def to_trained(self, array: Array) -> Array:
        """Return an array of the graph in the trained model's layout."""
        return np.transpose(array, np.argsort(self.permutation)) if self.permutation else array

    def to_graph(self, array: Array) -> Array:
        """Return an array of the trained model in the graph's layout."""
        return np.transpose(array, self.permutation) if self.permutation else array


def paired(
    graph: Sequence[TensorSpec],
    trained: Sequence[TensorSpec],
    role: str,
    *,
    complete: bool = True,
    by_values: Callable[[], Mapping[str, str]] = dict,
) -> tuple[list[NamedPair], list[str]]:
    """Return which tensor is which, and notes about those that are told apart otherwise than by name, or have another layout.

    `role` is "input" or "output". Names decide, then names without what exporters add (":0", a prefix of the signature), then `by_values`, which
    gives the trained name by the graph's, then the order, where types and ranks fit. With `complete` each tensor of the graph needs a partner;
    otherwise those without one are left out. Raises UsageError, with both lists, where it cannot be told.
    """
    partners, how = _by_name(graph, trained), ""
    if partners is None:
        specs = {spec.name: spec for spec in trained}
        partners, how = {name: specs[partner] for name, partner in by_values().items()}, "by their values"
    if len(partners) < len(graph) and (ordered := _by_order(graph, trained)):
        partners, how = ordered, "by their order"
    partners = {**partners, **_by_some_names(graph, trained)} if len(partners) < len(graph) else partners
    missing = [spec.name for spec in graph if spec.name not in partners]
    if missing and (complete or not partners):
        raise UsageError(_untold(graph, trained, role, complete=complete))
    pairs = [
        NamedPair(spec.name, partners[spec.name].name, _permutation(partners[spec.name].dims, spec.dims))
        for spec in graph
        if spec.name in partners
    ]
    notes = [note for pair in pairs for note in _notes(pair, role, how)]
    places = [[spec.name for spec in trained].index(pair.trained) for pair in pairs]
    if how == "by their values" and places != sorted(places):
        notes.append(
            f"{role}s stand in ANOTHER ORDER in the graph than in the trained model: who reads them by their place gets another one"
        )
    if missing:
        notes.append(
            f"{role}s of the graph that the trained model does not have: {listed([one_line(name) for name in missing], 5)}"
        )
    return pairs, notes


def _untold(graph: Sequence[TensorSpec], trained: Sequence[TensorSpec], role: str, *, complete: bool) -> str:
    """Return why it is not known which tensor is which, and what to do: names help only where there are enough tensors that fit."""
    both = f"the graph has {_listed(graph)}, the trained model {_listed(trained)}"
    fitting = [partner for partner in trained if any(_fits(spec, partner) for spec in graph)]
    lonely = [spec for spec in graph if not any(_fits(spec, partner) for partner in trained)]
    if len(trained) < len(graph) and complete:
        return f"{role}s differ in number: {both}; {EXPORTED_FROM}"
    if not fitting or (complete and (lonely or len(fitting) < len(graph))):
        return f"{role}s differ in type or shape: {both}; {EXPORTED_FROM}"
    return (
        f"{role}s cannot be told apart: {both}; rename one side's, as with input_names and output_names of the exporter"
    )


def differing_shapes(
    graph: Sequence[TensorSpec], trained: Sequence[TensorSpec], pairs: Sequence[NamedPair]
) -> list[str]:
    """Return the pairs whose declared shapes no order of axes brings together, in words; a size that is not declared fits any."""
    of_graph, of_trained = ({spec.name: spec for spec in specs} for specs in (graph, trained))
    both = [(of_graph[pair.graph], of_trained[pair.trained]) for pair in pairs if not pair.permutation]
    return [
        f"{one_line(ours.name)} is {_shape(ours.dims)} in the graph and {_shape(theirs.dims)} in the trained model"
        for ours, theirs in both
        if ours.dims is not None and theirs.dims is not None
        if len(ours.dims) != len(theirs.dims) or not _agree(theirs.dims, ours.dims)
    ]


def _notes(pair: NamedPair, role: str, how: str) -> Iterator[str]:
    if _bare(pair.graph) != _bare(pair.trained):
        yield f"{role} {one_line(pair.graph)} of the graph is {one_line(pair.trained)} of the trained model, {how}"
    if pair.permutation:
        yield f"{role} {one_line(pair.graph)} has another layout than in the trained model: axes {list(pair.permutation)} of it"


def nearest_by_values(graph: Mapping[str, Array], trained: Mapping[str, Array]) -> dict[str, str]:
    """Return for each array of the graph the trained one of its shape that is nearest; {} where two would share one, or none fits.

    The distance is the norm of the difference; arrays with NaN are nearest to none.
    """
    partners: dict[str, str] = {}
    for name, array in graph.items():
        distances = {
            partner: float(np.linalg.norm(array.astype(np.float64) - other.astype(np.float64)))
            for partner, other in trained.items()
            if array.shape == other.shape and array.dtype.kind in "fiub" and other.dtype.kind in "fiub"
        }
        finite = {partner: distance for partner, distance in distances.items() if np.isfinite(distance)}
        if not finite:
            return {}
        partners[name] = min(finite, key=lambda partner: finite[partner])
    return partners if len(set(partners.values())) == len(partners) else {}


def _by_name(graph: Sequence[TensorSpec], trained: Sequence[TensorSpec]) -> dict[str, TensorSpec] | None:
    partners = _by_some_names(graph, trained)
    return partners if len(partners) == len(graph) else None


def _by_some_names(graph: Sequence[TensorSpec], trained: Sequence[TensorSpec]) -> dict[str, TensorSpec]:
    exact = {spec.name: spec for spec in trained}
    alike = Counter(_bare(spec.name) for spec in (*graph, *trained))
    bare = {_bare(spec.name): spec for spec in trained}
    partners = {}
    for spec in graph:
        short = _bare(spec.name)
        partner = exact.get(spec.name) or (bare.get(short) if alike[short] == 2 else None)
        if partner is not None:
            partners[spec.name] = partner
    return partners


def _by_order(graph: Sequence[TensorSpec], trained: Sequence[TensorSpec]) -> dict[str, TensorSpec] | None:
    if len(graph) != len(trained) or not all(map(_fits, graph, trained)):
        return None
    return {spec.name: partner for spec, partner in zip(graph, trained, strict=True)}


def _fits(graph: TensorSpec, trained: TensorSpec) -> bool:
    if graph.dtype and trained.dtype and _is_float(graph.dtype) != _is_float(trained.dtype):
        return False
    return graph.dims is None or trained.dims is None or len(graph.dims) == len(trained.dims)


def _is_float(dtype: str) -> bool:
    return "float" in dtype


def _bare(name: str) -> str:
    """Return a name without what exporters put around it, in lower case."""
    return name.partition(":")[0].rpartition("/")[2].removeprefix("serving_default_").lower()


def _permutation(trained: Dims | None, graph: Dims | None) -> tuple[int, ...]:
    """Return the axes of the trained model's tensor in the order of the graph's; () where sizes show no other order.

    The first axis, the batch, stays where it is.
    """
    if trained is None or graph is None or len(trained) != len(graph) or len(graph) > 5 or _agree(trained, graph):
        return ()
    fitting = [
        (0, *rest)
        for rest in itertools.permutations(range(1, len(graph)))
        if _agree([trained[axis] for axis in (0, *rest)], graph)
    ]
    moved = [
        order
        for order in fitting
        if order in ((0, len(graph) - 1, *range(1, len(graph) - 1)), (0, *range(2, len(graph)), 1))
    ]
    return (moved or fitting or [()])[0]


def _agree(trained: Sequence[int | str | None], graph: Sequence[int | str | None]) -> bool:
    return all(not (isinstance(a, int) and isinstance(b, int)) or a == b for a, b in zip(trained, graph, strict=True))


def _listed(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{one_line(spec.name)} ({spec.dtype} {_shape(spec.dims)})" for spec in specs) or "none"


def _shape(dims: Dims | None) -> str:
    return "of any shape" if dims is None else f"[{', '.join('?' if dim is None else str(dim) for dim in dims)}]"


def arrays_in_trained_layout(pairs: Sequence[NamedPair], arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return arrays of the graph under the trained model's names, in its layout."""
    return {pair.trained: pair.to_trained(arrays[pair.graph]) for pair in pairs if pair.graph in arrays}


def arrays_in_graph_layout(pairs: Sequence[NamedPair], arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return arrays of the trained model under the graph's names, in its layout."""
    return {pair.graph: pair.to_graph(arrays[pair.trained]) for pair in pairs if pair.trained in arrays}
