"""Single elements against the truth: the error of each, its class, and the worst by binade. Pure functions of arrays."""
