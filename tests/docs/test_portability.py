"""docs/portability.md names processors, targets, verbs and settings that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from actconform.cli import VERBS
from actconform.emulate.__main__ import PROCESSORS
from actconform.plugin.loader import load_plugins
from actconform.run.select import routes
from actconform.settings import read_config

TOP = Path(__file__).parents[2]
TEXT = (TOP / "docs/portability.md").read_text(encoding="utf-8")
COMMANDS = [found[1] for found in re.findall(r"(`{1,2})((?:make|actconform|[A-Z_]+=\S+) .+?)\1(?!`)", TEXT)]


def test_each_processor_is_described_as_the_code_has_it():
    rows = {row[0]: row[1:] for row in re.findall(r"^\| `([a-z0-9-]+)` \| (.+?) \| `(.+?)` \|$", TEXT, re.MULTILINE)}
    assert rows == {
        name: (processor.features, f"qemu-{processor.architecture} -cpu {processor.model}")
        for name, processor in PROCESSORS.items()
    }


def test_the_commands_are_ones_that_there_are():
    targets = set(re.findall(r"^([a-z-]+):", (TOP / "Makefile").read_text(), re.MULTILINE))
    known = routes(load_plugins())
    assert len(COMMANDS) > 8
    for command in COMMANDS:
        words = shlex.split(re.sub(r"<\(.*\)", "", command))
        program, verb = [word for word in words if "=" not in word][:2]
        assert verb in (targets if program == "make" else VERBS), command
        assert {words[index + 1] for index, word in enumerate(words) if word == "--route"} <= set(known), command


def test_the_settings_in_commands_are_read(tmp_path):
    written = [printed for command in COMMANDS for printed in re.findall(r"<\((?:printf|echo) '(.*)'\)", command)]
    assert len(written) > 1
    for text in written:
        (tmp_path / "it.toml").write_text(text.replace("\\n", "\n"))
        read_config(tmp_path / "it.toml")
