"""A graph in files, and the commands that are run on it: `prepare` once, `command` for a call or for all calls of a case."""

from __future__ import annotations

import itertools
import shlex
import shutil
import stat
import subprocess
import weakref
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from actconform.errors import TensorFileError, Unsupported
from actconform.files import read_bytes, temporary_folder
from actconform.plugin.interfaces import Program
from actconform.text import listed
from actconform.workers.last_words import speaking
from actconform.workers.process import LONGEST_LINE, MOST_LINES, TAIL_BYTES, cause_of_death
from actconform.workers.session import CommandError, same_bytes
from actconform.workers.tensor_files import file_name, read_tensor, write_tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

    from actconform.types import Artifact, Bundle
    from actconform.workers.command_runtime import CommandSettings

UNSUPPORTED = 3  # the exit code
REFUSAL = "unsupported.txt"  # in the folder of a call's outputs, where a start makes several calls
MOST_BYTES = 1 << 30  # of all outputs of one call; of the inputs of all calls of one start
PREFIX = "actconform-command-"
LONGEST_NAME = 200  # bytes of a file's name, its ending aside


class GraphFiles:
    """A graph in a folder of its own, which is removed when nobody holds this any more: the model, and what `prepare` made of it.

    `model` bears names that files can have, which `names` has by the graph's own; a runtime that serves gets the graph as it came.
    Raises Unsupported or CommandError as `prepare` ends.
    """

    def __init__(self, about: CommandSettings, artifact: Artifact) -> None:
        import onnx

        model = onnx.load_model_from_string(artifact.model)
        self.output_types = {output.name: output.type.tensor_type.elem_type for output in model.graph.output}
        self.names = {} if about.serve else _file_names(model.graph)
        self.folder = temporary_folder(PREFIX)
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.model = self.folder / "model.onnx"
        self.model.write_bytes(_renamed_model(model, self.names) if self.names else artifact.model)
        self.artifact = self.folder / "artifact"
        if about.prepare is not None:
            try:
                self._prepare(about, about.prepare)
            except (CommandError, Unsupported):
                shutil.rmtree(self.folder)  # the exception may hold this for long
                raise

    @property
    def places(self) -> dict[str, str]:
        """What {model} and {artifact} of a command stand for."""
        return {"model": str(self.model), "artifact": str(self.artifact)}

    def _prepare(self, about: CommandSettings, command: str) -> None:
        run_command(about, command, self.places, self.folder)
        if not self.artifact.exists():
            raise CommandError(
                f"{about.name}: prepare ended with exit code 0 and left nothing at {{artifact}}: wanted a file or a folder"
            )


class _ExpectedCall(NamedTuple):
    """A call that is to come: its inputs, and the folder with its outputs, None where it must be made in a start of its own."""

    inputs: Bundle
    outputs: Path | None


class CommandProgram(Program):
    """A graph, and the command to be run on it: once for each call, or where there is `prepare` once for all calls that are expected."""

    def __init__(self, about: CommandSettings, graph: GraphFiles, implementation: str) -> None:
        self.implementation = implementation
        self._about, self._graph = about, graph
        self._many = about.prepare is not None
        self._expected: deque[_ExpectedCall] = deque()
        self._failed_start: Exception | None = None
        self._numbers = itertools.count()

    def expect(self, calls: Sequence[Bundle]) -> None:
        """Make all calls in one start, where there is `prepare`; a start that fails is followed by one for each call, to see which fails."""
        if not self._many or sum(array.nbytes for inputs in calls for array in inputs.values()) > MOST_BYTES:
            return
        try:
            folder = self._start(calls)
        except (CommandError, Unsupported) as error:
            self._failed_start = error
            self._expected = deque(_ExpectedCall(inputs, None) for inputs in calls)
        else:
            self._expected = deque(
                _ExpectedCall(inputs, folder / "outputs" / str(number)) for number, inputs in enumerate(calls)
            )

    def forward(self, inputs: Bundle) -> Bundle:
        """Return every output by name. Raises `Unsupported` with the command's last line where it ends with 3, and CommandError
        where it ends with another code than 0, or leaves anything else than the outputs.
        """
        call = _ExpectedCall(inputs, None)
        if self._expected and same_arrays(self._expected[0].inputs, inputs):
            call = self._expected.popleft()
        if call.outputs is not None:
            outputs = self._read(call.outputs)
            shutil.rmtree(call.outputs)
            return outputs
        try:
            folder = self._start([inputs])
            outputs = self._read(folder / "outputs" / "0" if self._many else folder / "outputs")
            shutil.rmtree(folder)
        except (CommandError, Unsupported):
            self._failed_start = None  # this call is why
            raise
        if self._failed_start is not None and not self._expected:
            raise CommandError(
                f"where it makes all calls in one start, though each alone is answered: {self._failed_start}"
            )
        return outputs

    def close(self) -> None:
        """Let go of the files."""
        self._expected.clear()
        del self._graph

    def _start(self, calls: Sequence[Bundle]) -> Path:
        """Run the command on these calls, and return the folder in which it left its outputs."""
        place = self._graph.folder / f"start-{next(self._numbers)}"
        input_folder, output_folder = place / "inputs", place / "outputs"
        for number, inputs in enumerate(calls):
            part = str(number) if self._many else ""
            (input_folder / part).mkdir(parents=True)
            (output_folder / part).mkdir(parents=True)
            for tensor, array in inputs.items():
                name = self._graph.names.get(tensor, tensor)
                content = write_tensor(name, array, self._about.tensors)
                (input_folder / part / file_name(name, self._about.tensors)).write_bytes(content)
        places = {**self._graph.places, "inputs": str(input_folder), "outputs": str(output_folder)}
        try:
            run_command(self._about, self._about.command or "", places, place)
        except (CommandError, Unsupported):
            shutil.rmtree(place)
            raise
        shutil.rmtree(input_folder)
        return place

    def _read(self, folder: Path) -> Bundle:
        kind, name_of, runtime = self._about.tensors, self._graph.names, self._about.name
        where = f"{{outputs}}/{folder.name}" if self._many else "{outputs}"
        expected = {file_name(name_of.get(name, name), kind): name for name in self._graph.output_types}
        written = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        refused = self._many and written == [REFUSAL]
        if written != sorted(expected) and not refused:
            raise CommandError(
                f"{runtime} wrote {_name_list(written)} to {where}: wanted {_name_list(sorted(expected))}, no more"
            )
        for name in written:
            # Reading a pipe, or what a link leads to, may never end.
            if not stat.S_ISREG((folder / name).lstat().st_mode):
                raise CommandError(f"{runtime} wrote {name}, which is no plain file")
        size = sum((folder / name).stat().st_size for name in written)
        if size > MOST_BYTES:
            raise CommandError(f"{runtime} wrote {size:,} bytes to {where}: wanted at most {MOST_BYTES:,}")
        if refused:
            lines = printed_lines(_tail(folder / REFUSAL))
            raise Unsupported(lines[-1] if lines else f"{runtime} wrote {REFUSAL} and gives no reason")
        outputs = {}
        for file, name in expected.items():
            try:
                content = read_bytes(folder / file, MOST_BYTES)
                outputs[name] = read_tensor(content, kind, self._graph.output_types[name])
            except (TensorFileError, OSError) as error:
                raise CommandError(f"{runtime} wrote {file}, which is no tensor: {error}") from error
        return outputs


def run_command(about: CommandSettings, command: str, places: Mapping[str, str], folder: Path) -> None:
    """Run a command of the settings to its end; `folder` gets what it prints.

    Raises `Unsupported` with its last line where it ends with 3, and CommandError with its last lines where it ends with another code than 0.
    """
    words = [word.format(**places) for word in shlex.split(command)]
    stdout, stderr = folder / "stdout", folder / "stderr"
    with stdout.open("wb") as out, stderr.open("wb") as err, speaking(lambda: printed_lines(_tail(stderr))):
        try:
            code = subprocess.call(  # noqa: S603  the user's own command
                words, cwd=about.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )
        except OSError as error:
            raise CommandError(f"{about.name}: {words[0]} cannot be started: {error.strerror}") from error
    if code == 0:
        return
    lines = printed_lines(_tail(stderr)) or printed_lines(_tail(stdout))
    if code == UNSUPPORTED:
        raise Unsupported(lines[-1] if lines else f"{about.name} ended with exit code 3 and gives no reason")
    raise CommandError(f"{about.name} {cause_of_death(code)}{last_words(lines)}")


def last_words(lines: Sequence[str]) -> str:
    """Return what a command said last, as the end of a message."""
    return "; its last words:" + "".join(f"\n  {line}" for line in lines) if lines else "; it said nothing"


def printed_lines(output: bytes) -> list[str]:
    """Return the last lines of an output that are not empty."""
    lines = [line.strip()[:LONGEST_LINE] for line in output.decode(errors="replace").splitlines()]
    return [line for line in lines if line][-MOST_LINES:]


def same_arrays(first: Bundle, second: Bundle) -> bool:
    """Return whether both have the same names, and under each the same bytes of one dtype and shape."""
    return first.keys() == second.keys() and all(
        (array.dtype, array.shape) == (second[name].dtype, second[name].shape) and same_bytes(array, second[name])
        for name, array in first.items()
    )


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


def _renamed_model(model: onnx.ModelProto, names: Mapping[str, str]) -> bytes:
    """Return the model with other names for some of its tensors; its nodes keep theirs."""
    from actconform.onnx.nested_graphs import renamed

    graph = renamed(model.graph, lambda name: names.get(name, name))
    for node, original in zip(graph.node, model.graph.node, strict=True):
        node.name = original.name
    model.graph.CopyFrom(graph)
    return bytes(model.SerializeToString())


def _name_list(names: Sequence[str]) -> str:
    return listed(names, MOST_LINES) or "nothing"


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - TAIL_BYTES, 0))
        return file.read()
