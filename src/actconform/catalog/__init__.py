"""What there is to test: kernels, and the inputs that they get."""
