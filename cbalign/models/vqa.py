"""The model of visual question answering: an autoregressive decoder of answers over the fused question (ALBEF)."""

import flax.linen as nn
import jax.numpy as jnp

from cbalign.models.bert import BertEmbeddings, MaskedTokenHead, padding_mask
from cbalign.models.towers import Sizes, fusion_tower, image_tower, text_tower


class AnswerModel(nn.Module):
    """Image encoder, text encoder and fusion layers over image and question; a decoder of the answer.

    The decoder (ALBEF `models/model_vqa.py`) has as many layers as the fusion encoder, causal self-attention,
    cross-attention to the fused question, embeddings of its own, and a head tied to these.
    """

    sizes: Sizes

    def setup(self):
        sizes = self.sizes
        self.image_encoder = image_tower(sizes)
        self.text_encoder = text_tower(sizes)
        self.fusion_encoder = fusion_tower(sizes)
        self.answer_embeddings = BertEmbeddings(
            sizes.vocab_size, sizes.max_positions, sizes.text_width, sizes.dropout, sizes.init_std, sizes.dtype
        )
        self.answer_layers = fusion_tower(sizes)
        self.answer_head = MaskedTokenHead(sizes.vocab_size, sizes.init_std, sizes.dtype)

    def question_states(self, image, ids, *, deterministic: bool = True):
        """image: uint8 [b, S, S, 3], ids: int32 [b, L] -> [b, L, text_width], the question fused with the image."""
        tokens = self.text_encoder(ids, deterministic=deterministic)
        image_tokens = self.image_encoder(image)
        return self.fusion_encoder(tokens, padding_mask(ids), image_tokens, deterministic=deterministic)

    def answer_logits(self, states, question_ids, answer_ids, *, deterministic: bool = True):
        """The decoder's prediction of the next token after each token of an answer.

        Args:
          states: [b, L, text_width] from `question_states`.
          question_ids: int32 [b, L], for the padding mask.
          answer_ids: int32 [b, A], [CLS] and the tokens so far.
          deterministic: no dropout.

        Returns:
          float32 logits [b, A, vocab_size]; position t predicts what follows the first t + 1 tokens.
        """
        length = answer_ids.shape[1]
        causal = jnp.tril(jnp.ones((length, length), bool))
        mask = causal[None] & padding_mask(answer_ids)[:, None, :]
        x = self.answer_embeddings(answer_ids, deterministic=deterministic)
        x = self.answer_layers(x, mask, states, padding_mask(question_ids), deterministic=deterministic)
        return self.answer_head(x, self.answer_embeddings.word.embedding)

    def __call__(self, image, ids):
        """Touches every parameter; for initialisation."""
        return self.answer_logits(self.question_states(image, ids), ids, ids[:, :1])
