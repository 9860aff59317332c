"""Trained weights as a state dict that ALBEF's own code loads."""

import json

import numpy as np
from etils import epath

from cbalign.errors import UserError
from cbalign.weights import folder
from cbalign.weights import key_tables
from cbalign.weights.checkpoint_files import import_torch

_ALBEF_FILE = "albef.pth"


def export_albef(out, arrays: dict, model, *, config: dict) -> str:
    """Writes `albef.pth` and ALBEF's own config files; returns the path of the first.

    The file is what ALBEF's `Pretrain.py` and `Retrieval.py` load: {"model": state dict, "config", "epoch"}. The
    codebook and the ids of the queue, for which ALBEF has no place, stand beside them under "cbalign".

    Args:
      out: a new folder.
      arrays: {"params/...", "teacher/...", "queue/...": array}, as `of_run.run_arrays` gives them.
      model: the `AlignmentModel`; ALBEF's published code itself is fixed to B/16 and BERT-base.
      config: ALBEF's names for a few settings, such as {"queue_size", "momentum", "temp"}; sizes are added.
    """
    torch = import_torch("to export for ALBEF")
    if "://" in str(out):
        raise UserError(f"--out={out}: an ALBEF file is written to a local folder only")
    out = folder.check_new_folder(out)
    state, own = albef_state(arrays, model)

    def tensors(named):
        return {name: torch.from_numpy(np.array(array, order="C")) for name, array in named.items()}

    sizes = {"image_res": model.image_size, "vision_width": model.image_width, "embed_dim": model.embed_dim,
             "bert_config": "config_bert.json"}
    out.mkdir(parents=True, exist_ok=True)
    torch.save({"model": tensors(state), "cbalign": tensors(own), "config": {**sizes, **config}, "epoch": 0},
               out / _ALBEF_FILE)
    (out / "config.json").write_text(json.dumps({**sizes, **config}, indent=2) + "\n")
    (out / "config_bert.json").write_text(json.dumps(_bert_config(model), indent=2) + "\n")
    return str(epath.Path(out) / _ALBEF_FILE)


def albef_state(arrays: dict, model) -> tuple[dict, dict]:
    """(state dict by ALBEF's names, what ALBEF has no place for), of arrays by this project's names."""
    table = key_tables.albef_table(image_depth=model.image_depth, text_depth=model.text_depth,
                               fusion_depth=model.fusion_depth, max_positions=model.max_positions)
    state = {**to_theirs(arrays, table), **table.buffers}
    own = {name: state.pop(name) for name in list(state) if name.startswith("cbalign.")}
    # The ids would be one tensor too many for ALBEF's pretraining, which loads strictly.
    own |= {f"cbalign.{name}": state.pop(name) for name in ("idx_queue",) if name in state}
    return state, {name.removeprefix("cbalign."): array for name, array in own.items()}


def to_theirs(arrays: dict, table: key_tables.Table) -> dict:
    """{name there: array} of every tensor of a table whose group is whole among `arrays`."""
    absent = {entry.group for entry in table.entries
              if not entry.copy and not all(name in arrays for name in entry.ours)}
    return {entry.theirs: entry.layout.to_theirs(*(arrays[name] for name in entry.ours))
            for entry in table.entries if entry.group not in absent}


def _bert_config(model) -> dict:
    """ALBEF's `configs/config_bert.json` for a model."""
    return {
        "architectures": ["BertForMaskedLM"], "attention_probs_dropout_prob": model.dropout, "hidden_act": "gelu",
        "hidden_dropout_prob": model.dropout, "hidden_size": model.text_width, "initializer_range": model.init_std,
        "intermediate_size": model.mlp_ratio * model.text_width, "layer_norm_eps": 1e-12,
        "max_position_embeddings": model.max_positions, "model_type": "bert", "num_attention_heads": model.text_heads,
        "num_hidden_layers": model.text_depth + model.fusion_depth, "pad_token_id": 0, "type_vocab_size": 2,
        "vocab_size": model.vocab_size, "fusion_layer": model.text_depth, "encoder_width": model.image_width,
    }
