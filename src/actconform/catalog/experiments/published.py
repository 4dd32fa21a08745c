"""The texts' own sizes; of the image classifiers 512 images and 3 epochs, of the autoencoders the first 4 epochs."""

from __future__ import annotations

from typing import Any

from actconform.catalog.experiments.builder import ADAM, HEADS, experiment_of, head_claims
from actconform.catalog.models.feedforward import autoencoder, blobs, image_cnn, mlp
from actconform.catalog.models.zoo import PUBLISHED
from actconform.types.training import Claim, EarlyStopping, Experiment


def published_experiments() -> list[Experiment]:
    """Return the experiments of a full run."""
    return [*_noise(), *_images(), _blobs(), *_signals()]


def _noise() -> list[Experiment]:
    settings: dict[str, Any] = {
        "data": "noise",
        "examples": 10_000,
        "validation": 5_000,
        "batch": 32,
        "epochs": 16,
        "optimizer": ADAM,
        "judged": 3,
    }
    return [
        experiment_of(
            "noise-softmax" + PUBLISHED,
            mlp("softmax", published=True),
            claims=(
                Claim(
                    text="hidden layers of softmax learn nothing from noise",
                    measure="loss",
                    at_least=0.95,
                    published="1.0020",
                ),
                Claim(text="nor do they overfit", measure="validation loss", at_most=1.06, published="1.0271"),
            ),
            **settings,
        ),
        experiment_of(
            "noise-relu" + PUBLISHED,
            mlp("relu", published=True),
            claims=(
                Claim(
                    text="hidden layers of relu learn noise by rote", measure="loss", at_most=0.75, published="0.4808"
                ),
                Claim(text="and overfit", measure="validation loss", at_least=1.2, published="1.3290"),
            ),
            **settings,
        ),
    ]


def _images() -> list[Experiment]:
    return [
        experiment_of(
            f"images-{head}" + PUBLISHED,
            image_cnn(head, published=True, training=True),
            evaluation=image_cnn(head, published=True),
            data="images",
            examples=512,
            validation=32,
            batch=32,
            epochs=3,
            optimizer=ADAM,
            stopping=EarlyStopping(),
            judged=1,
            free=1,
            claims=head_claims(head)[:2],
        )
        for head in HEADS
    ]


def _blobs() -> Experiment:
    return experiment_of(
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
    )


def _signals() -> list[Experiment]:
    claims = {
        "sigmoid": Claim(text="a sigmoid cannot say more than 1", measure="loss", at_least=11.6, published="12.3405"),
        "relu": Claim(text="a relu can", measure="loss", at_most=9.5, published="6.6143"),
        "linear": Claim(text="a linear output can", measure="loss", at_most=11.0),
    }
    return [
        experiment_of(
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
            claims=(claim,),
        )
        for head, claim in claims.items()
    ]
