"""Suites of graphs that runtimes are held against: single operators of the standard."""
