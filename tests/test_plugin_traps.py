"""pluggy's traps, with distributions as pip leaves them: each is walked into by pluggy itself, and by us not."""

from __future__ import annotations

import pluggy
import pytest

from actconform.errors import PluginError
from actconform.plugin import hookspecs
from actconform.plugin.hookspecs import hookimpl
from actconform.plugin.loader import GROUP, load_plugins

GOOD = """
from actconform import Kernel, hookimpl

@hookimpl
def actconform_kernels():
    return [Kernel(name="trap-{name}", definition="", source="tests")]
"""


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Install a distribution whose plugin `name` is a module with this text."""

    def install(folder, name, text):
        info = tmp_path / folder / f"actconform_{folder}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: actconform-{folder}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = trap_{folder}\n")
        (info.parent / f"trap_{folder}.py").write_text(text)
        monkeypatch.syspath_prepend(str(info.parent))

    return install


def by_pluggy():
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    manager.load_setuptools_entrypoints(GROUP)
    return manager


def test_one_broken_plugin_does_not_stop_the_others(distribution):
    distribution("whole", "trap-whole", GOOD.format(name="whole"))
    distribution("torn", "trap-torn", "raise ImportError('libtorn.so.1 is missing')")
    with pytest.raises(ImportError, match=r"libtorn.so.1"):
        by_pluggy()
    catalog = load_plugins()
    assert "trap-whole" in catalog.kernels
    assert [(one.name, one.distribution) for one in catalog.broken if "trap" in one.name] == [
        ("trap-torn", "actconform-torn 1.0")
    ]


def test_a_second_distribution_with_a_plugin_of_the_same_name_is_not_passed_over(distribution):
    distribution("first", "trap", GOOD.format(name="first"))
    distribution("second", "trap", GOOD.format(name="second"))
    loaded = {getattr(plugin, "__name__", "") for plugin in by_pluggy().get_plugins()}
    assert len({"trap_first", "trap_second"} & loaded) == 1
    both = (
        r"two plugins are called 'trap': one from trap \(actconform-(first|second) 1.0\), one from trap \(actconform-"
    )
    with pytest.raises(PluginError, match=both):
        load_plugins()


def test_a_mistyped_hook_is_not_registered_quietly(distribution):
    distribution("typo", "trap-typo", GOOD.format(name="typo").replace("actconform_kernels", "actconform_kernel"))
    manager = by_pluggy()
    with pytest.raises(pluggy.PluginValidationError, match="unknown hook 'actconform_kernel'"):
        manager.check_pending()  # which nobody need call
    with pytest.raises(PluginError, match=r"plugin trap-typo .*: actconform_kernel; did you mean actconform_kernels"):
        load_plugins()


def test_a_hook_that_raises_does_not_end_the_call_for_others(distribution):
    distribution("whole", "trap-whole", GOOD.format(name="whole"))

    class Raising:
        @hookimpl(tryfirst=True)
        def actconform_kernels(self):
            raise OSError("no kernels today")

    manager = by_pluggy()
    manager.register(Raising())
    with pytest.raises(OSError, match="no kernels today"):
        manager.hook.actconform_kernels()
    catalog = load_plugins([Raising()])
    assert "trap-whole" in catalog.kernels
    assert "OSError: no kernels today" in next(one.reason for one in catalog.broken if one.name == "Raising")
