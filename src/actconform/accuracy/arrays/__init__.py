"""Arrays that something computed against those that are expected: actconform.compare."""
