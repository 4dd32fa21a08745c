"""One step of training as one ONNX graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.errors import Unsupported

if TYPE_CHECKING:
    from actconform.types.training import Experiment


def training_graph(forward: bytes, experiment: Experiment) -> bytes:
    """Return the graph of a step."""
    raise Unsupported("no graph of a step yet")
