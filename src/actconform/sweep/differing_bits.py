"""On how many inputs two routes differ in a bit: chunks of unequal digests are computed again in both, and compared."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import msgspec

from actconform.errors import SweepError
from actconform.exhaustive.output_bits import differing_inputs
from actconform.exhaustive.patterns import CHUNKS, Extent, chunk_order
from actconform.exhaustive.statistics import CountedInputs  # noqa: TC001  msgspec reads the annotations when it decodes
from actconform.resumable_journal import ResumableJournal, read_journal
from actconform.sweep.runner import answered, in_turns
from actconform.types import Case  # noqa: TC001  likewise
from actconform.workers.sweep_session import SweepJob

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray

    from actconform.sweep.journal import Sweep
    from actconform.types import Artifact
    from actconform.workers.client import Worker

SUFFIX = ".bits.jsonl"


class RoutePair(msgspec.Struct, frozen=True):
    """Two routes of one kernel, aspect and extent."""

    first: Case
    second: Case
    extent: Extent

    @property
    def name(self) -> str:
        """Both routes and what is computed."""
        first = self.first
        return f"{first.subject}/{first.aspect} of {first.route} and {self.second.route}"

    @property
    def file_name(self) -> str:
        """The journal's name."""
        first, second = self.first, self.second
        return f"{first.subject}.{first.aspect}.{first.route}.{second.route}.{self.extent}{SUFFIX}"


class ComparedChunk(msgspec.Struct, frozen=True):
    """At how many inputs of a chunk outputs of the first and the second digest differ: it holds for these, whenever they come."""

    chunk: int
    sha256: tuple[str, str]
    differing: CountedInputs


Compared: TypeAlias = list[tuple[RoutePair, ComparedChunk]]


class _Head(msgspec.Struct):
    bits: RoutePair


class BitsJournal(ResumableJournal):
    """Appends compared chunks to a file of a folder; with `resume` those that an earlier run left are in `earlier`."""

    kind = "comparison of bits"

    def __init__(self, folder: Path, pair: RoutePair, *, resume: bool) -> None:
        self.file_name = pair.file_name
        self._pair = pair
        self.earlier: list[ComparedChunk] = []
        super().__init__(folder, msgspec.json.encode(_Head(pair)), resume=resume)

    def add(self, chunk: ComparedChunk) -> None:
        """Append a chunk. Raises OSError."""
        self._write(msgspec.json.encode(chunk))

    def _another_run(self, head: bytes) -> str:
        pair = msgspec.json.decode(head, type=_Head).bits
        return "" if pair == self._pair else f"is of {pair.first.id} and {pair.second.id}, range {pair.extent}"

    def _keep(self, line: bytes) -> None:
        self.earlier.append(_record(line))


def _record(line: bytes) -> ComparedChunk:
    chunk = msgspec.json.decode(line, type=ComparedChunk)
    if not 0 <= chunk.chunk < CHUNKS or chunk.differing.count < 0:
        raise msgspec.DecodeError(f"chunk {chunk.chunk}")
    return chunk


def read_compared(folder: Path) -> dict[RoutePair, list[ComparedChunk]]:
    """Return all compared chunks of the journals in a folder; lines that are cut off are left out. Raises UsageError for what is no journal."""
    compared = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        refusal = "is no comparison of bits: its first line names no routes"
        head, chunks = read_journal(path, _Head, _record, refusal)
        compared[head.bits] = chunks
    return compared


class SweptRoute(NamedTuple):
    """A sweep that is done, at least in part, with what computes it: the graph of its route, and its backend."""

    sweep: Sweep
    artifact: Artifact | None
    backend: str


class SweptOutputs(msgspec.Struct, frozen=True):
    """What computes a chunk's outputs on a route, and the SHA-256 that they had in the sweep."""

    backend: str
    artifact: Artifact | None
    sha256: str


class UnequalChunk(msgspec.Struct, frozen=True):
    """A chunk in which the outputs of pairs of routes differ, with each case of these; it can be compared wherever its backends are."""

    chunk: int
    pairs: list[RoutePair]
    outputs: dict[Case, SweptOutputs]

    @property
    def backends(self) -> set[str]:
        """The backends that compute it."""
        return {swept.backend for swept in self.outputs.values()}

    def compared(self, workers: Mapping[str, Worker]) -> Compared:
        """Return every pair's count. Each case is computed once, by the worker of its backend.

        Raises SweepError where one fails, or gives other bits than in the sweep.
        """
        extent = self.pairs[0].extent
        arrays = {case: self._computed(case, extent, workers[swept.backend]) for case, swept in self.outputs.items()}
        return [
            (
                pair,
                ComparedChunk(
                    self.chunk,
                    (self.outputs[pair.first].sha256, self.outputs[pair.second].sha256),
                    differing_inputs(self.chunk, extent, arrays[pair.first], arrays[pair.second]),
                ),
            )
            for pair in self.pairs
        ]

    def _computed(self, case: Case, extent: Extent, worker: Worker) -> NDArray[np.float32]:
        swept = self.outputs[case]
        result = answered(worker, SweepJob(case, swept.artifact, self.chunk, extent, outputs=True))
        if result.sha256 != swept.sha256:
            raise SweepError(
                f"{case.id}, chunk {self.chunk}: the same inputs gave other bits than in the sweep; "
                "sweep it without --resume, and where that happens again, the program is not deterministic"
            )
        (array,) = result.outputs.values()
        return array


class BitsComparison:
    """The chunks of one kernel and aspect in which routes differ and that are not compared yet; each finished one goes to its pair's journal.

    Journals are in `folder`; with `resume` what they have is not compared again. Raises UsageError as they do.
    """

    def __init__(self, routes: Iterable[SweptRoute], folder: Path, *, resume: bool) -> None:
        self._journals: dict[RoutePair, BitsJournal] = {}
        self._waiting: dict[int, list[RoutePair]] = {}
        ordered = sorted(routes, key=lambda route: route.sweep.identity.file_name)  # as the report has them
        self._routes = {route.sweep.identity.case: route for route in ordered}
        with ExitStack() as stack:
            for first, second in combinations(ordered, 2):
                if unequal := _unequal(first.sweep, second.sweep):
                    identity = first.sweep.identity
                    pair = RoutePair(identity.case, second.sweep.identity.case, identity.extent)
                    keep = resume and (folder / pair.file_name).exists()
                    journal = stack.enter_context(BitsJournal(folder, pair, resume=keep))
                    self._journals[pair] = journal
                    before = {(chunk.chunk, chunk.sha256) for chunk in journal.earlier}
                    for chunk, digests in unequal:
                        if (chunk, digests) not in before:
                            self._waiting.setdefault(chunk, []).append(pair)
            self._open = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    @property
    def name(self) -> str:
        """The kernel and aspect."""
        case = next(iter(self._routes))
        return f"{case.subject}/{case.aspect}"

    @property
    def pairs(self) -> list[RoutePair]:
        """The pairs of which a chunk is to be compared."""
        return [pair for pair in self._journals if any(pair in pairs for pairs in self._waiting.values())]

    def backends(self, pairs: Iterable[RoutePair]) -> set[str]:
        """Return the backends that compute the routes of pairs."""
        return {self._routes[case].backend for pair in pairs for case in (pair.first, pair.second)}

    def chunks(self, pairs: Collection[RoutePair]) -> list[UnequalChunk]:
        """Return the chunks in which these pairs are to be compared, those near |x| = 1 first."""
        waiting = [(chunk, [pair for pair in self._waiting.get(chunk, ()) if pair in pairs]) for chunk in chunk_order()]
        return [UnequalChunk(chunk, these, self._outputs(chunk, these)) for chunk, these in waiting if these]

    def _outputs(self, chunk: int, pairs: Iterable[RoutePair]) -> dict[Case, SweptOutputs]:
        cases = {case for pair in pairs for case in (pair.first, pair.second)}
        return {
            case: SweptOutputs(route.backend, route.artifact, route.sweep.chunks[chunk].sha256)
            for case, route in self._routes.items()
            if case in cases
        }

    def keep(self, compared: Compared) -> None:
        """Append what is compared to the journals. Raises OSError."""
        for pair, chunk in compared:
            self._journals[pair].add(chunk)


def _unequal(first: Sweep, second: Sweep) -> list[tuple[int, tuple[str, str]]]:
    """Return the chunks whose digests differ, with these."""
    digests = {
        chunk: (first.chunks[chunk].sha256, second.chunks[chunk].sha256)
        for chunk in first.chunks.keys() & second.chunks.keys()
    }
    return [(chunk, both) for chunk, both in digests.items() if both[0] != both[1]]


def compare_chunks(
    chunks: Sequence[UnequalChunk],
    teams: Sequence[Mapping[str, Worker]],
    deadline: float,
    on_compared: Callable[[Compared], None],
) -> None:
    """Compare chunks, each in the next free team, which has a worker of each backend; all else is as in `sweep_chunks`."""

    def turn(team: Mapping[str, Worker]) -> Callable[[UnequalChunk], Compared]:
        return lambda chunk: chunk.compared(team)

    in_turns(chunks, [(list(team.values()), turn(team)) for team in teams], deadline, on_compared)
