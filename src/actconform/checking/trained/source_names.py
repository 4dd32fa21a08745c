"""The layer that a node of a graph belongs to, by what its exporter wrote: scopes in its metadata, or a path as its name."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx

SCOPES = "pkg.torch.onnx.name_scopes"  # by torch's exporter: "['', 'encoder', 'encoder.norm', 'layer_norm_1']"
NAMESPACE = (
    "namespace"  # by its older versions: ": Net/encoder: Encoder/encoder.norm: LayerNorm/layer_norm_1: aten.layer_norm"
)
LONGEST = 4096  # characters of either


class SourceNames:
    """Layers by the paths that exporters write: "/encoder/layers.0/norm/Add", "StatefulPartitionedCall/model/dense/BiasAdd"."""

    def __init__(self, layers: Iterable[str]) -> None:
        self._paths = {_parts(layer): layer for layer in layers if layer and ":" not in layer}
        self._by_last: dict[str, list[tuple[str, ...]]] = {}
        for path in self._paths:
            self._by_last.setdefault(path[-1], []).append(path)

    def layer(self, node: onnx.NodeProto) -> str:
        """Return the innermost layer that a node belongs to; "" where nothing says so."""
        for scope in reversed(scopes(node)[:-1]):
            if layer := self._paths.get(_parts(scope)):
                return layer
        if "/" not in node.name:
            return ""
        path = _parts(node.name.partition(":")[0].rpartition("/")[0])
        for end in range(len(path), 0, -1):
            if layer := self._ending(path[:end]):
                return layer
        return ""

    def _ending(self, path: tuple[str, ...]) -> str:
        """Return the layer whose path agrees with the end of `path`: wholly, or as the only layer with that end."""
        candidates = self._by_last.get(path[-1], [])
        common = {candidate: _common_end(path, candidate) for candidate in candidates}
        most = max(common.values(), default=0)
        best = [candidate for candidate in candidates if common[candidate] == most]
        wholly = [candidate for candidate in best if most in (len(candidate), len(path))]
        return self._paths[best[0]] if len(best) == 1 and (wholly or len(candidates) == 1) else ""


def scopes(node: onnx.NodeProto) -> list[str]:
    """Return the scopes of a node, outermost first, the function itself last; none where its metadata hold none."""
    metadata = {entry.key: entry.value for entry in node.metadata_props}
    written = metadata.get(SCOPES, "")[:LONGEST]
    if written:
        try:
            names = ast.literal_eval(written)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return []
        return [str(name) for name in names] if isinstance(names, list) else []
    namespace = metadata.get(NAMESPACE, "")[:LONGEST]
    return [part.partition(":")[0] for part in namespace.split("/")] if namespace else []


def framework_function(node: onnx.NodeProto) -> str:
    """Return the function of the framework that a node is a part of, "layer_norm"; "" where its metadata hold none."""
    names = scopes(node)
    return re.sub(r"_\d+$", "", names[-1]) if names else ""


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in re.split(r"[./]", path) if part)


def _common_end(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    count = 0
    for one, two in zip(reversed(first), reversed(second), strict=False):
        if one != two:
            break
        count += 1
    return count
