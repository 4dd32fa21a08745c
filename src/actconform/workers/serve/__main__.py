"""Prints the folder of `actconform_serve.h`, for `g++ -I "$(python -m actconform.workers.serve)"`."""

from __future__ import annotations

from pathlib import Path

from actconform.say import say

if __name__ == "__main__":
    say(str(Path(__file__).parent))
