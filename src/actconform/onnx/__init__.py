"""ONNX graphs: written from kernels, with nodes of standard operators."""
