"""ort-cpu on processors that this machine does not have: `python -m actconform.emulate`."""
