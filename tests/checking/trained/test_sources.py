"""What a user names: told by the content of a file, else a factory."""

import zipfile
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from actconform.checking.trained.sources import named_source, open_trained
from actconform.errors import UsageError
from actconform.plugin.interfaces import Backend
from actconform.plugin.loader import load_plugins
from actconform.settings import Config


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def archive(path, *members):
    with zipfile.ZipFile(path, "w") as file:
        for member in members:
            file.writestr(member, b"0")


@pytest.mark.parametrize(("timeout", "seconds"), [(None, 70.0), (500.0, 500.0)])
def test_a_framework_may_take_as_long_to_start_as_a_call(folder, monkeypatch, timeout, seconds):
    made = []

    def worker(name, config):
        made.append(config.timeout)
        raise UsageError("enough")

    monkeypatch.setattr("actconform.checking.trained.sources.configured_worker", worker)
    catalog = SimpleNamespace(backends={"taker": SimpleNamespace(opens=("factory",))}, exporters={})
    source = named_source("net:make").trained
    with ExitStack() as stack, pytest.raises(UsageError, match="enough"):
        open_trained(source, catalog, Config(timeout=70.0), stack, timeout=timeout)
    assert made == [seconds]


@pytest.mark.parametrize("text", ["net:make", "package.module:Factory", "a.b.c:d.e"])
def test_a_module_and_a_name_are_a_factory(folder, text):
    source = named_source(text, trusted=True)
    assert source.kind == "trained"
    assert (source.trained.kind, source.trained.text, source.trained.trusted) == ("factory", text, True)
    assert source.trained.folder == str(Path.cwd())


def test_an_existing_file_is_no_factory_whatever_its_name(folder):
    Path("net:make").write_bytes(b"\x08\x07")
    assert named_source("net:make").kind == "onnx"


@pytest.mark.parametrize(
    ("members", "kind"),
    [
        (("config.json", "model.weights.h5"), "keras"),
        (("m/constants.pkl", "m/data.pkl", "m/code/__torch__.py"), "torchscript"),
        (("m/archive_format", "m/models/model.json", "m/data.pkl"), "pt2"),
    ],
)
def test_archives_are_told_by_their_members(folder, members, kind):
    archive("file.bin", *members)
    source = named_source("file.bin")
    assert source.trained.kind == kind
    assert Path(source.trained.text).is_absolute()  # the worker may be elsewhere


def test_files_and_folders_are_told_by_their_content(folder):
    Path("lite").write_bytes(b"\x1c\0\0\0TFL3rest")
    Path("old.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    Path("saved").mkdir()
    Path("saved/saved_model.pb").write_bytes(b"")
    assert [named_source(name).trained.kind for name in ("lite", "old.h5", "saved")] == [
        "tflite",
        "keras",
        "saved-model",
    ]


def test_saved_outputs_are_no_model(folder):
    np.savez("out.npz", y=np.zeros(2))
    np.save("y.npy", np.zeros(2))
    Path("outputs").mkdir()
    Path("outputs/output_0.pb").write_bytes(b"")
    assert {named_source(name).kind for name in ("out.npz", "y.npy", "outputs")} == {"outputs"}


@pytest.mark.parametrize("content", [b"\x80\x02}q", b"\x80\x05}"], ids=["protocol-2", "protocol-5"])
def test_pickled_files_are_refused_with_what_to_name(folder, content):
    Path("weights.pt").write_bytes(content)
    with pytest.raises(UsageError, match=r"pickled.*runs code.*package.module:factory"):
        named_source("weights.pt")


def test_a_state_dict_of_torch_is_refused_too(folder):
    archive("weights.pt", "weights/data.pkl", "weights/data/0")
    with pytest.raises(UsageError, match="pickled"):
        named_source("weights.pt")


@pytest.mark.parametrize("text", ["model.onnx", "missing", "a b:c", ":make", "net:"])
def test_all_else_is_taken_for_an_onnx_file_whose_reading_says_what_is_wrong(folder, text):
    assert named_source(text).kind == "onnx"


class _Opens(Backend):
    kind = "framework"
    opens = ("factory",)


def test_no_framework_for_a_kind_says_what_to_install(folder):
    Path("lite").write_bytes(b"\x1c\0\0\0TFL3rest")
    catalog = SimpleNamespace(backends={"mine": _Opens})
    with ExitStack() as stack, pytest.raises(UsageError, match=r"no installed plugin.*tflite.*pip install"):
        open_trained(named_source("lite").trained, catalog, Config(), stack)


def test_a_missing_module_is_told_in_the_frameworks_words(folder):
    with ExitStack() as stack, pytest.raises(UsageError, match="no_such_module"):
        open_trained(named_source("no_such_module:make").trained, load_plugins(), Config(), stack)


def test_the_framework_that_the_module_imports_is_asked_first(folder):
    Path("mine.py").write_text(
        "import keras\n\ndef make():\n    raise ValueError('asked in ' + __import__('sys').modules.get('torch', keras).__name__)\n"
    )
    with ExitStack() as stack, pytest.raises(UsageError, match="asked in keras"):
        open_trained(named_source("mine:make").trained, load_plugins(), Config(), stack)
