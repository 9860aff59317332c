"""The model of visual question answering: an autoregressive decoder of answers over the fused question (ALBEF)."""

import jax.numpy as jnp

from cbalign.models.alignment import AlignmentModel
from cbalign.models.bert import BertEmbeddings, BertLayers, MaskedTokenHead, padding_mask


class AnswerModel(AlignmentModel):
    """Image encoder, text encoder and fusion layers over image and question; a decoder of the answer.

    The decoder (ALBEF `models/model_vqa.py`) has as many layers as the fusion encoder, self-attention to the tokens
    before, cross-attention to the fused question, embeddings of its own, and a head that shares their words.
    """

    def setup(self):
        super().setup()
        common = dict(dropout=self.dropout, init_std=self.init_std, dtype=self.dtype)
        self.answer_embeddings = BertEmbeddings(self.vocab_size, self.max_positions, self.text_width, **common)
        self.answer_layers = BertLayers(self.fusion_depth, self.text_heads, True, self.mlp_ratio, **common)
        self.answer_head = MaskedTokenHead(self.vocab_size, self.init_std, self.dtype)

    def question_states(self, image, ids, *, deterministic: bool = True):
        """image: uint8 [b, S, S, 3], ids: int32 [b, L] -> [b, L, text_width], the question fused with the image."""
        tokens = self.text_encoder(ids, deterministic=deterministic)
        images = self.image_encoder(image)
        return self.fusion_encoder(tokens, padding_mask(ids), images, deterministic=deterministic)

    def answer_logits(self, states, question_ids, answer_ids, *, deterministic: bool = True):
        """What the decoder expects after each token of an answer.

        Args:
          states: [b, L, text_width] from `question_states`.
          question_ids: int32 [b, L], for the padding mask.
          answer_ids: int32 [b, A], [CLS] and the tokens before.
          deterministic: no dropout.

        Returns:
          float32 logits [b, A, vocab_size]; position t is what follows the first t + 1 tokens.
        """
        length = answer_ids.shape[1]
        before = jnp.tril(jnp.ones((length, length), bool))
        mask = before[None] & padding_mask(answer_ids)[:, None, :]
        x = self.answer_embeddings(answer_ids, deterministic=deterministic)
        x = self.answer_layers(x, mask, states, padding_mask(question_ids), deterministic=deterministic)
        return self.answer_head(x, self.answer_embeddings.word.embedding)

    def __call__(self, image, ids):
        """Touches every parameter of this task and none of the heads of pretraining; for initialisation."""
        return self.answer_logits(self.question_states(image, ids), ids, ids[:, :1])
