"""`make emulate`: ort-cpu on processors that this machine does not have, by QEMU's user-mode emulation.

The driver runs as ever; its settings name an interpreter for the worker, which starts in the emulator. For x86-64 that
is the driver's own, for arm64 the one of a sysroot.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from importlib import metadata
from pathlib import Path

import click
import msgspec
from packaging.requirements import Requirement

from actconform.emulate.sysroot import sysroot
from actconform.errors import UsageError
from actconform.run.recorder import RESULTS, read_results
from actconform.text import number_of

BACKEND, ROUTE = "ort-cpu", "authored+ort-cpu"
PACKAGES = ("actconform", "actconform-onnxruntime")
X86 = ("x86_64", "AMD64")
CASE_SECONDS = 3600


class Processor(msgspec.Struct, frozen=True):
    """An architecture, a model of it as QEMU calls it, and what that has and lacks."""

    architecture: str
    model: str
    features: str


PROCESSORS = {
    "sse": Processor("x86_64", "Nehalem", "x86-64 with SSE4.2, without AVX"),
    "avx2": Processor("x86_64", "Haswell", "x86-64 with AVX2 and FMA, without AVX-512"),
    "arm64": Processor("aarch64", "neoverse-n1", "arm64 with NEON, without SVE"),
    "arm64-sve": Processor("aarch64", "max", "arm64 with SVE"),
}


def emulator(architecture: str) -> str:
    """Return QEMU's user-mode emulator of an architecture; raise UsageError where there is none."""
    names = (f"qemu-{architecture}", f"qemu-{architecture}-static")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        raise UsageError(f"there is no {names[0]}: `make emulators` installs it, or `apt-get install qemu-user`")
    return path


def interpreter(processor: Processor) -> str:
    """Return a script for /bin/sh that is Python on the processor and has what a worker of ort-cpu needs.

    Raises UsageError where this machine cannot emulate it.
    """
    command = [emulator(processor.architecture), "-cpu", processor.model]
    if processor.architecture in X86:
        command[-1] += (
            ",check=off"  # no warnings of what QEMU lacks: they would stand in place of a worker's last words
        )
        if platform.machine() not in X86:
            raise UsageError(f"{processor.model} runs the driver's own Python, which is {platform.machine()}'s")
        return _script([*command, sys.executable])
    root = sysroot(_requirements(), lambda text: click.echo(text, err=True))
    path = os.pathsep.join((str(root.packages), *_driver_packages()))
    return _script(["env", f"PYTHONPATH={path}", *command, "-L", str(root.root), str(root.python)])


def _script(command: list[str]) -> str:
    return f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n'


def _requirements() -> list[str]:
    """Return what the worker's packages require, and ONNX Runtime, at the driver's versions."""
    needed = [Requirement(text) for name in PACKAGES for text in metadata.requires(name) or ()]
    names = {
        requirement.name
        for requirement in needed
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    } - {*PACKAGES}
    by_module = metadata.packages_distributions().get("onnxruntime")
    if not by_module:
        raise UsageError('there is no onnxruntime here: pip install "actconform-onnxruntime[cpu]"')
    return [
        *(f"{name}=={metadata.version(name)}" for name in sorted(names)),
        f"onnxruntime=={metadata.version(by_module[0])}",
    ]


def _driver_packages() -> list[str]:
    """Return the folders where the driver finds packages, its standard library not among them."""
    bare = subprocess.run(
        [sys.executable, "-ISc", "import sys; print(*sys.path, sep='\\n')"], capture_output=True, text=True, check=True
    )
    library = bare.stdout.splitlines()
    return [path for path in sys.path if path and path not in library and path != str(Path.cwd())]


def run_on(processor: str, script: str, patterns: tuple[str, ...], out: Path) -> tuple[int, str]:
    """Run the authored column with this interpreter, its screen on ours; return the exit code and a line on what came of it."""
    out.mkdir(parents=True, exist_ok=True)
    python, settings = out / "python", out / "actconform.toml"
    python.write_text(script, encoding="utf-8")
    python.chmod(0o755)
    path = json.dumps(str(python.absolute()), ensure_ascii=False)
    lines = ["threads = 1", f"timeout = {CASE_SECONDS}", f"[backends.{BACKEND}]", f"python = {path}"]
    settings.write_text("\n".join(lines) + "\n", encoding="utf-8")
    (out / RESULTS).unlink(missing_ok=True)
    program = str(Path(sys.executable).with_name("actconform"))
    started = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603  this project's own program
        [program, "run", *patterns, "--route", ROUTE, "--config", str(settings), "--out", str(out)]
    )
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.wait()  # Ctrl-C has reached it too, and it ends its worker
        raise
    seconds = time.perf_counter() - started
    results = read_results(out) if (out / RESULTS).exists() else []
    counts = Counter(str(result.verdict) for result in results)
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    about = PROCESSORS[processor]
    return (
        code,
        f"{processor} ({about.model}: {about.features}): {number_of(len(results), 'case')}: {verdicts}; {seconds:.0f} s",
    )


@click.command()
@click.argument("processors", nargs=-1, metavar="[PROCESSOR]...", type=click.Choice(tuple(PROCESSORS)))
@click.option(
    "--pattern", "patterns", multiple=True, help="Only these cases, as `actconform run` takes them (repeatable)."
)
@click.option(
    "--out",
    default="emulate-out",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder in it for each.",
)
def main(processors: tuple[str, ...], patterns: tuple[str, ...], out: Path) -> None:
    """Run the authored column on each PROCESSOR: sse, avx2, arm64, arm64-sve (default: all four).

    Exit code 0: all conform; 1: one does not; 2: wrong usage, or this machine cannot emulate one.
    """
    try:
        scripts = {name: interpreter(PROCESSORS[name]) for name in dict.fromkeys(processors or PROCESSORS)}
    except UsageError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    ran = [run_on(name, script, patterns, out / name) for name, script in scripts.items()]
    for _, line in ran:
        click.echo(line)
    sys.exit(max(code for code, _ in ran))


if __name__ == "__main__":
    main()
