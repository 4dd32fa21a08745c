"""The training of a user's own ONNX model in a runtime, on a user's own data."""
