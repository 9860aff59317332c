"""The wiring of CODIS: both encoders, projections to the joint space, fusion layers, heads and codebook."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from cbalign.models.attention import dense
from cbalign.models.bert import BertLayers, MaskedTokenHead, TextEncoder, padding_mask
from cbalign.models.codebook import Codebook, l2_normalise
from cbalign.models.vit import VisionTransformer

# What the momentum teacher holds a copy of: not the matching head, the temperature or the codes (ALBEF).
TEACHER_MODULES = ("image_encoder", "text_encoder", "fusion_encoder", "image_projection", "text_projection",
                   "masked_token_head")


class Temperature(nn.Module):
    """The learnable temperature, a 0-d parameter used as a divisor (ALBEF's `temp`)."""

    initial: float = 0.07

    @nn.compact
    def __call__(self):
        """Returns the temperature, a float32 scalar."""
        return self.param("value", nn.initializers.constant(self.initial), ())


class AlignmentModel(nn.Module):
    """Image encoder, text encoder, fusion layers, projections, heads and codebook.

    Every method is a pure function of parameters and inputs: `model.apply({"params": p}, x, method="encode_image")`.
    The teacher is the same module applied to the parameters of `TEACHER_MODULES` alone.

    Attributes:
      image_size, patch_size: pixels.
      image_width, image_depth, image_heads: ViT (paper: 768, 12, 12).
      vocab_size, max_positions: of the text embeddings.
      text_width, text_depth, text_heads: text layers (paper: 768, 6, 12).
      fusion_depth: fusion layers (paper: 6), of the text's width.
      embed_dim: d of the joint space.
      num_codes: K of the codebook.
      dropout: rate in the text and fusion layers.
      image_position_std: standard deviation of the image encoder's initial position embeddings; 0 for `init_std`.
      dtype: dtype of the encoders' products; the whole policy stands in `cbalign.models.attention`.
      remat: rematerialise the blocks of encoders and fusion layers.
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
    embed_dim: int = 256
    num_codes: int = 4000
    mlp_ratio: int = 4
    dropout: float = 0.1
    init_std: float = 0.02
    image_position_std: float = 0.0
    temperature_init: float = 0.07
    dtype: Any = jnp.float32
    remat: bool = False

    def setup(self):
        common = dict(mlp_ratio=self.mlp_ratio, init_std=self.init_std, dtype=self.dtype, remat=self.remat)
        self.image_encoder = VisionTransformer(self.image_size, self.patch_size, self.image_width, self.image_depth,
                                               self.image_heads, position_std=self.image_position_std, **common)
        self.text_encoder = TextEncoder(self.vocab_size, self.max_positions, self.text_width, self.text_depth,
                                        self.text_heads, dropout=self.dropout, **common)
        self.fusion_encoder = BertLayers(self.fusion_depth, self.text_heads, True, dropout=self.dropout, **common)
        # Features leave the projections in float32: similarities over 65,536 keys are not for bfloat16.
        self.image_projection = dense(self.embed_dim, init_std=self.init_std, dtype=jnp.float32)
        self.text_projection = dense(self.embed_dim, init_std=self.init_std, dtype=jnp.float32)
        self.matching_head = dense(2, init_std=self.init_std, dtype=jnp.float32)
        self.masked_token_head = MaskedTokenHead(self.vocab_size, self.init_std, self.dtype)
        self.codebook = Codebook(self.num_codes, self.embed_dim)
        self.temperature = Temperature(self.temperature_init)

    def encode_image(self, image):
        """image: uint8 [b, S, S, 3] -> {"tokens": [b, n, image_width], "feature": float32 [b, d], unit length}."""
        tokens = self.image_encoder(image)
        return {"tokens": tokens, "feature": l2_normalise(self.image_projection(tokens[:, 0]))}

    def encode_text(self, ids, *, deterministic: bool = True):
        """ids: int32 [b, L] -> {"tokens": [b, L, text_width], "feature": float32 [b, d], unit length}."""
        tokens = self.text_encoder(ids, deterministic=deterministic)
        return {"tokens": tokens, "feature": l2_normalise(self.text_projection(tokens[:, 0]))}

    def fuse(self, text_tokens, ids, image_tokens, *, deterministic: bool = True):
        """Fusion layers over the text encoder's tokens.

        Args:
          text_tokens: [b, L, text_width] from `encode_text`.
          ids: int32 [b, L], for the padding mask.
          image_tokens: [b, n, image_width] from `encode_image`.
          deterministic: no dropout.

        Returns:
          [b, L, text_width].
        """
        return self.fusion_encoder(text_tokens, padding_mask(ids), image_tokens, deterministic=deterministic)

    def match(self, fused):
        """fused: [b, L, text_width] -> float32 logits [b, 2] of (no match, match), from the [CLS] token."""
        return self.matching_head(fused[:, 0])

    def predict_tokens(self, fused, positions):
        """fused: [b, L, text_width], positions: int32 [b, P] -> float32 logits [b, P, vocab_size]."""
        picked = jnp.take_along_axis(fused, positions[:, :, None], axis=1)
        return self.masked_token_head(picked, self.text_encoder.word_embedding())

    def codes(self):
        """The codes, float32 [K, d], unit length."""
        return self.codebook()

    def tau(self):
        """The contrastive temperature, float32 scalar."""
        return self.temperature()

    def __call__(self, image, ids):
        """Touches every parameter; for initialisation."""
        encoded_image, encoded_text = self.encode_image(image), self.encode_text(ids)
        fused = self.fuse(encoded_text["tokens"], ids, encoded_image["tokens"])
        logits = self.predict_tokens(fused, jnp.zeros((ids.shape[0], 1), jnp.int32))
        return self.match(fused), logits, self.codes(), self.tau()


def teacher_subset(params):
    """The parameters the teacher has, out of the student's tree."""
    return {name: params[name] for name in TEACHER_MODULES}
