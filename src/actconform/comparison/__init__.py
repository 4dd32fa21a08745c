"""Outputs against truth: errors in the unit of their limit, measurements, findings."""
