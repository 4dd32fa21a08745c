"""Graphs of operators by the hundred, through every runtime: the cases of the standard, run in batches, judged by their limits and by ours."""
