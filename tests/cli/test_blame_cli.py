"""Versions side by side, their environments, and the package that is to blame, as a user meets them."""

from __future__ import annotations

import json
import os
import re
import time
from typing import TYPE_CHECKING

import msgspec
import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def wobbly(install):
    install(wobbly="wobbly:Plugin")


def settings(folder: Path, text: str) -> str:
    path = folder / "settings.toml"
    path.write_text(text)
    return str(path)


def requiring(folder: Path, *requirements: str) -> str:
    return settings(folder, f"[backends.wobbly]\nrequirements = {json.dumps(requirements)}\n")


def test_two_versions_stand_side_by_side_in_one_report(cli, tmp_path, wheels):
    two = (
        '[backends."wobbly@1"]\nrequirements = ["wobble==1.0"]\n[backends."wobbly@2"]\nrequirements = ["wobble==2.0"]\n'
    )
    said = cli("run", "relu/value/f32/wobbly@*", "--config", settings(tmp_path, two))
    assert said.code == 1
    assert "wobbly@1: making an environment with wobble==1.0" in said.err
    assert "1 pass · 1 NEW (" in said.out
    report = json.loads((tmp_path / "conform-out/report.json").read_text())
    assert {one["route"]: one["verdict"] for one in report["results"]} == {"wobbly@1": "PASS", "wobbly@2": "FAIL"}
    facts = report["facts"]["backends"]
    assert {name: (of["wobble"], of["environment"]) for name, of in facts.items()} == {
        "wobbly@1": ("1.0", "wobble 1.0"),
        "wobbly@2": ("2.0", "wobble 2.0"),
    }

    again = cli("run", "relu/value/f32/wobbly@1", "--config", settings(tmp_path, two))
    assert (again.code, "making" in again.err) == (0, False)

    listed = cli("env", "list")
    assert "wobble==1.0  (wobble 1.0)" in listed.out
    assert f"2 in {wheels}" in listed.out
    assert len(json.loads(cli("env", "list", "--json").out)) == 2
    assert cli("env", "prune").out == ""
    old = next(path for path in wheels.glob("*/environment.json") if "wobble==2.0" in path.read_text())
    os.utime(old, (time.time() - 40 * 86400,) * 2)
    assert cli("env", "prune").out == f"removed {old.parent.name}  wobble==2.0\n"
    assert "wobble==1.0" in cli("env", "prune", "--all").out
    assert list(wheels.iterdir()) == []


def test_blame_names_the_package_that_brings_a_finding_and_not_the_one_beside_it(cli, tmp_path, wheels):
    for name, version in (("old", "1.0"), ("new", "2.0")):
        config = requiring(tmp_path, f"wobble=={version}", f"steady=={version}")
        cli("run", "relu/value/f32/wobbly", "--config", config, "--out", name)
    said = cli("blame", "old", "new", "--config", settings(tmp_path, ""))
    assert said.code == 0
    assert "packages that changed: steady 1.0 -> 2.0, wobble 1.0 -> 2.0" in said.out
    assert re.search(
        r"^wobble 1.0 -> 2.0 brings (\d+) of \1 new:\n  relu/value/f32/wobbly   .*scaled-error", said.out, re.MULTILINE
    )
    assert "steady 1.0 -> 2.0 brings" not in said.out
    assert "not tried: wobbly: mood 1.0 -> 2.0: no package" in said.out
    told = json.loads(cli("blame", "old", "new", "--json").out)
    assert {one["fact"] for answer in told["answers"] for one in answer["packages"]} == {"wobble"}
    assert cli("blame", "new", "old").out.startswith("nothing to blame")

    def injected(change) -> str:
        report = json.loads((tmp_path / "new/report.json").read_text())
        change(report)
        (tmp_path / "injected.json").write_bytes(msgspec.json.encode(report))
        return "injected.json"

    def unheard_of(report):
        report["facts"]["backends"]["wobbly"].update(wobble="9.0", environment="wobble 9.0")

    gone = cli("blame", "old", injected(unheard_of))
    assert gone.code == 1
    assert "wobble==9.0 cannot be installed" in gone.out

    same_versions = json.loads((tmp_path / "old/report.json").read_text())["facts"]
    none = cli("blame", "old", injected(lambda report: report.update(facts=same_versions)))
    assert none.code == 1
    assert re.search(r"^not blamed, (\d+) of \1 new: no package changed on its route:$", none.out, re.MULTILINE)


def test_blame_refuses_what_is_no_report_and_no_name(cli, tmp_path):
    assert cli("blame", "old", "new").code == 2
    (tmp_path / "old.json").write_text("{}")
    assert cli("blame", "old.json", "old.json").code == 2
    (tmp_path / "old.json").write_bytes(
        msgspec.json.encode(
            {"schema": 1, "facts": {}, "conforms": True, "problems": [], "timings": {}, "summary": {}, "results": []}
        )
    )
    assert cli("blame", "old.json", "old.json").out.startswith("nothing to blame")
    said = cli("blame", "old.json", "old.json", "--distribution", "onnxruntime")
    assert (said.code, "wanted FACT=NAME" in said.err) == (2, True)


def test_an_environment_that_cannot_be_made_costs_its_own_routes_alone(cli, tmp_path, wheels):
    both = '[backends."wobbly@2"]\nrequirements = ["wobble==2.0"]\n'
    table = settings(tmp_path, '[backends.wobbly]\nrequirements = ["wobble==9"]\n' + both)
    said = cli("run", "relu/value/f32/wobbly*", "--backend", "wobbly", "--backend", "wobbly@2", "--config", table)
    assert said.code == 1
    assert "required route wobbly did not run" in said.out
    report = msgspec.json.decode((tmp_path / "conform-out" / "report.json").read_bytes())
    ended = {result["case"]: result for result in report["results"]}
    assert ended["relu/value/f32/wobbly"]["verdict"] == "UNAVAILABLE"
    assert ended["relu/value/f32/wobbly"]["reason"].startswith("wobble==9 cannot be installed")
    assert "No matching distribution found for wobble==9" in ended["relu/value/f32/wobbly"]["reason"]
    assert f"({tmp_path}/settings.toml: [backends.wobbly])" in ended["relu/value/f32/wobbly"]["reason"]
    assert ended["relu/value/f32/wobbly@2"]["verdict"] not in ("UNAVAILABLE", "ERROR")
    assert cli("run", "relu/value/f32/wobbly", "--config", settings(tmp_path, "")).code == 1, "wobble is not here"


def test_environments_of_backends_that_are_not_selected_are_not_made(cli, tmp_path, wheels):
    two = '[backends."wobbly@1"]\nrequirements = ["wobble==9"]\n'
    said = cli("run", "relu/value/f32/wobbly", "--config", settings(tmp_path, two))
    assert "making" not in said.err
    assert said.code == 1


def test_a_command_is_a_column_of_the_report(cli, tmp_path):
    script = tmp_path / "identity.sh"
    script.write_text('cp "$2/x.npy" "$3/y.npy"')
    (tmp_path / "actconform.toml").write_text(
        "[backends.myrt]\ncommand = 'sh identity.sh {model} {inputs} {outputs}'\nversion = 'echo identity 3.5'\n"
    )
    assert "authored+myrt" in cli("list", "routes").out.splitlines()
    said = cli("run", "linear/value/f*/authored+myrt", "relu/value/f32/authored+myrt")
    assert said.code == 1
    report = json.loads((tmp_path / "conform-out/report.json").read_text())
    assert {(one["subject"], one["dtype"]): one["verdict"] for one in report["results"]} == {
        ("linear", "f32"): "PASS",
        ("linear", "f16"): "PASS",
        ("relu", "f32"): "FAIL",
    }
    assert report["facts"]["backends"]["myrt"]["version"] == "identity 3.5"
    script.write_text("echo no device >&2; exit 1")
    said = cli("run", "linear/value/f32/authored+myrt")
    assert said.code == 1
    assert "myrt ended with exit code 1; its last words:\n       no device" in said.out
    script.write_text("echo no Identity here >&2; exit 3")
    said = cli("run", "linear/value/f32/authored+myrt")
    assert (said.code, "0 pass · 1 unsupported" in said.out) == (0, True)
