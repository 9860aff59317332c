"""Word embeddings for a small text encoder, taken from what a pretrained BERT makes of each word.

A small model trained on few captions knows few words. A BERT trained on sentences knows them all: its pooled output
for a word alone lies near that of words with a similar meaning. Reduced by principal components to the small model's
width, these vectors become its word embeddings, so that a word no caption has is still close to its synonyms.
"""

from __future__ import annotations

import os
from typing import Any

import flax
import jax
import numpy as np

from cbalign.data.text import SPECIAL_TOKENS
from cbalign.errors import UserError
from cbalign.models.alignment import AlignmentModel
from cbalign.models.towers import Sizes, text_tower
from cbalign.weights import weights_folder
from cbalign.weights.checkpoint_files import Checkpoint, read_checkpoint
from cbalign.weights.convert import match_checkpoint

_TABLE = "params/text_encoder/embeddings/word/embedding"
_BATCH = 512


def write_word_embeddings(
    checkpoint: os.PathLike | str, out: os.PathLike | str, *, width: int, vocabulary_size: int, init_std: float
) -> dict[str, Any]:
    """Writes a folder with the word embeddings alone, for `config.init.weights`.

    Args:
      checkpoint: of a BERT with its vocab.txt and config.json: a folder that transformers saved, or a name on the hub.
      out: a new folder.
      width: the text width of the run to come, at most the checkpoint's.
      vocabulary_size: words and word pieces that are kept, see `choose_words`.
      init_std: of the run's initial weights; the embeddings' root-mean-square becomes twice as large, so that words
        outweigh the positions that are added to them.

    Returns:
      The content of weights.json; `info["kept_variance"]` is the share of variance that the components keep.

    Raises:
      UserError: the checkpoint is no BERT with a vocabulary, or is narrower than `width`.
    """
    weights_folder.check_new_folder(out)
    read = read_checkpoint(checkpoint)
    if read.vocabulary is None or read.config is None:
        raise UserError(f"{read.path} has no vocab.txt or no config.json; give the folder that transformers saved")
    if read.config.get("model_type") != "bert":
        raise UserError(f"{read.path} is a {read.config.get('model_type')} model; name one of the type bert")
    if read.config["hidden_size"] < width:
        raise UserError(
            f"the checkpoint is {read.config['hidden_size']} wide, less than model.text_width={width}; lower the width"
        )
    words = choose_words(read.vocabulary, vocabulary_size)
    # [PAD] is the first; it is never attended to and its embedding stays zero.
    ids = [read.vocabulary.index(word) for word in words[1:]]
    reduced, kept = principal_components(pooled_words(read, ids), width)
    table = np.concatenate([np.zeros((1, width)), reduced * (2 * init_std / np.sqrt(np.mean(reduced**2)))])
    info = {
        "source": "word_embeddings",
        "checkpoint": os.path.abspath(read.path) if os.path.exists(read.path) else read.path,
        "sha256": read.sha256(),
        "sizes": {"text_width": width, "vocab_size": len(words)},
        "vocabulary": weights_folder.words_info(words),
        "kept_variance": round(float(kept), 4),
    }
    weights_folder.write_weights(out, {_TABLE: table.astype(np.float32)}, info, words)
    return info


def choose_words(vocabulary: list[str], size: int) -> list[str]:
    """The special tokens, the ASCII characters and the most frequent words and pieces of a BERT vocabulary.

    BERT's vocabularies list words by falling frequency, after unused slots and the characters of all scripts.
    """
    special = [word for word in SPECIAL_TOKENS if word in vocabulary]
    plain = [word for word in vocabulary if word.isascii() and not (word.startswith("[") and word.endswith("]"))]
    characters = [word for word in plain if len(word.removeprefix("##")) == 1]
    rest = [word for word in plain if len(word.removeprefix("##")) > 1]
    required = [*special, *characters]
    if size < len(required):
        raise UserError(f"data.vocabulary_size={size} has no room for the {len(required)} characters; raise it")
    return [*required, *rest[: size - len(required)]]


def pooled_words(read: Checkpoint, ids: list[int]) -> np.ndarray:
    """The mean of a BERT's output states for [CLS] token [SEP], float32 [n, width], one row for each token id."""
    found = read.config or {}
    sizes = Sizes(
        image_size=1,
        patch_size=1,
        image_width=1,
        image_depth=1,
        image_heads=1,
        vocab_size=found["vocab_size"],
        max_positions=found["max_position_embeddings"],
        text_width=found["hidden_size"],
        text_depth=found["num_hidden_layers"],
        text_heads=found["num_attention_heads"],
        fusion_depth=1,
        mlp_ratio=found["intermediate_size"] // found["hidden_size"],
        dropout=0.0,
    )
    matched = match_checkpoint("bert", read.tensors, AlignmentModel(sizes, 1, 1), queue_size=1)
    prefix = "params/text_encoder/"
    flat = {name.removeprefix(prefix): x for name, x in matched.arrays.items() if name.startswith(prefix)}
    params = flax.traverse_util.unflatten_dict(flat, sep="/")
    encoder = text_tower(sizes)

    @jax.jit
    def pooled(tokens):
        return encoder.apply({"params": params}, tokens).mean(1)

    start, end = (read.vocabulary.index(word) for word in ("[CLS]", "[SEP]"))
    tokens = np.stack([np.full(len(ids), start), np.asarray(ids), np.full(len(ids), end)], axis=1).astype(np.int32)
    padded = np.concatenate([tokens, np.repeat(tokens[-1:], -len(tokens) % _BATCH, axis=0)])
    rows = [np.asarray(pooled(padded[i : i + _BATCH])) for i in range(0, len(padded), _BATCH)]
    return np.concatenate(rows)[: len(ids)]


def principal_components(rows: np.ndarray, width: int) -> tuple[np.ndarray, float]:
    """The projection of unit-normed, centred rows [n, d] onto their first `width` components, and the variance kept."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    centred = (unit - unit.mean(0)).astype(np.float64)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    vectors = vectors[:, ::-1][:, :width]
    return centred @ vectors, float(values[::-1][:width].sum() / values.sum())
