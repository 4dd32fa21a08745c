"""Every exception that one part of actconform raises for another, and the words that go with a wrong name.

Each message is for people: what was wrong, where, what is expected, what to do. The command line ends with exit code 2 at
`UsageError`, `PluginError`, `RegisterError`, `ObservedError` and `GoldenError`; the others cost a case or a node.
"""

from __future__ import annotations

import difflib
from typing import Literal

# What a plugin raises


class Unsupported(Exception):  # noqa: N818  an outcome, not a fault
    """Raised by a backend or exporter that does not support the case, in its own words: the case becomes UNSUPPORTED."""


class Unavailable(Exception):  # noqa: N818  an outcome, not a fault
    """Raised by `facts` or `export` when a package, device or library is missing, naming it and what to do: UNAVAILABLE."""


# What the user has to fix: exit code 2


class SourceError(Exception):
    """A trained model that the user names cannot be opened or run, by the user's own doing: the message says what to do."""


class UsageError(Exception):
    """What the user asked for cannot be done: the message says what was wrong, where, and what to do."""


class NoEnvironmentError(UsageError):
    """An environment cannot be made: the message says why and what to do."""


class PluginError(Exception):
    """The set of plugins cannot be used, and which ones are in the way."""


class InvalidPluginError(Exception):
    """What a hook returned is not what its specification says."""


class RegisterError(Exception):
    """A register of causes that cannot be read: says where, what was wrong and what is expected."""


class FormulaError(ValueError):
    """A text that is no formula: says what part, and what is expected."""


class ObservedError(Exception):
    """The file of what was observed cannot be read; names it and says what to do."""


class GoldenError(Exception):
    """The goldens are not what the manifest says; names the file and both digests."""


class NoGoldens(GoldenError):  # noqa: N818  named for what is missing
    """There are none of this subject: it has no proven truth, and the others have."""


class FolderInUseError(Exception):
    """Another run is writing into the folder."""


class SweepError(Exception):
    """A sweep cannot go on: the program fails, or a worker is gone; the message says at which chunk. `refused`: the backend has no such kernel."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


# Descriptions of models


class ShapeError(ValueError):
    """The inputs of a layer do not fit it; the text has the shapes and what is expected."""


class DescriptionError(ValueError):
    """A model's description cannot be: names the model and the layer, what is wrong, and what is expected."""


# Graphs


class CannotConvertError(Unsupported):
    """A node of an old opset has no equal at the newer one; the message names operator, opset and node, and says why."""


class TooLargeError(Unsupported):
    """What the graph would become is larger than anything that is tested here; the message says what and how large."""


class NotRepresentableError(ValueError):
    """A number does not fit the element type in which it was to be written."""


class ExternalDataError(ValueError):
    """The data of a tensor cannot be read, and why."""


class GradientError(ValueError):
    """No gradient can be added to this model, or not the one asked for; the message says why and what to do."""


class NameTakenError(GradientError):
    """A cotangent or a gradient would be called as another tensor of the model is: `name`."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the name {name!r} is taken: choose other prefixes with cotangent= and gradient=")
        self.name = name


class UnsupportedOperator(NotImplementedError):  # noqa: N818  it is no mistake of anybody
    """No gradient passes through a node; the message names node, operator, domain and opset, and says why."""


# Workers


class ProtocolError(Exception):
    """The bytes are not a whole frame, or the message cannot be written as one."""


class TensorFileError(Exception):
    """The bytes are no file of tensors, and why."""


class WorkerError(Exception):
    """A worker cannot serve: `kind` says how it came to that, the text says it to people."""

    def __init__(self, kind: Literal["crash", "timeout", "handshake", "closed", "unavailable"], message: str) -> None:
        super().__init__(message)
        self.kind = kind


class WorkerCrash(WorkerError):  # noqa: N818  named for what happened
    """The process died: `cause` is "was killed by SIGSEGV" or the like; it is replaced at the next job."""

    def __init__(self, message: str, cause: str) -> None:
        super().__init__("crash", message)
        self.cause = cause


class WorkerTimeout(WorkerError):  # noqa: N818
    """No answer came within `seconds`: the process was killed, and is replaced at the next job."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__("timeout", message)
        self.seconds = seconds


class ExportError(Exception):
    """The exporter's worker failed at this case; the message says how."""


def near(name: str, names: list[str]) -> str:
    """Return "; did you mean A, B?" with the names nearest to `name`, or all of at most 12 where none is near."""
    matches = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if matches:
        return f"; did you mean {', '.join(matches)}?"
    return f"; known: {', '.join(names)}" if len(names) <= 12 else ""
