"""The towers all models are built of, their sizes, and the functions that make them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from cbalign.models.bert import BertLayers, TextEncoder
from cbalign.models.vit import VisionTransformer


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of the image encoder, the text encoder and the fusion layers.

    Attributes:
      image_size, patch_size: pixels.
      image_width, image_depth, image_heads: ViT (paper: 768, 12, 12).
      vocab_size, max_positions: of the text embeddings.
      text_width, text_depth, text_heads: text layers (paper: 768, 6, 12).
      fusion_depth: fusion layers (paper: 6), of the text's width.
      mlp_ratio: hidden width of the feed-forward layers over that of the tower.
      dropout: rate in the text and fusion layers.
      init_std: standard deviation of initial weights.
      image_position_std: that of the image encoder's initial position embeddings; 0 for `init_std`.
      dtype: dtype of the towers' matrix products; see `cbalign.models.attention` for the precision policy.
      remat: recompute each block's activations in the backward pass instead of storing them.
    """

    image_size: int
    patch_size: int
    image_width: int
    image_depth: int
    image_heads: int
    vocab_size: int
    max_positions: int
    text_width: int
    text_depth: int
    text_heads: int
    fusion_depth: int
    mlp_ratio: int = 4
    dropout: float = 0.1
    init_std: float = 0.02
    image_position_std: float = 0.0
    dtype: Any = jnp.float32
    remat: bool = False


def sizes_of(model_section: Mapping[str, Any], *, image_size: int, vocab_size: int) -> Sizes:
    """The `Sizes` in a mapping of their names, such as a config's section `model`.

    Args:
      model_section: {field of `Sizes`: value}, dtype by name; other keys are ignored, absent ones keep their defaults.
      image_size: pixels.
      vocab_size: tokens.
    """
    named = {
        field.name: model_section[field.name] for field in dataclasses.fields(Sizes) if field.name in model_section
    }
    named |= {"image_size": image_size, "vocab_size": vocab_size}
    if "dtype" in named:
        named["dtype"] = jnp.dtype(named["dtype"])
    return Sizes(**named)


def block_options(sizes: Sizes) -> dict:
    """The keyword arguments that all stacks of BERT's blocks share."""
    return dict(
        mlp_ratio=sizes.mlp_ratio, dropout=sizes.dropout, init_std=sizes.init_std, dtype=sizes.dtype, remat=sizes.remat
    )


def image_tower(sizes: Sizes) -> VisionTransformer:
    """The image encoder: uint8 [b, S, S, 3] -> [b, n, image_width]."""
    return VisionTransformer(
        sizes.image_size,
        sizes.patch_size,
        sizes.image_width,
        sizes.image_depth,
        sizes.image_heads,
        mlp_ratio=sizes.mlp_ratio,
        init_std=sizes.init_std,
        position_std=sizes.image_position_std,
        dtype=sizes.dtype,
        remat=sizes.remat,
    )


def text_tower(sizes: Sizes) -> TextEncoder:
    """The text encoder: int32 [b, L] -> [b, L, text_width]."""
    return TextEncoder(
        sizes.vocab_size,
        sizes.max_positions,
        sizes.text_width,
        sizes.text_depth,
        sizes.text_heads,
        **block_options(sizes),
    )


def fusion_tower(sizes: Sizes) -> BertLayers:
    """The fusion layers: text tokens [b, L, text_width] with cross-attention to image tokens -> [b, L, text_width]."""
    return BertLayers(
        sizes.text_width, sizes.fusion_depth, sizes.text_heads, cross_attention=True, **block_options(sizes)
    )
