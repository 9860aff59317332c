"""BERT's post-norm block and its uses: text layers, fusion layers with cross-attention, and the masked-token head."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from cbalign.models.attention import FeedForward, MultiHeadAttention, dense, gelu, layer_norm, per_block, precision_of

LAYER_NORM_EPSILON = 1e-12
PAD_ID = 0


def padding_mask(ids):
    """Bool [b, L]: True where a token is not [PAD] (id 0, as in every BERT vocabulary)."""
    return ids != PAD_ID


def select_positions(x, positions):
    """The states at some positions of each text.

    Args:
      x: [b, L, width].
      positions: int32 [b, P]; an int P for the first P positions; None for all.

    Returns:
      [b, P, width].
    """
    if positions is None:
        return x
    if isinstance(positions, int):
        return x[:, :positions]
    return jnp.take_along_axis(x, positions[:, :, None], axis=1)


class BertBlock(nn.Module):
    """Post-norm block: self-attention, optional cross-attention, feed-forward; each with residual and norm."""

    width: int
    heads: int
    cross_attention: bool = False
    mlp_ratio: int = 4
    dropout: float = 0.1
    init_std: float = 0.02
    dtype: Any = jnp.float32

    def setup(self):
        options = dict(init_std=self.init_std, dtype=self.dtype)
        self.attention = MultiHeadAttention(self.width, self.heads, self.dropout, **options)
        self.attention_norm = layer_norm(LAYER_NORM_EPSILON)
        if self.cross_attention:
            self.crossing = MultiHeadAttention(self.width, self.heads, self.dropout, name="cross_attention", **options)
            self.cross_attention_norm = layer_norm(LAYER_NORM_EPSILON)
        self.mlp = FeedForward(self.mlp_ratio * self.width, **options)
        self.mlp_norm = layer_norm(LAYER_NORM_EPSILON)
        self.drop = nn.Dropout(self.dropout)

    def keys_and_values(self, context):
        """The context's part in the cross-attention, see `MultiHeadAttention.keys_and_values`."""
        return self.crossing.keys_and_values(context)

    def __call__(self, x, mask, context=None, context_mask=None, *, positions=None, deterministic: bool = True):
        """Runs the block.

        Args:
          x: [b, L, width].
          mask: bool [b, 1, 1 or L, L], which positions may be attended to.
          context: [b, n, any width] image tokens or question states, or their (keys, values); needed with
            `cross_attention`.
          context_mask: bool [b, n], which of the context may be attended to; None for all of it.
          positions: where the states after the block are computed, see `select_positions`. Not with a mask that differs
            from one query to another.
          deterministic: no dropout.

        Returns:
          [b, L, width], or [b, P, width] at P positions.
        """

        def add_and_norm(x, update, norm):
            return norm(x + self.drop(update, deterministic=deterministic)).astype(self.dtype)

        whole, x = x, select_positions(x, positions)
        x = add_and_norm(x, self.attention(x, whole, mask, deterministic=deterministic), self.attention_norm)
        if self.cross_attention:
            context_mask = None if context_mask is None else context_mask[:, None, None, :]
            update = self.crossing(x, context, context_mask, deterministic=deterministic)
            x = add_and_norm(x, update, self.cross_attention_norm)
        return add_and_norm(x, self.mlp(x), self.mlp_norm)


class BertLayers(nn.Module):
    """A stack of blocks: text layers, or with `cross_attention` fusion and decoder layers; `remat` is by block."""

    width: int
    depth: int
    heads: int
    cross_attention: bool = False
    mlp_ratio: int = 4
    dropout: float = 0.1
    init_std: float = 0.02
    dtype: Any = jnp.float32
    remat: bool = False

    def setup(self):
        self.layer = [
            BertBlock(
                self.width, self.heads, self.cross_attention, self.mlp_ratio, self.dropout, self.init_std, self.dtype
            )
            for _ in range(self.depth)
        ]

    def keys_and_values(self, context):
        """What each block's cross-attention makes of a context, to be computed once for all texts that attend to it.

        Args:
          context: [b, n, any width].

        Returns:
          A tuple of (keys, values) for each block, as the `context` of a call.
        """
        return tuple(block.keys_and_values(context) for block in self.layer)

    def __call__(self, x, mask, context=None, context_mask=None, *, positions=None, deterministic: bool = True):
        """Runs all blocks.

        Args:
          x: [b, L, width].
          mask: bool [b, L], which positions may be attended to, or [b, L (query), L (key)].
          context: as in `BertBlock`, or from `keys_and_values`.
          context_mask: as in `BertBlock`.
          positions: where the final states are wanted, see `select_positions`; the last block leaves out the others.
          deterministic: no dropout.

        Returns:
          [b, L, width], or [b, P, width] at P positions.
        """
        mask = mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]

        first = positions if isinstance(positions, int) else None

        def call(block, x, mask, context, context_mask, positions=first):
            return block(x, mask, context, context_mask, positions=positions, deterministic=deterministic)

        def call_whole(block, *inputs):
            return block(*inputs, deterministic=deterministic)

        contexts = context if isinstance(context, tuple) else (context,) * self.depth
        for block, own in zip(self.layer[:-1], contexts[:-1], strict=True):
            x = per_block(self.remat, block, call_whole, x, mask, own, context_mask)
        if not self.layer:
            return select_positions(x, positions)
        given = () if positions is None or first else (positions,)
        return per_block(self.remat, self.layer[-1], call, x, mask, contexts[-1], context_mask, *given)


class BertEmbeddings(nn.Module):
    """Word, position and token-type embeddings, summed and normed."""

    vocab_size: int
    max_positions: int
    width: int
    dropout: float = 0.1
    init_std: float = 0.02
    dtype: Any = jnp.float32

    def setup(self):
        normal = nn.initializers.truncated_normal(self.init_std)
        self.word = nn.Embed(self.vocab_size, self.width, embedding_init=normal)
        self.position = nn.Embed(self.max_positions, self.width, embedding_init=normal)
        # Only type 0 is used, but BERT checkpoints have two.
        self.token_type = nn.Embed(2, self.width, embedding_init=normal)
        self.norm = layer_norm(LAYER_NORM_EPSILON)
        self.drop = nn.Dropout(self.dropout)

    def __call__(self, ids, *, deterministic: bool = True):
        """ids: int32 [b, L], L <= max_positions -> [b, L, width]."""
        if ids.shape[1] > self.max_positions:
            raise ValueError(f"{ids.shape[1]} tokens, but only {self.max_positions} position embeddings")
        positions = self.position.embedding[None, : ids.shape[1]]
        x = self.word(ids) + positions + self.token_type.embedding[None, :1]
        return self.drop(self.norm(x), deterministic=deterministic).astype(self.dtype)


class TextEncoder(nn.Module):
    """Embeddings and the text layers (in the paper the first 6 layers of BERT-base)."""

    vocab_size: int
    max_positions: int
    width: int
    depth: int
    heads: int
    mlp_ratio: int = 4
    dropout: float = 0.1
    init_std: float = 0.02
    dtype: Any = jnp.float32
    remat: bool = False

    def setup(self):
        self.embeddings = BertEmbeddings(
            self.vocab_size, self.max_positions, self.width, self.dropout, self.init_std, self.dtype
        )
        self.layers = BertLayers(
            self.width,
            self.depth,
            self.heads,
            False,
            self.mlp_ratio,
            self.dropout,
            self.init_std,
            self.dtype,
            self.remat,
        )

    def __call__(self, ids, *, deterministic: bool = True):
        """ids: int32 [b, L], padded with PAD_ID -> [b, L, width]; token 0 is [CLS]."""
        x = self.embeddings(ids, deterministic=deterministic)
        return self.layers(x, padding_mask(ids), deterministic=deterministic)

    def word_embedding(self):
        """The word embeddings [vocab_size, width], to which the masked-token head is tied."""
        return self.embeddings.word.embedding


class MaskedTokenHead(nn.Module):
    """BERT's head for masked tokens: linear, GELU, norm, then the transposed word embeddings and a bias."""

    vocab_size: int
    init_std: float = 0.02
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, word_embedding):
        """x: [b, P, width], word_embedding: [vocab_size, width] -> float32 logits [b, P, vocab_size]."""
        x = gelu(dense(x.shape[-1], init_std=self.init_std, dtype=self.dtype, name="transform")(x))
        x = layer_norm(LAYER_NORM_EPSILON, "norm")(x).astype(self.dtype)
        # The operands have the compute dtype, as in the encoders; the logits are accumulated and kept in float32.
        logits = jnp.einsum(
            "bpd,vd->bpv",
            x,
            word_embedding.astype(self.dtype),
            precision=precision_of(self.dtype),
            preferred_element_type=jnp.float32,
        )
        bias = self.param("bias", nn.initializers.zeros_init(), (self.vocab_size,))
        return logits + bias[None, None]
