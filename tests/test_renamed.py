"""Modules by their old names: the same module, and a warning that says its new one."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import actconform
from actconform import Program
from actconform._renamed import CLASSES, MOVED, RENAMED, new_name


@pytest.mark.parametrize("old", sorted(RENAMED))
def test_an_old_name_gives_the_module_itself(old: str):
    if f"actconform.{old}" in sys.modules:  # warned before
        sys.modules.pop(f"actconform.{old}")
    with pytest.warns(DeprecationWarning, match=rf"actconform\.{old} is actconform\.{RENAMED[old]} now"):
        module = importlib.import_module(f"actconform.{old}")
    assert module is sys.modules[f"actconform.{RENAMED[old]}"]
    assert module.__spec__.name == module.__name__ == f"actconform.{RENAMED[old]}"


def test_no_name_of_today_is_taken_for_an_old_one():
    today = [found.name for found in pkgutil.walk_packages(actconform.__path__, "actconform.")]
    assert len(today) > 200
    assert [name for name in today if new_name(name.removeprefix("actconform."))] == []


def test_what_is_below_an_old_package_is_loaded_once():
    code = """
import warnings; warnings.simplefilter("ignore")
import actconform.onnx.rules.registry as old
import actconform.onnx.grad.rules.registry as new
from actconform.causes.formula import Formula as Old
from actconform.verdict.causes.formula import Formula as New
assert old is new and Old is New
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("actconform.run", "Plan"),
        ("actconform.catalog.kernels", "Builtin"),
        ("actconform.onnx.author", "author"),
        ("actconform.oracle.layers", "LayerGradients"),
        ("actconform.oracle.arb", "python_flint"),
    ],
)
def test_a_module_that_is_a_package_now_has_its_old_names(package: str, name: str):
    home = importlib.import_module(MOVED[package])
    with pytest.warns(DeprecationWarning, match=f"{name} is {MOVED[package]}.{name} now"):
        assert getattr(importlib.import_module(package), name) is getattr(home, name)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = importlib.import_module(package).no_such_name


def test_an_unknown_module_is_unknown():
    with pytest.raises(ModuleNotFoundError, match=r"actconform\.nothing"):
        importlib.import_module("actconform.nothing")


@pytest.mark.parametrize("module", sorted(CLASSES))
def test_a_class_has_its_old_name_too(module: str):
    home = importlib.import_module(module)
    for old, new in CLASSES[module].items():
        with pytest.warns(DeprecationWarning, match=f"{old} is {new} now"):
            assert getattr(home, old) is getattr(home, new)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = home.no_such_name


def test_methods_of_a_program_hold_by_their_old_names():
    with pytest.warns(DeprecationWarning, match=r"Program\.(taps|ready) is \w+ now: rename it in Old") as warned:

        class Old(Program):
            def forward(self, inputs):
                return inputs

            def taps(self, inputs):
                return {"layer": inputs["x"]}

            def ready(self, inputs, cotangents=None):
                return lambda: "computed"

    assert len(warned) == 2
    assert Old().intermediates({"x": 1}) == {"layer": 1}
    assert Old().prepare_call({})() == "computed"

    class New(Program):
        def forward(self, inputs):
            return inputs

    with pytest.warns(DeprecationWarning, match=r"Program\.ready is prepare_call now"):
        assert New().ready({"x": 1})() == {"x": 1}
    with pytest.raises(AttributeError, match="'New' object has no attribute 'tap'"):
        _ = New().tap
