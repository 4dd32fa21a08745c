"""What a cross-entropy is given that it does not take is told in words, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from actconform.training.probabilities import probability_notes

LABELS = np.eye(3, dtype=np.float32)[[0, 2, 1, 1]]
LOGITS = np.array([[2.0, -3.5, 0.5], [0.0, 1.0, 0.25], [4.0, 0.0, 0.0], [1.0, 1.0, 1.0]], np.float32)
SHARES = (np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)).astype(np.float32)
YES_OR_NO = np.array([[0.0], [1.0], [1.0], [0.5]], np.float32)


@pytest.mark.parametrize(
    ("loss", "output", "target", "words"),
    [
        (
            "categorical-cross-entropy",
            LOGITS,
            LABELS,
            ["output 'y' is -3.5 to 4 in the", "--loss categorical-cross-entropy-from-logits"],
        ),
        ("categorical-cross-entropy", SHARES / 2, LABELS, ["output 'y' has rows that sum to 0.5, not to 1"]),
        ("binary-cross-entropy", LOGITS[:, :1], YES_OR_NO, ["output 'y' is 0 to 4"]),
        (
            "categorical-cross-entropy-from-logits",
            SHARES,
            LABELS,
            ["'y' gives probabilities", "it is --loss categorical-cross-entropy"],
        ),
        ("binary-cross-entropy-from-logits", SHARES[:, :1], YES_OR_NO, ["it is --loss binary-cross-entropy"]),
        ("binary-cross-entropy-from-logits", LOGITS[:, :1], 2 * YES_OR_NO - 1, ["target 't' is -1 to 1"]),
        ("categorical-cross-entropy-from-logits", LOGITS, LABELS + LABELS[::-1], ["target 't'"]),
    ],
)
def test_what_a_loss_does_not_take_is_told(loss: str, output: np.ndarray, target: np.ndarray, words: list[str]) -> None:
    notes = probability_notes(loss, output=("y", output), target=("t", target))
    assert len(notes) == 1
    assert all(word in notes[0] for word in words), notes[0]


@pytest.mark.parametrize(
    ("loss", "output", "target"),
    [
        ("categorical-cross-entropy", SHARES.astype(np.float16), LABELS),
        ("categorical-cross-entropy", SHARES, 0.9 * LABELS + 0.1 / 3),
        ("categorical-cross-entropy-from-logits", LOGITS, LABELS),
        ("binary-cross-entropy", SHARES, LABELS),
        ("binary-cross-entropy-from-logits", np.full((4, 1), np.nan, np.float32), YES_OR_NO),
        ("mean-squared-error", LOGITS, 100.0 * LABELS),
        ("mean-absolute-error", SHARES, LABELS),
    ],
)
def test_what_a_loss_takes_gives_no_note(loss: str, output: np.ndarray, target: np.ndarray) -> None:
    assert probability_notes(loss, output=("y", output), target=("t", target)) == ()
