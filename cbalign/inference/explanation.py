"""Why a model pairs an image with a text: attention over the image by word, scores, and the codes both sides choose.

explanation = load("runs/emoji").explain("truck.png", "a delivery truck")
for word, attention in zip(explanation.words, explanation.word_maps):
print(word, attention.argmax())
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cbalign.data.image_files import ImageSource
from cbalign.distributed import devices
from cbalign.errors import UserError
from cbalign.inference.codebook import TopCodes, TrainedCodebook
from cbalign.inference.encoder import Encoder, usable_image
from cbalign.inference.source import Source
from cbalign.models.attention import ATTENTION, ATTENTION_SHIFT
from cbalign.models.positions import grid_side


@dataclasses.dataclass(frozen=True)
class Explanation:
    """A model's view of one image and one text.

    Attributes:
      image: uint8 [S, S, 3], as the model sees it.
      text: as it was given.
      tokens: T tokens of the text, [CLS] first.
      token_maps: float32 [T, g, g], attention of each token over the g x g patches; see `attention_maps`. None where
        the matching head was never trained.
      words: W words of the text, as the tokenizer splits it; word pieces are joined.
      word_maps: float32 [W, g, g], the mean over the pieces of each word; None as `token_maps`.
      layer: fusion layer of the maps, from 0; None as `token_maps`.
      cosine: contrastive score, in [-1, 1].
      match: probability of a match by the matching head, in [0, 1]; None where it was never trained.
      image_codes, text_codes: None where the codebook was never trained.
      notes: sentences on what the model does not see, or what it never learned.
    """

    image: np.ndarray
    text: str
    tokens: list[str]
    token_maps: np.ndarray | None
    words: list[str]
    word_maps: np.ndarray | None
    layer: int | None
    cosine: float
    match: float | None
    image_codes: TopCodes | None
    text_codes: TopCodes | None
    notes: tuple[str, ...] = ()


class Explainer:
    """Explains pairs by one model.

    Args:
      source: of the model.

    Raises:
      UserError: the model has no shared embedding space.
    """

    def __init__(self, source: Source):
        self._encoder = Encoder.of(source)
        self._task, self._params = source.task, devices.copy_to_local(source.params)
        self._codebook = TrainedCodebook.of(source) if source.task.config.loss_weights.code else None

    def __call__(
        self, image: ImageSource | np.ndarray, text: str, *, layer: int | None = None, top: int = 5
    ) -> Explanation:
        """Explains one pair; see `Model.explain`."""
        encoder, fusion_depth = self._encoder, self._task.model.sizes.fusion_depth
        layer = check_layer(layer, fusion_depth)
        pixels = usable_image(image, encoder.image_size)
        ids, unknown, cut = encoder.token_ids([text])
        used = int(np.sum(ids != encoder.tokenizer.pad_token_id))
        tokens = encoder.tokenizer.convert_ids_to_tokens(ids[0, :used].tolist())
        words, places = join_pieces(tokens)
        encoded = encoder.encoded_images(pixels[np.newaxis]), encoder.functions.encode_text(ids)
        image_feature, text_feature = (np.asarray(side["feature"], np.float32)[0] for side in encoded)
        notes = ["no word of the text is in the model's vocabulary: what it says is meaningless"] if unknown else []
        notes += [f"only the first {encoder.max_tokens - 1} tokens of the text are used"] if cut else []
        maps = matched = image_codes = text_codes = None
        if self._task.trains_matching:
            image_tokens, text_tokens = (side["tokens"] for side in encoded)
            flat, logits = attention_maps(self._task.model, self._params, image_tokens, text_tokens, ids, layer=layer)
            side = grid_side(flat.shape[1])
            maps = np.asarray(flat, np.float32)[:used].reshape(used, side, side)
            matched = float(np.exp(-np.logaddexp(0, float(logits[0]) - float(logits[1]))))
        else:
            notes.append("the matching head was never trained: no attention maps, no probability of a match")
        if self._codebook:
            image_codes, text_codes = (self._codebook.top(feature, top) for feature in (image_feature, text_feature))
        else:
            notes.append("the codebook was never trained: no codes")
        return Explanation(
            image=pixels,
            text=text,
            tokens=tokens,
            token_maps=maps,
            words=words,
            word_maps=None if maps is None else word_maps(maps, places),
            layer=None if maps is None else layer,
            cosine=float(image_feature @ text_feature),
            match=matched,
            image_codes=image_codes,
            text_codes=text_codes,
            notes=tuple(notes),
        )


def default_layer(fusion_depth: int) -> int:
    """The fusion layer whose attention is shown: the third of the full model's six, the middle one of any model."""
    return (fusion_depth - 1) // 2


def check_layer(layer: int | None, fusion_depth: int) -> int:
    """The layer to show; `default_layer` for None.

    Raises:
      UserError: there is no such layer.
    """
    if layer is None:
        return default_layer(fusion_depth)
    if not 0 <= layer < fusion_depth:
        raise UserError(f"layer={layer}: the model has {fusion_depth} fusion layers, 0 to {fusion_depth - 1}")
    return layer


def attention_maps(model: Any, params: Any, image_tokens, text_tokens, ids, *, layer: int):
    """Attention of each token over the image, weighted by its effect on the matching score.

        map[t, p] = mean_h A[h, t, p] * max(dl/dA[h, t, p], 0)

    with A the cross-attention probabilities of the fusion layer, l the matching head's logit of "match", and patches p
    without [CLS]. Source: ALBEF's `visualization.ipynb` (Grad-CAM on the cross-attention, there layer 8 of 12, the
    third with cross-attention).

    Args:
      model: an `AlignmentModel`.
      params: its parameters.
      image_tokens: [1, n, w] of the image encoder.
      text_tokens: [1, L, v] of the text encoder.
      ids: int32 [1, L].
      layer: of the fusion layers, from 0.

    Returns:
      (float32 [L, n - 1], rows of padding are 0; float32 [2], logits of no match and match).
    """
    return _compiled_maps(model, layer)(params, image_tokens, text_tokens, ids)


@functools.lru_cache(maxsize=8)
def _compiled_maps(model: Any, layer: int):
    sizes = model.sizes

    def match(shift, params, image_tokens, text_tokens, ids):
        place = {"fusion_encoder": {f"layer_{layer}": {"cross_attention": {"weights": shift}}}}
        logits, kept = model.apply(
            {"params": params, ATTENTION_SHIFT: place},
            text_tokens.astype(sizes.dtype),
            ids,
            image_tokens.astype(sizes.dtype),
            method=lambda bound, *inputs: bound.match(bound.fuse(*inputs)),
            mutable=[ATTENTION],
        )
        (weights,) = jax.tree.leaves(kept)
        return logits[0, 1], (weights, logits[0])

    @jax.jit
    def maps(params, image_tokens, text_tokens, ids):
        shape = (1, sizes.text_heads, ids.shape[1], image_tokens.shape[1])
        gradient, (weights, logits) = jax.grad(match, has_aux=True)(
            jnp.zeros(shape, sizes.dtype), params, image_tokens, text_tokens, ids
        )
        weights, gradient = (x[0, :, :, 1:].astype(jnp.float32) for x in (weights, gradient))
        shown = jnp.mean(weights * jnp.maximum(gradient, 0), axis=0)
        return jnp.where((ids[0] != 0)[:, None], shown, 0), logits

    return maps


def join_pieces(tokens: list[str]) -> tuple[list[str], list[list[int]]]:
    """Words of WordPiece tokens, [CLS] left out: (words, [places of the pieces of each word])."""
    words: list[str] = []
    places: list[list[int]] = []
    for place, token in enumerate(tokens[1:], 1):
        if token.startswith("##") and words:
            words[-1] += token[2:]
            places[-1].append(place)
        else:
            words.append(token)
            places.append([place])
    return words, places


def word_maps(token_maps: np.ndarray, places: list[list[int]]) -> np.ndarray:
    """The mean map of the pieces of each word: float32 [W, g, g]."""
    grid = token_maps.shape[1:]
    return np.stack([token_maps[rows].mean(axis=0) for rows in places]) if places else np.zeros((0, *grid), np.float32)
