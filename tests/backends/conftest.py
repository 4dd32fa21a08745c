"""The backends that these tests ask the same questions of, as their plugins give them."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import pytest

from actconform import Unavailable
from actconform.plugin.loader import load_plugins

sys.path.insert(0, str(Path(__file__).parent))  # kernel_truth.py


@pytest.fixture(scope="session")
def backend_of():
    """Return the function from a name to the backend, which skips the test where that is not installed."""
    backends = load_plugins().backends

    @cache
    def backend(name):
        if name not in backends:
            pytest.skip(f"no plugin gives {name}")
        made = backends[name]()
        try:
            made.facts()
        except Unavailable as missing:
            pytest.skip(str(missing))
        return made

    return backend
