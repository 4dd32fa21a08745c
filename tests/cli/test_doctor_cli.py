"""`actconform doctor`: what is usable here, what is missing, the mend, and the exit code."""

from __future__ import annotations

import json
import os

import msgspec
import pytest

import actconform.cli.doctor_ as verb
from actconform.machine.cpu import cpu_capability, cpu_features
from actconform.plugin.loader import load_plugins


@pytest.fixture
def only(install, monkeypatch):
    """Have doctor look at these backends of the stand-in plugin, at no framework that is installed here, and at `goldens` if asked."""
    install(**{"stand-in": "stand_in:Plugin"})

    def choose(*backends, goldens=False):
        if not goldens:  # they take seconds
            monkeypatch.setattr(verb, "verify_folders", lambda *_: [])
        catalog = load_plugins()
        chosen = {name: catalog.backends[name] for name in backends}
        there = msgspec.structs.replace(catalog, backends=chosen, broken=())
        monkeypatch.setattr(verb, "load_plugins", lambda: there)
        monkeypatch.setattr(verb, "KNOWN_PLUGINS", {"actconform-stand-in": "stand-in"})

    return choose


def test_all_is_well(only, cli):
    only("stand-in", goldens=True)
    said = cli("doctor")
    assert said.code == 0
    assert "goldens: verified" in said.out
    assert "✓ stand-in  actconform-stand-in 1.0" in said.out
    assert "    cpu_capability: TESTED" in said.out
    assert f"cpu: {cpu_capability()} ({' '.join(cpu_features()) or 'none'})" in said.out
    assert "    machine: " not in said.out
    assert "✗" not in said.out


def test_what_a_worker_sees_otherwise_than_the_driver_is_told(only, cli, monkeypatch, tmp_path):
    only("stand-in")
    (tmp_path / "sitecustomize.py").write_text(
        'import platform\nplatform.machine = lambda: "riscv64"\n', encoding="utf-8"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    assert "    machine: riscv64" in cli("doctor").out.splitlines()


def test_what_is_missing_is_named_with_the_mend(only, cli):
    only("stand-in", "no-device", "dies-at-start")
    said = cli("doctor")
    assert said.code == 1
    assert "✓ stand-in" in said.out
    lines = said.out.splitlines()
    at = lines.index("✗ no-device  actconform-stand-in 1.0")
    assert lines[at + 1 : at + 3] == [
        "    no device: libnone.so.9 missing: install it",
        "    libmore.so.1 missing: pip install more",
    ]
    assert "was killed by SIGABRT while it started" in said.out


def test_what_a_run_conforms_without_is_told_and_no_illness(only, cli, monkeypatch):
    only("stand-in", "no-device")
    monkeypatch.setattr(load_plugins().backends["no-device"], "optional", True)
    said = cli("doctor")
    assert said.code == 0
    assert "✗ no-device" in said.out


def test_json_says_the_same(only, cli):
    only("stand-in", "no-device", "dies-at-start")
    said = cli("doctor", "--json")
    report = json.loads(said.out)
    assert said.code == 1
    assert said.err == ""
    assert report["goldens"] == "verified"
    assert {"actconform", "python", "platform", "machine", "cpu", "cpu_features", "subnormals"} <= set(report)
    backends = {backend["backend"]: backend for backend in report["backends"]}
    assert (backends["stand-in"]["problem"], backends["stand-in"]["facts"]["cpu_capability"]) == ("", "TESTED")
    assert "libnone.so.9 missing: install it" in backends["no-device"]["problem"]
    assert "SIGABRT" in backends["dies-at-start"]["problem"]
    assert {frozenset(backend) for backend in report["backends"]} == {
        frozenset({"backend", "problem", "facts", "from"})
    }


def test_a_plugin_that_is_not_there_is_named_with_its_package(only, cli, monkeypatch):
    only("stand-in")
    monkeypatch.setattr(verb, "KNOWN_PLUGINS", {"actconform-nowhere": "nowhere"})
    said = cli("doctor")
    assert said.code == 1
    assert '✗ actconform-nowhere: pip install "actconform[nowhere]"' in said.out


def test_damaged_goldens_and_broken_plugins_are_no_health(only, cli, monkeypatch, tmp_path):
    only("stand-in", goldens=True)
    monkeypatch.setattr(verb, "golden_dir", lambda: tmp_path)
    said = cli("doctor")
    assert said.code == 1
    assert "manifest.json: no such file" in said.out


def test_a_broken_plugin_is_told_with_its_markup_as_it_is(install, cli, monkeypatch):
    install(**{"stand-in": "stand_in:Plugin", "bad": "stand_in:Broken"})
    catalog = load_plugins()
    bad = msgspec.structs.replace(catalog.broken[0], reason="[red]x[/] and [/]")
    here = msgspec.structs.replace(catalog, backends={}, broken=(bad,))
    monkeypatch.setattr(verb, "load_plugins", lambda: here)
    monkeypatch.setattr(verb, "verify_folders", lambda *_: [])
    said = cli("doctor")
    assert said.code == 1
    assert "✗ plugin bad (actconform-stand-in 1.0): [red]x[/] and [/]" in said.out
