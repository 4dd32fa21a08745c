"""What a sweep leaves as it goes: a file for each kernel, aspect, route and extent, a line that says which, then a line a chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actconform.exhaustive.patterns import CHUNKS, Extent
from actconform.exhaustive.statistics import SweepStatistics, added_up
from actconform.resumable_journal import ResumableJournal, read_journal
from actconform.text import one_line
from actconform.types import Case, FindingClass, Interval  # noqa: TC001  msgspec reads the annotations when it decodes
from actconform.types.json import digest_of_json, finite

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from actconform.types import Kernel

SUFFIX = ".sweep.jsonl"


class SweepIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """What all chunks of a sweep depend on: two chunks under the same may be added."""

    actconform: str
    case: Case
    extent: Extent
    definition: str
    """The SHA-256 of the kernel as data."""
    graph: str = ""
    """The SHA-256 of the graph that the runtime loads; "" on a native route."""
    provider: str
    """The distribution of the backend and its version."""
    facts: dict[str, str]
    """Of the worker's process and what computes there: versions, processor."""
    sample: str = ""
    """Of a kernel of rows or of two inputs, in words, what is swept in place of the extent's numbers."""

    @property
    def file_name(self) -> str:
        """The journal's name."""
        case = self.case
        return f"{case.subject}.{case.aspect}.{case.route}.{self.extent}{SUFFIX}"

    def differences(self, from_: SweepIdentity) -> list[str]:
        """Return in words what is otherwise: "torch was 2.12, is 2.13"."""
        before, now = from_.fields(), self.fields()
        return [
            f"{name} was {one_line(before.get(name, 'not there'))}, is {one_line(now.get(name, 'not there'))}"
            for name in {**before, **now}
            if before.get(name) != now.get(name)
        ]

    def fields(self) -> dict[str, str]:
        """Return all that identifies, by name."""
        names = ("actconform", "extent", "definition", "graph", "provider")
        case = {
            "kernel": self.case.subject,
            "aspect": self.case.aspect,
            "dtype": self.case.dtype,
            "route": self.case.route,
        }
        return {**case, **{name: str(getattr(self, name)) for name in names}, **self.facts}


def definition_of(kernel: Kernel) -> str:
    """Return the SHA-256 of a kernel as data: of parameters, conventions, limits."""
    return digest_of_json(finite(kernel))


class SweptChunk(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk that is done: its statistics, the SHA-256 of its outputs, the seconds of the worker."""

    chunk: int
    sha256: str
    statistics: SweepStatistics
    seconds: float


ANY_CHUNK = -1


class CoveredFinding(msgspec.Struct, frozen=True):
    """A finding that a registered cause explains, or a convention of the kernel."""

    class_: FindingClass
    tensor: str
    interval: Interval
    cause: str
    chunk: int = ANY_CHUNK
    """Of a sample, whose intervals repeat in other chunks; else the interval is of one chunk."""


class Causes(msgspec.Struct, frozen=True):
    """The findings of a complete sweep that are explained."""

    covered: list[CoveredFinding]


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """A sweep, or as much of it as is done."""

    identity: SweepIdentity
    chunks: dict[int, SweptChunk]
    covered: list[CoveredFinding] = []

    @property
    def complete(self) -> bool:
        """Whether every chunk is done."""
        return len(self.chunks) == CHUNKS

    @property
    def statistics(self) -> SweepStatistics:
        """What all chunks count together; findings have their cause as `deviation`."""
        causes = {(each.chunk, each.class_, each.tensor, each.interval): each.cause for each in self.covered}
        return added_up(_with_causes(self.chunks[number], causes) for number in sorted(self.chunks))


def _with_causes(chunk: SweptChunk, causes: Mapping[tuple[int, FindingClass, str, Interval], str]) -> SweepStatistics:
    findings = []
    for finding in chunk.statistics.findings:
        place = (finding.class_, finding.tensor, finding.interval)
        cause = causes.get((chunk.chunk, *place)) or causes.get((ANY_CHUNK, *place))
        findings.append(msgspec.structs.replace(finding, deviation=cause))
    return msgspec.structs.replace(chunk.statistics, findings=tuple(findings))


class _Head(msgspec.Struct):
    sweep: SweepIdentity


class SweepJournal(ResumableJournal):
    """Appends chunks to a file of a folder; with `resume` those that an earlier run of the same sweep left are in `earlier`."""

    kind = "sweep"

    def __init__(self, folder: Path, identity: SweepIdentity, *, resume: bool) -> None:
        self.file_name = identity.file_name
        self.identity = identity
        self.earlier: dict[int, SweptChunk] = {}
        super().__init__(folder, msgspec.json.encode({"sweep": identity}), resume=resume)

    def add(self, chunk: SweptChunk) -> None:
        """Append a chunk. Raises OSError."""
        self._write(msgspec.json.encode(finite(chunk)))

    def add_causes(self, covered: list[CoveredFinding]) -> None:
        """Append what explains findings; the last such line holds. Raises OSError."""
        self._write(msgspec.json.encode(Causes(covered)))

    def _another_run(self, head: bytes) -> str:
        differences = self.identity.differences(msgspec.json.decode(head, type=_Head).sweep)
        return f"is of another sweep: {'; '.join(differences)}" if differences else ""

    def _keep(self, line: bytes) -> None:
        record = _record(line)
        if isinstance(record, SweptChunk):  # causes are looked for anew
            self.earlier[record.chunk] = record


def _record(line: bytes) -> SweptChunk | Causes:
    if line.startswith(b'{"covered"'):
        return msgspec.json.decode(line, type=Causes)
    # not strict: "nan" or "inf" where a number stands is one
    chunk = msgspec.json.decode(line, type=SweptChunk, strict=False)
    if not 0 <= chunk.chunk < CHUNKS:
        raise msgspec.DecodeError(f"chunk {chunk.chunk}")
    return chunk


def read_sweep(path: Path) -> Sweep:
    """Return the sweep of a journal; lines that are cut off or are no chunk are left out. Raises UsageError where it is no journal."""
    head, records = read_journal(path, _Head, _record, "is no journal of a sweep: its first line names none")
    chunks: dict[int, SweptChunk] = {}
    covered: list[CoveredFinding] = []
    for record in records:
        if isinstance(record, Causes):
            covered = record.covered
        else:
            chunks[record.chunk] = record
    return Sweep(identity=head.sweep, chunks=chunks, covered=covered)


def read_sweeps(folder: Path) -> list[Sweep]:
    """Return the sweeps of all journals in a folder, by file name. Raises UsageError as `read_sweep` does."""
    return [read_sweep(path) for path in sorted(folder.glob(f"*{SUFFIX}"))]
