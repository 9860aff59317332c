"""The model of statements about two images: pairs of fusion blocks, one for each image (ALBEF's NLVR)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from cbalign.models.alignment import AlignmentModel
from cbalign.models.attention import dense
from cbalign.models.bert import BertBlock, padding_mask
from cbalign.models.snli_ve import ClassHead

SIDES = ("first", "second")
# The text-assignment classes: the text is about the first image, the second, neither.
ASSIGNMENTS = 3


class PairedLayers(nn.Module):
    """Twice `depth` fusion blocks that look at the two images by turns (ALBEF `models/xbert.py`, model_nlvr).

    The two blocks of a pair share the layers that make keys and values of their cross-attention; queries, outputs,
    self-attention and feed-forward are each block's own.
    """

    depth: int
    heads: int
    mlp_ratio: int = 4
    dropout: float = 0.1
    init_std: float = 0.02
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, mask, images, *, deterministic: bool = True):
        """x: [b, L, width], mask: bool [b, L], images: two of [b, n, any width] -> [b, L, width]."""
        for i in range(self.depth):
            shared = tuple(dense(x.shape[-1], init_std=self.init_std, dtype=self.dtype, name=f"layer_{i}_{name}")
                           for name in ("key", "value"))
            for side, image in zip(SIDES, images):
                block = BertBlock(self.heads, True, self.mlp_ratio, self.dropout, self.init_std, self.dtype, shared,
                                  name=f"layer_{i}_{side}")
                x = block(x, mask[:, None, None, :], image, deterministic=deterministic)
        return x


class PairModel(AlignmentModel):
    """Image encoder over both images, text encoder, paired fusion layers, a head over two classes."""

    def setup(self):
        super().setup()
        common = dict(mlp_ratio=self.mlp_ratio, dropout=self.dropout, init_std=self.init_std, dtype=self.dtype)
        self.paired_encoder = PairedLayers(self.fusion_depth, self.text_heads, **common)
        self.class_head = ClassHead(2, self.init_std)
        self.assignment_head = dense(ASSIGNMENTS, init_std=self.init_std, dtype=jnp.float32)

    def image_tokens(self, image):
        """image: uint8 [b, S, S, 3] -> [b, n, image_width]."""
        return self.image_encoder(image)

    def fuse_pair(self, ids, first, second, *, deterministic: bool = True):
        """ids: int32 [b, L], first, second: [b, n, image_width] -> [b, L, text_width]."""
        tokens = self.text_encoder(ids, deterministic=deterministic)
        return self.paired_encoder(tokens, padding_mask(ids), (first, second), deterministic=deterministic)

    def classify(self, images, ids, *, deterministic: bool = True):
        """images: two of uint8 [b, S, S, 3], ids: int32 [b, L] -> float32 logits [b, 2] of (false, true)."""
        # One pass over both, so that the encoder's weights are read once.
        tokens = self.image_encoder(jnp.concatenate(images))
        first, second = jnp.split(tokens, 2)
        return self.class_head(self.fuse_pair(ids, first, second, deterministic=deterministic)[:, 0])

    def assign(self, fused):
        """fused: [b, L, text_width] -> float32 logits [b, 3] of (first image, second, neither)."""
        return self.assignment_head(fused[:, 0])

    def __call__(self, image, ids):
        """Touches every parameter of this task; for initialisation."""
        return self.classify((image, image), ids)


class AssignmentModel(PairModel):
    """The same for text assignment: the other head, and the features distractors are drawn by."""

    def __call__(self, image, ids):
        """Touches every parameter of text assignment; for initialisation."""
        encoded = self.encode_image(image)
        return self.assign(self.fuse_pair(ids, encoded["tokens"], encoded["tokens"])), encoded["feature"]
