"""The experiments of every run: of small models, a second or less of training each."""

from __future__ import annotations

from typing import Any

import msgspec

from actconform.catalog.experiments.builder import ADAM, HEADS, experiment_of, head_claims
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
from actconform.types.training import Claim, EarlyStopping, Experiment, Optimizer

FAST = Optimizer(kind="adam", learning_rate=1e-2)
MOMENTUM = Optimizer(kind="sgd", learning_rate=5e-3, momentum=0.9)


def small_experiments() -> list[Experiment]:
    """Return the experiments of every run."""
    return [*_noise(), *_images(), *_signals(), *_blobs(), *_others()]


def _noise() -> list[Experiment]:
    """Targets that have nothing to do with the inputs: what hidden layers of softmax, relu and sigmoid make of them."""
    settings: dict[str, Any] = {"data": "noise", "examples": 128, "validation": 128, "batch": 32, "epochs": 40}
    return [
        experiment_of(
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
        experiment_of(
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
        experiment_of(
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
        experiment_of(
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


def _images() -> list[Experiment]:
    return [
        experiment_of(
            f"images-{head}",
            image_cnn(head, published=False, training=True),
            evaluation=image_cnn(head, published=False),
            data="images",
            examples=128,
            validation=64,
            batch=16,
            epochs=12,
            optimizer=msgspec.structs.replace(ADAM, learning_rate=3e-3),
            judged=10,
            claims=head_claims(head),
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
        experiment_of(
            f"signals-{head}",
            autoencoder(head, published=False),
            data="signals",
            examples=256,
            validation=64,
            batch=32,
            epochs=24,
            optimizer=FAST,
            judged=10,
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
        experiment_of(
            "blobs-adam", model, optimizer=FAST, epochs=20, stopping=EarlyStopping(), claims=claims, **settings
        ),
        experiment_of(
            "blobs-stopped",
            model,
            optimizer=msgspec.structs.replace(FAST, learning_rate=0.05),
            epochs=20,
            stopping=EarlyStopping(patience=2),
            **settings,
        ),
        # All steps of both epochs are judged.
        *(
            experiment_of(f"blobs-{name}", model, optimizer=rule, epochs=2, judged=40, **settings)
            for name, rule in rules.items()
        ),
    ]


def _others() -> list[Experiment]:
    settings: dict[str, Any] = {"examples": 256, "validation": 64, "batch": 32}
    return [
        experiment_of(
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
        experiment_of(
            "map-attention",
            attention_block(published=False),
            data="map",
            epochs=10,
            optimizer=msgspec.structs.replace(ADAM, kind="adamw", weight_decay=0.01),
            **settings,
        ),
        experiment_of("classes-maxout", maxout(published=False), data="classes", epochs=10, optimizer=FAST, **settings),
        experiment_of(
            "bits-latent", multinomial_latent(published=False), data="bits", epochs=20, optimizer=FAST, **settings
        ),
    ]
