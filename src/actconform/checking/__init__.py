"""A user's own ONNX model: read, given inputs, evaluated in float64, run by runtimes, and judged node by node."""
