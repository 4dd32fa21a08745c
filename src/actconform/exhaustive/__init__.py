"""All numbers of float32, chunk by chunk: their patterns, and what one pass over outputs and truth counts. Pure functions."""
