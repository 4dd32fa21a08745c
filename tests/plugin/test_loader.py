"""Plugins: each is loaded alone, a broken one is a record, and two of one name are refused with both named."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from actconform.catalog.experiments import experiments
from actconform.catalog.kernels import ROWS, UNARY
from actconform.catalog.models.builder import describe, layer
from actconform.catalog.models.zoo import networks
from actconform.errors import PluginError
from actconform.plugin.hookspecs import INTERFACE, hookimpl
from actconform.plugin.interfaces import Backend, Exporter, Reporter
from actconform.plugin.loader import GROUP, Catalog, installed, load_plugins, plugin_versions
from actconform.types import Artifact, Kernel
from actconform.types.model import Input
from actconform.verdict.causes.register import read_register

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from actconform.types.cause import Register
    from actconform.types.model import Model
    from actconform.types.report import Report

KERNEL = Kernel(name="my-kernel", definition="x", source="tests")
MODEL = describe(
    "my-model",
    "tests",
    [Input(name="x", shape=(2,), draw="normal"), Input(name="target", shape=(2,), draw="normal", role="target")],
    [layer("twice", "affine", "x", scale=2.0), layer("loss", "mean-squared-error", "twice", "target")],
    output="twice",
    batch=3,
)
REGISTER = read_register(
    '[[cause]]\nid = "my-cause"\nreason = "r"\nlink = "unreported"\nsince = "0.2"\nroutes = ["mine"]\n'
    'covers = [{ class = "tail", kernels = ["elu"] }]',
    "mine",
)


class Numpy(Backend):
    name = "numpy"
    kind = "framework"

    def facts(self) -> dict[str, str]:
        return {}


class ToOnnx(Exporter):
    name = "numpy2onnx"
    source = "numpy"

    def export(self, kernel: Kernel, dtype: str) -> Artifact:
        return Artifact(b"", 20, "written")


class Lines(Reporter):
    name = "lines"
    filename = "lines.txt"

    def write(self, report: Report, folder: Path) -> None:
        (folder / self.filename).write_text("")


class Whole:
    @hookimpl
    def actconform_kernels(self) -> list[Kernel]:
        return [KERNEL]

    @hookimpl
    def actconform_models(self) -> list[Model]:
        return [MODEL]

    @hookimpl
    def actconform_backends(self) -> list[type[Backend]]:
        return [Numpy]

    @hookimpl
    def actconform_exporters(self) -> list[type[Exporter]]:
        return [ToOnnx]

    @hookimpl
    def actconform_causes(self) -> list[Register]:
        return [REGISTER]

    @hookimpl
    def actconform_reporters(self) -> list[type[Reporter]]:
        return [Lines]


def offering(hook: str, give: Callable[[], Any]) -> object:
    """A plugin with one hook, whose result is `give()`."""

    def method(_: object) -> Any:
        return give()

    method.__name__ = hook
    return type("Offering", (), {hook: hookimpl(method)})()


def load(*plugins: object) -> Catalog:
    return load_plugins(plugins, entry_points=[])


def point(name: str, value: str = "test_plugins_example:Whole") -> metadata.EntryPoint:
    return metadata.EntryPoint(name, value, GROUP)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Write an importable module."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)

    return write


def test_built_in_kernels_and_models_come_through_the_same_hooks_as_anybodys() -> None:
    catalog = load_plugins()
    assert {kernel.name for kernel in UNARY + ROWS} <= set(catalog.kernels)
    assert {model.name for model in networks()} <= set(catalog.models)
    assert catalog.subjects == {**catalog.kernels, **catalog.models}
    assert not catalog.kernels.keys() & catalog.models.keys()
    assert "actconform" in plugin_versions()


def test_all_that_a_plugin_offers_is_in_the_catalog() -> None:
    catalog = load(Whole())
    assert catalog.kernels == {"my-kernel": KERNEL}
    assert catalog.models == {"my-model": MODEL}
    assert catalog.subject("my-kernel") is KERNEL
    assert catalog.subject("my-model") is MODEL
    with pytest.raises(KeyError, match="my-modell"):
        catalog.subject("my-modell")
    assert catalog.backends == {"numpy": Numpy}
    assert catalog.exporters == {"numpy2onnx": ToOnnx}
    assert catalog.register == REGISTER
    assert catalog.reporters == {"lines": Lines}
    assert catalog.broken == ()
    assert catalog.backend_plugin == {"numpy": "given directly, number 1"}
    assert catalog.exporter_plugin == {"numpy2onnx": "given directly, number 1"}


def test_a_plugin_may_be_a_class_an_instance_or_a_module(module: Callable[[str, str], None]) -> None:
    text = "import actconform\n@actconform.hookimpl\ndef actconform_kernels():\n"
    module("module_plugin", text + "    yield actconform.Kernel(name='from-module', definition='', source='')\n")
    catalog = load_plugins([Whole], entry_points=[point("modular", "module_plugin")])
    assert set(catalog.kernels) == {"from-module", "my-kernel"}


def test_a_distribution_is_named_with_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "actconform_example-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: actconform-example\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[actconform]\nexample = example_plugin:Plugin\n")
    code = "import actconform\nfrom test_loader import Numpy\nclass Plugin:\n"
    code += "    @actconform.hookimpl\n    def actconform_backends(self):\n        return [Numpy]\n"
    (tmp_path / "example_plugin.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "test_loader", sys.modules[__name__])
    assert load_plugins().backend_plugin["numpy"] == "actconform-example 1.2"
    assert plugin_versions()["actconform-example"] == "1.2"


def test_plugins_are_in_the_order_of_their_names_whatever_the_folder_of_packages_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("zebra", "ant", "mole"):
        info = tmp_path / f"actconform_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: actconform-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[actconform]\n{name} = {name}_plugin\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("os.listdir", lambda path, there=os.listdir: sorted(there(path), reverse=True))
    names = [point.name for point in installed()]
    assert names == sorted(names)
    assert {"ant", "mole", "zebra"} < set(names)


@pytest.mark.parametrize(
    ("requirement", "fits"),
    [
        (">=0.0.1", True),
        ("[ort]<999", True),
        ("==0.0.1; extra == 'old'", True),
        ("-onnxruntime<0.0.1", True),
        (">=999", False),
        ("<0.0.2,>=0.0.1", False),
    ],
)
def test_a_plugin_for_another_release_is_named_with_both_before_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requirement: str, fits: bool
) -> None:
    info = tmp_path / "actconform_other-3.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: actconform-other\nVersion: 3.1\nRequires-Dist: actconform{requirement}\n"
    )
    (info / "entry_points.txt").write_text("[actconform]\nother = other_plugin\n")
    (tmp_path / "other_plugin.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    there = metadata.version("actconform")
    (broken,) = load_plugins(
        entry_points=[point for point in metadata.entry_points(group=GROUP) if point.name == "other"]
    ).broken
    if fits:
        assert broken.reason.startswith("RuntimeError: imported")
    else:
        assert broken.message == (
            f"plugin other (actconform-other 3.1) is broken: it requires actconform{requirement}, and {there} is installed: "
            f'pip install --upgrade actconform-other, or pip install "actconform{requirement}"'
        )


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("absent", None, "ModuleNotFoundError: No module named 'absent'"),
        ("raises", "raise RuntimeError('no GPU today')", r"RuntimeError: no GPU today \(at .*raises.py:1\)"),
        ("leaves", "import sys; sys.exit(4)", "SystemExit: 4"),
        (
            "panics",
            "class PanicException(BaseException): pass\nraise PanicException('in Rust')",
            "PanicException: in Rust",
        ),
        ("unfinished", "def plugin(:", "SyntaxError"),
        ("nameless", "other = 1", "AttributeError: .*has no attribute 'plugin'"),
        (
            "empty",
            "class plugin: pass",
            "it offers nothing: wanted a function marked @hookimpl, one of actconform_kernels",
        ),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_a_record(
    module: Callable[[str, str], None], name: str, text: str | None, reason: str
) -> None:
    if text is not None:
        module(name, text)
    catalog = load_plugins([Whole()], entry_points=[point("bad", f"{name}:plugin")])
    assert [(broken.name, broken.distribution) for broken in catalog.broken] == [("bad", f"from {name}:plugin")]
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(catalog.broken[0].reason)
    assert set(catalog.backends) == {"numpy"}


class Abstract(Backend):
    name = "abstract"
    kind = "framework"


class Nameless(Numpy):
    name = "Not Safe/in a URL"


class Elsewhere(Lines):
    filename = "../lines.txt"


class OverTheReport(Lines):
    filename = "report.json"


class Kindless(Numpy):
    kind = "device"  # type: ignore[assignment]


class Driver(ToOnnx):
    name = "authored"


class Sourceless(Exporter):
    name = "sourceless"

    def export(self, kernel: Kernel, dtype: str) -> Artifact:
        return Artifact(b"", 20, "written")


class Orphan(ToOnnx):
    name = "orphan"
    source = "numpi"


class Runtime(Numpy):
    name = "onnx-numpy"
    kind = "runtime"


class OfRuntime(ToOnnx):
    name = "of-runtime"
    source = "onnx-numpy"


@pytest.mark.parametrize(
    ("hook", "give", "reason"),
    [
        ("actconform_kernels", lambda: 1 // 0, "ZeroDivisionError: "),
        (
            "actconform_kernels",
            lambda: (Kernel(name=name) for name in "a"),
            "TypeError: Missing required argument 'definition'",
        ),
        ("actconform_kernels", lambda: None, "actconform_kernels returned None: wanted an iterable"),
        (
            "actconform_kernels",
            lambda: KERNEL,
            "actconform_kernels returned a value of type Kernel: wanted an iterable",
        ),
        ("actconform_kernels", lambda: ["relu"], "a value of type str among its items: wanted actconform.Kernel"),
        (
            "actconform_kernels",
            lambda: [msgspec.structs.replace(KERNEL, name="a/b")],
            "a kernel called 'a/b': wanted lower case",
        ),
        ("actconform_models", lambda: [KERNEL], "a value of type Kernel among its items: wanted actconform.Model"),
        ("actconform_kernels", lambda: [MODEL], "a value of type Model among its items: wanted actconform.Kernel"),
        ("actconform_models", lambda: MODEL, "actconform_models returned a value of type Model: wanted an iterable"),
        (
            "actconform_models",
            lambda: [msgspec.structs.replace(MODEL, name="My Model")],
            "a model called 'My Model': wanted lower case",
        ),
        (
            "actconform_models",
            lambda: [describe("m", "", MODEL.inputs, [layer("y", "dens", "x")], output="y", batch=1)],
            "DescriptionError: model m, layer y: unknown kind 'dens'",
        ),
        ("actconform_backends", lambda: [Numpy()], "wanted the class itself, not an instance"),
        (
            "actconform_backends",
            lambda: [Whole],
            "the class Whole among its items: wanted subclasses of actconform.Backend",
        ),
        ("actconform_backends", lambda: [Abstract], "Abstract, which is not whole: it does not define facts"),
        ("actconform_backends", lambda: [Nameless], "Nameless with the name 'Not Safe/in a URL': wanted lower case"),
        ("actconform_backends", lambda: [Kindless], """Kindless of kind 'device': wanted "framework" or "runtime\""""),
        ("actconform_exporters", lambda: [ToOnnx()], "wanted the class itself, not an instance"),
        (
            "actconform_exporters",
            lambda: [Numpy],
            "class Numpy among its items: wanted subclasses of actconform.Exporter",
        ),
        ("actconform_exporters", lambda: [Driver], "Driver with the name 'authored': that is the driver's own"),
        ("actconform_exporters", lambda: [Sourceless], "Sourceless without a source: wanted the name of a backend"),
        ("actconform_exporters", lambda: [Orphan], "Orphan with the source 'numpi', and no plugin gives a framework"),
        ("actconform_reporters", lambda: [Elsewhere], "Elsewhere with the file '../lines.txt': wanted a plain name"),
        ("actconform_reporters", lambda: [OverTheReport], "with the file 'report.json': wanted a plain name, none of"),
        ("actconform_reporters", lambda: [Reporter], "Reporter, which is not whole: it does not define write"),
        ("actconform_reporters", lambda: [Lines()], "wanted the class itself, not an instance"),
        ("actconform_causes", lambda: [{}], "a value of type dict among its items: wanted actconform.Register"),
    ],
)
def test_a_hook_that_raises_or_returns_the_wrong_thing_is_a_record(
    hook: str, give: Callable[[], Any], reason: str
) -> None:
    catalog = load(offering(hook, give), Whole())
    assert [broken.name for broken in catalog.broken] == ["Offering"]
    assert reason in catalog.broken[0].reason
    assert set(catalog.kernels) == {"my-kernel"}
    assert set(catalog.backends) == {"numpy"}


def test_an_exporter_works_for_a_framework_of_any_plugin_but_not_of_a_broken_one() -> None:
    alone = offering("actconform_exporters", lambda: [ToOnnx])
    runtime = offering("actconform_backends", lambda: [Runtime])
    assert load(alone, offering("actconform_backends", lambda: [Numpy])).broken == ()
    assert "a framework of that name (there is none)" in load(alone, runtime).broken[0].reason
    assert len(load(offering("actconform_exporters", lambda: [OfRuntime]), runtime).broken) == 1

    class Torn(Whole):
        @hookimpl
        def actconform_exporters(self) -> list[type[Exporter]]:
            return [Orphan]

    assert [broken.name for broken in load(Torn(), alone).broken] == ["Torn", "Offering"]


def test_a_broken_plugin_gives_nothing_even_of_its_good_hooks() -> None:
    class Half(Whole):
        @hookimpl
        def actconform_causes(self) -> list[Register]:
            raise OSError("causes.toml is not there")

    catalog = load(Half())
    assert (catalog.kernels, catalog.backends) == ({}, {})
    assert "OSError: causes.toml is not there" in catalog.broken[0].reason


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        ("actconform_kernel", "nothing calls: actconform_kernel; did you mean actconform_kernels"),
        ("actconform_backend", "nothing calls: actconform_backend; did you mean actconform_backends"),
        (
            "colours",
            "nothing calls: colours; known: actconform_kernels, actconform_models, actconform_experiments, actconform_backends",
        ),
    ],
)
def test_a_mistyped_hook_is_refused_with_what_was_meant(hook: str, words: str) -> None:
    with pytest.raises(PluginError) as raised:
        load(Whole(), offering(hook, list))
    assert words in str(raised.value)
    assert "plugin Offering (given directly, number 2)" in str(raised.value)


def test_a_hook_that_takes_arguments_nobody_gives_is_refused() -> None:
    class Greedy:
        @hookimpl
        def actconform_kernels(self, config: object) -> list[Kernel]:
            return []

    with pytest.raises(PluginError, match=r"plugin Greedy .*: a hook does not fit: .*\{'config'\}"):
        load(Greedy())


def test_a_hook_without_its_marker_is_refused() -> None:
    class Bare:
        def actconform_kernels(self) -> list[Kernel]:
            return [KERNEL]

    with pytest.raises(
        PluginError, match=r"plugin Bare .* has actconform_kernels without the marker: .*@actconform.hookimpl"
    ):
        load(Bare())


@pytest.mark.parametrize(
    ("hook", "item", "words"),
    [
        ("actconform_kernels", KERNEL, "two subjects are called 'my-kernel'"),
        ("actconform_models", MODEL, "two subjects are called 'my-model'"),
        ("actconform_backends", Numpy, "two backends are called 'numpy'"),
        ("actconform_exporters", ToOnnx, "two exporters are called 'numpy2onnx'"),
        ("actconform_reporters", Lines, "two reporters are called 'lines'"),
        ("actconform_causes", REGISTER, "two causes are called 'my-cause'"),
    ],
)
def test_two_of_one_name_are_refused_with_both_plugins_named(hook: str, item: object, words: str) -> None:
    both = (
        r": one from Whole \(given directly, number 1\), one from Offering \(given directly, number 2\); uninstall or"
    )
    with pytest.raises(PluginError, match=words + both):
        load(Whole(), offering(hook, lambda: [item]))
    with pytest.raises(PluginError, match=words + r": both from Offering"):
        load(offering(hook, lambda: [item, item]))


def test_a_plugin_for_another_version_of_the_interface_is_refused_and_both_are_named() -> None:
    class Tomorrows:
        actconform_interface = INTERFACE + 1

        @hookimpl
        def actconform_sweeps(self) -> list[object]:
            return []

    (broken,) = load(Tomorrows, type("Todays", (Whole,), {"actconform_interface": INTERFACE})).broken
    assert "written for version 2 of the plugin interface, and actconform 0" in broken.reason
    assert "has version 1: install" in broken.reason


def test_a_kernel_and_a_model_of_one_name_are_refused() -> None:
    """Both stand first in a case: the name would mean two things."""
    namesake = msgspec.structs.replace(MODEL, name="my-kernel")
    with pytest.raises(PluginError, match=r"two subjects are called 'my-kernel': one from Whole .*, one from Offering"):
        load(Whole(), offering("actconform_models", lambda: [namesake]))
    built_in = msgspec.structs.replace(MODEL, name="relu")
    with pytest.raises(PluginError, match="two subjects are called 'relu': one from builtin "):
        load_plugins([offering("actconform_models", lambda: [built_in])])


def test_two_reporters_of_one_file_are_refused() -> None:
    rival = type("Rival", (Lines,), {"name": "rival"})
    with pytest.raises(
        PluginError, match=r"two files of reporters are called 'lines.txt': one from Whole .*, one from O"
    ):
        load(Whole(), offering("actconform_reporters", lambda: [rival]))


def test_two_plugins_of_one_name_are_refused_with_both_distributions_named() -> None:
    with pytest.raises(
        PluginError, match=r"two plugins are called 'torch': one from torch .from a:b., one from torch .from c:d."
    ):
        load_plugins(entry_points=[point("torch", "a:b"), point("torch", "c:d")])


def test_a_worker_asks_for_nothing_that_only_judges() -> None:
    class Judged(Whole):
        @hookimpl
        def actconform_causes(self):
            raise AssertionError("asked for causes")

        @hookimpl
        def actconform_reporters(self):
            raise AssertionError("asked for reporters")

    catalog = load_plugins([Judged], entry_points=[], judging=False)
    assert (list(catalog.kernels), catalog.broken, catalog.register.causes) == (["my-kernel"], (), ())
    assert [broken.message for broken in load_plugins([Judged], entry_points=[]).broken] != []


BLOBS = next(experiment for experiment in experiments() if experiment.name == "blobs-sgd")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": "blob"}, "with the data set 'blob'; did you mean blobs"),
        ({"batch": 1000}, "of 320 examples, batch 1000, 2 epochs"),
        ({"epochs": 0}, "0 epochs"),
        ({"validation": 0}, "0 validation examples"),
        ({"evaluation": MODEL}, "other parameters in inference than in training"),
    ],
)
def test_an_experiment_that_nothing_could_train_is_refused(changes: dict[str, object], words: str) -> None:
    experiment = msgspec.structs.replace(BLOBS, name="mine", **changes)
    assert words in load(offering("actconform_experiments", lambda: [experiment])).broken[0].reason
    assert load(offering("actconform_experiments", lambda: [msgspec.structs.replace(BLOBS, name="mine")])).broken == ()
