"""The truth of kernels at run time: float64 formulas without cancellation, compared with the goldens."""
