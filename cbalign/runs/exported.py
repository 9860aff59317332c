"""Reading a folder that `cbalign export` wrote as if it were a run's."""

from __future__ import annotations

import json
from typing import Any

import flax
import numpy as np
from etils import epath

from cbalign.config import check_config, from_json
from cbalign.distributed import devices
from cbalign.errors import UserError
from cbalign.weights import weights_folder


def exported_config(folder: epath.Path, name: str) -> Any:
    """The config of the run that was exported; `name` stands for the folder in messages.

    Raises:
      UserError: the folder holds converted weights, or is damaged.
    """
    info = weights_folder.read_info(folder)
    if not info.get("config"):
        raise UserError(
            f"{name} holds converted weights that a run starts from, not a trained model; train with "
            f"--config.init.weights={name} and load the run"
        )
    config = from_json(json.dumps(info["config"]))
    check_config(config)
    return config


def exported_fields(folder: epath.Path, name: str, shapes: dict, checkpoint: str) -> dict:
    """As `Run.restore`: those fields of the state that `shapes` names and the folder has.

    Raises:
      UserError: a checkpoint other than "best" is asked for, or the arrays are not those of the config.
    """
    if checkpoint != "best":
        raise UserError(
            f"{name} holds one set of weights; only the folder of a run has checkpoints, leave out "
            f"checkpoint={checkpoint}"
        )
    found = weights_folder.read_weights(folder).arrays
    fields = [field for field in shapes if field == "params" or any(key.startswith(f"{field}/") for key in found)]
    leaves: dict[str, Any] = flax.traverse_util.flatten_dict({field: shapes[field] for field in fields}, sep="/")
    present = {key: x for key, x in found.items() if key.partition("/")[0] in fields}
    wrong = list(leaves.keys() ^ present.keys())
    wrong += [key for key in leaves.keys() & present.keys() if np.shape(present[key]) != leaves[key].shape]
    if wrong:
        raise UserError(
            f"{name} does not hold the parameters of its config: {len(wrong)} are missing, unknown or of "
            f"another shape, such as {min(wrong)}; export again"
        )
    return devices.replicate(flax.traverse_util.unflatten_dict(present, sep="/"))
