"""Conversion of a public checkpoint into a folder that a run can start from."""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import Any

import flax
import jax
import numpy as np

from cbalign.data.text import load_tokenizer
from cbalign.errors import UserError
from cbalign.models.alignment import AlignmentModel
from cbalign.models.towers import Sizes
from cbalign.weights import SOURCES, key_matching, weights_folder
from cbalign.weights.checkpoint_files import Checkpoint, read_checkpoint
from cbalign.weights.conversion_report import make_report

_IMAGE_SOURCES = ("deit", "vit")
_MODEL_TYPES = {"deit": ("deit", "vit"), "vit": ("vit", "deit"), "bert": ("bert",)}


def convert(
    source: str,
    checkpoint: os.PathLike | str,
    out: os.PathLike | str,
    *,
    sizes: Sizes,
    embed_dim: int,
    num_codes: int,
    queue_size: int,
    vocabulary: str,
) -> dict[str, Any]:
    """Converts a checkpoint and writes it to a new folder, for `config.init.weights`.

    Args:
      source: one of `cbalign.weights.SOURCES`.
      checkpoint: a .pth, .bin or .safetensors file, a folder that transformers saved, or a name on the hub.
      out: a new folder.
      sizes: of the run to come, equal to the checkpoint's but for the resolution; `vocab_size` only matters to image
        encoders, otherwise it is that of `vocabulary`.
      embed_dim, num_codes: of the run's `AlignmentModel`.
      queue_size: of the run; queues of another size are left out.
      vocabulary: as in `config.data.vocabulary`, which must name the checkpoint's own where it has a text encoder.

    Returns:
      The content of weights.json; `conversion_report.format_report` turns it into text.

    Raises:
      UserError: the checkpoint does not fit; the message names every difference.
    """
    if source not in SOURCES:
        raise UserError(f"unknown source {source!r}; it is one of {', '.join(SOURCES)}")
    weights_folder.check_new_folder(out)
    read = read_checkpoint(checkpoint)
    tokenizer = None if source in _IMAGE_SOURCES else _tokenizer(vocabulary, read)
    if tokenizer:
        sizes = dataclasses.replace(sizes, vocab_size=len(tokenizer))
    model = AlignmentModel(sizes, embed_dim, num_codes)
    remarks = read.notes + _check_config(source, read.config, sizes)
    matched = match_checkpoint(source, read.tensors, model, queue_size=queue_size)
    info = {
        "source": source,
        "layout": matched.title,
        "checkpoint": os.path.abspath(read.path) if os.path.exists(read.path) else read.path,
        "sha256": read.sha256(),
        "image_size": None if matched.resolution is None else sizes.image_size,
        "source_image_size": matched.resolution,
        "sizes": weights_folder.model_sizes(model),
        "vocabulary": weights_folder.vocabulary_info(tokenizer) if tokenizer else None,
        "report": make_report(matched, param_shapes(model), remarks),
    }
    words = weights_folder.vocabulary_tokens(tokenizer) if tokenizer else None
    weights_folder.write_weights(out, matched.arrays, info, words)
    return info


def match_checkpoint(source: str, tensors: dict, model: AlignmentModel, *, queue_size: int) -> key_matching.Matched:
    """Chooses the source's key table for these tensors and matches them to the model, see `key_matching.match`."""
    sizes = model.sizes
    table = key_matching.choose_table(
        source,
        tensors,
        image_depth=sizes.image_depth,
        text_depth=sizes.text_depth,
        fusion_depth=sizes.fusion_depth,
        max_positions=sizes.max_positions,
    )
    return key_matching.match(
        tensors,
        table,
        param_shapes(model),
        image_size=sizes.image_size,
        patch_size=sizes.patch_size,
        queue_size=queue_size,
    )


@functools.lru_cache(maxsize=8)
def param_shapes(model: AlignmentModel) -> dict[str, tuple]:
    """{"params/...": shape} of every parameter, computed without initialising any."""
    size = model.sizes.image_size
    image, ids = np.zeros((1, size, size, 3), np.uint8), np.ones((1, 1), np.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), image, ids)["params"]
    return {f"params/{name}": leaf.shape for name, leaf in flax.traverse_util.flatten_dict(params, sep="/").items()}


def _tokenizer(vocabulary: str, read: Checkpoint):
    """The tokenizer of the config's vocabulary; it must be the checkpoint's own where the checkpoint has one."""
    if not vocabulary:
        raise UserError(
            "the config trains a vocabulary of its own (data.vocabulary is empty), but a pretrained text "
            "encoder needs its own; name the checkpoint's, as --config.data.vocabulary=bert-base-uncased"
        )
    tokenizer = load_tokenizer(vocabulary)
    tokens = weights_folder.vocabulary_tokens(tokenizer)
    if read.vocabulary is not None and read.vocabulary != tokens:
        differing = sum(a != b for a, b in zip(read.vocabulary, tokens)) + abs(len(read.vocabulary) - len(tokens))
        raise UserError(
            f"data.vocabulary={vocabulary} is not the checkpoint's: {differing} tokens differ; "
            f"use --config.data.vocabulary={read.path}"
        )
    return tokenizer


def _check_config(source: str, found: dict | None, sizes: Sizes) -> list[str]:
    """Checks what only a config.json says; returns remarks on what could not be checked."""
    tower = "image" if source in _IMAGE_SOURCES else "text"
    heads = getattr(sizes, f"{tower}_heads")
    if found is None or source not in _MODEL_TYPES:
        return [f"the file does not say how many heads it has; the config's {heads} are assumed"]
    wrong = []
    if found.get("model_type") not in _MODEL_TYPES[source]:
        wrong.append(
            f"model_type is {found.get('model_type')!r}, of --source={source} it is {' or '.join(_MODEL_TYPES[source])}"
        )
    expected = (("num_attention_heads", heads), ("hidden_act", "gelu"), ("position_embedding_type", "absolute"))
    for key, wanted in expected:
        if found.get(key, wanted) != wanted:
            field = f"model.{tower}_heads" if key == "num_attention_heads" else "this model"
            wrong.append(f"{key} is {found[key]!r} in the checkpoint, {wanted!r} in {field}")
    if wrong:
        raise UserError(f"the checkpoint does not fit the config: {'; '.join(wrong)}")
    return []
