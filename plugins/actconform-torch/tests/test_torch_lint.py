"""Torch modules linted through their export: each mistake with a module like it that has none, and well-formed architectures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  everybody calls it so

import actconform
from benchmarks import torch_architectures

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


def half(weight: float):
    layer = nn.Linear(4, 3).half()
    with torch.no_grad():
        layer.weight[0, 0] = weight
    return layer


def norms(*epsilons: float):
    return nn.Sequential(*(nn.LayerNorm(4, eps=epsilon) for epsilon in epsilons))


def codes_of(module, inputs=X, **options):
    result = actconform.lint(module.eval(), inputs=inputs, **options)
    assert result.kind == "factory"
    return {finding.code for finding in result.findings}


CASES = {
    "AC101": (classifier(softmax, units=1), classifier(torch.sigmoid, units=1)),
    "AC102": (
        Calls(lambda m, x: m.head(softmax(m.hidden(x))), **layers()),
        Calls(lambda m, x: m.head(torch.tanh(m.hidden(x))), **layers()),
    ),
    "AC103": (classifier(lambda z: softmax(softmax(z))), classifier(softmax)),
    "AC104": (classifier(lambda z: torch.sigmoid(torch.sigmoid(z))), classifier(torch.sigmoid)),
    "AC105": (classifier(lambda z: softmax(F.relu(z))), classifier(lambda z: softmax(F.elu(z)))),
    "AC111": (classifier(softmax, nn.CrossEntropyLoss()), classifier(lambda z: z, nn.CrossEntropyLoss())),
    "AC112": (classifier(lambda z: z, nn.NLLLoss()), classifier(lambda z: F.log_softmax(z, -1), nn.NLLLoss())),
    "AC113": (classifier(softmax, nn.BCELoss()), classifier(torch.sigmoid, nn.BCELoss())),
    "AC121": (biased(F.relu, -50.0), biased(F.relu, 0.0)),
    "AC122": (biased(torch.tanh, 50.0), biased(torch.tanh, 0.0)),
    "AC202": (
        Calls(lambda m, x: m.head(F.dropout(m.hidden(x), 0.3)), **layers()),
        Calls(lambda m, x: m.head(F.dropout(m.hidden(x), 0.3, m.training)), **layers()),
    ),
    "AC204": (
        Calls(lambda m, x: (m.hidden(x).double() * 2.1).float(), **layers()),
        Calls(lambda m, x: m.hidden(x) * 2.1, **layers()),
    ),
    "AC209": (nn.Sequential(nn.Linear(4, 3), nn.LeakyReLU(0.3)), nn.Sequential(nn.Linear(4, 3), nn.LeakyReLU())),
    "AC210": (norms(1e-5, 1e-5, 1e-4, 1e-5, 1e-5), norms(1e-5, 1e-5, 1e-5, 1e-5, 1e-5)),
}


@pytest.mark.parametrize("code", CASES)
def test_a_mistake_is_found_and_its_mended_twin_is_not_accused(code):
    bad, good = CASES[code]
    assert code in codes_of(bad)
    assert code not in codes_of(good)


def test_normalization_by_the_batch_is_found():
    def trains(m, x):
        return F.batch_norm(x, m.norm.running_mean, m.norm.running_var, m.norm.weight, m.norm.bias, training=True)

    norm = nn.BatchNorm2d(3)
    assert "AC201" in codes_of(Calls(trains, norm=norm), IMAGES, exporter="torch-torchscript")
    assert "AC201" not in codes_of(Calls(lambda m, x: m.norm(x), norm=norm), IMAGES, exporter="torch-torchscript")


def test_half_weights_are_held_against_float16():
    x = X.half()
    assert "AC206" in codes_of(half(float("inf")), x)
    assert "AC206" not in codes_of(half(0.5), x)


def test_targets_are_held_against_the_range_of_the_output(tmp_path):
    np.save(tmp_path / "targets.npy", np.array([-0.5, 2.0]))
    assert "AC114" in codes_of(classifier(torch.sigmoid, units=1), targets=tmp_path / "targets.npy")
    assert "AC114" not in codes_of(classifier(lambda z: z, units=1), targets=tmp_path / "targets.npy")


def test_a_finding_names_the_module_that_the_exporter_wrote():
    result = actconform.lint(CASES["AC102"][0], inputs=X)
    (finding,) = [finding for finding in result.findings if finding.code == "AC102"]
    assert "before the layer head (Gemm)" in finding.message


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


def transformer():
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")
    return nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 5), nn.Softmax(-1))


def segmenter():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 5, 1), nn.Softmax(1))


ARCHITECTURES = {
    "classifier": lambda: (nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3), nn.Softmax(-1)), (X,)),
    "gated-block": lambda: (GatedBlock(), (IMAGES,)),
    "autoencoder": lambda: (Vae(), (IMAGES,)),
    "generator": lambda: (generator(), (torch.ones(2, 4, 2, 2),)),
    "transformer": lambda: (transformer(), (torch.ones(2, 6, 16),)),
    "segmenter": lambda: (segmenter(), (IMAGES,)),
    **{name: getattr(torch_architectures, name) for name in ("resnet", "unet", "depthwise")},
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_well_formed_architecture_has_a_clean_bill(name):
    module, example = ARCHITECTURES[name]()
    result = actconform.lint(module.eval(), inputs=tuple(example))
    assert [(finding.code, finding.message) for finding in result.findings if finding.severity != "note"] == []
    assert result.clean
