"""The model as it was trained, in its framework: a column of a check beside the runtimes."""
