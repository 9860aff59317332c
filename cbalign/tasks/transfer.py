"""How parameters pass from one task to the next, under the renames that the tasks declare; nothing is dropped silently.

The source is one or several sets of weights, merged into {"params/...", "teacher/...", "queue/...": array} by
`cbalign.weights.loading.combine`. The target is a fresh `TrainState`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import flax
import jax
import numpy as np

from cbalign.errors import UserError
from cbalign.models.positions import grid_side, resize_positions
from cbalign.training.momentum_queue import Queue
from cbalign.training.state import TrainState

# The id of a queue entry from other weights: written, but no image of this run's data set.
FOREIGN_ID = np.iinfo(np.int32).max

_VOCABULARY_ROWS = (
    "text_encoder/embeddings/word/embedding",
    "answer_embeddings/word/embedding",
    "masked_token_head/bias",
    "answer_head/bias",
)
_IMAGE_POSITIONS = "image_encoder/position_embedding"
_TEXT_POSITIONS = ("text_encoder/embeddings/position/embedding", "answer_embeddings/position/embedding")


@dataclasses.dataclass(frozen=True)
class Transfer:
    """How the parameters of one task follow from those of another.

    Attributes:
      renames: (pattern of a whole name in the target, name in the source), tried in order; a name that no pattern
        matches is the same in both.
      fresh: patterns of names in the target that keep their initial values where the source lacks them. (".*",) allows
        partial weights.
      unused: patterns of names in the source that the target does not use.
    """

    renames: tuple[tuple[str, str], ...] = ()
    fresh: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def source_of(self, name: str) -> str:
        """The name in the source of a parameter of the target."""
        for pattern, source in self.renames:
            if match := re.fullmatch(pattern, name):
                return match.expand(source)
        return name


@dataclasses.dataclass(frozen=True)
class Report:
    """What a transfer did; `str(report)` is one line for the log.

    Attributes:
      taken, renamed, fresh: names of the target's parameters.
      unused: names of the source's parameters that were left out.
      teacher: where the target's teacher comes from: "weights", "student", or "" where it has none.
      queue: where its momentum queues come from: "weights", "initial", or "" where it has none.
      notes: further remarks.
    """

    taken: tuple[str, ...] = ()
    renamed: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    teacher: str = ""
    queue: str = ""
    notes: tuple[str, ...] = ()

    def __str__(self):
        modules = dict.fromkeys(name.partition("/")[0] for name in self.fresh)
        counts = (
            f"{len(self.taken)} arrays taken, {len(self.renamed)} renamed, {len(self.fresh)} initialised"
            + (f" ({', '.join(modules)})" if modules else "")
            + f", {len(self.unused)} unused"
        )
        teacher = {"weights": "teacher from the weights", "student": "teacher is a copy of the student"}
        queue = {"weights": "queues from the weights", "initial": "queues start empty"}
        parts = (counts, teacher.get(self.teacher), queue.get(self.queue), *self.notes)
        return "; ".join(part for part in parts if part)


def find_transfer(starts_from: Mapping[str, Transfer], source_task: str, *, task: str, path: str) -> Transfer:
    """The declared way from a task to another.

    Args:
      starts_from: {source task: transfer} of the target.
      source_task: the task the weights were trained for.
      task, path: the target's name and where the weights are, for the message.

    Raises:
      UserError: no way is declared.
    """
    if source_task not in starts_from:
        raise UserError(
            f"init.weights: {path} was trained for {source_task}; {task} starts from weights of "
            f"{' or '.join(starts_from)}"
        )
    return starts_from[source_task]


def transfer_state(
    state: TrainState,
    arrays: Mapping[str, Any],
    transfer: Transfer,
    *,
    vocabulary=None,
    global_batch: int | None = None,
) -> tuple[TrainState, Report]:
    """A fresh state with weights in it.

    The teacher takes the source's teacher under the same renames; what that lacks is a copy of the new student. Queues
    keep the source's features under `FOREIGN_ID`, since its image ids mean nothing here; where their pointer is no
    multiple of the batch size they are rotated so that the oldest entries are still overwritten first.

    Args:
      state: as initialised.
      arrays: {"params/...", "teacher/...", "queue/...": array} of the source.
      transfer: from `find_transfer`.
      vocabulary: float32 [V here, V there] from `vocabulary_rows`, or None where both vocabularies are the same.
      global_batch: the number of entries a step writes into the queues; needed where state and source have queues.

    Returns:
      (the state, the report).

    Raises:
      UserError: see `transfer_params`.
    """
    initial, source = _flat(state.params), _section(arrays, "params")
    found, report = transfer_params(initial, source, transfer, vocabulary=vocabulary)
    params = {name: initial[name] if array is None else array for name, array in found.items()}
    teacher = {name: np.array(params[name]) for name in _flat(state.teacher)}
    taken, _ = transfer_params(
        teacher,
        _section(arrays, "teacher"),
        dataclasses.replace(transfer, fresh=(".*",)),
        vocabulary=vocabulary,
        ignored=frozenset(source),
    )
    teacher |= {name: array for name, array in taken.items() if array is not None}
    from_weights = any(array is not None for array in taken.values())
    queue, remarks = _transfer_queue(state.queue, _section(arrays, "queue"), global_batch)
    report = dataclasses.replace(
        report,
        notes=remarks,
        teacher="" if not teacher else "weights" if from_weights else "student",
        queue="" if not isinstance(state.queue, Queue) else "initial" if queue is state.queue else "weights",
    )
    return state.replace(params=_tree(params), teacher=_tree(teacher), queue=queue), report


def transfer_params(
    target: Mapping[str, Any],
    source: Mapping[str, Any],
    transfer: Transfer,
    *,
    vocabulary=None,
    ignored: frozenset = frozenset(),
) -> tuple[dict, Report]:
    """Finds the values of one tree of parameters.

    Args:
      target: {name: array or anything with a shape}.
      source: {name: array}.
      transfer: renames, fresh and unused names.
      vocabulary: see `transfer_state`.
      ignored: names in the source that may be left out beside `transfer.unused`.

    Returns:
      ({name in the target: array, None for a fresh one}, report). Image positions are interpolated to the target's
      grid, text positions cut to its length; no two arrays share memory with each other.

    Raises:
      UserError: a parameter without a source that is not declared fresh, a source that is neither used nor declared
        unused, or another shape.
    """
    found, groups, used = {}, {"taken": [], "renamed": [], "fresh": []}, set()
    missing, differing = [], []
    for name, like in target.items():
        origin = transfer.source_of(name)
        if origin not in source:
            (groups["fresh"] if _matches(transfer.fresh, name) else missing).append(name)
            found[name] = None
            continue
        array = _fit(name, np.asarray(source[origin]), np.shape(like), vocabulary)
        if array.shape != np.shape(like):
            differing.append(f"{name} has the shape {array.shape} in the weights and {np.shape(like)} in the model")
        found[name] = np.array(array) if origin in used else array
        used.add(origin)
        groups["taken" if origin == name else "renamed"].append(name)
    unused = [name for name in source if name not in used]
    unknown = [name for name in unused if name not in ignored and not _matches(transfer.unused, name)]
    if missing:
        raise UserError(f"init.weights lack {_some(missing)}; name weights of a task that leads to this one")
    if unknown:
        raise UserError(
            f"init.weights hold {_some(unknown)}, which the model of this config does not have; use the "
            "model section the weights were trained with"
        )
    if differing:
        raise UserError(
            f"init.weights do not fit: {_some(differing)}; use the model section the weights were trained with"
        )
    return found, Report(unused=tuple(unused), **{group: tuple(names) for group, names in groups.items()})


def vocabulary_rows(here: Sequence[str], there: Sequence[str]) -> np.ndarray:
    """How the rows of a vocabulary follow from those of another.

    Args:
      here: the words of the target, by id.
      there: the words of the source, by id.

    Returns:
      float32 [here, there]: a word of both takes its row, a new one the mean of the word pieces it is split into.
    """
    place = {word: i for i, word in enumerate(there)}
    rows = np.zeros((len(here), len(there)), np.float32)
    for i, word in enumerate(here):
        pieces = [word] if word in place else word_pieces(word, place)
        for piece in pieces:
            rows[i, place[piece]] += 1 / len(pieces)
    return rows


def word_pieces(word: str, vocabulary) -> list[str]:
    """Greedy longest-first word pieces, as BERT splits a word; ["[UNK]"] where that fails."""
    pieces, start = [], 0
    while start < len(word):
        prefix = "##" if start else ""
        end = next((end for end in range(len(word), start, -1) if prefix + word[start:end] in vocabulary), None)
        if end is None:
            return ["[UNK]"]
        pieces.append(prefix + word[start:end])
        start = end
    return pieces


def flatten(params) -> dict[str, np.ndarray]:
    """{"module/.../name": numpy array} of a parameter tree, replicated or not."""
    return {
        name: np.asarray(x.addressable_data(0) if isinstance(x, jax.Array) else x) for name, x in _flat(params).items()
    }


def _flat(tree) -> dict:
    return flax.traverse_util.flatten_dict(tree, sep="/")


def _tree(arrays: dict) -> dict:
    return flax.traverse_util.unflatten_dict(arrays, sep="/")


def _section(arrays: Mapping[str, Any], section: str) -> dict:
    return {name.partition("/")[2]: array for name, array in arrays.items() if name.startswith(f"{section}/")}


def _fit(name: str, array: np.ndarray, shape: tuple, vocabulary) -> np.ndarray:
    """Adapts positions to the image's size or the text's length, and rows of words to the vocabulary."""
    if vocabulary is not None and name in _VOCABULARY_ROWS:
        return (vocabulary @ array).astype(np.float32)
    if name == _IMAGE_POSITIONS and array.ndim == 3 and array.shape[2:] == shape[2:]:
        return np.asarray(resize_positions(array, grid_side(shape[1] - 1)))
    if name in _TEXT_POSITIONS:
        return array[: shape[0]]
    return array


def _transfer_queue(queue: Queue | dict, source: dict, global_batch: int | None) -> tuple[Queue | dict, tuple]:
    """(the target's queue, remarks); the queue itself where nothing is taken over."""
    if not isinstance(queue, Queue) or "image" not in source:
        return queue, ()
    if source["image"].shape != queue.image.shape:
        return queue, (
            (
                f"the weights' queues of shape {source['image'].shape} are left out, since this run's are "
                f"{queue.image.shape}"
            ),
        )
    if global_batch is None:
        raise ValueError("global_batch is needed to take over queues")
    ids = np.asarray(source.get("ids", np.zeros(queue.size, np.int32)))
    rows = {
        "image": np.asarray(source["image"]),
        "text": np.asarray(source["text"]),
        "ids": np.where(ids < 0, -1, FOREIGN_ID).astype(np.int32),
    }
    pointer, remarks = int(source["pointer"]), ()
    if pointer % global_batch:
        rows = {name: np.roll(x, -pointer, axis=0) for name, x in rows.items()}
        remarks = (
            f"queues rotated by {pointer} entries, whose pointer is no multiple of train.batch_size={global_batch}",
        )
        pointer = 0
    return queue.replace(**rows, pointer=np.asarray(pointer, np.int32)), remarks


def _matches(patterns: Iterable[str], name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
