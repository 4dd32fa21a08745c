"""On how many inputs two routes differ in a bit: chunks of unequal digests are computed again in both, and compared."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import chain, combinations
from typing import TYPE_CHECKING, NamedTuple

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
    from collections.abc import Callable, Iterable, Sequence
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
    def file_name(self) -> str:
        """The journal's name."""
        first, second = self.first, self.second
        return f"{first.subject}.{first.aspect}.{first.route}.{second.route}.{self.extent}{SUFFIX}"


class ComparedChunk(msgspec.Struct, frozen=True):
    """At how many inputs of a chunk outputs of the first and the second digest differ: it holds for these, whenever they come."""

    chunk: int
    sha256: tuple[str, str]
    differing: CountedInputs


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
    """A sweep that is done, at least in part, with what computes it: the graph of its route, and its workers."""

    sweep: Sweep
    artifact: Artifact | None
    workers: Sequence[Worker]

    @property
    def case(self) -> Case:
        """Its case."""
        return self.sweep.identity.case


class BitsComparison:
    """The chunks of one kernel and aspect in which routes differ and that are not compared yet; each finished one goes to its pair's journal.

    Journals are in `folder`; with `resume` what they have is not compared again. Raises UsageError as they do.
    """

    def __init__(self, routes: Iterable[SweptRoute], folder: Path, *, resume: bool) -> None:
        self._routes = sorted(routes, key=lambda route: route.sweep.identity.file_name)  # as the report has them
        self._journals: dict[tuple[int, int], BitsJournal] = {}
        self._waiting: dict[int, list[tuple[int, int]]] = {}
        with ExitStack() as stack:
            for pair in combinations(range(len(self._routes)), 2):
                if unequal := self._unequal(pair):
                    first, second = (self._routes[place] for place in pair)
                    compared = RoutePair(first.case, second.case, first.sweep.identity.extent)
                    keep = resume and (folder / compared.file_name).exists()
                    journal = stack.enter_context(BitsJournal(folder, compared, resume=keep))
                    self._journals[pair] = journal
                    before = {(chunk.chunk, chunk.sha256) for chunk in journal.earlier}
                    for chunk in unequal:
                        if (chunk, self._digests(pair, chunk)) not in before:
                            self._waiting.setdefault(chunk, []).append(pair)
            self._open = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def _unequal(self, pair: tuple[int, int]) -> list[int]:
        """Return the chunks whose digests differ, those near |x| = 1 first."""
        both = set.intersection(*(set(self._routes[place].sweep.chunks) for place in pair))
        return [chunk for chunk in chunk_order() if chunk in both and len(set(self._digests(pair, chunk))) == 2]

    @property
    def name(self) -> str:
        """The kernel and aspect."""
        case = self._routes[0].case
        return f"{case.subject}/{case.aspect}"

    @property
    def chunks(self) -> list[int]:
        """The chunks to be compared, in their order."""
        return [chunk for chunk in chunk_order() if chunk in self._waiting]

    def compare(self, deadline: float, on_chunk: Callable[[int], None]) -> None:
        """Compare the chunks and say which is done; all else is as in `sweep_chunks`.

        A program computes a chunk once, whatever it is compared with. Raises SweepError where one fails, or gives other bits than in the sweep.
        """
        teams = list(zip(*(route.workers for route in self._routes), strict=True))

        def keep(compared: list[tuple[tuple[int, int], ComparedChunk]]) -> None:
            for pair, chunk in compared:
                self._journals[pair].add(chunk)
            on_chunk(compared[0][1].chunk)

        in_turns(self.chunks, [(team, self._turn(team)) for team in teams], deadline, keep)

    def _turn(self, workers: Sequence[Worker]) -> Callable[[int], list[tuple[tuple[int, int], ComparedChunk]]]:
        def compared(chunk: int) -> list[tuple[tuple[int, int], ComparedChunk]]:
            pairs = self._waiting[chunk]
            outputs = {place: self._outputs(place, chunk, workers[place]) for place in sorted(set(chain(*pairs)))}
            extent = self._routes[0].sweep.identity.extent
            return [
                (
                    pair,
                    ComparedChunk(
                        chunk,
                        self._digests(pair, chunk),
                        differing_inputs(chunk, extent, *(outputs[place] for place in pair)),
                    ),
                )
                for pair in pairs
            ]

        return compared

    def _outputs(self, place: int, chunk: int, worker: Worker) -> NDArray[np.float32]:
        route = self._routes[place]
        job = SweepJob(route.case, route.artifact, chunk, route.sweep.identity.extent, outputs=True)
        result = answered(worker, job)
        if result.sha256 != route.sweep.chunks[chunk].sha256:
            raise SweepError(
                f"{route.case.id}, chunk {chunk}: the same inputs gave other bits than in the sweep; "
                "sweep it without --resume, and where that happens again, the program is not deterministic"
            )
        (outputs,) = result.outputs.values()
        return outputs

    def _digests(self, pair: tuple[int, int], chunk: int) -> tuple[str, str]:
        first, second = (self._routes[place].sweep.chunks[chunk].sha256 for place in pair)
        return first, second
