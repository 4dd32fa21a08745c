"""node_data.json: the layers' errors over their bounds as an overlay for Model Explorer (google-ai-edge/model-explorer)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from actconform.files import write_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from actconform.checking.result import CheckResult

NODE_DATA = "node_data.json"
LARGEST = 1e30  # stands for infinity, which JSON has not
# Up to each value the colour of a node: green where rounding explains it, red where not. A node above the last has none.
THRESHOLDS = (
    (0.0, "#d7ecdf", "#000000"),
    (0.5, "#a5d6b5", "#000000"),
    (1.0, "#5fae7b", "#000000"),
    (10.0, "#f2b0a0", "#000000"),
    (1000.0, "#e07a60", "#000000"),
    (LARGEST, "#b5301a", "#ffffff"),
)


def write_node_data(result: CheckResult, folder: Path) -> Path:
    """Write node_data.json into `folder` and return its path: for each node the largest error over its bound. Raises OSError."""
    path = folder / NODE_DATA
    write_bytes(path, msgspec.json.encode(node_data(result)) + b"\n")
    return path


def node_data(result: CheckResult) -> dict[str, Any]:
    """Return the overlay: for each node that was judged its largest ratio over runtimes, levels and samples, infinity as LARGEST."""
    ratios: dict[str, float] = {}
    for runtime in result.runtimes:
        for tensor in (tensor for level in runtime.levels for tensor in level.tensors):
            ratio = LARGEST if math.isnan(tensor.ratio) else min(float(f"{tensor.ratio:.4g}"), LARGEST)
            ratios[tensor.node] = max(ratios.get(tensor.node, 0.0), ratio)
    thresholds = [{"value": value, "bgColor": back, "textColor": front} for value, back, front in THRESHOLDS]
    return {
        "results": {node: {"value": ratio} for node, ratio in ratios.items()},
        "thresholds": thresholds,
        "hideAggregatedStats": ["sum", "avg"],
        "hideInChildrenStatsTable": True,  # shares of a sum of ratios say nothing
    }
