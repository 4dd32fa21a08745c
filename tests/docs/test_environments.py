"""docs/environments.md shows settings that are read, and verbs and keys that there are."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from actconform.cli import VERBS
from actconform.settings import BackendConfig, read_config
from actconform.workers.command_program import MOST_BYTES, UNSUPPORTED

TEXT = (Path(__file__).parents[2] / "docs/environments.md").read_text()


def test_the_settings_that_it_shows_are_read(tmp_path):
    shown = re.findall(r"(?:^ {4}.+\n)+", TEXT, re.MULTILINE)
    blocks = dict.fromkeys(
        block for block in shown if block.startswith("    [backends.")
    )  # one table stands there twice
    assert len(blocks) == 2
    path = tmp_path / "actconform.toml"
    path.write_text("".join(map(textwrap.dedent, blocks)))
    assert set(read_config(path).backends) == {"myrt", "ort-cpu@1.26"}


def test_it_names_every_key_of_a_backend_and_verbs_that_exist():
    named = set(re.findall(r"`(\w+)`", TEXT))
    assert set(BackendConfig.__struct_fields__) <= named
    for verb in re.findall(r"actconform ([a-z][a-z-]*)", TEXT):
        assert verb in {*VERBS, "and"}


def test_the_contract_of_a_command_is_the_codes():
    assert f"Exit code {UNSUPPORTED}: it does not do what the graph asks" in TEXT
    assert f"larger than {MOST_BYTES >> 30} GiB" in TEXT
