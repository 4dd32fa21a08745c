"""Answers against truth: units, limits, measurements, findings."""
