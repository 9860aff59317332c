"""Exports trained weights as a state dict that ALBEF's own code loads."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from cbalign.errors import UserError
from cbalign.models.alignment import AlignmentModel
from cbalign.weights import key_tables, weights_folder
from cbalign.weights.checkpoint_files import import_torch

_ALBEF_FILE = "albef.pth"


def export_albef(
    out: os.PathLike | str, arrays: Mapping[str, np.ndarray], model: AlignmentModel, *, settings: Mapping[str, Any]
) -> str:
    """Writes `albef.pth` and ALBEF's own config files; returns the path of the first.

    ALBEF's `Pretrain.py` and `Retrieval.py` load the file: {"model": state dict, "config", "epoch"}. Codebook and queue
    ids, for which ALBEF has no place, are beside them under "cbalign".

    Args:
      out: a new local folder.
      arrays: {"params/...", "teacher/...", "queue/...": array}.
      model: the model; ALBEF's published code itself only supports B/16 and BERT-base.
      settings: {"queue_size", "momentum", "temp", ...} by ALBEF's names; sizes are added.

    Raises:
      UserError: the folder is not empty or not local, or PyTorch is not installed.
    """
    torch = import_torch("to export for ALBEF")
    if "://" in str(out):
        raise UserError(f"--out={out}: an ALBEF file can only be written to a local folder")
    out = weights_folder.check_new_folder(out)
    state, own = albef_state(arrays, model)

    def tensors(named):
        return {name: torch.from_numpy(np.array(array, order="C")) for name, array in named.items()}

    described = {
        "image_res": model.sizes.image_size,
        "vision_width": model.sizes.image_width,
        "embed_dim": model.embed_dim,
        "bert_config": "config_bert.json",
        **settings,
    }
    out.mkdir(parents=True, exist_ok=True)
    torch.save({"model": tensors(state), "cbalign": tensors(own), "config": described, "epoch": 0}, out / _ALBEF_FILE)
    (out / "config.json").write_text(json.dumps(described, indent=2) + "\n")
    (out / "config_bert.json").write_text(json.dumps(_bert_config(model.sizes), indent=2) + "\n")
    return str(epath.Path(out) / _ALBEF_FILE)


def albef_state(arrays: Mapping[str, np.ndarray], model: AlignmentModel) -> tuple[dict, dict]:
    """(state dict by ALBEF's names, what ALBEF has no place for), of arrays by this project's names."""
    sizes = model.sizes
    table = key_tables.albef_table(
        image_depth=sizes.image_depth,
        text_depth=sizes.text_depth,
        fusion_depth=sizes.fusion_depth,
        max_positions=sizes.max_positions,
    )
    state = {**to_theirs(arrays, table), **table.buffers}
    own = {name: state.pop(name) for name in list(state) if name.startswith("cbalign.")}
    # ALBEF's pretraining loads strictly and has no queue of ids.
    own |= {f"cbalign.{name}": state.pop(name) for name in ("idx_queue",) if name in state}
    return state, {name.removeprefix("cbalign."): array for name, array in own.items()}


def to_theirs(arrays: Mapping[str, np.ndarray], table: key_tables.Table) -> dict[str, np.ndarray]:
    """{name in the checkpoint: array} of all tensors of a table whose group is complete in `arrays`."""
    absent = {
        entry.group for entry in table.entries if not entry.copy and not all(name in arrays for name in entry.ours)
    }
    return {
        entry.theirs: entry.layout.to_theirs(*(arrays[name] for name in entry.ours))
        for entry in table.entries
        if entry.group not in absent
    }


def _bert_config(sizes) -> dict[str, Any]:
    """ALBEF's `configs/config_bert.json`."""
    return {
        "architectures": ["BertForMaskedLM"],
        "attention_probs_dropout_prob": sizes.dropout,
        "hidden_act": "gelu",
        "hidden_dropout_prob": sizes.dropout,
        "hidden_size": sizes.text_width,
        "initializer_range": sizes.init_std,
        "intermediate_size": sizes.mlp_ratio * sizes.text_width,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": sizes.max_positions,
        "model_type": "bert",
        "num_attention_heads": sizes.text_heads,
        "num_hidden_layers": sizes.text_depth + sizes.fusion_depth,
        "pad_token_id": 0,
        "type_vocab_size": 2,
        "vocab_size": sizes.vocab_size,
        "fusion_layer": sizes.text_depth,
        "encoder_width": sizes.image_width,
    }
