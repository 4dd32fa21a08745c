"""The stored truth: read, written, verified."""
