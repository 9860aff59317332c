"""The models of statements about two images: pairs of fusion blocks, one for each image (ALBEF's NLVR)."""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from cbalign.models.attention import dense, per_block, split_heads
from cbalign.models.bert import BertBlock, padding_mask
from cbalign.models.class_head import ClassHead
from cbalign.models.codebook import l2_normalise
from cbalign.models.towers import Sizes, block_options, image_tower, text_tower

SIDES = ("first", "second")
# NLVR2's classes: the statement is false, true.
CLASSES = 2
# Text assignment's classes: the text is about the first image, the second, neither.
ASSIGNMENTS = 3


class PairedLayers(nn.Module):
    """Twice `depth` fusion blocks that attend to the two images in turn (ALBEF `models/xbert.py`, model_nlvr).

    The two blocks of a pair share the key and value projections of their cross-attention; queries, outputs,
    self-attention and feed-forward are each block's own. `remat` is by block.
    """

    depth: int
    heads: int
    mlp_ratio: int = 4
    dropout: float = 0.1
    init_std: float = 0.02
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x, mask, images, *, positions=None, deterministic: bool = True):
        """Runs all blocks.

        Args:
          x: [b, L, width].
          mask: bool [b, L].
          images: two of [b, n, any width].
          positions: an int P for the final states at the first P positions, None for all.
          deterministic: no dropout.

        Returns:
          [b, L or P, width].
        """
        mask, width = mask[:, None, None, :], x.shape[-1]
        for i in range(self.depth):
            projections = [
                dense(width, init_std=self.init_std, dtype=self.dtype, name=f"layer_{i}_{name}")
                for name in ("key", "value")
            ]
            for side, image in zip(SIDES, images):
                last = i == self.depth - 1 and side == SIDES[-1]
                options = dict(positions=positions if last else None, deterministic=deterministic)
                context = tuple(split_heads(project(image), self.heads) for project in projections)
                block = BertBlock(
                    width,
                    self.heads,
                    True,
                    self.mlp_ratio,
                    self.dropout,
                    self.init_std,
                    self.dtype,
                    name=f"layer_{i}_{side}",
                )
                call = functools.partial(_call_block, **options)
                x = per_block(self.remat, block, call, x, mask, context)
        return x


def _call_block(block, x, mask, context, **options):
    return block(x, mask, context, **options)


def paired_tower(sizes: Sizes) -> PairedLayers:
    """The paired layers of a model's sizes: `fusion_depth` pairs of blocks."""
    return PairedLayers(sizes.fusion_depth, sizes.text_heads, **block_options(sizes))


class PairModel(nn.Module):
    """NLVR2: image encoder over both images, text encoder, paired fusion layers, a head over two classes."""

    sizes: Sizes

    def setup(self):
        self.image_encoder = image_tower(self.sizes)
        self.text_encoder = text_tower(self.sizes)
        self.paired_encoder = paired_tower(self.sizes)
        self.class_head = ClassHead(CLASSES, self.sizes.init_std)

    def image_tokens(self, image):
        """image: uint8 [b, S, S, 3] -> [b, n, image_width]."""
        return self.image_encoder(image)

    def fuse_pair(self, ids, first, second, *, deterministic: bool = True):
        """ids: int32 [b, L], first, second: [b, n, image_width] -> [b, 1, text_width], the fused [CLS] state."""
        return _fuse_pair(self, ids, first, second, deterministic=deterministic)

    def classify(self, images, ids, *, deterministic: bool = True):
        """images: two of uint8 [b, S, S, 3], ids: int32 [b, L] -> float32 logits [b, 2] of (false, true)."""
        # One pass over both, so that the encoder's weights are read once.
        tokens = self.image_encoder(jnp.concatenate(images))
        first, second = jnp.split(tokens, 2)
        return self.class_head(self.fuse_pair(ids, first, second, deterministic=deterministic)[:, 0])

    def __call__(self, image, ids):
        """Touches every parameter; for initialisation."""
        return self.classify((image, image), ids)


class AssignmentModel(nn.Module):
    """Text assignment: the same towers, a head over three classes, and the image features that select distractors.

    Attributes:
      sizes: of the towers.
      embed_dim: d of the joint space.
    """

    sizes: Sizes
    embed_dim: int = 256

    def setup(self):
        init_std = self.sizes.init_std
        self.image_encoder = image_tower(self.sizes)
        self.text_encoder = text_tower(self.sizes)
        self.paired_encoder = paired_tower(self.sizes)
        self.image_projection = dense(self.embed_dim, init_std=init_std, dtype=jnp.float32)
        self.assignment_head = dense(ASSIGNMENTS, init_std=init_std, dtype=jnp.float32)

    def encode_image(self, image):
        """image: uint8 [b, S, S, 3] -> {"tokens": [b, n, image_width], "feature": float32 [b, d], unit length}."""
        tokens = self.image_encoder(image)
        return {"tokens": tokens, "feature": l2_normalise(self.image_projection(tokens[:, 0]))}

    def image_tokens(self, image):
        """image: uint8 [b, S, S, 3] -> [b, n, image_width]."""
        return self.image_encoder(image)

    def fuse_pair(self, ids, first, second, *, deterministic: bool = True):
        """ids: int32 [b, L], first, second: [b, n, image_width] -> [b, 1, text_width], the fused [CLS] state."""
        return _fuse_pair(self, ids, first, second, deterministic=deterministic)

    def assign(self, fused):
        """fused: [b, 1, text_width] -> float32 logits [b, 3] of (first image, second, neither)."""
        return self.assignment_head(fused[:, 0])

    def __call__(self, image, ids):
        """Touches every parameter; for initialisation."""
        encoded = self.encode_image(image)
        return self.assign(self.fuse_pair(ids, encoded["tokens"], encoded["tokens"])), encoded["feature"]


def _fuse_pair(model, ids, first, second, *, deterministic: bool):
    tokens = model.text_encoder(ids, deterministic=deterministic)
    return model.paired_encoder(tokens, padding_mask(ids), (first, second), positions=1, deterministic=deterministic)
