"""Sysroots: whole, kept, or nothing. Programs that stand where Debian's do write what Debian's packages would."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from actconform.emulate.sysroot import sysroot
from actconform.errors import NoEnvironmentError

APT = """
while read -r key value; do
    case $key in Dir::Cache) value=${value#\\"}; cache=${value%\\"\\;};; esac
done < "$2"
case $4 in install)
    for package in libc6_2.36-9 python3.11_3.11.2-6; do echo > "$cache/archives/${package}_arm64.deb"; done
esac
"""
DPKG = 'mkdir -p "$3/usr/bin" "$3/usr/lib"; touch "$3/usr/bin/python3" "$3/usr/bin/python3.11" "$3/usr/bin/python3.11-config"'
FAILS = "echo first; echo E: no such source >&2; exit 100"


@pytest.fixture
def debian(tmp_path, monkeypatch):
    """Have these scripts stand where Debian's programs do; the folder of sysroots is returned, which pip fills from `wheels`."""
    folder = tmp_path / "programs"
    folder.mkdir()

    def has(**programs):
        for name, body in programs.items():
            path = folder / name.replace("_", "-")
            path.write_text(f"#!/bin/sh\n{body}\n")
            path.chmod(0o755)

    has(apt_get=APT, dpkg_deb=DPKG)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return has


def test_a_sysroot_has_python_wheels_and_the_processor_of_its_own_and_is_kept(wheels, debian):
    said = []
    made = sysroot(["steady==1.0"], said.append)
    assert made.folder.parent == wheels.parent / "sysroots"
    assert [line.partition(":")[0] for line in said] == [f"making a sysroot for arm64 in {made.folder}"]
    assert made.python == made.root / "usr/bin/python3.11"
    assert (made.packages / "steady/__init__.py").read_text() == "__version__ = '1.0'\n"
    assert "CPU architecture: 8" in (made.root / "proc/cpuinfo").read_text()
    assert (made.root / "lib").readlink() == Path("usr/lib")
    assert list(made.folder.parent.iterdir()) == [made.folder]

    debian(apt_get=FAILS)
    assert sysroot(["steady==1.0"], said.append) == made
    assert len(said) == 1


def test_other_requirements_are_another_one(wheels, debian):
    one, other = sysroot(["steady==1.0"], print), sysroot(["steady==2.0", "wobble==1.0"], print)
    assert one.folder != other.folder
    assert (other.packages / "wobble").exists()


@pytest.mark.parametrize(
    ("programs", "requirement", "message"),
    [
        (
            {"apt_get": FAILS},
            "steady",
            r"cannot read its sources for arm64; the last lines were:\n  first\n  E: no such s",
        ),
        ({"apt_get": f"case $4 in install) {FAILS};; esac"}, "steady", "does not find Python for arm64"),
        ({"dpkg_deb": FAILS}, "steady", "libc6_2.36-9_arm64.deb cannot be unpacked"),
        ({}, "steady==9.0", r"wheels for arm64 of steady==9.0 cannot be installed; the last lines were:\n"),
    ],
    ids=["sources", "packages", "archive", "wheels"],
)
def test_what_cannot_be_made_says_why_and_leaves_nothing(programs, requirement, message, wheels, debian):
    debian(**programs)
    with pytest.raises(NoEnvironmentError, match=message):
        sysroot([requirement], print)
    assert list((wheels.parent / "sysroots").iterdir()) == []


def test_where_debians_programs_are_missing_they_are_named(wheels, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoEnvironmentError, match=r"there is no apt-get and no dpkg-deb: .* leave arm64 out"):
        sysroot(["steady"], print)
