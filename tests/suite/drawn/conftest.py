"""The runtimes of tests/drawn_runtimes.py in their workers."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from actconform.checking.open_runtime import open_runtime
from actconform.plugin.loader import GROUP, load_plugins
from actconform.settings import Config

PLUGIN = "drawn_runtimes:Plugin"


@pytest.fixture(scope="module")
def runtime():
    """Return what opens a runtime by its name, once for a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=os.pathsep)
        catalog = load_plugins(entry_points=[EntryPoint("drawn", PLUGIN, GROUP)])
        opened = {}

        def opens(name):
            if name not in opened:
                opened[name] = open_runtime(name, catalog, Config(), timeout=60.0, plugins=[PLUGIN])
            return opened[name]

        yield opens
        for runs in opened.values():
            runs.close()
