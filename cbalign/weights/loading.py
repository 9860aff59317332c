"""The state a run starts with, made of a fresh one and weights from elsewhere (`config.init.weights`)."""

import math
import re

import flax
import jax
import numpy as np

from cbalign.errors import UserError
from cbalign.models.positions import resize_positions
from cbalign.weights.folder import Weights, vocabulary_info
from cbalign.training.state import TrainState

# The id of what a queue from elsewhere shows: written, but no image of this run's data set.
FOREIGN_ID = np.iinfo(np.int32).max

_POSITIONS = re.compile(r"(params|teacher)/image_encoder/position_embedding")


def combine(sources: list[Weights], *, tokenizer) -> dict:
    """The arrays of several folders in one.

    Args:
      sources: each gives other tensors.
      tokenizer: of the run; every source with a text encoder must have its vocabulary.

    Returns:
      {"params/...", "teacher/...", "queue/...": array}.

    Raises:
      UserError: two sources give the same tensor, or one was made for another vocabulary.
    """
    arrays, origin, own = {}, {}, vocabulary_info(tokenizer)
    for source in sources:
        found = source.info.get("vocabulary")
        if found and found != own:
            raise UserError(f"init.weights: {source.folder} was made for another vocabulary ({found['size']} tokens, "
                            f"this run has {own['size']}); set data.vocabulary to the one it was converted with")
        for name, array in source.arrays.items():
            if name in arrays:
                raise UserError(f"init.weights: {origin[name]} and {source.folder} both give {name}; name one of them")
            arrays[name], origin[name] = array, source.folder
    return arrays


def start_from(state: TrainState, arrays: dict) -> TrainState:
    """A fresh state with weights in their place.

    What the weights lack stays as it was initialised; the teacher is a copy of the student after loading, where the
    weights hold none; queues keep their features, but their ids, which mean nothing here, become `FOREIGN_ID`.

    Args:
      state: as made from scratch.
      arrays: from `combine`.

    Returns:
      The state; position embeddings of another resolution are interpolated.

    Raises:
      UserError: a tensor that the model does not have, or of another shape.
    """
    arrays = {name: array for name, array in arrays.items() if not name.startswith("queue/")} | _queue(state, arrays)
    params = _overlay(state.params, "params/", arrays)
    teacher = jax.tree.map(np.array, {name: params[name] for name in state.teacher})
    teacher = _overlay(teacher, "teacher/", arrays)
    queue = {name.partition("/")[2]: array for name, array in arrays.items() if name.startswith("queue/")}
    return state.replace(params=params, teacher=teacher, queue=state.queue.replace(**queue))


def _overlay(tree, prefix: str, arrays: dict):
    flat = {prefix + name: leaf for name, leaf in flax.traverse_util.flatten_dict(tree, sep="/").items()}
    given = {name: array for name, array in arrays.items() if name.startswith(prefix)}
    for name, array in given.items():
        if name not in flat:
            raise UserError(f"init.weights give {name}, which the model of this config does not have; it is smaller")
        wanted = flat[name].shape
        if _POSITIONS.fullmatch(name) and array.shape[2:] == wanted[2:]:
            array = resize_positions(array, math.isqrt(wanted[1] - 1))
        if array.shape != wanted:
            raise UserError(f"init.weights give {name} the shape {array.shape}, the model of this config has {wanted}")
        flat[name] = array
    return flax.traverse_util.unflatten_dict({name.removeprefix(prefix): leaf for name, leaf in flat.items()}, sep="/")


def _queue(state, arrays) -> dict:
    """The queue's arrays as this run's, where there are some."""
    if "queue/image" not in arrays:
        return {}
    wanted = state.queue.image.shape
    if arrays["queue/image"].shape != wanted:
        raise UserError(f"init.weights hold queues of shape {arrays['queue/image'].shape}, this config's are {wanted}; "
                        "convert again with this config, or set queue.size to theirs")
    ids = arrays.get("queue/ids", np.zeros(wanted[0], np.int32))
    return {"queue/image": arrays["queue/image"], "queue/text": arrays["queue/text"],
            "queue/pointer": arrays["queue/pointer"], "queue/ids": np.where(ids < 0, -1, FOREIGN_ID).astype(np.int32)}
