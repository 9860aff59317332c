"""Conversion of a public checkpoint into a folder that a run can start from."""

import functools
import os

import flax
import jax
import numpy as np

from cbalign.data.text import load_tokenizer
from cbalign.errors import UserError
from cbalign.weights import key_matching
from cbalign.weights import folder
from cbalign.weights import SOURCES
from cbalign.weights.checkpoint_files import Checkpoint, read_checkpoint
from cbalign.weights.conversion_report import make_report
from cbalign.tasks.pretrain import build_model

_MODEL_TYPES = {"deit": ("deit", "vit"), "vit": ("vit", "deit"), "bert": ("bert",)}


def convert(source: str, checkpoint, config, out) -> dict:
    """Converts a checkpoint and writes it to a new folder, for `config.init.weights`.

    Args:
      source: one of `cbalign.weights.SOURCES`.
      checkpoint: a .pth, .bin or .safetensors file, a folder of transformers, or a name on the hub.
      config: of the run to come; its sizes must be the checkpoint's, its resolution may be another.
      out: a new folder.

    Returns:
      What weights.json says; `report.format_report` makes text of it.

    Raises:
      UserError: whatever keeps the checkpoint from fitting, exactly.
    """
    if source not in SOURCES:
        raise UserError(f"unknown source {source!r}; it is one of {', '.join(SOURCES)}")
    folder.check_new_folder(out)
    read = read_checkpoint(checkpoint)
    tokenizer = None if source in ("deit", "vit") else _tokenizer(config, read)
    model = build_model(config, vocab_size=len(tokenizer) if tokenizer else config.data.vocabulary_size)
    remarks = _check_config(source, read.config, model)
    matched = match_checkpoint(source, read.tensors, model, queue_size=config.queue.size)
    info = {
        "source": source, "layout": matched.title,
        "checkpoint": os.path.abspath(read.path) if os.path.exists(read.path) else read.path,
        "sha256": read.sha256(),
        "image_size": None if matched.resolution is None else model.image_size,
        "source_image_size": matched.resolution,
        "sizes": folder.sizes(model),
        "vocabulary": folder.vocabulary_info(tokenizer) if tokenizer else None,
        "report": make_report(matched, param_shapes(model), remarks),
    }
    folder.write_weights(out, matched.arrays, info)
    return info


def match_checkpoint(source: str, tensors: dict, model, *, queue_size: int) -> key_matching.Matched:
    """`key_matching.match` for a model: the source's table, chosen and applied."""
    table = key_matching.choose_table(
        source, tensors, image_depth=model.image_depth, text_depth=model.text_depth, fusion_depth=model.fusion_depth,
        max_positions=model.max_positions,
    )
    return key_matching.match(tensors, table, param_shapes(model), image_size=model.image_size,
                          patch_size=model.patch_size, queue_size=queue_size)


@functools.lru_cache(maxsize=8)
def param_shapes(model) -> dict:
    """{"params/...": shape} of every parameter of an `AlignmentModel`, without making one."""
    image, ids = np.zeros((1, model.image_size, model.image_size, 3), np.uint8), np.ones((1, 1), np.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), image, ids)["params"]
    return {f"params/{name}": leaf.shape for name, leaf in flax.traverse_util.flatten_dict(params, sep="/").items()}


def _tokenizer(config, read: Checkpoint):
    """The tokenizer of the config's vocabulary, which must be the checkpoint's own where that is told."""
    if not config.data.vocabulary:
        raise UserError("the config trains a vocabulary of its own (data.vocabulary is empty), which a pretrained text "
                        "encoder does not know; name the checkpoint's, as --config.data.vocabulary=bert-base-uncased")
    tokenizer = load_tokenizer(config.data.vocabulary)
    tokens = folder.vocabulary_tokens(tokenizer)
    if read.vocabulary is not None and read.vocabulary != tokens:
        differing = sum(a != b for a, b in zip(read.vocabulary, tokens)) + abs(len(read.vocabulary) - len(tokens))
        raise UserError(f"data.vocabulary={config.data.vocabulary} is not the checkpoint's: {differing} tokens differ; "
                        f"use --config.data.vocabulary={read.path}")
    return tokenizer


def _check_config(source: str, found: dict | None, model) -> list:
    """Checks what only a config.json tells; returns remarks on what could not be checked."""
    tower = "image" if source in ("deit", "vit") else "text"
    heads = getattr(model, f"{tower}_heads")
    if found is None or source not in _MODEL_TYPES:
        return [f"the file does not tell its number of heads; the config's {heads} is taken"]
    wrong = []
    if found.get("model_type") not in _MODEL_TYPES[source]:
        wrong.append(f"model_type is {found.get('model_type')!r}, of --source={source} it is "
                     f"{' or '.join(_MODEL_TYPES[source])}")
    expected = (("num_attention_heads", heads), ("hidden_act", "gelu"), ("position_embedding_type", "absolute"))
    for key, wanted in expected:
        if found.get(key, wanted) != wanted:
            field = f"model.{tower}_heads" if key == "num_attention_heads" else "this model"
            wrong.append(f"{key} is {found[key]!r} in the checkpoint, {wanted!r} in {field}")
    if wrong:
        raise UserError(f"the checkpoint does not fit the config: {'; '.join(wrong)}")
    return []
