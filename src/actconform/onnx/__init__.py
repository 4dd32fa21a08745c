"""ONNX graphs: authored from kernels and models, checked, cut, converted between opsets, differentiated, trained and evaluated."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actconform.onnx.step_graph import model_of_state, train_step, training_state

__all__ = ["model_of_state", "train_step", "training_state"]


def __getattr__(name: str) -> Any:
    """Import what trains at first use: it takes all of the differentiation along."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from actconform.onnx import step_graph

    return getattr(step_graph, name)
