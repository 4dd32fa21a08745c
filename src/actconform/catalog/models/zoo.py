"""All reference models: small ones for every run, the published sizes for a full one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.catalog.models.feedforward import (
    autoencoder,
    bare_pools,
    blobs,
    image_cnn,
    linear_stack,
    maxout,
    mlp,
    multinomial_latent,
    regression,
)
from actconform.catalog.models.memory import attention, attention_block, dnc, ntm
from actconform.catalog.models.sequences import group_norm_cnn, masked_attention, token_tagger
from actconform.catalog.models.windows import image_groups, image_windows

if TYPE_CHECKING:
    from actconform.types.model import Model

PUBLISHED = "@published"


def networks() -> tuple[Model, ...]:
    """Return every built-in model; those of published size have "@published" in their names."""
    models = []
    for published in (False, True):
        models += [
            regression(published=published, training=False),
            regression(published=published, training=True),
            mlp("softmax", published=published),
            mlp("relu", published=published),
            *(image_cnn(head, published=published) for head in ("softmax1", "sigmoid", "softmax2")),
            image_cnn("softmax2", published=published, training=True),
            blobs(published=published),
            *(autoencoder(head, published=published) for head in ("sigmoid", "relu", "linear")),
            attention(published=published),
            attention_block(published=published),
            ntm(published=published),
            dnc(published=published),
            multinomial_latent(published=published),
            maxout(published=published),
        ]
    return (
        *models,
        linear_stack(),
        bare_pools(),
        token_tagger(),
        masked_attention(),
        group_norm_cnn(),
        image_windows(),
        image_groups(),
    )
