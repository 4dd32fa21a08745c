"""Element types of tensors: how the evaluators hold them, and which formats their floats have."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from onnx import TensorProto

from actconform.onnx.nodes import ELEMENT_TYPES
from actconform.types.dtypes import DTYPES

FORMATS = {element_type: DTYPES[dtype] for dtype, element_type in ELEMENT_TYPES.items()}
"""By element type the format of float32, float16 and bfloat16 tensors."""

STORAGE: dict[int, np.dtype[Any]] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.FLOAT16: np.dtype(np.float16),
    TensorProto.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
    TensorProto.DOUBLE: np.dtype(np.float64),
    TensorProto.BOOL: np.dtype(np.bool_),
    **{getattr(TensorProto, f"INT{bits}"): np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{getattr(TensorProto, f"UINT{bits}"): np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
}
"""By element type the NumPy dtype of a tensor."""
