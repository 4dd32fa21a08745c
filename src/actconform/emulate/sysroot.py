"""A folder with Debian's Python for arm64 and wheels for it: what an emulated worker needs. Made without root.

apt-get downloads by the machine's own sources, with lists and state of its own, so that nothing of the machine changes.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from actconform.errors import NoEnvironmentError
from actconform.workers.environments import called, environments_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DEBIAN_PACKAGES = ("python3", "libstdc++6")
PROGRAMS = ("apt-get", "dpkg-deb")
ARCHIVES = "cache/archives"
OLDEST_GLIBC = 17  # 2.17: no wheel for arm64 asks for an older one
# QEMU shows the host's /proc/cpuinfo, at which the library crashes that tells ONNX Runtime the kind of core.
CPUINFO = """\
processor\t: 0
BogoMIPS\t: 50.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1

"""


class Sysroot(NamedTuple):
    """A whole sysroot in its folder."""

    folder: Path

    @property
    def root(self) -> Path:
        """What stands for / where a file is there."""
        return self.folder / "root"

    @property
    def packages(self) -> Path:
        """The folder of the wheels' packages."""
        return self.folder / "packages"

    @property
    def python(self) -> Path:
        """Its interpreter, python3.N."""
        return next(
            path for path in self.root.glob("usr/bin/python3.*") if path.name.removeprefix("python3.").isdigit()
        )


def sysroots_folder() -> Path:
    """Return where sysroots are kept, beside the environments."""
    return environments_folder().with_name("sysroots")


def sysroot(requirements: Sequence[str], say: Callable[[str], None]) -> Sysroot:
    """Return the sysroot with these requirements, made now unless it is there; `say` is called where that takes time.

    What else they need has the driver's versions. What cannot be made, or is interrupted, leaves nothing. Raises
    NoEnvironmentError where a program is missing, or with the last lines of the one that failed.
    """
    content = json.dumps([sorted(requirements), DEBIAN_PACKAGES, CPUINFO])
    place = sysroots_folder() / hashlib.sha256(content.encode()).hexdigest()[:16]
    if not place.exists():
        missing = [program for program in PROGRAMS if shutil.which(program) is None]
        if missing:
            raise NoEnvironmentError(
                f"there is no {' and no '.join(missing)}: a sysroot for arm64 is made of Debian's packages; "
                "use Debian, or leave arm64 out"
            )
        say(f"making a sysroot for arm64 in {place}: downloads about 120 MB")
        _make(place, requirements)
    return Sysroot(place)


def _make(place: Path, requirements: Sequence[str]) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        # Renamed when whole: of two processes that make the same one, either's will do.
        with tempfile.TemporaryDirectory(dir=place.parent, prefix="making-") as folder:
            new_root = Sysroot(Path(folder) / "sysroot")
            new_root.root.mkdir(parents=True)
            glibc = _unpack_python(new_root.root, Path(folder) / "apt")
            _install(requirements, new_root, Path(folder) / "constraints.txt", glibc)
            try:
                new_root.folder.rename(place)
            except OSError:
                if not place.exists():
                    raise
    except OSError as error:
        raise NoEnvironmentError(f"{place}: cannot be made: {error}; set ACTCONFORM_CACHE to another folder") from error


def _unpack_python(root: Path, apt: Path) -> int:
    """Unpack Debian's Python and all that it needs; return N of its glibc 2.N."""
    for folder in ("state/lists/partial", f"{ARCHIVES}/partial"):
        (apt / folder).mkdir(parents=True)
    (apt / "status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",  # another user could not read a folder in root's home
        "Dir::State": apt / "state",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
    }
    config = apt / "apt.conf"
    config.write_text("".join(f'{key} "{value}";\n' for key, value in settings.items()), encoding="utf-8")
    by_apt = ["apt-get", "--config-file", str(config), "--yes"]
    called([*by_apt, "update"], "apt-get cannot read its sources for arm64")
    called(
        [*by_apt, "install", "--download-only", *DEBIAN_PACKAGES],
        "apt-get does not find Python for arm64: its sources must be Debian's, or others that have arm64",
    )
    archives = sorted((apt / ARCHIVES).glob("*.deb"))
    for archive in archives:
        called(["dpkg-deb", "--extract", str(archive), str(root)], f"{archive.name} cannot be unpacked")
    if not (root / "lib").exists():  # from Debian 13 on all lies in /usr
        (root / "lib").symlink_to("usr/lib")
    (root / "proc").mkdir()
    (root / "proc/cpuinfo").write_text(CPUINFO, encoding="ascii")
    versions = [re.match(r"libc6_2\.(\d+)", archive.name) for archive in archives]
    return next((int(version[1]) for version in versions if version), OLDEST_GLIBC)


def _install(requirements: Sequence[str], target: Sysroot, constraints: Path, glibc: int) -> None:
    pins = [f"{package.name}=={package.version}" for package in metadata.distributions() if package.name]
    constraints.write_text("\n".join(pins) + "\n", encoding="utf-8")
    platforms = ["manylinux2014", *(f"manylinux_2_{minor}" for minor in range(OLDEST_GLIBC, glibc + 1))]
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-compile"]
    command += ["--target", str(target.packages), "--only-binary", ":all:", "--constraint", str(constraints)]
    command += ["--implementation", "cp", "--python-version", target.python.name.removeprefix("python")]
    command += [word for platform in platforms for word in ("--platform", f"{platform}_aarch64")]
    called([*command, "--", *requirements], f"wheels for arm64 of {', '.join(requirements)} cannot be installed")
