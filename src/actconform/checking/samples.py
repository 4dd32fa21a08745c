"""The samples of a check: the user's own, or drawn from the signature at sizes that a runtime takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.checking.checked_sample import CheckedSample
from actconform.checking.draw import draw_samples
from actconform.checking.inputs import read_reference, read_samples
from actconform.checking.model_file import ModelFile
from actconform.checking.result import SampleFacts
from actconform.checking.runs import RunFailure
from actconform.errors import UsageError
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from actconform.checking.draw import Range
    from actconform.checking.inputs import InputSample
    from actconform.checking.runs import RuntimeRuns
    from actconform.checking.source import Source
    from actconform.types.case import Bundle


def read_user_samples(
    path: Path, source: Source, reference: Path | None, max_memory: int | None
) -> tuple[list[CheckedSample], list[str]]:
    """Return the samples of a file or folder with the outputs saved beside them, or in `reference`, and notes about them.

    Raises UsageError for inputs that are not the model's, and for a reference where there are several samples.
    """
    read = read_samples(path, source, max_memory=max_memory)
    several = len(read.samples) > 1
    if reference is not None and several:
        raise UsageError(
            f"--reference {one_line(str(reference))}: belongs to one sample, and --inputs has {len(read.samples)}; put "
            "output_0.pb ... beside each sample's inputs instead"
        )
    outputs = [read_reference(reference, source)] if reference is not None else read.references
    samples = []
    for sample, saved in zip(read.samples, outputs, strict=True):
        checked = checked_sample(sample, f"{path.name}/{sample.name}" if several else path.name)
        checked.saved = saved
        samples.append(checked)
    return samples, read.notes


def draw_user_samples(
    source: Source,
    runtimes: Sequence[RuntimeRuns],
    *,
    seed: int,
    count: int | None,
    ranges: Mapping[str, Range],
    max_memory: int | None,
    refusals: Sequence[Callable[[Bundle], str | None]] = (),
) -> list[CheckedSample]:
    """Return samples drawn from the model's signature, at sizes that the first runtime which is available takes.

    Each of `refusals` says why a trained model refuses inputs, or None. Raises UsageError where none are taken.
    """
    usable = [runs for runs in runtimes if not isinstance(runs.start(), RunFailure)]
    with ModelFile(source.model) as file:

        def refusal(arrays: Bundle) -> str | None:
            while usable:
                answer = usable[0].outputs(file, arrays)
                if answer.failure is not None and answer.failure.kind == "timeout":
                    raise UsageError(
                        f"the model gives no answer on {usable[0].name} in time, with the first inputs that were drawn: raise "
                        "--timeout, or give inputs with --inputs"
                    )
                if answer.failure is None or answer.failure.kind != "refused":
                    return answer.failure.message if answer.failure else None
                usable.pop(0)  # it refuses the model, whatever the inputs
            return None

        def refusal_of_any(arrays: Bundle) -> str | None:
            words = (refuses(arrays) for refuses in (refusal, *refusals))
            return next((text for text in words if text is not None), None)

        drawn = draw_samples(
            source, seed=seed, count=count, ranges=ranges, accepts=refusal_of_any, max_memory=max_memory
        )
    return [checked_sample(sample, f"drawn by seed {seed}", sample.words) for sample in drawn]


def checked_sample(sample: InputSample, origin: str, drawn: Mapping[str, str] | None = None) -> CheckedSample:
    """Return a sample to be checked, without its truth yet; `drawn` says by input how it was drawn."""
    shapes = {name: array.shape for name, array in sample.arrays.items()}
    return CheckedSample(sample.arrays, SampleFacts(origin=origin, shapes=shapes, drawn=dict(drawn or {})))
