"""Runtimes that stay: one process that loads graphs and answers calls over its standard input and output."""
