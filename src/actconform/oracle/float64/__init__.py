"""The truth of kernels at run time: float64 formulas without cancellation, held against the goldens."""
