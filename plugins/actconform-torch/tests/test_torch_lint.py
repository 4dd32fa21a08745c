"""Torch modules linted through their export: each mistake with a module like it that has none, and well-formed architectures.

The export is that of TorchScript, which takes a tenth of the time; the default exporter is asked once for all mistakes of a graph.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  everybody calls it so

import actconform
from actconform.linting.registry import OWN_RULES
from benchmarks import torch_architectures

DOCUMENT = Path(__file__).parents[3] / "docs" / "lint.md"
QUICK = "torch-torchscript"
X = torch.randn((40, 4), generator=torch.Generator().manual_seed(1))
IMAGES = torch.randn((2, 3, 8, 8), generator=torch.Generator().manual_seed(2))


class Calls(nn.Module):
    """Layers, and what `forward` does with them."""

    def __init__(self, forward, **parts):
        super().__init__()
        torch.manual_seed(3)
        self.function = [forward]  # a list, so that torch does not take it for a method
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function[0](self, x)


def layers(units: int = 3):
    torch.manual_seed(3)
    return {"hidden": nn.Linear(4, 8), "head": nn.Linear(8, units)}


def classifier(last, loss=None, units: int = 3):
    more = {} if loss is None else {"criterion": loss}
    return Calls(lambda m, x: last(m.head(F.relu(m.hidden(x)))), **layers(units), **more)


def softmax(x):
    return F.softmax(x, -1)


def biased(function, bias: float):
    model = Calls(lambda m, x: m.head(function(m.hidden(x))), **layers())
    with torch.no_grad():
        model.hidden.weight.mul_(0.2)
        model.hidden.bias.zero_()
        model.hidden.bias[:2] = bias
    return model


def weighted(weight: float):
    layer = nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight[0, 0] = weight
    return layer


def half(weight: float):
    return weighted(weight).half()


def norms(*epsilons: float):
    return nn.Sequential(*(nn.LayerNorm(4, eps=epsilon) for epsilon in epsilons))


def trains_norm(m, x):
    return F.batch_norm(x, m.norm.running_mean, m.norm.running_var, m.norm.weight, m.norm.bias, training=True)


def by_root_of_squares(epsilon: float):
    return Calls(lambda m, x: x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + epsilon))


def codes_of(module, inputs=X, **options):
    result = actconform.lint(module.eval(), inputs=inputs, **{"exporter": QUICK, **options})
    assert result.kind == "factory"
    return {finding.code for finding in result.findings}


NORM = nn.BatchNorm2d(3)
CASES = {
    "AC101": (classifier(softmax, units=1), classifier(torch.sigmoid, units=1)),
    "AC102": (
        Calls(lambda m, x: m.head(m.norm(F.gelu(softmax(m.hidden(x))))), norm=nn.LayerNorm(8), **layers()),
        Calls(lambda m, x: m.head(m.norm(F.gelu(torch.tanh(m.hidden(x))))), norm=nn.LayerNorm(8), **layers()),
    ),
    "AC103": (classifier(lambda z: softmax(2 * softmax(z))), classifier(softmax)),
    "AC104": (classifier(lambda z: torch.sigmoid(torch.sigmoid(z))), classifier(torch.sigmoid)),
    "AC105": (classifier(lambda z: softmax(F.relu(z))), classifier(lambda z: softmax(F.elu(z)))),
    "AC111": (classifier(softmax, nn.CrossEntropyLoss()), classifier(lambda z: z, nn.CrossEntropyLoss())),
    "AC112": (classifier(lambda z: z, nn.NLLLoss()), classifier(lambda z: F.log_softmax(z, -1), nn.NLLLoss())),
    "AC113": (classifier(softmax, nn.BCELoss()), classifier(torch.sigmoid, nn.BCELoss())),
    "AC114": (classifier(torch.sigmoid, units=1), classifier(lambda z: z, units=1)),
    "AC121": (biased(F.relu, -50.0), biased(F.relu, 0.0)),
    "AC122": (biased(torch.tanh, 50.0), biased(torch.tanh, 0.0)),
    "AC201": (Calls(trains_norm, norm=NORM), Calls(lambda m, x: m.norm(x), norm=NORM)),
    "AC202": (
        Calls(lambda m, x: m.head(F.dropout(m.hidden(x), 0.3)), **layers()),
        Calls(lambda m, x: m.head(F.dropout(m.hidden(x), 0.3, m.training)), **layers()),
    ),
    "AC203": (
        Calls(lambda m, x: m.head(m.hidden(x).reshape(40, -1)), **layers()),
        Calls(lambda m, x: m.head(m.hidden(x).reshape(x.shape[0], -1)), **layers()),
    ),
    "AC204": (
        Calls(lambda m, x: (m.hidden(x).double() * 2.1).float(), **layers()),
        Calls(lambda m, x: m.hidden(x) * 2.1, **layers()),
    ),
    "AC206": (half(float("inf")), half(0.5)),
    "AC207": (by_root_of_squares(1e-9), by_root_of_squares(1e-3)),
    "AC208": (nn.Linear(4, 3), nn.Linear(4, 3)),
    "AC209": (nn.Sequential(nn.Linear(4, 3), nn.LeakyReLU(0.3)), nn.Sequential(nn.Linear(4, 3), nn.LeakyReLU())),
    "AC210": (norms(1e-5, 1e-5, 1e-4, 1e-5, 1e-5), norms(1e-5, 1e-5, 1e-5, 1e-5, 1e-5)),
    "AC211": (weighted(float("nan")), weighted(0.5)),
}
INPUTS = {"AC201": IMAGES, "AC206": X.half(), "AC207": X.half()}


def options_for(code: str, folder: Path, *, mended: bool):
    """Return what else a lint is given: targets, or a runtime that refuses every graph, or takes every graph."""
    if code == "AC114":
        np.save(folder / "targets.npy", np.array([-0.5, 2.0]))
        return {"targets": folder / "targets.npy"}
    if code == "AC208":
        script = "cp $1/x.npy $2/y.npy" if mended else "echo this opset is too new; exit 1"
        command = f"sh -c '{script}' {{model}} {{inputs}} {{outputs}}"
        (folder / "runtime.toml").write_text(f'[backends.old]\ncommand = "{command}"\n')
        return {"runtimes": ["old"], "config": folder / "runtime.toml"}
    return {}


def test_the_table_has_every_rule_but_those_that_the_document_says_cannot_apply():
    (row,) = [line for line in DOCUMENT.read_text("utf-8").splitlines() if line.startswith("| torch module |")]
    assert all((rule.code in CASES) != (rule.code in row) for rule in OWN_RULES)


@pytest.mark.parametrize("code", CASES)
def test_a_mistake_is_found_and_its_mended_twin_is_not_accused(tmp_path, code):
    bad, good = CASES[code]
    inputs = INPUTS.get(code, X)
    assert code in codes_of(bad, inputs, **options_for(code, tmp_path, mended=False))
    assert code not in codes_of(good, inputs, **options_for(code, tmp_path, mended=True))


GRAPH_RULES = ("AC101", "AC102", "AC103", "AC104", "AC105", "AC202", "AC204", "AC209")


class Heads(nn.Module):
    """One module for each mistake of a graph, or for each mended twin, side by side."""

    def __init__(self, place: int):
        super().__init__()
        self.heads = nn.ModuleDict({code: CASES[code][place] for code in GRAPH_RULES})

    def forward(self, x):
        return tuple(head(x) for head in self.heads.values())


def test_the_default_exporter_leaves_every_mistake_to_see_and_names_the_layer_behind():
    findings = actconform.lint(Heads(0).eval(), inputs=X, ignore=["AC121"]).findings
    assert {finding.code for finding in findings} == set(GRAPH_RULES)
    (hidden,) = [finding for finding in findings if finding.code == "AC102"]
    assert "before the layer heads.AC102.head (Gemm)" in hidden.message
    assert actconform.lint(Heads(1).eval(), inputs=X, ignore=["AC121"]).findings == ()


class GatedBlock(nn.Module):
    """Mobile inverted bottleneck with hard-swish and a squeeze-and-excitation gate."""

    def __init__(self):
        super().__init__()
        self.wide, self.deep, self.narrow = (
            nn.Conv2d(3, 8, 1),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.Conv2d(8, 3, 1),
        )
        self.norm, self.gate = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        y = F.hardswish(self.norm(self.deep(F.hardswish(self.wide(x)))))
        return x + self.narrow(y * F.hardsigmoid(self.gate(y.mean((2, 3), keepdim=True))))


class Vae(nn.Module):
    """Gives an image between 0 and 1 from the mean of its code."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(192, 8), nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 192))

    def forward(self, x):
        return torch.sigmoid(self.decoder(torch.tanh(self.encoder(x.flatten(1)))))


def generator():
    return nn.Sequential(
        nn.ConvTranspose2d(4, 8, 4, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh()
    )


class Encoder(nn.Module):
    """A block of a transformer: attention and two layers, each with LayerNorm and a way around it."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.encoder(x))


class Recurrent(nn.Module):
    """The class of a sequence, by the last state of a recurrent layer."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])


def perceptron(units: int, *ends):
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, units), *ends)


def convolutional():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 5)
    )


def autoencoder():
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2), nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 4))


def segmenter():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 5, 1), nn.Softmax(1))


WORDS = torch.ones(2, 6, 16)
ARCHITECTURES = {
    "classifier": lambda: (perceptron(3), (X,)),
    "regression": lambda: (perceptron(1), (X,)),
    "convolutional": lambda: (convolutional(), (IMAGES,)),
    "transformer": lambda: (Encoder(), (WORDS,)),
    "lstm": lambda: (Recurrent(nn.LSTM(16, 8, batch_first=True)), (WORDS,)),
    "gru": lambda: (Recurrent(nn.GRU(16, 8, batch_first=True)), (WORDS,)),
    "autoencoder": lambda: (autoencoder(), (X,)),
    **{name: getattr(torch_architectures, name) for name in ("resnet", "unet", "depthwise")},
    "probabilities": lambda: (perceptron(3, nn.Softmax(-1)), (X,)),
    "gated-block": lambda: (GatedBlock(), (IMAGES,)),
    "vae": lambda: (Vae(), (IMAGES,)),
    "generator": lambda: (generator(), (torch.ones(2, 4, 2, 2),)),
    "segmenter": lambda: (segmenter(), (IMAGES,)),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_well_formed_architecture_has_a_clean_bill(name):
    torch.manual_seed(4)
    module, example = ARCHITECTURES[name]()
    losses = {
        "classifier": "CrossEntropyLoss",
        "regression": "mse",
        "autoencoder": "mse",
        "segmenter": "categorical_crossentropy",
    }
    result = actconform.lint(module.eval(), inputs=tuple(example), exporter=QUICK, loss=losses.get(name, ()))
    assert [(finding.code, finding.message) for finding in result.findings] == []
