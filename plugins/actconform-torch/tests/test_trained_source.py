"""What a user names: a factory whose faults are told by the user's lines, and files that run no code unless they are trusted."""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn
from torch_networks import Casting, UNet, drawn, made

from actconform import SourceError, Unsupported
from actconform.types.trained import RunMode, TrainedSource
from actconform_torch import TorchBackend

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from actconform import TrainedModel

MODULE = """
import torch

class Net(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = torch.nn.Linear(3, width)

    def forward(self, x):
        return self.layer(x)

def make():
    return Net(2)

def with_example():
    return Net(2), torch.ones(5, 3)

def with_width(width, depth=2):
    return Net(width)

def failing():
    return checked(make())

def checked(net):
    raise ValueError("the weights\\nare not there")

def inner_failure():
    return torch.nn.Linear(3, -1)

def leaving():
    raise SystemExit("usage: train.py DATA")

def weights():
    return make().state_dict()

def number():
    return 7

def pair_of_numbers():
    return 1, 2

def a_class():
    return Net

class keras_like:
    pass

def keras_model():
    base = type("Layer", (), {"__module__": "keras.src.layers"})
    return type("Functional", (base,), {"__module__": "net"})()

def lazy():
    return torch.nn.LazyLinear(3)

def on_meta():
    return torch.nn.Linear(3, 3, device="meta")

READY = make()
CONSTANT = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "usernet.py").write_text(MODULE)
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith(("usernet", "userpackage", "broken")):
            del sys.modules[name]


def open_factory(folder: Path, text: str) -> TrainedModel:
    return TorchBackend().open_trained(TrainedSource("factory", text, str(folder)))


def open_file(path: Path, kind: Any, *, trusted: bool = False) -> TrainedModel:
    return TorchBackend().open_trained(TrainedSource(kind, path.name, str(path.parent), trusted))


@pytest.mark.parametrize("name", ["make", "READY", "with_example"])
def test_a_factory_or_a_module_is_opened(folder, name):
    model = open_factory(folder, f"usernet:{name}")
    about = model.about
    assert (about.framework, about.about) == ("torch", "Net (torch.nn.Module), 8 weights")
    assert [spec.name for spec in about.inputs] == ["x"]
    assert about.exporters == ("torch-dynamo", "torch-torchscript")
    assert {spec.name: spec.dims for spec in about.parameters} == {"layer.weight": (2, 3), "layer.bias": (2,)}
    if name == "with_example":
        np.testing.assert_array_equal(about.example["x"], np.ones((5, 3), np.float32))
        assert about.inputs[0].dtype == "float32"
    else:
        assert about.example == {}
        assert about.inputs[0].dtype == ""


def test_the_example_may_be_the_modules_own():
    for attribute in ("example_input_array", "dummy_inputs"):
        module = nn.Linear(3, 3)
        setattr(
            module, attribute, torch.ones(4, 3) if attribute == "example_input_array" else {"input": torch.ones(4, 3)}
        )
        assert TorchBackend().adopt_trained(module, None).about.example["input"].shape == (4, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("usernet:maek", r"usernet has no 'maek'; did you mean make"),
        ("usernte:make", r"no module 'usernte' in .*; did you mean usernet\b"),
        ("userpackage.netz:make", r"no module 'userpackage.netz' in .*; did you mean nets\?"),
        ("usernet:", r"names no factory: wanted \"package.module:factory\""),
        ("usernet:with_width", r"needs arguments \(width\): .*def make\(\): return with_width\(\.\.\.\)"),
        ("usernet:Net", r"usernet:Net needs arguments \(width\)"),
        ("usernet:CONSTANT", r"usernet:CONSTANT is an int: wanted"),
        ("usernet:number", r"usernet:number gives an int: wanted a torch.nn.Module"),
        ("usernet:pair_of_numbers", r"gives a tuple of 2 \(an int, an int\): wanted"),
        ("usernet:a_class", r"gives the class Net, not a model: call it"),
        ("usernet:weights", r"gives weights alone, a dict of 2: load them into the module"),
        ("usernet:leaving", r"raised SystemExit: usage: train.py DATA\n  usernet.py, line \d+, in leaving"),
        ("usernet:lazy", r"usernet:lazy: weight has no shape yet: call the model once"),
        ("usernet:on_meta", r"weight is on the device meta, which holds no values"),
        ("broken:make", r"broken cannot be imported: ModuleNotFoundError: No module named 'nowhere_at_all'\n  broken.py, line 2"),
        ("brokensyntax:make", r"brokensyntax cannot be imported: SyntaxError: .*\n  brokensyntax.py, line 1"),
        ("json:make", r"json has no 'make'"),
    ],
)  # fmt: skip
def test_what_a_user_does_wrong_is_told(folder, text, words):
    (folder / "broken.py").write_text("import torch\nimport nowhere_at_all\n")
    (folder / "brokensyntax.py").write_text("def make(:\n")
    (folder / "userpackage").mkdir()
    (folder / "userpackage" / "__init__.py").write_text("")
    (folder / "userpackage" / "nets.py").write_text("")
    with pytest.raises(SourceError, match=words):
        open_factory(folder, text)


def test_a_factory_that_raises_shows_the_lines_of_the_users_alone(folder):
    with pytest.raises(SourceError) as raised:
        open_factory(folder, "usernet:failing")
    assert str(raised.value).splitlines() == [
        "usernet:failing raised ValueError: the weights are not there",
        "  usernet.py, line 22, in failing: return checked(make())",
        '  usernet.py, line 25, in checked: raise ValueError("the weights\\nare not there")',
    ]
    with pytest.raises(SourceError) as raised:
        open_factory(folder, "usernet:inner_failure")
    assert [line.partition(",")[0].strip() for line in str(raised.value).splitlines()[1:]] == ["usernet.py"]


def test_a_keras_model_is_none_of_torch(folder):
    with pytest.raises(Unsupported, match=r"usernet:keras_model gives a Keras model \(a net.Functional\), not torch's"):
        open_factory(folder, "usernet:keras_model")


def test_a_module_of_the_same_name_in_another_folder_is_another(folder, tmp_path_factory):
    open_factory(folder, "usernet:make")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "usernet.py").write_text(MODULE.replace("Net(2)", "Net(4)"))
    assert open_factory(elsewhere, "usernet:make").about.about == "Net (torch.nn.Module), 16 weights"


def test_a_module_with_the_name_of_a_library_is_told(folder):
    (folder / "numpy.py").write_text(MODULE)
    with pytest.raises(SourceError, match=r"'numpy' is the name of a module that is loaded already, .*: rename yours"):
        open_factory(folder, "numpy:make")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net in every form that torch saves."""
    path = tmp_path_factory.mktemp("files")
    module, x = made(UNet), drawn(2, 1, 8, 8)
    batch = {0: torch.export.Dim("batch")}
    torch.export.save(torch.export.export(module, (x,), dynamic_shapes=(batch,)), path / "net.pt2")
    torch.jit.save(torch.jit.trace(module, (x,)), path / "net.ts")
    torch.save(module.state_dict(), path / "weights.pt")
    torch.save(module, path / "module.pt")
    torch.save(module.state_dict(), path / "old.pt", _use_new_zipfile_serialization=False)
    (path / "text.pt2").write_text("no archive")
    with zipfile.ZipFile(path / "empty.pt2", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    return path


@pytest.mark.parametrize("trusted", [False, True])
def test_a_program_of_torch_export_has_its_layers_and_example(files, trusted):
    model = open_file(files / "net.pt2", "pt2", trusted=trusted)
    about = model.about
    assert (about.exporters, about.trainable) == (("torch-dynamo",), False)
    assert [spec.name for spec in about.inputs] == ["x"]
    module = made(UNet)
    assert set(model.parameters()) == set(module.state_dict())
    for mode in (RunMode(), RunMode("float64")):
        run = model.run(about.example, mode, layers=True)
        wanted = (module.double() if mode.precision == "float64" else module)(
            torch.from_numpy(about.example["x"]).to(next(module.parameters()).dtype)
        )
        np.testing.assert_allclose(run.outputs["output"], wanted.detach(), rtol=1e-5, atol=1e-6)
        assert {"down.0", "down.1", "middle", "up", ":cat", "out", ""} <= {layer.name for layer in run.layers}
    with pytest.raises(Unsupported, match="does not train"):
        model.run(about.example, RunMode(training=True))


def test_a_program_that_converts_to_float32_stays_in_float64(tmp_path):
    module, x = made(Casting), drawn(2, 3, 10)
    torch.export.save(torch.export.export(module, (x,)), tmp_path / "net.pt2")
    model = open_file(tmp_path / "net.pt2", "pt2")
    wanted = TorchBackend().adopt_trained(module, x).run({"x": x.numpy()}, RunMode("float64"), layers=True)
    run = model.run({"x": x.numpy()}, RunMode("float64"), layers=True)
    np.testing.assert_allclose(run.outputs["output"], wanted.outputs["output"], rtol=1e-13, atol=1e-13)
    assert {layer.name for layer in wanted.layers} <= {layer.name for layer in run.layers}


def test_torchscript_runs_where_it_is_trusted(files):
    with pytest.raises(SourceError, match=r"net.ts is TorchScript, which runs code that is in the file.*--trust"):
        open_file(files / "net.ts", "torchscript")
    model = open_file(files / "net.ts", "torchscript", trusted=True)
    assert [spec.name for spec in model.about.inputs] == ["x"]
    assert model.about.exporters == ("torch-torchscript",)
    x = drawn(2, 1, 8, 8)
    run = model.run({"x": x.numpy()}, RunMode(), layers=True)
    np.testing.assert_allclose(run.outputs["output"], made(UNet)(x).detach(), rtol=1e-5, atol=1e-6)
    assert {"down.0", "down.1", "middle", "up", ":cat", "out", ""} <= {layer.name for layer in run.layers}


def test_torchscript_that_remembers_starts_anew_at_every_call(tmp_path):
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.state = torch.zeros(2)

        def forward(self, x):
            self.state = self.state + x
            return self.state

    torch.jit.save(torch.jit.script(Counting()), tmp_path / "net.ts")
    model = open_file(tmp_path / "net.ts", "torchscript", trusted=True)
    for _ in range(2):
        output = model.run({"x": np.ones(2, np.float32)}, RunMode()).outputs["output"]
        np.testing.assert_array_equal(output, [1, 1])


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("weights.pt", "torchscript", "weights.pt holds weights alone, and no model to run them: name a factory"),
        ("old.pt", "torchscript", "old.pt holds weights alone"),
        ("module.pt", "torchscript", r"module.pt is a pickle that calls torch_networks.UNet when it is loaded: it is not loaded; name a factory"),
        ("net.ts", "pt2", "net.ts is TorchScript, not a program of torch.export"),
        ("net.pt2", "torchscript", "net.pt2 is a program of torch.export, not TorchScript"),
        ("text.pt2", "pt2", "text.pt2 is no archive of torch's, or is damaged"),
        ("empty.pt2", "pt2", "empty.pt2 holds no model of torch's"),
        ("nowhere.pt2", "pt2", "no such file: .*nowhere.pt2"),
    ],
)  # fmt: skip
def test_other_files_are_told(files, name, kind, words):
    with pytest.raises(SourceError, match=words):
        open_file(files / name, kind)


def test_a_cut_off_file_is_told(files, tmp_path):
    for name, kind in (("net.pt2", "pt2"), ("net.ts", "torchscript")):
        content = (files / name).read_bytes()
        for size in (100, len(content) // 2, len(content) - 10):
            (tmp_path / name).write_bytes(content[:size])
            with pytest.raises(SourceError, match=name):
                open_file(tmp_path / name, kind, trusted=True)


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, (BOMB,)


BOMB = ""


def changed(source: Path, target: Path, change: Any) -> Path:
    """Copy an archive with its files changed: `change` is called with name and content."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target


def in_description(change: Any) -> Any:
    """Return a change of the description of a program alone."""

    def changed_file(name: str, content: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return content
        return json.dumps(change(json.loads(content))).encode()

    return changed_file


def with_target(value: Any) -> Any:
    value["graph_module"]["graph"]["nodes"][0]["target"] = "torch.serialization.os.system"
    return value


def with_size(value: Any) -> Any:
    text = json.dumps(value)
    assert "Symbol('" in text
    start = text.index("Symbol('")
    end = text.index(")", start) + 1
    code = f"__import__('os').mkdir('{BOMB}')"
    return json.loads(text[:start] + code + text[end:])


def with_name(value: Any) -> Any:
    return json.loads(json.dumps(value).replace('"x"', '"x=__import__(1)"'))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_target, "asks for 'torch.serialization.os.system'"),
        (with_size, r"asks for \"__import__\('os'\)"),
        (with_name, "asks for the name"),
    ],
    ids=["target", "size", "name"],
)
def test_a_program_that_would_run_code_is_refused_unless_it_is_trusted(files, tmp_path, monkeypatch, change, words):
    monkeypatch.setattr(sys.modules[__name__], "BOMB", str(tmp_path / "went-off"))
    path = changed(files / "net.pt2", tmp_path / "bad.pt2", in_description(change))
    with pytest.raises(SourceError, match=f"bad.pt2 would run code of its own when it is loaded: .*{words}.*--trust"):
        open_file(path, "pt2")
    assert not (tmp_path / "went-off").exists()


def test_a_pickle_within_a_program_is_not_unpickled(files, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "BOMB", str(tmp_path / "went-off"))
    content = io.BytesIO()
    torch.save((Bomb(),), content, pickle_module=pickle)

    def change(name: str, old: bytes) -> bytes:
        return content.getvalue() if "sample_inputs" in name else old

    path = changed(files / "net.pt2", tmp_path / "bad.pt2", change)
    with pytest.raises(SourceError, match=r"bad.pt2 cannot be loaded by torch.export"):
        open_file(path, "pt2")
    assert not (tmp_path / "went-off").exists()
