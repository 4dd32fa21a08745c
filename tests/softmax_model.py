"""The small model that tests of the command, the interface and the assertion check: one that every runtime computes as rounding allows."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper, parser

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[n, 4] x) => (float[n, 3] y)
{
    l = LayerNormalization <axis = -1> (x, scale)
    p = MatMul (l, w)
    y = Softmax <axis = -1> (p)
}
"""


def softmax_model() -> onnx.ModelProto:
    proto = parser.parse_model(TEXT)
    generator = np.random.default_rng(0)
    for name, shape in {"scale": 4, "w": (4, 3)}.items():
        proto.graph.initializer.append(
            numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)
        )
    return proto
