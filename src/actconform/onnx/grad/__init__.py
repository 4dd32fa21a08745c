"""Gradients of ONNX graphs, as graphs: `add_gradients`, and one rule for each operator in `rules`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actconform.errors import GradientError, NameTakenError, UnsupportedOperator
    from actconform.onnx.grad.reverse_mode import add_gradients

__all__ = ["GradientError", "NameTakenError", "UnsupportedOperator", "add_gradients"]


def __getattr__(name: str) -> Any:
    """Import the differentiation at first use: its rules are built on modules that import rules themselves."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from actconform.onnx.grad import reverse_mode

    return getattr(reverse_mode, name)
