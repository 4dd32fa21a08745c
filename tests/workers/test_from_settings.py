"""Backends of the settings: commands, and plugins' backends under another name."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from actconform import Artifact, Backend, Exporter, hookimpl
from actconform.errors import UsageError, WorkerError
from actconform.plugin.loader import GROUP, load_plugins
from actconform.run.select import all_cases, routes
from actconform.settings import BackendConfig, Config
from actconform.types import Case
from actconform.workers.environments import Environment, EnvironmentRecord
from actconform.workers.from_settings import configured, configured_worker, in_environment

if TYPE_CHECKING:
    from actconform.plugin.loader import Catalog

COMMAND = BackendConfig(command="./myrt {model} {inputs} {outputs}")


class Net(Backend):
    name = "net"
    kind = "framework"
    extra = True

    def facts(self) -> dict[str, str]:
        return {"net": "1"}


class Runner(Backend):
    name = "runner"
    kind = "runtime"
    provider = "CPU"
    levels = ("none", "all")

    def facts(self) -> dict[str, str]:
        return {}


class Varied(Backend):
    name = "varied"
    kind = "runtime"
    variants = ("one",)
    stands_for = "runner"

    def facts(self) -> dict[str, str]:
        return {}


class Net2Onnx(Exporter):
    name = "net2onnx"
    source = "net"

    def export(self, kernel, dtype) -> Artifact:
        raise NotImplementedError


class Plugin:
    @hookimpl
    def actconform_backends(self):
        return [Net, Runner, Varied]

    @hookimpl
    def actconform_exporters(self):
        return [Net2Onnx]


@pytest.fixture(scope="module")
def plugins() -> Catalog:
    builtin = EntryPoint("builtin", "actconform.plugin.builtin:Builtin", GROUP)
    return load_plugins([Plugin()], entry_points=[builtin])


def test_a_command_is_a_runtime_for_authored_and_exported_graphs(plugins):
    catalog = configured(plugins, Config(backends={"myrt": COMMAND}))
    assert {"authored+myrt", "authored+runner"} <= set(routes(catalog))
    assert {"net2onnx+myrt", "net2onnx@const+myrt"} <= set(routes(catalog, {"net", "net2onnx"}))
    case = Case("relu", "value", "f32", "authored+myrt")
    assert case in all_cases(catalog)
    assert (catalog.worker(case), catalog.registered(case)) == ("myrt", case)
    assert catalog.backend_plugin["myrt"] == "actconform.toml"
    assert catalog.backends["myrt"].levels == ()


def test_a_label_makes_one_more_column_that_is_always_part_of_the_run(plugins):
    catalog = configured(plugins, Config(backends={"runner@1.0": BackendConfig(requirements=("runner==1.0",))}))
    there = routes(catalog)
    assert {"authored+runner", "authored+runner@1.0"} <= set(there)
    case = Case("relu", "value", "f32", "authored+runner@1.0")
    assert catalog.worker(case) == "runner@1.0"
    assert catalog.registered(case).route == "authored+runner"
    made = catalog.backends["runner@1.0"]
    assert (made.name, made.provider, made.levels) == ("runner@1.0", "CPU", ("none", "all"))
    assert catalog.workers([case]) == {"runner@1.0"}
    plain = Case("relu", "value", "f32", "authored+runner")
    assert (catalog.worker(plain), catalog.registered(plain)) == ("runner", plain)


def test_of_a_framework_the_exporters_come_along(plugins):
    catalog = configured(plugins, Config(backends={"net@old": BackendConfig(env={"A": "1"})}))
    there = set(routes(catalog))
    assert {"net@old", "net2onnx@old+runner", "net2onnx@old@const+runner"} <= there
    assert not {"net", "net2onnx+runner"} & there, "what is extra stays so"
    exported = Case("relu", "value", "f32", "net2onnx@old+runner")
    exporter = catalog.exporter(exported)
    assert exporter is not None
    assert (exporter.source, catalog.workers([exported])) == ("net@old", {"runner", "net@old"})
    assert catalog.registered(exported).route == "net2onnx+runner"
    folded = Case("mlp-relu", "value", "f32", "net2onnx@old@const+runner")
    assert folded.constants
    assert catalog.exporter(folded) is exporter
    assert catalog.registered(folded).route == "net2onnx@const+runner"


def test_variants_are_as_before(plugins):
    case = Case("relu", "value", "f32", "authored+varied@one")
    assert plugins.worker(case) == "varied"
    assert plugins.registered(case).route == "authored+runner"


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("rnner", BackendConfig(), r"\[backends.rnner\]: no such backend; did you mean runner?"),
        ("rnner@1", BackendConfig(), r"\[backends.\"rnner@1\"\]: no such backend 'rnner'; did you mean runner?"),
        ("runner@", BackendConfig(), "'' after the @ is no label"),
        ("runner@A b", BackendConfig(), "'A b' after the @ is no label: wanted lower case"),
        ("runner@1@2", BackendConfig(), "is no label"),
        ("runner@const", BackendConfig(), "is no label: .* another than const"),
        ("varied@mine", BackendConfig(), "varied stands for its variants alone"),
        ("runner", COMMAND, "a command cannot be called as what given directly, number 1 gives"),
        ("net2onnx", COMMAND, "choose another name"),
        ("authored", COMMAND, "choose another name"),
        ("My Runtime", COMMAND, "this is no name of a backend: wanted lower case"),
        ("myrt@1", COMMAND, "this is no name of a backend"),
    ],
)
def test_a_name_that_cannot_be_is_refused_with_its_table(plugins, name, settings, expected):
    with pytest.raises(UsageError, match=expected) as error:
        configured(plugins, Config(backends={name: settings}, path="here/settings.toml"))
    assert str(error.value).startswith("here/settings.toml: [backends.")


def test_a_command_has_no_labels(plugins):
    with pytest.raises(UsageError, match="myrt is a command: write another one"):
        configured(plugins, Config(backends={"myrt": COMMAND, "myrt@fast": BackendConfig(env={"A": "1"})}))


def test_a_worker_under_a_label_is_the_plugins_backend(tmp_path, monkeypatch):
    tests = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", str(tests))
    config = Config(backends={"stand-in@mine": BackendConfig(env={"ACTCONFORM_ENVIRONMENT": "numpy 1.0"})})
    with configured_worker("stand-in@mine", config, ["stand_in:Plugin"]) as worker:
        hello = worker.start(60)
    assert (hello.backend, hello.kind, hello.problem) == ("stand-in@mine", "framework", "")
    assert hello.facts["environment"] == "numpy 1.0"
    with configured_worker("stand-in", Config(), ["stand_in:Plugin"]) as worker:
        assert "environment" not in worker.start(60).facts


def test_packages_of_an_environment_come_before_those_of_pythonpath(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/some/where")
    (tmp_path / "lib/python3.11/site-packages").mkdir(parents=True)
    about = EnvironmentRecord(key="", requirements=("a",), python="3.11", packages={"b": "2", "a": "1"}, files="")
    settings = in_environment(BackendConfig(env={"X": "1"}, requirements=("a",)), Environment(tmp_path, about))
    assert settings.python == str(tmp_path / "bin" / "python")
    assert settings.requirements == ()
    assert settings.env == {
        "X": "1",
        "ACTCONFORM_ENVIRONMENT": "a 1, b 2",
        "PYTHONPATH": f"{tmp_path}/lib/python3.11/site-packages:/some/where",
    }
    assert sys.executable != settings.python


def test_an_interpreter_older_than_what_is_supported_is_named_with_its_version(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.18 && exit\necho Unknown option: -P >&2\nexit 2\n'
    )
    old.chmod(0o755)
    words = r"old is Python 3.9.18; actconform needs 3.11 or newer: set python of \[backends.torch\]"
    with (
        configured_worker("torch", Config(backends={"torch": BackendConfig(python=str(old))})) as one,
        pytest.raises(WorkerError, match=words) as raised,
    ):
        one.start(60)
    assert raised.value.kind == "handshake"
