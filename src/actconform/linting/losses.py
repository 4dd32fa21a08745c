"""Losses by the names that users give: those of Keras, of torch, and plain ones."""

from __future__ import annotations

from actconform.errors import UsageError, near
from actconform.text import one_line
from actconform.types.lint import Expected, LossKind, TrainingLoss

# By name, lower case without "_" and "-": what it is, and what it expects of the model.
_NAMED: dict[str, tuple[LossKind, Expected]] = {
    "crossentropyloss": ("cross-entropy", "logits"),
    "crossentropyfromlogits": ("cross-entropy", "logits"),
    "crossentropy": ("cross-entropy", "probabilities"),
    "categoricalcrossentropy": ("cross-entropy", "probabilities"),
    "sparsecategoricalcrossentropy": ("cross-entropy", "probabilities"),
    "nllloss": ("negative log-likelihood", "log-probabilities"),
    "bceloss": ("binary cross-entropy", "probabilities"),
    "binarycrossentropy": ("binary cross-entropy", "probabilities"),
    "bcewithlogitsloss": ("binary cross-entropy", "logits"),
    "multilabelsoftmarginloss": ("binary cross-entropy", "logits"),
    "binarycrossentropyfromlogits": ("binary cross-entropy", "logits"),
    "mseloss": ("regression", "values"),
    "mse": ("regression", "values"),
    "meansquarederror": ("regression", "values"),
    "l1loss": ("regression", "values"),
    "mae": ("regression", "values"),
    "meanabsoluteerror": ("regression", "values"),
    "huber": ("regression", "values"),
    "huberloss": ("regression", "values"),
    "smoothl1loss": ("regression", "values"),
    "logcosh": ("regression", "values"),
}
LOSS_NAMES = (
    "CrossEntropyLoss",
    "NLLLoss",
    "BCELoss",
    "BCEWithLogitsLoss",
    "MSELoss",
    "L1Loss",
    "HuberLoss",
    "categorical_crossentropy",
    "binary_crossentropy",
    "cross-entropy-from-logits",
    "binary-cross-entropy-from-logits",
    "mse",
    "mae",
    "huber",
)
"""The names that messages and the documents list."""


def known_loss(name: str, place: str, *, from_logits: bool = False) -> TrainingLoss | None:
    """Return the loss that a class or function of a framework is; None for one that nothing is known of."""
    entry = _NAMED.get(name.lower().replace("_", "").replace("-", ""))
    if entry is None:
        return None
    kind, expected = entry
    return TrainingLoss(kind, "logits" if from_logits and expected == "probabilities" else expected, place)


def named_loss(text: str) -> TrainingLoss:
    """Return the loss that `--loss` names. Raises UsageError for one that is not known."""
    loss = known_loss(text, f"--loss {one_line(text, 60)}")
    if loss is None:
        raise UsageError(
            f"--loss {one_line(text, 60)}: is not known{near(text, list(LOSS_NAMES))}; expected one of {', '.join(LOSS_NAMES)}"
        )
    return loss
