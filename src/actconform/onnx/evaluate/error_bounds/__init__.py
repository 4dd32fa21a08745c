"""Error bounds of operators: `bounded_outputs` gives those of a node, `error_bound` registers the rule of an operator."""

from actconform.onnx.evaluate.error_bounds import (  # noqa: F401  they register rules
    arithmetic,
    bodies,
    casting,
    composed,
    exact,
    functions,
    losses,
    normalization,
    products,
    quantized,
    recurrent,
    reductions,
    regions,
    resampling,
    signals,
    states,
    windows,
)
from actconform.onnx.evaluate.error_bounds.registry import (
    Approximation,
    BoundContext,
    bounded_outputs,
    error_bound,
    has_error_bound,
)

__all__ = ["Approximation", "BoundContext", "bounded_outputs", "error_bound", "has_error_bound"]
