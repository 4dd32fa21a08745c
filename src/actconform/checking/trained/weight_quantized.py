"""Weights that a graph holds as integers with a scale."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.checking.trained.weight_layouts import Layout
from actconform.checking.trained.weight_ledger import Deviation
from actconform.checking.trained.weight_nearest import nearest
from actconform.onnx.evaluate.computation import attributes_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actconform.checking.flatten import FlatNode
    from actconform.checking.trained.weight_ledger import Ledger
    from actconform.checking.trained.weight_values import Array

# Where nodes read an integer weight, its scale and its zero point.
PLACES = {
    "DequantizeLinear": [(0, 1, 2)],
    "QLinearConv": [(3, 4, 5)],
    "QLinearMatMul": [(0, 1, 2), (3, 4, 5)],
    "QGemm": [(3, 4, 5)],
    "DynamicQuantizeMatMul": [(1, 2, 3)],
    "MatMulIntegerToFloat": [(1, 3, 5)],
    "MatMulInteger": [(1, -1, 3)],
    "ConvInteger": [(1, -1, 3)],
}
