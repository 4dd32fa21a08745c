"""The strategies of operators by family; importing it registers them."""

from actconform.suite.drawn.families import (  # noqa: F401  they register strategies
    casts,
    elementwise,
    indexing,
    moving,
    normalization,
    products,
    quantized,
    reductions,
    resizing,
    windows,
)
