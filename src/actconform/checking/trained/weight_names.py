"""Which of several equal constants is which of several equal weights: by names, then by order."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actconform.checking.flatten import FlatGraph

MOST_TIED = 4  # weights that share one constant, and have it for their own
SCOPES = ("pkg.torch.onnx.name_scopes", "namespace")  # metadata in which exporters keep the path of a layer


def initializer_hints(graph: FlatGraph) -> dict[str, list[list[str]]]:
    """Return what hints at the layer of each constant, as words: its own name, and the names and scopes of the nodes that read it."""
    hints = {name: [words(name)] for name in graph.constants}
    for node in graph.nodes:
        texts = [node.name, *(item.value for item in node.proto.metadata_props if item.key in SCOPES)]
        for name in node.inputs:
            if name in hints:
                hints[name] += [words(text) for text in texts]
    return hints


def words(name: str) -> list[str]:
    """Return the parts of a name in lower case: "encoder.layers.0/Mul_1" has five."""
    return [part for part in re.split(r"[^0-9a-z]+", name.lower()) if part]


def likeness(parameter: Sequence[str], hints: Sequence[Sequence[str]]) -> float:
    """Return how many words of a weight's name stand in the same order in the best hint, and as a fraction how few others it has."""
    return max((_common(parameter, hint) + 1 / (2 + len(hint)) for hint in hints), default=0.0)


def _common(left: Sequence[str], right: Sequence[str]) -> int:
    """Return the length of the longest common subsequence."""
    row = [0] * (len(right) + 1)
    for item in left:
        diagonal = 0
        for i, other in enumerate(right, 1):
            diagonal, row[i] = row[i], diagonal + 1 if item == other else max(row[i], row[i - 1])
    return row[-1]


def pair_by_names(
    parameters: Sequence[str], initializers: Sequence[str], hints: Mapping[str, Sequence[Sequence[str]]]
) -> dict[str, str]:
    """Return the weight of each initializer, all of which hold the same values.

    Pairs whose names are liker than those of any rival come first; what is left goes by order where the numbers are equal, and is left out
    where they are not.
    """
    if len(initializers) == 1 and len(parameters) > MOST_TIED:
        return {}  # zeros or ones that stand for all of them
    scores = {
        (parameter, initializer): likeness(words(parameter), hints[initializer])
        for parameter in parameters
        for initializer in initializers
    }
    pairs: dict[str, str] = {}
    left, right = list(parameters), list(initializers)
    while left and right:
        best = [_best_pair(parameter, left, right, scores) for parameter in left]
        sure = [pair for pair in best if pair]
        if not sure:
            break
        for parameter, initializer in sure:
            pairs[initializer] = parameter
            left.remove(parameter)
            right.remove(initializer)
    if len(left) == len(right):
        pairs.update(zip(right, left, strict=True))
    return pairs


def _best_pair(
    parameter: str, parameters: Sequence[str], initializers: Sequence[str], scores: Mapping[tuple[str, str], float]
) -> tuple[str, str] | None:
    """Return a weight and its initializer if each is liker to the other than to all rivals."""
    initializer = max(initializers, key=lambda name: scores[parameter, name])
    score = scores[parameter, initializer]
    rivals = [scores[parameter, name] for name in initializers if name != initializer]
    rivals += [scores[name, initializer] for name in parameters if name != parameter]
    return (parameter, initializer) if score >= 1 and score > max(rivals, default=0.0) else None
