"""Architectures of `transformers`, made from their configurations with random weights: factories of (module, example inputs)."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from benchmarks.architecture_models import PACKAGES
from benchmarks.torch_architectures import SEED, drawn, settled, whole_numbers

if TYPE_CHECKING:
    from torch import Tensor

    Named = dict[str, Tensor]

if PACKAGES not in sys.path:
    sys.path.append(PACKAGES)  # last: what is installed comes first
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def bert_base() -> tuple[nn.Module, Named]:
    """An encoder of BERT-base's size: 12 layers, 768 wide, 110 million weights."""
    return _encoder()


def bert_small() -> tuple[nn.Module, Named]:
    """An encoder of twelve narrow layers."""
    return _encoder(
        hidden_size=64,
        num_attention_heads=4,
        intermediate_size=256,
        vocab_size=500,
        max_position_embeddings=64,
        layer_norm_eps=1e-5,
        initializer_range=0.1,
    )


def _encoder(**settings: Any) -> tuple[nn.Module, Named]:
    from transformers import BertConfig, BertModel

    torch.manual_seed(SEED)
    config = BertConfig(**settings)
    mask = torch.ones(2, 24, dtype=torch.int64)
    mask[1, 19:] = 0
    return settled(BertModel(config)), {"input_ids": whole_numbers(config.vocab_size, 2, 24), "attention_mask": mask}


class Step(nn.Module):
    """A decoder's step as it is shipped: tokens and the cache so far give scores and the cache with them."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, tokens: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        from transformers import DynamicCache

        past = DynamicCache(list(zip(keys.unbind(0), values.unbind(0), strict=True)))
        answer = self.decoder(tokens, cache=past, use_cache=True)
        layers = answer.cache.layers
        return (
            answer.logits,
            torch.stack([layer.keys for layer in layers]),
            torch.stack([layer.values for layer in layers]),
        )


def gpt2() -> tuple[nn.Module, Named]:
    """A decoder with its cache."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(SEED)
    config = GPT2Config(
        vocab_size=300,
        n_positions=64,
        n_embd=48,
        n_layer=3,
        n_head=4,
        initializer_range=0.1,
        bos_token_id=None,
        eos_token_id=None,
    )
    cache = (3, 2, 4, 7, 12)
    example = {"tokens": whole_numbers(300, 2, 5), "keys": drawn(*cache), "values": drawn(*cache, seed=1)}
    return settled(Step(GPT2LMHeadModel(config))), example


def llama() -> tuple[nn.Module, Named]:
    """A decoder with rotary positions, RMSNorm, grouped queries and gated units; no cache."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.1,
        use_cache=False,
    )
    return settled(LlamaForCausalLM(config)), {"input_ids": whole_numbers(300, 2, 11)}


def vit() -> tuple[nn.Module, Named]:
    """A vision transformer."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(SEED)
    config = ViTConfig(
        image_size=48,
        patch_size=8,
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=128,
        initializer_range=0.1,
    )
    return settled(ViTForImageClassification(config)), {"pixel_values": drawn(2, 3, 48, 48)}


def whisper() -> tuple[nn.Module, Named]:
    """The encoder of Whisper: a spectrogram, two convolutions over time, transformer layers."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    torch.manual_seed(SEED)
    config = WhisperConfig(
        num_mel_bins=40,
        d_model=64,
        encoder_layers=3,
        encoder_attention_heads=4,
        encoder_ffn_dim=128,
        max_source_positions=50,
        init_std=0.1,
    )
    return settled(WhisperEncoder(config)), {"input_features": drawn(2, 40, 100)}


def wav2vec2() -> tuple[nn.Module, Named]:
    """Wav2Vec2: convolutions on sound, positions by a convolution with weight normalization, transformer layers."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    torch.manual_seed(SEED)
    config = Wav2Vec2Config(
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=96,
        conv_dim=(32,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        initializer_range=0.1,
    )
    return settled(Wav2Vec2Model(config)), {"input_values": drawn(2, 4000)}


def t5() -> tuple[nn.Module, Named]:
    """The encoder of T5: positions relative to each other in buckets, RMSNorm."""
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(SEED)
    config = T5Config(vocab_size=300, d_model=48, d_kv=12, d_ff=96, num_layers=3, num_heads=4)
    return settled(T5EncoderModel(config)), {"input_ids": whole_numbers(300, 2, 17)}
