"""The stored truth: read, written, proven."""
