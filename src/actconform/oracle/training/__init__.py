"""The truth of training in float64: optimizers, one step, a whole trajectory."""
