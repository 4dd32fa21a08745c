"""ONNX graphs: authored from kernels and models, checked, cut, converted between opsets, differentiated and evaluated."""
