"""`python -m actconform` is the command `actconform`."""

from actconform.cli import main

if __name__ == "__main__":
    main()
