"""Benchmarks of the harness itself: ratios within one run, so that they mean the same on another machine."""
