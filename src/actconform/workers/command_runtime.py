"""A runtime that is a command, and no plugin: `[backends.NAME] command = "./myrt {model} {inputs} {outputs}"` of the settings.

For each call the command is run once: `{model}` is a file, `{inputs}` a folder with one file for each input, `{outputs}` an
empty folder, where it leaves one file for each output. It ends with 0, or with 3 where it does not support the graph.
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from actconform.errors import TensorFileError, Unavailable, Unsupported
from actconform.files import read_bytes, sweep_folders, temporary_folder
from actconform.plugin.hookspecs import hookimpl
from actconform.plugin.interfaces import Backend, Program
from actconform.settings import table_name
from actconform.workers.process import LONGEST_LINE, MOST_LINES, TAIL_BYTES, cause_of_death
from actconform.workers.session import CommandError
from actconform.workers.tensor_files import file_name, read_tensor, write_tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

    from actconform.types import Artifact, Bundle

ABOUT = "ACTCONFORM_COMMAND"
PLUGIN = f"{__name__}:CommandPlugin"
UNSUPPORTED = 3  # the exit code
VERSION_SECONDS = 60.0
MOST_BYTES = 1 << 30  # of all outputs of one call
PREFIX = "actconform-command-"
LONGEST_NAME = 200  # bytes of a file's name, its ending aside


class CommandSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a command; `folder` is where it runs."""

    name: str
    command: str
    tensors: Literal["npy", "pb"] = "npy"
    version: str | None = None
    version_seconds: float = VERSION_SECONDS
    folder: str = "."


class CommandRuntime(Backend):
    """The base class of the backend of every command."""

    kind = "runtime"
    about: ClassVar[CommandSettings]

    def __init__(self) -> None:
        sweep_folders(PREFIX)

    @classmethod
    def reproduction(cls) -> str:
        """Return the text of `command_standalone` with the command."""
        text = Path(__file__).with_name("command_standalone.py").read_text(encoding="utf-8")
        about = {
            "COMMAND": cls.about.command,
            "FOLDER": str(Path(cls.about.folder).resolve()),
            "TENSORS": cls.about.tensors,
        }
        for name, value in about.items():
            text = text.replace(f'{name} = ""', f"{name} = {value!r}", 1)
        return text

    def facts(self) -> dict[str, str]:
        """Return the command and the first line of its `version`; raise `Unavailable` where either cannot be run here."""
        about = self.about
        first = shlex.split(about.command)[0]
        program = str(Path(about.folder, first)) if "/" in first else first
        if shutil.which(program) is None:
            where = f"in {Path(about.folder).resolve()}" if "/" in first else "on PATH"
            raise Unavailable(
                f"there is no program {first} {where}: make it, or fix command of {table_name(about.name)}"
            )
        facts = {"command": about.command, "tensors": about.tensors}
        return facts if about.version is None else {**facts, "version": self._version(about.version)}

    def load(self, artifact: Artifact, dtype: str, level: str = "") -> Program:  # noqa: ARG002  the graph is typed
        """Return the graph as a program; whether the command takes it shows at the first call."""
        return CommandProgram(self.about, artifact)

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
        lines = _lines(done.stdout) or _lines(done.stderr)
        if done.returncode or not lines:
            stderr_text = "; ".join(_lines(done.stderr)) or "it said nothing"
            raise Unavailable(f"it gives no version: {command} {cause_of_death(done.returncode)}: {stderr_text}")
        return lines[0]


class CommandProgram(Program):
    """A graph in a file, and the command to be run on it. The files lie in a folder of their own until `close`."""

    def __init__(self, about: CommandSettings, artifact: Artifact) -> None:
        import onnx

        self._about = about
        self.implementation = artifact.path
        model = onnx.load_model_from_string(artifact.model)
        self._outputs = {output.name: output.type.tensor_type.elem_type for output in model.graph.output}
        self._called = _file_names(model.graph)
        self._folder = temporary_folder(PREFIX)
        self._model = self._folder / "model.onnx"
        self._model.write_bytes(_called_so(model, self._called) if self._called else artifact.model)

    def forward(self, inputs: Bundle) -> Bundle:
        """Return every output by name. Raises `Unsupported` with the command's last line where it ends with 3, and CommandError
        where it ends with another code than 0, or leaves anything else than the outputs.
        """
        with tempfile.TemporaryDirectory(dir=self._folder) as place:
            input_folder, output_folder = Path(place, "inputs"), Path(place, "outputs")
            input_folder.mkdir()
            output_folder.mkdir()
            for tensor, array in inputs.items():
                name = self._called.get(tensor, tensor)
                (input_folder / file_name(name, self._about.tensors)).write_bytes(
                    write_tensor(name, array, self._about.tensors)
                )
            self._run(
                {"model": str(self._model), "inputs": str(input_folder), "outputs": str(output_folder)}, Path(place)
            )
            return self._read(output_folder)

    def close(self) -> None:
        """Remove the files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, places: Mapping[str, str], folder: Path) -> None:
        words = [word.format(**places) for word in shlex.split(self._about.command)]
        stdout, stderr = folder / "stdout", folder / "stderr"
        with stdout.open("wb") as out, stderr.open("wb") as err:
            try:
                code = subprocess.call(  # noqa: S603  the user's own command
                    words, cwd=self._about.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err
                )
            except OSError as error:
                raise CommandError(f"{self._about.name}: {words[0]} cannot be started: {error.strerror}") from error
        if code == 0:
            return
        lines = _lines(_tail(stderr)) or _lines(_tail(stdout))
        if code == UNSUPPORTED:
            raise Unsupported(lines[-1] if lines else f"{self._about.name} ended with exit code 3 and gives no reason")
        last = "; its last words:" + "".join(f"\n  {line}" for line in lines) if lines else "; it said nothing"
        raise CommandError(f"{self._about.name} {cause_of_death(code)}{last}")

    def _read(self, folder: Path) -> Bundle:
        kind = self._about.tensors
        expected = {file_name(self._called.get(name, name), kind): name for name in self._outputs}
        written = sorted(path.name for path in folder.iterdir())
        if written != sorted(expected):
            raise CommandError(
                f"{self._about.name} wrote {_name_list(written)} to {{outputs}}: wanted {_name_list(sorted(expected))}, no more"
            )
        for name in written:
            # Reading a pipe, or what a link leads to, may never end.
            if not stat.S_ISREG((folder / name).lstat().st_mode):
                raise CommandError(f"{self._about.name} wrote {name}, which is no plain file")
        size = sum((folder / name).stat().st_size for name in written)
        if size > MOST_BYTES:
            raise CommandError(f"{self._about.name} wrote {size:,} bytes to {{outputs}}: wanted at most {MOST_BYTES:,}")
        outputs = {}
        for file, name in expected.items():
            try:
                outputs[name] = read_tensor(read_bytes(folder / file, MOST_BYTES), kind, self._outputs[name])
            except (TensorFileError, OSError) as error:
                raise CommandError(f"{self._about.name} wrote {file}, which is no tensor: {error}") from error
        return outputs


def _file_names(graph: onnx.GraphProto) -> dict[str, str]:
    """Return other names for inputs and outputs whose names are none of files, such as "/encoder/Add_output_0"."""
    from actconform.onnx.nested_graphs import fresh_prefix, own_names

    ends = dict.fromkeys(value.name for value in (*graph.input, *graph.output))
    unfit = [
        name
        for name in ends
        if Path(name).name != name or name.startswith(".") or "\0" in name or len(name.encode()) > LONGEST_NAME
    ]
    if not unfit:
        return {}
    prefix = fresh_prefix("tensor_", set(own_names(graph)))
    return {name: f"{prefix}{i}" for i, name in enumerate(unfit)}


def _called_so(model: onnx.ModelProto, names: Mapping[str, str]) -> bytes:
    """Return the model with other names for some of its tensors; its nodes keep theirs."""
    from actconform.onnx.nested_graphs import renamed

    graph = renamed(model.graph, lambda name: names.get(name, name))
    for node, original in zip(graph.node, model.graph.node, strict=True):
        node.name = original.name
    model.graph.CopyFrom(graph)
    return bytes(model.SerializeToString())


class CommandPlugin:
    """Gives a worker the one command that it serves, described by $ACTCONFORM_COMMAND."""

    @hookimpl
    def actconform_backends(self) -> tuple[type[Backend], ...]:
        return (runtime(msgspec.json.decode(os.environ[ABOUT], type=CommandSettings)),)


def runtime(about: CommandSettings) -> type[Backend]:
    """Return the backend of a command."""
    subclass: Any = type("Command", (CommandRuntime,), {"name": about.name, "about": about, "__doc__": about.command})
    backend: type[Backend] = subclass
    return backend


def _name_list(names: Sequence[str]) -> str:
    return (
        ", ".join(names[:MOST_LINES]) + (f" and {len(names) - MOST_LINES} more" if names[MOST_LINES:] else "")
        or "nothing"
    )


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - TAIL_BYTES, 0))
        return file.read()


def _lines(output: bytes) -> list[str]:
    lines = [line.strip()[:LONGEST_LINE] for line in output.decode(errors="replace").splitlines()]
    return [line for line in lines if line][-MOST_LINES:]
