"""`python -m actconform.accuracy`: how accurate the primitives are that frameworks and runtimes compute activations with."""
