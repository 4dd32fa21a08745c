"""`actconform lint` as people and programs use it: screen, JSON, exit codes, settings, repairs, mistakes of usage."""

from __future__ import annotations

import json
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from ruamel.yaml import YAML

sys.path.append(str(Path(__file__).parents[1] / "checking"))

from small_models import made, numbers

from actconform.linting import session
from actconform.linting.session import lint_source

HEAD = "h = Gemm (x, w, b)  g = MatMul (h, one)  y = Softmax <axis = -1> (g)"
WEIGHTS = {"w": numbers(1, 4, 8), "b": numbers(2, 8), "one": numbers(3, 8, 1)}


def write(path: Path, nodes: str = HEAD, constants=WEIGHTS, outputs: str = "float[n, m] y") -> str:
    onnx.save(made(f"(float[n, 4] x) => ({outputs}) {{ {nodes} }}", constants), path)
    return path.name


def test_a_mistake_is_shown_with_its_node_its_reason_and_what_to_do(cli, tmp_path):
    done = cli("lint", write(tmp_path / "m.onnx"))
    assert done.code == 1
    assert "error   AC101  y (Softmax)" in done.out
    assert "why: softmax(z)_i" in done.out
    assert "do:  Use a sigmoid" in done.out
    assert "NOT CLEAN   1 error" in done.out


def test_a_clean_model_ends_with_0_and_so_does_one_with_notes(cli, tmp_path):
    done = cli("lint", write(tmp_path / "m.onnx", "h = Gemm (x, w, b)  y = Relu (h)"))
    assert (done.code, done.out.splitlines()[-1]) == (0, "CLEAN   no finding")
    onnx.save(made("(float[8, 4] x) => (float[8, 4] y) { y = Relu (x) }"), tmp_path / "fixed.onnx")
    done = cli("lint", "fixed.onnx")
    assert (done.code, done.out.splitlines()[-1]) == (0, "CLEAN   1 note")


def test_json_has_counts_and_every_finding(cli, tmp_path):
    done = cli("lint", write(tmp_path / "m.onnx"), "--json")
    document = json.loads(done.out)
    assert (done.code, document["schema"], document["clean"], document["error"]) == (1, 1, False, 1)
    (finding,) = document["findings"]
    assert (finding["code"], finding["node"], finding["numbers"]["units"]) == ("AC101", "y", 1)


def test_findings_are_left_out_by_the_command_line_and_by_the_settings(cli, tmp_path):
    name = write(tmp_path / "m.onnx")
    assert cli("lint", name, "--ignore", "AC101").code == 0
    assert cli("lint", name, "--ignore", "AC101:other*").code == 1
    (tmp_path / "actconform.toml").write_text('[lint]\nignore = ["AC101:y"]\n')
    done = cli("lint", name)
    assert (done.code, done.out.splitlines()[-1]) == (0, "CLEAN   no finding (1 left out)")


def test_the_rules_are_listed_without_a_model(cli):
    done = cli("lint", "--rules")
    assert done.code == 0
    assert "AC203  error    baked-batch-size   (--fix)" in done.out


def test_a_repaired_copy_is_written_and_said(cli, tmp_path):
    constants = {"s": np.array([2, 4])}
    name = write(tmp_path / "m.onnx", "y = Reshape (x, s)", constants)
    np.save(tmp_path / "x.npy", numbers(1, 2, 4))
    done = cli("lint", name, "--fix", "fixed.onnx", "--inputs", "x.npy")
    assert done.code == 1
    assert "FIXED AC203 y: reshapes to [-1, 4]" in done.out
    assert "fixed.onnx: 1 change, valid" in done.out
    assert "y: the same before and after" in done.out
    assert cli("lint", "fixed.onnx").code == 0


def test_where_there_is_nothing_to_repair_nothing_is_written(cli, tmp_path):
    done = cli("lint", write(tmp_path / "m.onnx"), "--fix", "fixed.onnx")
    assert "nothing was written" in done.out
    assert not (tmp_path / "fixed.onnx").exists()


def test_targets_and_losses_are_taken(cli, tmp_path):
    name = write(tmp_path / "m.onnx", "h = Gemm (x, w, b)  y = Sigmoid (h)")
    np.save(tmp_path / "t.npy", np.array([[0.0, 3.0]]))
    assert "1 of 2 targets lie outside, from 0 to 3" in cli("lint", name, "--targets", "t.npy").out
    assert "AC111" in cli("lint", name, "--loss", "BCEWithLogitsLoss").out


def test_a_runtime_is_asked_for_the_opset(cli, tmp_path):
    pytest.importorskip("onnxruntime")
    name = write(tmp_path / "m.onnx", "y = Relu (x)")
    assert cli("lint", name, "--runtime", "ort-cpu").code == 0
    model = onnx.load(tmp_path / "m.onnx")
    model.ir_version = 2**31 - 1
    onnx.save(model, tmp_path / "future.onnx")
    done = cli("lint", "future.onnx", "--runtime", "ort-cpu")
    assert done.code == 1
    assert "AC208  ort-cpu (runtime)" in done.out
    assert "does not load opset 17 in IR version 2147483647" in done.out


def test_rules_that_had_nothing_to_look_at_are_named(cli, tmp_path):
    name = write(tmp_path / "m.onnx", "h = Gemm (x, w, b)  y = Sigmoid (h)")
    line = "  not asked: AC111, AC112, AC113 without --loss; AC114 without --targets; AC121, AC122 without --inputs; AC208 without --runtime"
    assert line in cli("lint", name).out.splitlines()
    np.save(tmp_path / "x.npy", numbers(1, 40, 4))
    np.save(tmp_path / "t.npy", np.array([[0.0, 1.0]]))
    options = ("--loss", "BCELoss", "--targets", "t.npy", "--inputs", "x.npy", "--ignore", "AC208")
    assert "not asked" not in cli("lint", name, *options).out
    assert json.loads(cli("lint", name, *options[:6], "--json").out)["not_asked"] == {"--runtime": ["AC208"]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.onnx"], "there is no such file"),
        ([], "MODEL is missing"),
        (["t.npy"], "holds arrays"),
        (["m.onnx", "--ignore", "AC777"], "no rule has this code"),
        (["m.onnx", "--loss", "BCEWithLogitLoss"], "did you mean BCEWithLogitsLoss"),
        (["m.onnx", "--runtime", "ort-cpuu"], "did you mean ort-cpu"),
        (["m.onnx", "--targets", "none.npy"], "cannot be read"),
        (["m.onnx", "--targets", "wrong.npz"], "the model has no output"),
        (["m.onnx", "--inputs", "wrong.npz"], "the model has no input"),
        (["m.onnx", "--fix", "m.onnx"], "is the model that is read"),
        (["m.onnx", "--fix", "no/where.onnx"], "there is no folder"),
        (["m.onnx", "--fix", "."], "is a folder"),
        (["m.onnx", "--exporter", "torch-dynamo"], "ONNX file already"),
        (["m.onnx", "--config", "typo.toml"], "did you mean ignore"),
        (["m.onnx", "--config", "unknown.toml"], "unknown.toml: [lint] ignore 'AC777': no rule has this code"),
        (["empty.onnx"], "empty.onnx: is empty"),
        (["text.onnx"], "text.onnx: is a text file"),
        (["folder"], "folder: is a folder"),
        (["cut.onnx"], "cut.onnx: begins as an ONNX model and is damaged or truncated"),
        (["cut.keras"], "cut.keras: is a damaged or truncated zip archive"),
        (["beside.onnx"], "beside.onnx: the data of w should lie in"),
        (["package.module:factory", "--fix", "fixed.onnx"], "--fix repairs ONNX files"),
        (["baked.onnx", "--fix", "/proc/fixed.onnx"], "--fix /proc/fixed.onnx: cannot be written"),
    ],
)
def test_a_mistake_of_usage_ends_with_2_and_writes_nothing(cli, tmp_path, arguments, words):
    write(tmp_path / "m.onnx")
    np.save(tmp_path / "t.npy", np.zeros(3))
    np.savez(tmp_path / "wrong.npz", z=np.zeros((1, 4), np.float32))
    (tmp_path / "typo.toml").write_text('[lint]\nignor = ["AC101"]\n')
    (tmp_path / "unknown.toml").write_text('[lint]\nignore = ["AC777"]\n')
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "text.onnx").write_text("weights")
    (tmp_path / "cut.onnx").write_bytes((tmp_path / "m.onnx").read_bytes()[:-50])
    with zipfile.ZipFile(tmp_path / "cut.keras", "w") as archive:
        archive.writestr("model.weights.h5", bytes(100))
    (tmp_path / "cut.keras").write_bytes((tmp_path / "cut.keras").read_bytes()[:60])
    onnx.save(
        onnx.load(tmp_path / "m.onnx"),
        tmp_path / "beside.onnx",
        save_as_external_data=True,
        location="gone.bin",
        size_threshold=0,
    )
    (tmp_path / "gone.bin").unlink()
    write(tmp_path / "baked.onnx", "y = Reshape (x, s)", {"s": np.array([2, 4])})
    before = sorted(tmp_path.iterdir())
    done = cli("lint", *arguments)
    assert done.code == 2
    assert words in done.err
    assert "Traceback" not in done.err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["[red]", "\x1b[31m", "::error::", "a\nb"])
def test_names_of_a_model_are_shown_as_text(cli, tmp_path, name):
    model = made(f"(float[n, 4] x) => (float[n, m] y) {{ {HEAD} }}", WEIGHTS)
    model.graph.node[-1].name = name
    model.producer_name = name
    onnx.save(model, tmp_path / "m.onnx")
    done = cli("lint", "m.onnx")
    assert done.code == 1
    assert "\x1b" not in done.out
    assert "\n::error::" not in done.out
    assert ("[red] (Softmax)" in done.out) == (name == "[red]")


def test_external_weights_are_not_read_where_no_rule_needs_them(cli, tmp_path):
    model = made("(float[n, 4] x) => (float[n, 64] y) { h = MatMul (x, w)  y = Relu (h) }", {"w": numbers(1, 4, 64)})
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    assert cli("lint", "m.onnx").code == 0
    (tmp_path / "w.bin").write_bytes(b"short")
    done = cli("lint", "m.onnx")
    assert done.code == 2
    assert "w.bin" in done.err


def test_several_models_are_linted_each_and_one_that_cannot_be_read_keeps_none_from_it(cli, tmp_path):
    write(tmp_path / "bad.onnx")
    write(tmp_path / "good.onnx", "h = Gemm (x, w, b)  y = Relu (h)")
    (tmp_path / "empty.onnx").touch()
    done = cli("lint", "good.onnx", "bad.onnx", "good.onnx")
    assert done.code == 1
    assert [line.split()[0] for line in done.out.splitlines() if ".onnx" in line] == ["good.onnx", "bad.onnx"]
    assert "error   AC101  y (Softmax)" in done.out
    assert done.out.splitlines()[-1] == "2 models: 1 clean, 1 not clean"
    assert cli("lint", "good.onnx", "good.onnx").out.splitlines()[-1] == "CLEAN   no finding"
    done = cli("lint", "empty.onnx", "bad.onnx", "gone.onnx", "good.onnx")
    assert done.code == 2
    assert "error   AC101  y (Softmax)" in done.out
    assert done.out.splitlines()[-1] == "4 models: 1 clean, 1 not clean, 2 not linted"
    assert [line.split(":")[1].strip() for line in done.err.splitlines()] == ["empty.onnx", "gone.onnx"]


def test_an_attribute_of_the_wrong_type_is_refused_after_the_others_were_linted(cli, tmp_path):
    write(tmp_path / "typed.onnx", "h = Gemm (x, w, b)  y = Softmax <axis = 1.0> (h)")
    write(tmp_path / "bad.onnx")
    done = cli("lint", "typed.onnx", "bad.onnx")
    assert done.code == 2
    assert "error   AC101  y (Softmax)" in done.out
    (line,) = done.err.splitlines()
    assert (
        "typed.onnx: node -> y (Softmax) has the attribute 'axis' of type FLOAT, and its operator takes INT there"
        in line
    )


def test_a_mistake_in_a_rule_costs_one_model_of_several(cli, tmp_path, monkeypatch):
    def fail(request, **_):
        if request.source == "odd.onnx":
            raise KeyError("axes")
        return lint_source(request, **_)

    monkeypatch.setattr(session, "lint_source", fail)
    write(tmp_path / "odd.onnx")
    write(tmp_path / "bad.onnx")
    done = cli("lint", "odd.onnx", "bad.onnx")
    assert done.code == 2
    assert "error   AC101  y (Softmax)" in done.out
    (line,) = done.err.splitlines()
    assert line.startswith("error: odd.onnx: a mistake in actconform keeps it from being linted: KeyError: 'axes'")
    assert "`actconform lint odd.onnx`" in line
    with pytest.raises(KeyError):
        cli("lint", "odd.onnx")


def test_axes_that_the_shapes_do_not_have_end_no_lint(cli, tmp_path):
    write(tmp_path / "axis.onnx", "y = Softmax <axis = 2> (x)")
    nodes = "e = Exp (a)  s = ReduceSum (e, axes)  y = Div (e, s)"
    constants = {"a": np.float32(1), "axes": np.int64([0])}
    write(tmp_path / "scalar.onnx", nodes, constants, "float y")
    done = cli("lint", "axis.onnx", "scalar.onnx")
    assert (done.code, done.out.splitlines()[-1]) == (0, "2 models: 2 clean, 0 not clean")


def test_several_models_are_one_json_document(cli, tmp_path):
    write(tmp_path / "bad.onnx")
    write(tmp_path / "good.onnx", "h = Gemm (x, w, b)  y = Relu (h)")
    done = cli("lint", "good.onnx", "bad.onnx", "gone.onnx", "--json")
    document = json.loads(done.out)
    assert (done.code, document["schema"], document["clean"], list(document["unread"])) == (2, 1, False, ["gone.onnx"])
    assert [(each["source"], each["error"]) for each in document["models"]] == [("good.onnx", 0), ("bad.onnx", 1)]
    assert json.loads(cli("lint", "good.onnx", "gone.onnx", "--json").out)["clean"] is False


def test_a_mistake_of_usage_is_told_once_for_all_models(cli, tmp_path):
    write(tmp_path / "a.onnx")
    write(tmp_path / "b.onnx")
    done = cli("lint", "a.onnx", "b.onnx", "--ignore", "AC777")
    assert (done.code, done.err.count("no rule has this code")) == (2, 1)
    done = cli("lint", "a.onnx", "b.onnx", "--fix", "c.onnx")
    assert (done.code, "name one MODEL" in done.err) == (2, True)


def test_the_hook_of_pre_commit_lints_the_files_that_it_takes(cli, tmp_path):
    (hook,) = YAML(typ="safe").load((Path(__file__).parents[2] / ".pre-commit-hooks.yaml").read_text("utf-8"))
    assert (hook["id"], hook["language"]) == ("actconform-lint", "python")
    write(tmp_path / "bad.onnx")
    write(tmp_path / "good.onnx", "h = Gemm (x, w, b)  y = Relu (h)")
    (tmp_path / "onnx.md").touch()
    taken = [path.name for path in sorted(tmp_path.iterdir()) if re.search(hook["files"], path.name)]
    assert taken == ["bad.onnx", "good.onnx"]
    program, *words = hook["entry"].split()
    assert program == "actconform"
    assert cli(*words, *taken).code == 1
    assert cli(*words, "good.onnx").code == 0
