"""Command lines that the help of each command shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = {
    "check": ("check model.onnx", "check net:make --inputs val.npz --gradients", "check model.onnx --minimize --html"),
    "lint": ("lint model.onnx", "lint model.onnx --fix fixed.onnx", "lint net:make --ignore 'AC102:encoder/*'"),
    "bisect": ("bisect net:make net:make+torch-dynamo+ort-cpu", "bisect a.onnx b.onnx --inputs val.npz"),
    "grad": ("grad model.onnx --wrt x -o gradients.onnx",),
    "train": ("train model.onnx --data data.npz --loss mean-squared-error --epochs 20 --validation 0.2",),
    "run": (
        "run",
        "run 'gelu-*/value/f32/*' --backend torch",
        "run '*/training/*' --full --timings",
        "run --resume",
    ),
    "suite onnx": ("suite onnx --runtime ort-cpu", "suite onnx --op 'Reduce*' --html"),
    "suite drawn": ("suite drawn --op Softmax", "suite drawn --runtime openvino --op 'Reduce*'"),
    "sweep": ("sweep tanh --route torch", "sweep 'gelu-*' --route authored+ort-cpu --range all --budget 10m"),
    "bench": ("bench 'gelu-*/throughput/f32/*'", "bench --route torch --route authored+ort-cpu --batch 1,32"),
    "study": ("study noise-relu --seeds 2", "study 'blobs-*' --kernel 'gelu-*' --role hidden"),
    "list": ("list routes", "list cases --json"),
    "report": ("report", "report nightly --history history.jsonl"),
    "diff": ("diff yesterday today", "diff yesterday today --markdown --out summary.md"),
    "site": ("site public --store history.jsonl --report conform-out",),
    "ci": ("ci conform-out --baseline last/conform-out", "ci actconform-check --name encoder"),
    "history add": (
        "history add conform-out --store history.jsonl",
        "history add past/*/report.json --store history.jsonl",
    ),
    "history show": (
        "history show 'gelu-*' --store history.jsonl",
        "history show --store history.jsonl --at 2026-11-30",
    ),
    "blame": ("blame yesterday today", "blame --model model.onnx old/requirements.txt new/requirements.txt"),
    "issue": ("issue gelu-erf/value/f32/authored+ort-cpu", "issue actconform-check"),
    "merge": ("merge parts/keras parts/torch --out nightly --expect torch",),
    "doctor": ("doctor", "doctor --json"),
    "new-plugin": ("new-plugin myrt --kind runtime",),
    "check-plugin": ("check-plugin ort-cpu", "check-plugin myrt --subject 'gelu-*'"),
    "env list": ("env list",),
    "env prune": ("env prune --days 7",),
    "selftest": ("selftest", "selftest 'faulty-torch@nan-*'"),
    "golden verify": ("golden verify", "golden verify gelu-erf --fast"),
    "golden mint": ("golden mint cube",),
    "golden add-hard": ("golden add-hard sweep-out/tanh.value.torch.quick.sweep.jsonl",),
    "golden diff": ("golden diff golden other/golden",),
    "golden export": ("golden export vectors gelu-erf 'mlp-*'",),
    "deviations adopt": ("deviations adopt", "deviations adopt nightly -o local.toml"),
    "deviations observe": ("deviations observe",),
    "deviations ratchet": ("deviations ratchet",),
    "deviations document": ("deviations document",),
}


def add_examples(name: str, command: click.Command) -> None:
    """Have the help of a command, or of those of a group, end with examples."""
    for words, part in _commands(name, command):
        lines = EXAMPLES.get(words, ())
        part.epilog = "\b\nExamples:\n" + "\n".join(f"  actconform {line}" for line in lines) if lines else None


def _commands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield name, command
        return
    for part, inner in command.commands.items():
        yield f"{name} {part}", inner
