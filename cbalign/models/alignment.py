"""The model of pretraining and retrieval: both encoders, projections, fusion layers, heads and codebook (CODIS)."""

import flax.linen as nn
import jax.numpy as jnp

from cbalign.models.attention import dense
from cbalign.models.bert import MaskedTokenHead, padding_mask
from cbalign.models.codebook import Codebook, code_mixture, l2_normalise
from cbalign.models.towers import Sizes, fusion_tower, image_tower, text_tower

# Modules the momentum teacher has; as in ALBEF, no matching head and no temperature, and no codebook: where features
# are mixtures of codes, the student's are added to its parameters.
TEACHER_MODULES = (
    "image_encoder",
    "text_encoder",
    "fusion_encoder",
    "image_projection",
    "text_projection",
    "masked_token_head",
)


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
    The teacher is the same module with the parameters of `TEACHER_MODULES` and, where `embed`, the student's codes.

    Images and texts are projected to unit vectors z, which the codebook's losses see. What is compared, "feature", is z
    itself or, where `embed`, the mixture of the codes that z is assigned to; z is then beside it, as "projected".

    Attributes:
      sizes: of the towers.
      embed_dim: d of the joint space.
      num_codes: K of the codebook.
      temperature_init: initial contrastive temperature.
      embed: compare mixtures of codes, see `code_mixture`.
      embed_temperature: of the mixture.
    """

    sizes: Sizes
    embed_dim: int = 256
    num_codes: int = 4000
    temperature_init: float = 0.07
    embed: bool = False
    embed_temperature: float = 0.1

    def setup(self):
        sizes = self.sizes
        self.image_encoder = image_tower(sizes)
        self.text_encoder = text_tower(sizes)
        self.fusion_encoder = fusion_tower(sizes)
        # Projections compute in float32: bfloat16 is too coarse for similarities to 65,536 keys.
        self.image_projection = dense(self.embed_dim, init_std=sizes.init_std, dtype=jnp.float32)
        self.text_projection = dense(self.embed_dim, init_std=sizes.init_std, dtype=jnp.float32)
        self.matching_head = dense(2, init_std=sizes.init_std, dtype=jnp.float32)
        self.masked_token_head = MaskedTokenHead(sizes.vocab_size, sizes.init_std, sizes.dtype)
        self.codebook = Codebook(self.num_codes, self.embed_dim)
        self.temperature = Temperature(self.temperature_init)

    def encode_image(self, image):
        """Encodes images.

        Args:
          image: uint8 [b, S, S, 3].

        Returns:
          {"tokens": [b, n, image_width], "feature": float32 [b, d], unit length}; where `embed`, "projected" too.
        """
        tokens = self.image_encoder(image)
        return {"tokens": tokens, **self._features(self.image_projection(tokens[:, 0]))}

    def encode_text(self, ids, *, deterministic: bool = True):
        """Encodes texts.

        Args:
          ids: int32 [b, L].
          deterministic: no dropout.

        Returns:
          {"tokens": [b, L, text_width], "feature": float32 [b, d], unit length}; where `embed`, "projected" too.
        """
        tokens = self.text_encoder(ids, deterministic=deterministic)
        return {"tokens": tokens, **self._features(self.text_projection(tokens[:, 0]))}

    def _features(self, projected):
        """Of an output of the projections [b, d]: what is compared and, where that is a mixture, what was mixed."""
        z = l2_normalise(projected)
        if not self.embed:
            return {"feature": z}
        return {"feature": code_mixture(z, self.codebook(), temperature=self.embed_temperature), "projected": z}

    def image_context(self, image_tokens):
        """The image's keys and values in each fusion layer, which all texts fused with the image share.

        Args:
          image_tokens: [b, n, image_width] from `encode_image`.

        Returns:
          A tuple of (keys, values), each [b, n, heads, text_width / heads], for each fusion layer.
        """
        return self.fusion_encoder.keys_and_values(image_tokens)

    def fuse(self, text_tokens, ids, image, positions=None, *, deterministic: bool = True):
        """Fusion layers over the text encoder's tokens.

        Args:
          text_tokens: [b, L, text_width] from `encode_text`.
          ids: int32 [b, L], for the padding mask.
          image: tokens [b, n, image_width] from `encode_image`, or their `image_context`.
          positions: int32 [b, P] or an int P for the first P positions; only there is the last layer computed.
          deterministic: no dropout.

        Returns:
          [b, P, text_width] at the positions; without, [b, L, text_width].
        """
        return self.fusion_encoder(
            text_tokens, padding_mask(ids), image, positions=positions, deterministic=deterministic
        )

    def match(self, fused):
        """fused: [b, 1 or more, text_width] -> float32 logits [b, 2] of (no match, match), from the [CLS] token."""
        return self.matching_head(fused[:, 0])

    def predict_tokens(self, fused):
        """fused: [b, P, text_width], at the masked positions -> float32 logits [b, P, vocab_size]."""
        return self.masked_token_head(fused, self.text_encoder.word_embedding())

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
        return self.match(fused), self.predict_tokens(fused[:, :1]), self.codes(), self.tau()


def before_mixture(encoded):
    """Z of what `encode_image` or `encode_text` returned, [b, d]: what is assigned to codes."""
    return encoded.get("projected", encoded["feature"])


def teacher_subset(params):
    """The part of the student's parameter tree that the teacher has."""
    return {name: params[name] for name in TEACHER_MODULES}
