"""Exact truth, for goldens: kernels in Arb's ball arithmetic, rounded correctly."""

from actconform._renamed import moved

__getattr__ = moved(__name__)  # its names before 0.2
