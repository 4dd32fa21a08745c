"""A runtime that is a command, and no plugin: `[backends.NAME] command = "./myrt {model} {inputs} {outputs}"` of the settings.

For each call the command is run once: `{model}` is a file, `{inputs}` a folder with one file for each input, `{outputs}` an
empty folder, where it leaves one file for each output. It ends with 0, or with 3 where it does not support the graph. With
`prepare` a graph is compiled first, and one start makes all calls of a case; with `serve` one process answers all calls.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from weakref import WeakValueDictionary

import msgspec

from actconform.errors import Unavailable
from actconform.files import sweep_folders
from actconform.plugin.hookspecs import hookimpl
from actconform.plugin.interfaces import Backend
from actconform.settings import table_name
from actconform.workers.command_program import PREFIX, CommandProgram, GraphFiles, printed_lines
from actconform.workers.last_words import tell_last_words
from actconform.workers.process import cause_of_death
from actconform.workers.serve.served_program import ServedProgram, ServedRuntime

if TYPE_CHECKING:
    from actconform.plugin.interfaces import Program
    from actconform.types import Artifact

ABOUT = "ACTCONFORM_COMMAND"
PLUGIN = f"{__name__}:CommandPlugin"
VERSION_SECONDS = 60.0


class CommandSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a command, or of a runtime that serves; `folder` is where it runs.

    `version_seconds` hold for `version`, and for the first answer of a runtime that serves.
    """

    name: str
    command: str | None = None
    prepare: str | None = None
    serve: str | None = None
    tensors: Literal["npy", "pb"] = "npy"
    version: str | None = None
    version_seconds: float = VERSION_SECONDS
    folder: str = "."

    @property
    def commands(self) -> dict[str, str]:
        """What is run, by its key in the settings."""
        commands = {"prepare": self.prepare, "command": self.command, "serve": self.serve}
        return {key: text for key, text in commands.items() if text is not None}


class CommandRuntime(Backend):
    """The base class of the backend of every command."""

    kind = "runtime"
    about: ClassVar[CommandSettings]

    def __init__(self) -> None:
        sweep_folders(PREFIX)
        tell_last_words()
        self._graphs: WeakValueDictionary[bytes, GraphFiles] = WeakValueDictionary()
        self._served = ServedRuntime(self.about)

    @classmethod
    def reproduction(cls) -> str:
        """Return the text of `command_standalone` with the command, and for a runtime that serves with the messages."""
        text = Path(__file__).with_name("command_standalone.py").read_text(encoding="utf-8")
        about = {
            "COMMAND": cls.about.command or "",
            "PREPARE": cls.about.prepare or "",
            "SERVE": cls.about.serve or "",
            "FOLDER": str(Path(cls.about.folder).resolve()),
            "TENSORS": cls.about.tensors,
        }
        for name, value in about.items():
            text = text.replace(f'{name} = ""', f"{name} = {value!r}", 1)
        return text

    def facts(self) -> dict[str, str]:
        """Return the commands, and what `version` prints or a runtime that serves says of itself; raise `Unavailable` where one cannot be run here."""
        about = self.about
        for key, text in about.commands.items():
            first = shlex.split(text)[0]
            program = str(Path(about.folder, first)) if "/" in first else first
            if shutil.which(program) is None:
                where = f"in {Path(about.folder).resolve()}" if "/" in first else "on PATH"
                raise Unavailable(
                    f"there is no program {first} {where}: make it, or fix {key} of {table_name(about.name)}"
                )
        # What it was told to use: whether it does, it cannot be asked.
        facts = {**about.commands, "tensors": about.tensors, "threads": os.environ.get("ACTCONFORM_THREADS", "1")}
        if about.serve is not None:
            facts["runtime"] = self._served.about_text()
        return facts if about.version is None else {**facts, "version": self._version(about.version)}

    def load(self, artifact: Artifact, dtype: str, level: str = "") -> Program:  # noqa: ARG002  the graph is typed
        """Return the graph as a program. Whether a command takes it shows in `prepare`, or at the first call; `prepare` runs once a graph that is in use."""
        key = hashlib.sha256(artifact.model).digest()
        graph = self._graphs.get(key)
        if graph is None:
            graph = self._graphs[key] = GraphFiles(self.about, artifact)
        if self.about.serve is None:
            return CommandProgram(self.about, graph, artifact.path)
        path = graph.model if self.about.prepare is None else graph.artifact
        return ServedProgram(self._served, graph, str(path), artifact.path)

    def _version(self, command: str) -> str:
        try:
            done = subprocess.run(  # noqa: S603  the user's own command
                shlex.split(command),
                cwd=self.about.folder,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=self.about.version_seconds,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"it gives no version: {error}") from error
        lines = printed_lines(done.stdout) or printed_lines(done.stderr)
        if done.returncode or not lines:
            stderr_text = "; ".join(printed_lines(done.stderr)) or "it said nothing"
            raise Unavailable(f"it gives no version: {command} {cause_of_death(done.returncode)}: {stderr_text}")
        return lines[0]


class CommandPlugin:
    """Gives a worker the one command that it serves, described by $ACTCONFORM_COMMAND."""

    @hookimpl
    def actconform_backends(self) -> tuple[type[Backend], ...]:
        return (runtime(msgspec.json.decode(os.environ[ABOUT], type=CommandSettings)),)


def runtime(about: CommandSettings) -> type[Backend]:
    """Return the backend of a command."""
    subclass: Any = type(
        "Command",
        (CommandRuntime,),
        {
            "name": about.name,
            "about": about,
            "thread_safe": about.serve is None,  # one pipe, one request at a time
            "process_per_case": about.prepare is not None and about.serve is None,
            "__doc__": about.serve or about.command,
        },
    )
    backend: type[Backend] = subclass
    return backend
