"""What there is to run, as lines and as JSON; and --help, which answers without the libraries that a run needs."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.shell_completion import ShellComplete

import actconform.cli
from actconform import __version__
from actconform.catalog.experiments import experiments
from actconform.catalog.kernels import ROWS, UNARY
from actconform.catalog.models.zoo import networks
from actconform.cli import GROUPS, VERBS, _cli
from actconform.cli._examples import EXAMPLES
from actconform.cli.list_ import KINDS, _items

ACTCONFORM = Path(sys.executable).with_name("actconform")
SLOW = {"numpy", "scipy", "onnx", "rich", "ml_dtypes", "torch", "tensorflow", "keras", "onnxruntime"}
# runs the command, then says on standard error what it has imported
TRACED = """
import json, sys
sys.argv[0] = "actconform"
from actconform.cli import main
try:
    main()
finally:
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), file=sys.stderr)
"""


def traced(*words: str) -> tuple[str, set[str]]:
    done = subprocess.run([sys.executable, "-c", TRACED, *words], capture_output=True, text=True, check=True)
    return done.stdout, set(json.loads(done.stderr.splitlines()[-1]))


@pytest.fixture
def listed(cli):
    """Standard output of a command that must succeed."""

    def output(*words: str) -> str:
        said = cli(*words)
        assert (said.code, said.err) == (0, "")
        return said.out

    return output


@pytest.mark.parametrize("words", [("--help",), ("-h",), ("--version",)])
def test_help_imports_no_slow_library_and_lists_all_verbs(words: tuple[str, ...]):
    output, loaded = traced(*words)
    assert not SLOW & loaded
    if words == ("--version",):
        assert __version__ in output
        return
    for verb in ("run", "list", "golden", "deviations", "doctor"):
        assert verb in VERBS
        assert any(line.split()[:1] == [verb] for line in output.splitlines())
    assert "Exit codes: 0 conforms, 1 does not, 2 wrong usage" in output


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, listed):
    output = listed(verb, "--help")
    assert output.startswith(f"Usage: actconform {verb}")
    assert len(output.splitlines()) > 4


def test_no_kernels_and_models_are_no_lines():
    """As where the built-in plugin itself is broken, which is named before."""
    nothing = SimpleNamespace(kernels={}, models={}, experiments={})
    assert _items("kernels", nothing) == _items("models", nothing) == []


def test_listing_imports_no_framework():
    _, loaded = traced("list", "cases")
    assert not {"torch", "tensorflow", "keras", "onnxruntime"} & loaded


def test_a_verb_has_a_file_and_a_file_a_verb():
    files = {path.stem for path in Path(actconform.cli.__file__).parent.glob("[a-z]*.py")}
    assert files == {f"{verb.replace('-', '_')}_" for verb in VERBS}


def test_without_a_verb_it_shows_where_to_begin():
    done = subprocess.run([ACTCONFORM], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout.startswith("Where to begin:\n\n  actconform check model.onnx ")
    assert "actconform --help" in done.stdout
    assert done.stderr == ""
    for verb in re.findall(r"^  actconform (\S+)", done.stdout, re.MULTILINE):
        assert verb in VERBS


def test_every_verb_stands_in_one_group():
    assert sorted(verb for group in GROUPS.values() for verb in group) == sorted(VERBS)


def commands(group):
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from ((f"{name} {part}", inner) for part, inner in commands(command))
        else:
            yield name, command


def test_every_help_ends_with_examples_that_the_command_takes():
    everything = dict(commands(_cli))
    assert everything.keys() == EXAMPLES.keys()
    for name, command in everything.items():
        help_text = command.get_help(click.Context(command, info_name=name, max_content_width=200))
        for example in EXAMPLES[name]:
            assert f"  actconform {example}" in help_text
            words = shlex.split(example.removeprefix(name))
            with command.make_context(name, words):  # raises where an option or an argument is none
                pass


@pytest.mark.parametrize(
    ("words", "some", "none"),
    [
        (["run", "gelu-e"], {"gelu-erf/*"}, {"gelu-tanh/*"}),
        (["run", "relu/value/f32/tor"], {"relu/value/f32/torch", "relu/value/f32/torch-dynamo+ort-cpu"}, set()),
        (["run", "relu/"], {"relu/value/*", "relu/gradient/*"}, {"relu/*"}),
        (["run", "relu/value/f32/torch/more"], set(), {"relu/value/f32/torch"}),
        (["run", "--backend", "to"], {"torch"}, {"faulty-torch"}),
        (["check", "--runtime", ""], {"ort-cpu", "openvino"}, {"torch", "faulty-ort"}),
        (["check", "--exporter", ""], {"tf2onnx", "torch-dynamo"}, {"authored", "faulty-export"}),
        (["suite", "onnx", "--runtime", ""], {"ort-cpu", "openvino"}, {"torch", "faulty-ort"}),
        (["suite", "drawn", "--runtime", "open"], {"openvino"}, {"ort-cpu"}),
        (["train", "model.onnx", "--runtime", "o"], {"ort-cpu", "openvino"}, {"torch"}),
        (["study", "blobs-a"], {"blobs-adam", "blobs-adamw"}, {"blobs-sgd", "blobs-mlp"}),
        (["study", "--kernel", "gelu-"], {"gelu-erf", "gelu-tanh"}, {"relu"}),
        (["study", "--backend", ""], {"torch", "keras"}, {"faulty-torch", "tract"}),
        (["lint", "--runtime", "ort"], {"ort-cpu"}, {"openvino", "faulty-ort"}),
        (["lint", "model.onnx", "--exporter", ""], {"tf2onnx", "torch-dynamo"}, {"authored"}),
        (["lint", "--ignore", "AC10"], {"AC101", "AC105"}, {"AC201"}),
        (["golden", "verify", "mlp-re"], {"mlp-relu"}, {"mlp-softmax"}),
        (["check-pl"], {"check-plugin"}, {"check"}),
    ],
)
def test_a_shell_completes_what_is_installed(words, some, none, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    *before, word = words
    offered = {item.value for item in ShellComplete(_cli, {}, "actconform", "").get_completions(before, word)}
    assert offered >= some
    assert not offered & none


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_asks_for_completions_and_is_answered(shell, cli, monkeypatch):
    monkeypatch.setenv("_ACTCONFORM_COMPLETE", f"{shell}_source")
    done = cli()
    assert done.code == 0
    assert f"_ACTCONFORM_COMPLETE={shell}_complete" in done.out
    monkeypatch.setenv("_ACTCONFORM_COMPLETE", f"{shell}_complete")
    monkeypatch.setenv("COMP_WORDS", "actconform lint --runtime openv")
    monkeypatch.setenv("COMP_CWORD", "openv" if shell == "fish" else "3")
    if shell == "fish":
        monkeypatch.setenv("COMP_WORDS", "actconform lint --runtime")
    assert "openvino" in cli().out


def test_a_shell_that_completes_is_told_nothing_of_settings_that_are_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("actconform.toml").write_text("nonsense = 1")
    assert ShellComplete(_cli, {}, "actconform", "").get_completions(["run", "--backend"], "t") == []


@pytest.mark.parametrize("what", KINDS)
def test_a_list_has_a_line_and_a_json_item_for_each(what: str, listed):
    lines = listed("list", what).splitlines()
    items = json.loads(listed("list", what, "--json"), parse_constant=pytest.fail)
    assert len(lines) == len(items) > 0
    for line, item in zip(lines, items, strict=True):
        name = item if isinstance(item, str) else item.get("name", item.get("id", item.get("subject")))
        assert line.startswith(name)


def test_kernels_are_listed_with_all_that_they_state(listed):
    items = {item["name"]: item for item in json.loads(listed("list", "kernels", "--json"))}
    assert items.keys() == {kernel.name for kernel in UNARY + ROWS}
    celu = items["celu"]
    assert celu["definition"] == "x where x > 0, else alpha expm1(x / alpha)"
    assert celu["parameters"] == {"alpha": 1.5}
    assert celu["at_infinity"] == [-1.5, "inf"]
    assert celu["kinks"] == [{"x": 0.0, "left": 1.0, "right": 1.0}]
    assert celu["source"]
    assert items["relu"]["zero_sign"] == "f(+-0) = +0"


def test_models_are_listed_with_their_size_and_all_that_describes_them(listed):
    lines = {line.split()[0]: line for line in listed("list", "models").splitlines()}
    items = {item["name"]: item for item in json.loads(listed("list", "models", "--json"))}
    assert lines.keys() == items.keys() == {model.name for model in networks()}
    words = "18 layers, 487,221 parameters  texts on activation functions: softmax in a hidden layer"
    assert lines["regression-softmax-hidden@published"].split(maxsplit=1)[1] == words
    stack = items["linear-stack"]
    assert [layer["name"] for layer in stack["layers"]] == ["dense1", "dense2", "dense3", "loss"]
    assert stack["layers"][0]["settings"] == {"units": 12, "init": "glorot_uniform", "bias": "near:0"}
    assert stack["shapes"] == {"dense1": [12], "dense2": [7], "dense3": [3], "loss": []}
    assert stack["parameters"][0]["name"] == "dense1.kernel"
    assert stack["parameters"][0]["shape"] == [20, 12]
    assert [one["role"] for one in stack["inputs"]] == ["data", "target"]
    assert (stack["output"], stack["batch"], stack["training"]) == ("dense3", 4, False)


def test_experiments_are_listed_with_what_trains_on_which_data_and_how(listed):
    lines = {line.split()[0]: line for line in listed("list", "experiments").splitlines()}
    items = {item["name"]: item for item in json.loads(listed("list", "experiments", "--json"))}
    assert lines.keys() == items.keys() == {experiment.name for experiment in experiments()}
    relu = items["noise-relu"]
    words = (
        f"mlp-relu on noise: {relu['examples']} examples in batches of {relu['batch']}, {relu['epochs']} epochs, adam"
    )
    assert lines["noise-relu"].split(maxsplit=1)[1].startswith(words)
    assert "Nesterov momentum 0.9" in lines["blobs-nesterov"]
    assert "weight decay" in lines["blobs-adamw"]


def test_cases_are_listed_by_the_ids_that_run_takes(listed):
    lines = listed("list", "cases").splitlines()
    assert "relu/value/f32/torch" in lines
    assert "mlp-relu/gradient/f32/torch" in lines
    assert "mlp-relu/value/f32/torch-dynamo@const+ort-cpu" in lines
    assert "relu/value/f32/torch-dynamo@const+ort-cpu" not in lines
    assert not [line for line in lines if "@published" in line]
    assert not [line for line in lines if line.startswith("argmax/gradient")]
    assert len(set(lines)) == len(lines)
    routes = listed("list", "routes").splitlines()
    assert {line.rsplit("/", 1)[1] for line in lines} == set(routes)


def test_backends_are_listed_with_their_kind_and_the_plugin_that_gives_them(listed):
    words = {line.split()[0]: line.split()[1:] for line in listed("list", "backends").splitlines()}
    assert words["torch"][:2] == ["framework", "actconform-torch"]
    assert words["ort-cpu"][:2] == ["runtime", "actconform-onnxruntime"]


def test_a_reader_that_stops_early_is_no_crash():
    with subprocess.Popen(
        [ACTCONFORM, "list", "cases", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        message = process.stderr.read()
    assert "Traceback" not in message
