"""docs/lint.md is executed as it stands: a model is made, linted and repaired, a rule is added; its tables are the code's."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib

import onnx
from documents import TOP, assert_shown, blocks

from actconform.checking.source import source_of_model
from actconform.linting.linted_model import LintedModel
from actconform.linting.registry import OWN_RULES, parsed_ignores
from actconform.linting.session import rule_findings
from actconform.plugin.loader import load_plugins

DOCUMENT = TOP / "docs" / "lint.md"
TEXT = DOCUMENT.read_text("utf-8")


def of(language: str) -> str:
    (text,) = [text for name, text in blocks(DOCUMENT) if name == language]
    return text


def test_the_example_prints_what_the_document_says(tmp_path):
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, words in {"python": "", "actconform": "-m actconform"}.items():
        (commands / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        (commands / name).chmod(0o755)
    env = {**os.environ, "PATH": os.pathsep.join([str(commands), os.environ["PATH"]]), "COLUMNS": "200"}
    (tmp_path / "make.py").write_text(of("python").partition("\n")[2], "utf-8")
    codes, printed = [], ""
    for language, text in blocks(DOCUMENT):
        if language == "sh":
            done = subprocess.run(
                ["bash", "-c", text], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
            )
            codes.append(done.returncode)
            printed = done.stdout
        elif language == "text":
            assert_shown(text, printed)
    assert codes == [1, 0]


def test_the_table_of_rules_is_the_code():
    rows = [f"| {rule.code} | `{rule.name}` | {rule.severity} | {rule.why} |" for rule in OWN_RULES]
    table = TEXT.partition("\n| code | name |")[2].partition("\n\n")[0]
    assert [line for line in table.splitlines() if line.startswith("| AC")] == rows


def test_it_says_which_rules_repair():
    table = TEXT.partition("`--fix` repairs four of them:\n\n")[2].partition("\n\n")[0]
    repairing = [rule.code for rule in OWN_RULES if rule.fix]
    assert len(repairing) == 4
    assert [line.split()[1] for line in table.splitlines()[2:]] == repairing


def test_it_has_every_option_of_the_command_and_no_other():
    from actconform.cli.lint_ import command

    table = TEXT.partition("## Options")[2].partition("\n\nThe table `[lint]`")[0]
    named = [line.split("`")[1] for line in table.splitlines() if line.startswith("| `--")]
    options = {name for parameter in command.params for name in parameter.opts if name.startswith("--")}
    assert sorted(named) == sorted(options)


def test_the_settings_that_it_shows_are_read():
    ignored = tomllib.loads(of("toml"))["lint"]["ignore"]
    assert [str(each.code) for each in parsed_ignores(ignored, OWN_RULES, "[lint] ignore")] == ["AC209", "AC102"]


def test_the_rule_that_it_adds_finds_its_mistake():
    scope: dict[str, object] = {}
    exec(compile(of("python rule"), "house_rules.py", "exec"), scope)  # noqa: S102  the document's own code
    rules = load_plugins([scope["HouseRules"]], []).lint_rules
    for name, found in {"input.1": ["HOUSE101"], "image": []}.items():
        value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 4])
        output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 4])
        graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", [name], ["y"])], "g", [value], [output])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
        assert [finding.code for finding in rule_findings(rules, LintedModel(source_of_model(model, "m")))] == found
