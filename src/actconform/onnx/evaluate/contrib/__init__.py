"""Operators that ONNX Runtime adds to the standard, which its optimizer and its quantization tools write into graphs.

Each is defined by its schema in ONNX Runtime, as a composition of standard operators; the families of operators have a file each.
"""

from actconform.onnx.evaluate.contrib import (  # noqa: F401  they register operators
    activations,
    attention,
    blockwise,
    group_query,
    normalization,
    products,
    quantized,
    quantized_lstm,
    tensors,
)
