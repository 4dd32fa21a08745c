"""The compiler of the C++ runtime beside it: an ONNX graph of element-wise and row operators becomes a small program in text.

`compile_graph.py MODEL -o ARTIFACT`; exit code 3 where the graph has an operator or type that the runtime does not know.
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
from onnx import TensorProto, numpy_helper

TYPES = {TensorProto.FLOAT: "f32", TensorProto.FLOAT16: "f16", TensorProto.BFLOAT16: "bf16", TensorProto.BOOL: "bool"}
OPERATORS = """
    Abs Add Clip Div Elu Exp Greater HardSigmoid Identity LeakyRelu Less LessOrEqual Max Min Mul Neg Or Reciprocal
    ReduceSum Relu Selu Sigmoid Softmax Softplus Softsign Sqrt Sub Tanh ThresholdedRelu Where
"""


def refuse(reason: str) -> None:
    print(reason, file=sys.stderr)
    raise SystemExit(3)


def type_of(element_type: int) -> str:
    if element_type not in TYPES:
        refuse(f"tensors of {TensorProto.DataType.Name(element_type)}")
    return TYPES[element_type]


def compiled(model: onnx.ModelProto) -> str:
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    lines = [f"input {value.name} {type_of(types[value.name])}" for value in model.graph.input]
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).astype(float).ravel()
        shape = " ".join(map(str, [len(tensor.dims), *tensor.dims]))
        lines.append(f"constant {tensor.name} {shape} {' '.join(float(value).hex() for value in values)}")
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
    for node in model.graph.node:
        if node.op_type not in OPERATORS.split():
            refuse(f"no operator {node.op_type}")
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if attributes.get("axis", -1) != -1:
            refuse(f"{node.op_type} on axis {attributes['axis']}")
        numbers = [f"{name}={float(value).hex()}" for name, value in attributes.items() if isinstance(value, float)]
        inputs = [name or "-" for name in node.input]
        words = [node.op_type, node.output[0], type_of(types[node.output[0]]), str(len(inputs)), *inputs, *numbers]
        lines.append(" ".join(["node", *words]))
    lines += [f"output {value.name}" for value in model.graph.output]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    Path(sys.argv[3]).write_text(compiled(onnx.load(sys.argv[1])))
