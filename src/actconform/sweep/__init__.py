"""Kernels over all float32 numbers: a journal of chunks for each kernel, aspect and route, that can go on."""
