"""Files that would hang a command, fill its memory, or steer the terminal: exit code 2 at once, and one line of plain text."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, parser

from actconform.testdata.golden.store import golden_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = 60
HOSTILE = "\x1b[31mred\r\n::error::forged\u202e"


@pytest.fixture(autouse=True)
def _never_for_ever() -> Iterator[None]:
    """A command that waits for a pipe fails its test."""

    def end(*_: object) -> None:
        raise TimeoutError(f"no answer in {SECONDS} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 42)


KINDS: dict[str, Callable[[Path], None]] = {"pipe": pipe, "device": device, "huge": huge}
COMMANDS = {
    "grad": ("grad model.onnx -o out.onnx --wrt x", "model.onnx"),
    "report of a folder": ("report out", "out/report.json"),
    "report of a file": ("report my.json", "my.json"),
    "diff": ("diff my.json my.json", "my.json"),
    "history add": ("history add my.json --store history.jsonl", "my.json"),
    "history show": ("history show --store history.jsonl", "history.jsonl"),
    "ci": ("ci out", "out/report.json"),
    "ci of a model": ("ci out", "out/check.json"),
    "merge": ("merge my.json --out merged", "my.json"),
    "adopt": ("deviations adopt my.json", "my.json"),
    "settings": ("run relu/value/f32/torch", "actconform.toml"),
    "other settings": ("run relu/value/f32/torch --config my.toml", "my.toml"),
    "manifest": ("golden verify --folder golden", "golden/manifest.json"),
    "manifests": ("golden diff golden golden", "golden/manifest.json"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_no_file_of_a_sane_size_is_named_at_once(name: str, kind: str, cli, tmp_path: Path) -> None:
    command, file = COMMANDS[name]
    (tmp_path / file).parent.mkdir(exist_ok=True)
    KINDS[kind](tmp_path / file)
    said = cli(*command.split())
    assert said.code == 2, said.out
    assert len(said.err.splitlines()) == 1
    assert file in said.err
    assert ("bytes" if kind == "huge" else "no regular file") in said.err


@pytest.mark.parametrize("kind", KINDS)
def test_a_register_that_the_settings_name_likewise(kind: str, cli, tmp_path: Path) -> None:
    (tmp_path / "actconform.toml").write_text('deviations = ["mine.toml"]')
    KINDS[kind](tmp_path / "mine.toml")
    said = cli("run", "relu/value/f32/torch")
    assert (said.code, len(said.err.splitlines())) == (2, 1)
    assert "mine.toml: deviations file named in the settings cannot be read" in said.err


@pytest.fixture
def goldens(tmp_path: Path) -> Path:
    """The goldens of relu alone."""
    folder = tmp_path / "golden"
    shutil.copytree(golden_dir() / "relu", folder / "relu")
    manifest = json.loads((golden_dir() / "manifest.json").read_bytes())
    manifest["files"] = {name: entry for name, entry in manifest["files"].items() if name.startswith("relu/")}
    manifest["subjects"] = {"relu": manifest["subjects"]["relu"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_golden_that_has_no_end_is_named(kind: str, cli, goldens: Path) -> None:
    (goldens / "relu" / "y.npy").unlink()
    KINDS[kind](goldens / "relu" / "y.npy")
    said = cli("golden", "verify", "--fast", "--folder", "golden", "relu")
    assert said.code == 1
    assert "relu/y.npy: golden cannot be read: " in said.out


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_too_many_that_has_no_end_is_named(kind: str, cli, goldens: Path) -> None:
    KINDS[kind](goldens / "relu" / "extra.npy")
    said = cli("golden", "verify", "--fast", "--folder", "golden", "relu")
    assert said.code == 1
    assert "relu/extra.npy: extra file, not in the manifest, which " in said.out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda files: files.update({"../../etc/passwd": files["relu/y.npy"]}), "is no file of a subject"),
        (lambda files: files.update({"/etc/passwd": files["relu/y.npy"]}), "is no file of a subject"),
        (lambda files: files.update({"relu/a\0.npy": files["relu/y.npy"]}), "is no file of a subject"),
        (lambda files: files["relu/y.npy"].update(shape=[10**12]), "is a tensor of '<f8' [1000000000000]"),
        (lambda files: files["relu/y.npy"].update(shape=[-1]), "is a tensor of '<f8' [-1]"),
        (lambda files: files["relu/y.npy"].update(dtype="|O"), "is a tensor of '|O'"),
    ],
)
def test_a_manifest_that_leads_astray_is_refused(change, words: str, cli, goldens: Path) -> None:
    manifest = json.loads((goldens / "manifest.json").read_bytes())
    change(manifest["files"])
    (goldens / "manifest.json").write_text(json.dumps(manifest))
    said = cli("golden", "verify", "--fast", "--folder", "golden", "relu")
    assert (said.code, len(said.err.splitlines())) == (2, 1)
    assert words in said.err


DEEP = {"toml": f"x = {'[' * 20_000}", "json": "[" * 200_000}


@pytest.mark.parametrize("text", [DEEP["toml"], f"threads = {'9' * 10_000}", "\ufeffx", "a = 'b"])
def test_settings_that_no_parser_takes_are_named(text: str, cli, tmp_path: Path) -> None:
    (tmp_path / "actconform.toml").write_text(text)
    said = cli("run", "relu/value/f32/torch")
    assert (said.code, "actconform.toml" in said.err, len(said.err.splitlines())) == (2, True, 1)


@pytest.mark.parametrize("text", [DEEP["json"], "\x00" * 100, "1e999999999", '{"schema": 99999999999999999999}'])
def test_reports_that_no_parser_takes_are_named(text: str, cli, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(text)
    said = cli("report", ".")
    assert (said.code, "report.json" in said.err, len(said.err.splitlines())) == (2, True, 1)


def outside(**entries: str) -> onnx.ModelProto:
    """y = x + w, the data of w in a file as `entries` say."""
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[3] x) => (float[3] y) { y = Add(x, w) }'
    )
    w = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        w.external_data.add(key=key, value=value)
    model.graph.initializer.append(w)
    return model


PLACES = {
    "NUL": ({"location": "a\0b"}, "no path"),
    "absolute": ({"location": "/etc/passwd"}, "outside the model's folder"),
    "above": ({"location": "../w.bin"}, "outside the model's folder"),
    "above by a detour": ({"location": "sub/../../w.bin"}, "outside the model's folder"),
    "a link out": ({"location": "link.bin"}, "outside the model's folder"),
    "nowhere": ({}, "outside the model's folder"),
    "the folder": ({"location": "."}, "no file"),
    "a pipe": ({"location": "pipe"}, "no file"),
    "a loop": ({"location": "loop"}, "loop"),
    "negative offset": ({"location": "w.bin", "offset": "-4"}, "offset '-4': wanted a count of bytes"),
    "offset in words": ({"location": "w.bin", "offset": "four"}, "offset 'four': wanted a count of bytes"),
    "offset in other digits": ({"location": "w.bin", "offset": "٤"}, "wanted a count of bytes"),
    "offset beyond": ({"location": "w.bin", "offset": "4096"}, "has 12 bytes"),
    "offset of many digits": ({"location": "w.bin", "offset": "9" * 5000}, "wanted a count of bytes"),
    "negative length": ({"location": "w.bin", "length": "-12"}, "length '-12': wanted a count of bytes"),
    "length of another tensor": ({"location": "w.bin", "length": "4"}, "have 4 bytes by their length, and 12 by shape"),
    "too short": ({"location": "short.bin"}, "has 4 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_data_beside_a_model_are_read_from_plain_files_of_its_folder_alone(name: str, cli, tmp_path: Path) -> None:
    entries, words = PLACES[name]
    folder = tmp_path / "models"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "w.bin").write_bytes(np.ones(3, np.float32).tobytes())
    (folder / "w.bin").write_bytes(np.ones(3, np.float32).tobytes())
    (folder / "short.bin").write_bytes(b"abcd")
    (folder / "link.bin").symlink_to("../w.bin")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    onnx.save(outside(**entries), folder / "model.onnx")
    said = cli("grad", "models/model.onnx", "-o", "grad.onnx", "--wrt", "x")
    assert (said.code, len(said.err.splitlines())) == (2, 1), said.err
    assert said.err.startswith("error: models/model.onnx: the data of w ")
    assert words in said.err
    assert not Path("grad.onnx").exists()


def test_more_data_than_a_model_can_hold_is_not_read(cli, tmp_path: Path) -> None:
    model = outside(location="w.bin")
    model.graph.initializer[0].dims[:] = [1 << 29]
    for i in range(3):
        more = model.graph.initializer.add()
        more.CopyFrom(model.graph.initializer[0])
        more.name = f"w{i}"
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(1 << 31)
    onnx.save(model, tmp_path / "model.onnx")
    said = cli("grad", "model.onnx", "-o", "grad.onnx", "--wrt", "x")
    assert (said.code, "more than 2 GiB" in said.err) == (2, True)


def test_data_beside_a_model_are_found_by_offset_and_length(cli, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(np.arange(5, dtype=np.float32).tobytes())
    onnx.save(outside(location="w.bin", offset="8", length="12"), tmp_path / "model.onnx")
    assert cli("grad", "model.onnx", "-o", "grad.onnx", "--wrt", "x").code == 0
    (w,) = onnx.load(tmp_path / "grad.onnx").graph.initializer[:1]
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(w), [2, 3, 4])


def harmless(text: str) -> bool:
    return not set(text) & set("\x1b\r\u202e") and "::error" not in text


def named(name: str) -> dict[str, onnx.ModelProto]:
    """Models that are refused, or taken, and have `name` in each place that a message may show."""
    x, y = (helper.make_tensor_value_info(each, TensorProto.FLOAT, [3]) for each in (name, "y"))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("d", 1)]

    def model(*nodes: onnx.NodeProto, **more: list[onnx.TensorProto]) -> onnx.ModelProto:
        graph = helper.make_graph(list(nodes), "g", [x], [y], **more)
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    far = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    far.external_data.add(key="location", value=name)
    return {
        "taken": model(helper.make_node("Tanh", [name], ["y"])),
        "no rule": model(helper.make_node("Foo", [name], ["y"], domain="d", name=name)),
        "operator": model(helper.make_node(name, [name], ["y"], domain="d")),
        "domain": model(helper.make_node("Foo", [name], ["y"], domain=name)),
        "invalid": model(helper.make_node("Tanh", [name, name, name], ["y"], name=name)),
        "cut off": model(helper.make_node("Tanh", ["nowhere" + name], ["y"], name=name)),
        "data": model(helper.make_node("Tanh", [name], ["y"]), initializer=[far]),
    }


@pytest.mark.parametrize("place", named("x"))
@pytest.mark.parametrize("name", [HOSTILE, "x" * 100_000], ids=["hostile", "long"])
def test_names_of_a_model_are_shown_as_text(place: str, name: str, cli, tmp_path: Path) -> None:
    onnx.save(named(name)[place], tmp_path / "model.onnx")
    said = cli("grad", "model.onnx", "-o", "grad.onnx", "--wrt", name if place == "taken" and "," not in name else "y")
    assert harmless(said.out)
    assert harmless(said.err)
    assert len(said.out) + len(said.err) < 8_000
    assert len((said.out + said.err).splitlines()) == 1
    assert said.code == (0 if place == "taken" and name.strip() == name else 2)


def test_file_names_and_settings_are_shown_as_text(cli, tmp_path: Path) -> None:
    for arguments in (
        ("report", HOSTILE),
        ("report", "x" * 100_000),
        ("run", "--config", "x" * 100_000),
        ("grad", HOSTILE, "-o", "out.onnx", "--wrt", "x"),
        ("run", HOSTILE),
        ("list", HOSTILE),
        (HOSTILE,),
        ("golden", "verify", "--folder", HOSTILE),
    ):
        said = cli(*arguments)
        assert said.code == 2
        assert harmless(said.out + said.err)
        assert len(said.out + said.err) < 5_000
    (tmp_path / "actconform.toml").write_text('"\\u001b[31m\\n::error::x" = 1')
    assert harmless(cli("run").err)
