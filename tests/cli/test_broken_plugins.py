"""A plugin that is broken, however it is, is named with its error by every verb, and no verb ends with exit code 0."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

PLUGIN = """
from actconform import Kernel, hookimpl

class plugin:
    @staticmethod
    @hookimpl
    def {}():
        {}
"""
BROKEN = {
    "import": ("import no_such_library_of_mine\n", "ModuleNotFoundError: No module named 'no_such_library_of_mine'"),
    "syntax": ("def plugin(:\n", "SyntaxError"),
    "hook": (
        PLUGIN.format("actconform_models", "raise KeyError('momentum is missing')"),
        "KeyError: 'momentum is missing'",
    ),
    "type": (
        PLUGIN.format("actconform_kernels", "return ['relu7']"),
        "actconform_kernels returned a value of type str among its items: wanted actconform.Kernel",
    ),
    "goldens": (
        PLUGIN.format("actconform_goldens", "return 'golden'"),
        "actconform_goldens returned a value of type str: wanted a pathlib.Path",
    ),
}
TWICE = PLUGIN.format("actconform_kernels", "return [Kernel(name='relu', definition='', source='')]")


@pytest.fixture
def broken(install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Install a plugin called half with this text."""

    def installed(text: str) -> None:
        install(half="half_of_a_plugin:plugin")
        (tmp_path / "site" / "half_of_a_plugin.py").write_text(text)
        monkeypatch.delitem(sys.modules, "half_of_a_plugin", raising=False)

    yield installed
    sys.modules.pop("half_of_a_plugin", None)


@pytest.mark.parametrize("how", BROKEN)
def test_listing_and_minting_name_a_broken_plugin_with_its_error(how: str, broken, cli):
    text, words = BROKEN[how]
    broken(text)
    for verb in (("list", "models"), ("golden", "mint", "half")):
        said = cli(*verb)
        assert said.code == 2, verb
        assert "plugin half (actconform-stand-in 1.0) is broken: " in said.err, verb
        assert words in said.err, verb
    assert "unknown kernel, model or experiment 'half'" in said.err
    assert "mlp-relu" in cli("list", "models").out, "the others are listed all the same"


@pytest.mark.parametrize(
    "verb",
    [
        ("list", "cases", "--json"),
        ("golden", "verify", "--fast", "relu"),
        ("golden", "mint", "relu", "--folder", "minted"),
        ("selftest", "no-such-fault"),
        ("bench", "no-such-kernel/*"),
        ("check-plugin", "no-such-backend"),
        ("new-plugin", "another"),
        ("deviations", "document"),
    ],
    ids=lambda verb: verb[0] + verb[1],
)
def test_every_verb_names_it_and_does_the_rest(verb: tuple[str, ...], broken, cli):
    broken(BROKEN["import"][0])
    said = cli(*verb)
    assert said.code == 2
    assert "plugin half (actconform-stand-in 1.0) is broken: ModuleNotFoundError" in said.err
    assert "Traceback" not in said.err
    if verb[0] == "new-plugin":
        assert Path("actconform-another/pyproject.toml").exists()
    if "mint" in verb:
        assert Path("minted/relu/y.npy").exists()


def test_two_of_one_name_end_every_verb_with_both_named(broken, cli):
    broken(TWICE)
    for verb in (("list", "kernels"), ("golden", "mint", "relu"), ("golden", "verify", "relu"), ("run", "relu/*")):
        said = cli(*verb)
        assert said.code == 2, verb
        assert "two subjects are called 'relu'" in said.err, verb
        assert "half (actconform-stand-in 1.0)" in said.err, verb
