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
from cbalign.models.bert import PAD_ID
from cbalign.models.positions import grid_side

UNKNOWN = "(unknown)"
BY_MATCH, BY_WORD = "the matching score", "the probability of the word where it is masked"
"""What attention is weighted by."""


@dataclasses.dataclass(frozen=True)
class Explanation:
    """A model's view of one image and one text.

    Attributes:
      image: uint8 [S, S, 3], as the model sees it.
      text: as it was given.
      tokens: T tokens of the text, [CLS] first.
      token_maps: float32 [T, g, g], attention of each token over the g x g patches, by `attention_maps`; of the last
        fusion layer, where a word's attention does not reach the matching score, rows after [CLS] are by
        `masked_word_maps`. None where the matching head was never trained.
      words: W words of the text, as the tokenizer splits it; word pieces are joined.
      word_maps: float32 [W, g, g], the mean over the pieces of each word. None as `token_maps`, and of the last fusion
        layer where masked words were never trained.
      layer: fusion layer of the maps, from 0; None as `token_maps`.
      cosine: contrastive score, in [-1, 1].
      match: probability of a match by the matching head, in [0, 1]; None where it was never trained.
      image_codes, text_codes: None where the codebook was never trained.
      notes: sentences on what the model does not see, or what it never learned.
      maps_by: what the words' attention is weighted by, `BY_MATCH` or `BY_WORD`; None as `word_maps`.
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
    maps_by: str | None = None


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
        self._codebook = TrainedCodebook.of(source) if source.task.trains_codebook else None

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
        notes = (
            ["no word of the text is in the model's vocabulary: its scores and maps are meaningless"] if unknown else []
        )
        notes += [f"only the first {encoder.max_tokens - 1} tokens of the text are used"] if cut else []
        maps = by_word = matched = maps_by = image_codes = text_codes = None
        if self._task.trains_matching:
            maps, matched, maps_by = self._maps(*encoded, ids, layer=layer)
            maps = maps[:used]
            if maps_by:
                by_word = word_maps(maps, places)
            else:
                notes.append("words do not reach the score through the last fusion layer: no maps by word")
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
            word_maps=by_word,
            layer=None if maps is None else layer,
            cosine=float(image_feature @ text_feature),
            match=matched,
            image_codes=image_codes,
            text_codes=text_codes,
            notes=tuple(notes),
            maps_by=maps_by,
        )

    def _maps(self, image: dict, text: dict, ids: np.ndarray, *, layer: int) -> tuple[np.ndarray, float, str | None]:
        """(float32 [L, g, g], probability of a match, what the words' rows are by; None where they are 0)."""
        task, maps_by = self._task, BY_MATCH
        flat, logits = attention_maps(task.model, self._params, image["tokens"], text["tokens"], ids, layer=layer)
        flat = np.array(flat, np.float32)
        if layer == task.model.sizes.fusion_depth - 1:
            # The matching head reads [CLS] alone, which no later layer mixes with the words.
            maps_by = BY_WORD if task.config.loss_weights.mlm else None
            if maps_by:
                mask = task.tokens["mask"]
                masked = masked_word_maps(task.model, self._params, image["tokens"], ids, mask_id=mask, layer=layer)
                flat[1:] = np.asarray(masked, np.float32)[1:]
        side = grid_side(flat.shape[1])
        matched = float(np.exp(-np.logaddexp(0, float(logits[0]) - float(logits[1]))))
        return flat.reshape(-1, side, side), matched, maps_by


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


def masked_word_maps(model: Any, params: Any, image_tokens, ids, *, mask_id: int, layer: int):
    """The same with each token's own score: log p of the token where it alone is masked.

        map[t, p] = mean_h A[h, t, p] * max(d log p(ids[t] | text masked at t, image) / dA[h, t, p], 0)

    This is what the attention of a word in the last fusion layer is trained for; ALBEF's recipe is 0 there.

    Args:
      model, params, image_tokens, ids, layer: as for `attention_maps`.
      mask_id: of [MASK].

    Returns:
      float32 [L, n - 1], rows of padding are 0.
    """
    return _compiled_masked_maps(model, layer, mask_id)(params, image_tokens, ids)


def _shifted(model: Any, layer: int):
    """(shift, params, text tokens, ids, image tokens) -> (fused [1, L, w], attention [1, h, L, n] of the layer)."""
    dtype = model.sizes.dtype

    def fuse(shift, params, text_tokens, ids, image_tokens):
        place = {"fusion_encoder": {f"layer_{layer}": {"cross_attention": {"weights": shift}}}}
        fused, kept = model.apply(
            {"params": params, ATTENTION_SHIFT: place},
            text_tokens.astype(dtype),
            ids,
            image_tokens.astype(dtype),
            method="fuse",
            mutable=[ATTENTION],
        )
        (weights,) = jax.tree.leaves(kept)
        return fused, weights

    return fuse


def _weighted(weights, gradient):
    """mean_h A * max(gradient, 0) without the image's [CLS]: float32 [..., n - 1] of arrays [h, ..., n]."""
    weights, gradient = (x[..., 1:].astype(jnp.float32) for x in (weights, gradient))
    return jnp.mean(weights * jnp.maximum(gradient, 0), axis=0)


@functools.lru_cache(maxsize=8)
def _compiled_maps(model: Any, layer: int):
    sizes, fuse = model.sizes, _shifted(model, layer)

    def match(shift, params, *inputs):
        fused, weights = fuse(shift, params, *inputs)
        logits = model.apply({"params": params}, fused, method="match")[0]
        return logits[1], (weights, logits)

    @jax.jit
    def maps(params, image_tokens, text_tokens, ids):
        shift = jnp.zeros((1, sizes.text_heads, ids.shape[1], image_tokens.shape[1]), sizes.dtype)
        gradient, (weights, logits) = jax.grad(match, has_aux=True)(shift, params, text_tokens, ids, image_tokens)
        return jnp.where((ids[0] != PAD_ID)[:, None], _weighted(weights[0], gradient[0]), 0), logits

    return maps


@functools.lru_cache(maxsize=8)
def _compiled_masked_maps(model: Any, layer: int, mask_id: int):
    sizes, fuse = model.sizes, _shifted(model, layer)

    @jax.jit
    def maps(params, image_tokens, ids):
        shift = jnp.zeros((1, sizes.text_heads, ids.shape[1], image_tokens.shape[1]), sizes.dtype)

        def of_token(place):
            masked = jnp.where(jnp.arange(ids.shape[1])[None] == place, mask_id, ids)
            text_tokens = model.apply({"params": params}, masked, method="encode_text")["tokens"]

            def score(shift):
                fused, weights = fuse(shift, params, text_tokens, masked, image_tokens)
                logits = model.apply({"params": params}, fused[:, place][:, None], method="predict_tokens")
                return jax.nn.log_softmax(logits[0, 0])[ids[0, place]], weights

            gradient, weights = jax.grad(score, has_aux=True)(shift)
            return _weighted(weights[0, :, place], gradient[0, :, place])

        shown = jax.lax.map(of_token, jnp.arange(ids.shape[1], dtype=jnp.int32))
        return jnp.where((ids[0] != PAD_ID)[:, None], shown, 0)

    return maps


def join_pieces(tokens: list[str]) -> tuple[list[str], list[list[int]]]:
    """Words of WordPiece tokens, [CLS] left out: (words, [places of the pieces of each word]).

    A token that stands for a word outside the vocabulary is shown as `UNKNOWN`.
    """
    words: list[str] = []
    places: list[list[int]] = []
    for place, token in enumerate(tokens[1:], 1):
        if token.startswith("##") and words:
            words[-1] += token[2:]
            places[-1].append(place)
        else:
            words.append(UNKNOWN if token == "[UNK]" else token)
            places.append([place])
    return words, places


def word_maps(token_maps: np.ndarray, places: list[list[int]]) -> np.ndarray:
    """The mean map of the pieces of each word: float32 [W, g, g]."""
    grid = token_maps.shape[1:]
    return np.stack([token_maps[rows].mean(axis=0) for rows in places]) if places else np.zeros((0, *grid), np.float32)
