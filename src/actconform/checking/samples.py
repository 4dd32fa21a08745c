"""The samples of a check: the user's own, or drawn from the signature at sizes that a runtime takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.checking.checked_sample import CheckedSample
from actconform.checking.draw import draw_samples
from actconform.checking.flatten import flatten
from actconform.checking.inputs import read_reference, read_samples
from actconform.checking.model_file import ModelFile
from actconform.checking.result import SampleFacts
from actconform.checking.runs import RunFailure
from actconform.errors import Unsupported, UsageError
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

    Once a runtime dies, or gives no answer in time, the float64 evaluation of the graph decides in its place what it takes.
    Each of `refusals` says why a trained model refuses inputs, or None. Raises UsageError where none are taken.
    """
    usable = [runs for runs in runtimes if not isinstance(runs.start(), RunFailure)]
    dead = False
    with ModelFile(source.model) as file:

        def refusal(arrays: Bundle) -> str | None:
            nonlocal dead
            while usable and not dead:
                failure = usable[0].outputs(file, arrays).failure
                if failure is None:
                    return None
                dead = failure.kind in ("crash", "timeout")
                if failure.kind == "refused":
                    usable.pop(0)  # it refuses the model, whatever the inputs
                elif not dead:
                    return failure.message
            return _refusal_of_graph(source, arrays) if dead else None

        def refusal_of_any(arrays: Bundle) -> str | None:
            words = (refuses(arrays) for refuses in (refusal, *refusals))
            return next((text for text in words if text is not None), None)

        drawn = draw_samples(
            source, seed=seed, count=count, ranges=ranges, accepts=refusal_of_any, max_memory=max_memory
        )
    return [checked_sample(sample, f"drawn by seed {seed}", sample.words) for sample in drawn]


def _refusal_of_graph(source: Source, arrays: Bundle) -> str | None:
    """Return why the graph cannot be evaluated at these inputs, in words; None where it can, or where nothing here evaluates it."""
    try:
        flatten(source.model, arrays)
    except ValueError as error:
        return str(error)
    except Unsupported:
        return None
    return None


def checked_sample(sample: InputSample, origin: str, drawn: Mapping[str, str] | None = None) -> CheckedSample:
    """Return a sample to be checked, without its truth yet; `drawn` says by input how it was drawn."""
    shapes = {name: array.shape for name, array in sample.arrays.items()}
    return CheckedSample(sample.arrays, SampleFacts(origin=origin, shapes=shapes, drawn=dict(drawn or {})))
