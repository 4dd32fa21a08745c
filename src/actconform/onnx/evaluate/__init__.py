"""Two evaluations of a graph without a runtime: correctly rounded node by node, and by onnx's own reference."""
