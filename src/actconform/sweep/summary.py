"""A sweep as a row for readers, and which routes gave the same bits."""

from __future__ import annotations

import hashlib
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

from actconform.exhaustive.patterns import CHUNKS
from actconform.exhaustive.statistics import CountedInputs, joined_binades
from actconform.sweep.differing_bits import RoutePair
from actconform.text import number_of
from actconform.types import FindingClass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actconform.exhaustive.statistics import SweepStatistics
    from actconform.sweep.differing_bits import ComparedChunk
    from actconform.sweep.journal import Sweep, SweepIdentity
    from actconform.types import Finding

WITHIN = (1, 2, 4, 8)  # ULP
COUNTED = (FindingClass.NAN_MADE, FindingClass.NAN_LOST, FindingClass.INF, FindingClass.ZERO_SIGN)


class SweepRow(NamedTuple):
    """A sweep with what all its chunks count together; `sha256` is of all outputs' digests, "" before the last chunk is done."""

    identity: SweepIdentity
    statistics: SweepStatistics
    chunks: int
    sha256: str

    @property
    def version(self) -> str:
        """What computed: the backend's fact of its own name, as "torch 2.13.0", else its plugin."""
        backend = self.identity.case.worker
        name = next(
            (fact for fact in (backend, *VERSIONS.get(backend.partition("-")[0], ())) if fact in self.identity.facts),
            "",
        )
        return f"{name} {self.identity.facts[name]}" if name else self.identity.provider

    @property
    def complete(self) -> bool:
        """Whether every chunk is done; causes of findings are looked for only then."""
        return self.chunks == CHUNKS

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What breaks a limit, those of one class and cause in neighbouring binades as one."""
        return joined_binades(self.statistics.findings)

    def count(self, class_: FindingClass) -> int:
        """Return how many outputs show a class of finding."""
        return sum(finding.count for finding in self.statistics.findings if finding.class_ == class_)


VERSIONS = {
    "ort": ("onnxruntime",),
    "keras": ("tensorflow",),
    "onnx": ("onnx",),
}  # facts of what computes under another name


class SameBits(NamedTuple):
    """Two routes of one kernel and aspect: on how many of the `both` chunks that both have their outputs are the same bits, every NaN alike.

    `differing` are the inputs at which a bit differs among the `inputs` that are counted; those of `uncounted` chunks are not.
    """

    first: SweepIdentity
    second: SweepIdentity
    equal: int
    both: int
    inputs: int
    differing: CountedInputs
    uncounted: int

    def __str__(self) -> str:
        case = self.first.case
        pair = f"{case.subject}, {case.aspect}: {case.route} and {self.second.case.route}"
        if self.equal == self.both == CHUNKS:
            return f"{pair} are bit-identical on all inputs of range {self.first.extent}"
        words = f"{pair} are bit-identical on {self.equal} of {number_of(self.both, 'chunk')}"
        if self.differing.count:
            ends = f"from {self.differing.first} to {self.differing.last}"
            words += f", and differ on {self.differing.count:,} of {number_of(self.inputs, 'input')}, {ends}"
        if self.uncounted:
            words += f"; not counted: the inputs of {self.uncounted} of {self.both - self.equal} unequal chunks"
        return words


def sweep_rows(sweeps: Sequence[Sweep]) -> list[SweepRow]:
    """Return the sweeps of which a chunk is done as rows, in their order."""
    return [
        SweepRow(sweep.identity, sweep.statistics, len(sweep.chunks), _digest(sweep))
        for sweep in sweeps
        if sweep.chunks
    ]


def _digest(sweep: Sweep) -> str:
    if not sweep.complete:
        return ""
    return hashlib.sha256("".join(sweep.chunks[number].sha256 for number in range(CHUNKS)).encode()).hexdigest()


def same_bits(sweeps: Sequence[Sweep], compared: Mapping[RoutePair, Sequence[ComparedChunk]]) -> list[SameBits]:
    """Return a comparison of the outputs of every two routes that swept the same kernel, aspect and extent: by digests, and by what is `compared`."""
    pairs = []
    for first, second in combinations(sorted(sweeps, key=lambda sweep: sweep.identity.file_name), 2):
        same = [(each.case.subject, each.case.aspect, each.extent) for each in (first.identity, second.identity)]
        if same[0] == same[1] and first.chunks.keys() & second.chunks.keys():
            pairs.append(_same_bits(first, second, compared))
    return pairs


def _same_bits(first: Sweep, second: Sweep, compared: Mapping[RoutePair, Sequence[ComparedChunk]]) -> SameBits:
    extent = first.identity.extent
    pair = RoutePair(first.identity.case, second.identity.case, extent)
    counted = {(each.chunk, each.sha256): each.differing for each in compared.get(pair, ())}
    both = first.chunks.keys() & second.chunks.keys()
    equal = inputs = uncounted = 0
    differing = CountedInputs()
    for chunk in both:
        digests = first.chunks[chunk].sha256, second.chunks[chunk].sha256
        if digests[0] == digests[1]:
            equal += 1
        elif (chunk, digests) in counted:
            differing = differing.with_(counted[chunk, digests])
        else:
            uncounted += 1
            continue
        inputs += first.chunks[chunk].statistics.inputs
    return SameBits(first.identity, second.identity, equal, len(both), inputs, differing, uncounted)
