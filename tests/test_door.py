"""The public door: what `actconform` offers can be imported from it, and costs a process nothing that it does not use."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import actconform


@pytest.mark.parametrize("name", actconform.__all__)
def test_what_the_door_offers_is_there(name: str) -> None:
    offered = getattr(actconform, name)
    home = importlib.import_module(getattr(offered, "__module__", "actconform"))
    assert name in ("Bundle", "LOSS", "OUTPUT", "__version__", "hookimpl") or getattr(home, name) is offered


def test_what_is_not_offered_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Kernels'"):
        _ = actconform.Kernels


def test_the_door_loads_neither_numpy_nor_onnx() -> None:
    code = "import actconform, sys; print(sorted({'numpy', 'onnx', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
