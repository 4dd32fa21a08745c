"""How accurate single functions are: a user's own by `actconform.measure`; the primitives of libraries by `python -m actconform.accuracy`."""
