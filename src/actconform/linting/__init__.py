"""Known mistakes of a model, told before anything runs: rules over its graph and what its framework says of its training."""
