"""What there is to test: kernels, kinds of layers, reference models."""
