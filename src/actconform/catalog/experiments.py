"""The experiments in training: what the texts on activation functions claim, and each optimizer; small for every run, published for a full one.

Claims of small experiments are stated for their own sizes; where a text has a number for the published size, it stands beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from actconform.catalog.models.feedforward import (
    autoencoder,
    blobs,
    image_cnn,
    maxout,
    mlp,
    multinomial_latent,
    regression,
)
from actconform.catalog.models.memory import attention_block
from actconform.catalog.models.zoo import PUBLISHED
from actconform.types.training import Claim, EarlyStopping, Experiment, Optimizer

if TYPE_CHECKING:
    from actconform.types.model import Model

ADAM = Optimizer(kind="adam", learning_rate=1e-3)
FAST = Optimizer(kind="adam", learning_rate=1e-2)
HEADS = ("softmax1", "sigmoid", "softmax2")
MOMENTUM = Optimizer(kind="sgd", learning_rate=5e-3, momentum=0.9)


def experiments() -> tuple[Experiment, ...]:
    """Return every built-in experiment; those of published size have "@published" in their names."""
    return (*_noise(), *_images(), *_signals(), *_blobs(), *_others(), *_published())


def _experiment(name: str, model: Model, *, evaluation: Model | None = None, **settings: Any) -> Experiment:
    """Return an experiment of a model: its batch is the experiment's, and in inference it reads all validation rows at once."""
    model = msgspec.structs.replace(model, batch=settings["batch"])
    inference = msgspec.structs.replace(evaluation or model, batch=settings["validation"])
    return Experiment(name=name, source=model.source, model=model, evaluation=inference, **settings)


def _noise() -> list[Experiment]:
    """Targets that have nothing to do with the inputs: what hidden layers of softmax, relu and sigmoid make of them."""
    settings: dict[str, Any] = {"data": "noise", "examples": 128, "validation": 128, "batch": 32, "epochs": 40}
    return [
        _experiment(
            "noise-softmax",
            mlp("softmax", published=False),
            optimizer=ADAM,
            claims=(
                Claim(
                    text="hidden layers of softmax learn nothing from noise",
                    measure="loss",
                    at_least=0.9,
                    published="1.0020",
                ),
                Claim(text="nor do they overfit", measure="validation loss", at_most=1.1, published="1.0271"),
                Claim(text="units of a hidden softmax are linearly dependent", measure="rank deficiency", at_least=1.0),
            ),
            **settings,
        ),
        _experiment(
            "noise-relu",
            mlp("relu", published=False),
            optimizer=FAST,
            claims=(
                Claim(
                    text="hidden layers of relu learn noise by rote", measure="loss", at_most=0.2, published="0.4808"
                ),
                Claim(text="and overfit", measure="validation loss", at_least=1.2, published="1.3290"),
            ),
            **settings,
        ),
        _experiment(
            "noise-sigmoid",
            mlp("sigmoid", published=False),
            optimizer=ADAM,
            claims=(
                Claim(
                    text="behind sigmoids the gradient of the first layer vanishes",
                    measure="gradient ratio",
                    at_most=0.2,
                ),
            ),
            **settings,
        ),
        _experiment(
            "noise-dead-relu",
            mlp("relu", published=False),
            optimizer=msgspec.structs.replace(ADAM, learning_rate=0.1),
            claims=(
                Claim(text="steps too large leave units of relu dead", measure="dead units", at_least=0.3),
                Claim(text="and dead units learn nothing", measure="loss", at_least=0.9),
            ),
            **settings,
        ),
    ]


def _head_claims(head: str) -> tuple[Claim, ...]:
    """Return what an image classifier of that head shows: softmax of one unit is the constant 1, whose gradient is 0."""
    if head == "softmax1":
        return (
            Claim(text="one unit of softmax changes no parameter", measure="largest parameter change", at_most=0.0),
            Claim(text="and cannot learn", measure="accuracy", at_most=0.65, published="0.50"),
            Claim(text="its loss stays high", measure="loss", at_least=5.0, published="7.60"),
        )
    what = {"sigmoid": "one unit of sigmoid", "softmax2": "two units of softmax"}[head]
    return (
        Claim(text=f"{what} can learn", measure="accuracy", at_least=0.95, published="0.98"),
        Claim(text="and the loss falls", measure="loss", at_most=0.2, published="0.06"),
    )


def _images() -> list[Experiment]:
    return [
        _experiment(
            f"images-{head}",
            image_cnn(head, published=False, training=True),
            evaluation=image_cnn(head, published=False),
            data="images",
            examples=128,
            validation=64,
            batch=16,
            epochs=12,
            optimizer=msgspec.structs.replace(ADAM, learning_rate=3e-3),
            claims=_head_claims(head),
        )
        for head in HEADS
    ]


def _signals() -> list[Experiment]:
    """An autoencoder whose targets reach far beyond 1: what a sigmoid, a relu and a linear last layer can say of them."""
    claims = {
        "sigmoid": Claim(
            text="a sigmoid cannot say more than 1", measure="loss", at_least=11.9, published="12.3633 -> 12.3405"
        ),
        "relu": Claim(text="a relu can", measure="loss", at_most=10.5, published="9.8236 -> 6.6143"),
        "linear": Claim(text="a linear output can", measure="loss", at_most=10.5),
    }
    return [
        _experiment(
            f"signals-{head}",
            autoencoder(head, published=False),
            data="signals",
            examples=256,
            validation=64,
            batch=32,
            epochs=24,
            optimizer=FAST,
            claims=(claim,),
        )
        for head, claim in claims.items()
    ]


def _blobs() -> list[Experiment]:
    """Four clusters, by each optimizer. The loss is of the logits, as Keras takes it where a softmax stands before it."""
    settings: dict[str, Any] = {"data": "blobs", "examples": 320, "validation": 80, "batch": 16}
    claims = (
        Claim(text="four clusters are told apart", measure="accuracy", at_least=0.99, published="1.00"),
        Claim(text="with certainty", measure="loss", at_most=0.05, published="0.0020"),
    )
    rules = {
        "sgd": Optimizer(kind="sgd", learning_rate=1e-2),
        "momentum": MOMENTUM,
        "nesterov": msgspec.structs.replace(MOMENTUM, nesterov=True),
        "adamw": msgspec.structs.replace(FAST, kind="adamw", weight_decay=0.01),
        "rmsprop": Optimizer(kind="rmsprop", learning_rate=2e-3, beta2=0.9),
        "decayed": msgspec.structs.replace(FAST, decay=0.5, decay_steps=4),
    }
    model = blobs(published=False, logits=True)
    return [
        _experiment(
            "blobs-adam", model, optimizer=FAST, epochs=20, stopping=EarlyStopping(), claims=claims, **settings
        ),
        _experiment(
            "blobs-stopped",
            model,
            optimizer=msgspec.structs.replace(FAST, learning_rate=0.05),
            epochs=20,
            stopping=EarlyStopping(patience=2),
            **settings,
        ),
        *(_experiment(f"blobs-{name}", model, optimizer=rule, epochs=2, **settings) for name, rule in rules.items()),
    ]


def _others() -> list[Experiment]:
    settings: dict[str, Any] = {"examples": 256, "validation": 64, "batch": 32}
    return [
        _experiment(
            "map-dropout",
            regression(published=False, training=True),
            evaluation=regression(published=False, training=False),
            data="map",
            epochs=10,
            optimizer=ADAM,
            claims=(
                Claim(text="units of a hidden softmax are linearly dependent", measure="rank deficiency", at_least=1.0),
            ),
            **settings,
        ),
        _experiment(
            "map-attention",
            attention_block(published=False),
            data="map",
            epochs=10,
            optimizer=msgspec.structs.replace(ADAM, kind="adamw", weight_decay=0.01),
            **settings,
        ),
        _experiment("classes-maxout", maxout(published=False), data="classes", epochs=10, optimizer=FAST, **settings),
        _experiment(
            "bits-latent", multinomial_latent(published=False), data="bits", epochs=20, optimizer=FAST, **settings
        ),
    ]


def _published() -> list[Experiment]:
    """The texts' own sizes; of the image classifiers 512 images and 3 epochs, of the autoencoders the first 4 epochs."""
    noise: dict[str, Any] = {
        "data": "noise",
        "examples": 10_000,
        "validation": 5_000,
        "batch": 32,
        "epochs": 16,
        "optimizer": ADAM,
        "judged": 3,
    }
    return [
        _experiment(
            "noise-softmax" + PUBLISHED,
            mlp("softmax", published=True),
            claims=(
                Claim(
                    text="hidden layers of softmax learn nothing from noise",
                    measure="loss",
                    at_least=0.98,
                    published="1.0020",
                ),
                Claim(text="nor do they overfit", measure="validation loss", at_most=1.06, published="1.0271"),
            ),
            **noise,
        ),
        _experiment(
            "noise-relu" + PUBLISHED,
            mlp("relu", published=True),
            claims=(
                Claim(
                    text="hidden layers of relu learn noise by rote", measure="loss", at_most=0.75, published="0.4808"
                ),
                Claim(text="and overfit", measure="validation loss", at_least=1.2, published="1.3290"),
            ),
            **noise,
        ),
        *(
            _experiment(
                f"images-{head}" + PUBLISHED,
                image_cnn(head, published=True, training=True),
                evaluation=image_cnn(head, published=True),
                data="images",
                examples=512,
                validation=64,
                batch=32,
                epochs=3,
                optimizer=ADAM,
                stopping=EarlyStopping(),
                judged=1,
                free=2,
                claims=_head_claims(head)[:2],
            )
            for head in HEADS
        ),
        _experiment(
            "blobs-adam" + PUBLISHED,
            blobs(published=True, logits=True),
            data="blobs",
            examples=600,
            validation=150,
            batch=5,
            epochs=30,
            optimizer=ADAM,
            claims=(
                Claim(text="four clusters are told apart", measure="accuracy", at_least=0.99, published="1.00"),
                Claim(text="with certainty", measure="loss", at_most=0.1, published="0.0020"),
            ),
        ),
        *(
            _experiment(
                f"signals-{head}" + PUBLISHED,
                autoencoder(head, published=True),
                data="signals",
                examples=1024,
                validation=256,
                batch=64,
                epochs=4,
                optimizer=ADAM,
                judged=3,
                free=5,
                claims=claims,
            )
            for head, claims in (
                (
                    "sigmoid",
                    (
                        Claim(
                            text="a sigmoid cannot say more than 1",
                            measure="loss",
                            at_least=11.6,
                            published="12.3405",
                        ),
                    ),
                ),
                ("relu", (Claim(text="a relu can", measure="loss", at_most=9.5, published="6.6143"),)),
                ("linear", (Claim(text="a linear output can", measure="loss", at_most=11.0),)),
            )
        ),
    ]
