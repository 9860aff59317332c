"""Matches the tensors of a checkpoint to this project's parameters: each is taken, declared unused, or an error."""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from cbalign.errors import UserError
from cbalign.models.positions import grid_side, resize_positions
from cbalign.weights import key_tables

# Tensor names listed in a message.
_MAX_LISTED = 4

_POSITIONS = "image_encoder/position_embedding"
_WORDS = "params/text_encoder/embeddings/word/embedding"
# {size: (parameter, axis) that the checkpoint's size is read from}.
_ANCHORS = {
    "model.image_width": ("params/image_encoder/cls_token", 2),
    "model.text_width": (_WORDS, 1),
    "the vocabulary's size": (_WORDS, 0),
    "model.max_positions": ("params/text_encoder/embeddings/position/embedding", 0),
    "model.embed_dim": ("params/image_projection/bias", 0),
    "codebook.num_codes": ("params/codebook/codes", 0),
}


@dataclasses.dataclass
class Matched:
    """A checkpoint matched to this project's parameters.

    Attributes:
      title: of the table used.
      arrays: {name in this project: float32 array}, see `key_tables`.
      pairs: (name in the checkpoint, names in this project) of every tensor taken.
      unused: (name in the checkpoint, reason) of every tensor left out.
      initialised: parameters of this project that the checkpoint lacks.
      resolution: side of its training images in pixels, or None without an image encoder.
      parameters: {module of this project: (number, sum of squares) in the checkpoint}, before any adaptation.
      notes: remarks for the report.
    """

    title: str
    arrays: dict[str, np.ndarray]
    pairs: list[tuple[str, tuple[str, ...]]]
    unused: list[tuple[str, str]]
    initialised: list[str]
    resolution: int | None
    parameters: dict[str, tuple[int, float]]
    notes: list[str]


def choose_table(
    source: str, names, *, image_depth: int, text_depth: int, fusion_depth: int, max_positions: int
) -> key_tables.Table:
    """The table of a source that fits these tensors; compares their numbers of layers with the model's.

    Raises:
      UserError: the tensors belong to another family, or have other numbers of layers.
    """
    likely = key_tables.looks_like(names)
    families = {"tcl": "albef", "deit": "vit"}
    if families.get(likely, likely) != families.get(source, source):
        hint = f"they look like --source={likely}" if likely else "they are of no known kind"
        raise UserError(f"no tensors of a {source} checkpoint in this file; {hint}")
    differences = []

    def compare(field, found, wanted):
        if found != wanted:
            differences.append(f"{field} is {wanted} in the config, {found} in the checkpoint")

    if source in ("deit", "vit"):
        choices = key_tables.image_tables(source, depth=image_depth)
        hits = [
            len({choice.spell(name) for name in names} & {entry.theirs for entry in choice.entries})
            for choice in choices
        ]
        table = choices[int(np.argmax(hits))]
        compare(
            "model.image_depth",
            key_tables.count_layers(map(table.spell, names), r"(?:blocks|layer)\.(\d+)\."),
            image_depth,
        )
    elif source == "bert":
        layers = key_tables.count_layers(names, r"encoder\.layer\.(\d+)\.")
        if layers not in (text_depth, text_depth + fusion_depth):
            differences.append(
                f"model.text_depth is {text_depth} and model.fusion_depth {fusion_depth} in the config, and the "
                f"checkpoint has {layers} layers: neither {text_depth} nor {text_depth + fusion_depth}"
            )
        table = key_tables.bert_table(text_depth=text_depth, fusion_depth=layers - text_depth)
    else:
        student = [name for name in names if "encoder_m." not in name]
        layers = key_tables.count_layers(student, r"encoder\.layer\.(\d+)\.")
        crossing = (re.search(r"layer\.(\d+)\.crossattention", name) for name in student)
        fusion = len({found.group(1) for found in crossing if found})
        compare("model.image_depth", key_tables.count_layers(student, r"blocks\.(\d+)\."), image_depth)
        compare("model.text_depth", layers - fusion, text_depth)
        compare("model.fusion_depth", fusion, fusion_depth)
        table = key_tables.albef_table(
            image_depth=image_depth, text_depth=text_depth, fusion_depth=fusion_depth, max_positions=max_positions
        )
    _refuse(differences)
    return table


def _refuse(differences) -> None:
    if differences:
        raise UserError(f"the checkpoint does not fit the config: {'; '.join(differences)}")


def match(
    tensors: dict, table: key_tables.Table, shapes: dict, *, image_size: int, patch_size: int, queue_size: int
) -> Matched:
    """Matches tensors by name and converts them to this project's layout.

    Args:
      tensors: {name in the checkpoint: array}.
      table: from `choose_table`.
      shapes: {"params/...": shape} of the whole model.
      image_size: pixels; position embeddings are interpolated to its grid.
      patch_size: pixels.
      queue_size: Q; queues of another size are left out.

    Raises:
      UserError: undeclared names, missing tensors, sizes or shapes that differ.
    """
    spelled, unused = _declared(tensors, table)
    present = _groups_present(spelled, table)
    arrays, pairs, notes = {}, [], []
    for entry in table.entries:
        if entry.group in present and entry.theirs in spelled:
            _take(entry, spelled, arrays)
            pairs.append((spelled[entry.theirs][0], entry.ours))
    _check_finite(arrays, pairs)
    _drop_distillation_position(tensors, arrays, notes)
    _check_sizes(arrays, shapes, patch_size)
    parameters = module_norms(arrays)
    if "queue/image" in arrays and arrays["queue/image"].shape[0] != queue_size:
        notes.append(f"queues of {arrays['queue/image'].shape[0]} slots are left out: queue.size is {queue_size}")
        unused += [(theirs, "queue of another size") for theirs, ours in pairs if ours[0].startswith("queue/")]
        pairs = [pair for pair in pairs if not pair[1][0].startswith("queue/")]
        arrays = {name: array for name, array in arrays.items() if not name.startswith("queue/")}
    resolution = _resize_image_positions(arrays, notes, image_size=image_size, patch_size=patch_size)
    _check_shapes(arrays, shapes, queue_size, pairs)
    initialised = [name for name in shapes if name not in arrays]
    undeclared = [
        name
        for name in initialised
        if not any(re.fullmatch(p, name.removeprefix("params/")) for p in table.initialised)
    ]
    if undeclared:
        raise UserError(f"the checkpoint lacks {_some(undeclared)}, which a {table.title} checkpoint has")
    return Matched(table.title, arrays, pairs, unused, initialised, resolution, parameters, notes)


def _declared(tensors, table):
    """({name in the table: (name in the checkpoint, array)}, unused); every name is accounted for."""
    known = {entry.theirs for entry in table.entries}
    spelled, unused, undeclared = {}, [], []
    for name, array in tensors.items():
        own = table.spell(name)
        reason = next((why for pattern, why in table.unused if re.fullmatch(pattern, own)), None)
        if own in known:
            if own in spelled:
                raise UserError(f"{name} and {spelled[own][0]} are two names of one tensor; the checkpoint has both")
            spelled[own] = (name, array)
        elif reason:
            unused.append((name, reason))
        else:
            undeclared.append(name)
    if undeclared:
        missing = [
            entry.theirs
            for entry in table.entries
            if entry.group in table.required and not entry.copy and entry.theirs not in spelled
        ]
        raise UserError(
            f"{_some(undeclared)} {'is' if len(undeclared) == 1 else 'are'} not among the tensors of a "
            f"{table.title} checkpoint" + (f", while {_some(missing)} is missing" if missing else "")
        )
    return spelled, unused


def _groups_present(spelled, table) -> set:
    """The groups whose tensors are all present; a partial group is an error."""
    present = set()
    for group in {entry.group: None for entry in table.entries}:
        names = [entry.theirs for entry in table.entries if entry.group == group and not entry.copy]
        missing = [name for name in names if name not in spelled]
        if missing and (group in table.required or len(missing) < len(names)):
            raise UserError(f"the checkpoint lacks {_some(missing)}, of the {len(names)} tensors of its {group}")
        if not missing:
            present.add(group)
    return present


def _take(entry, spelled, arrays) -> None:
    name, array = spelled[entry.theirs]
    try:
        parts = entry.layout.to_ours(array)
    except (ValueError, IndexError) as error:
        raise UserError(f"{name} has shape {array.shape}, which does not fit: {error}") from error
    for own, part in zip(entry.ours, parts):
        if not entry.copy:
            arrays[own] = part
        elif part.shape != arrays[own].shape or not np.array_equal(part, arrays[own], equal_nan=True):
            raise UserError(f"{name} differs from {own.partition('/')[2]}, to which it is tied in this model")


def _check_finite(arrays, pairs) -> None:
    """Raises UserError where a weight is NaN or infinite: a run would start from them without a word."""
    there = {own: theirs for theirs, owns in pairs for own in owns}
    bad = {there[name]: int(np.sum(~np.isfinite(array))) for name, array in arrays.items()}
    bad = {name: count for name, count in bad.items() if count}
    if bad:
        name, count = next(iter(bad.items()))
        raise UserError(
            f"the checkpoint holds NaN or infinite values in {len(bad)} of its tensors ({count:,} in {name}): it is "
            "damaged, or of a run that diverged; take an earlier one"
        )


def _drop_distillation_position(tensors, arrays, notes) -> None:
    # A distilled DeiT has another token after [CLS], with a position embedding of its own.
    name = f"params/{_POSITIONS}"
    if name in arrays and any(re.search(r"(dist_token|distillation_token)$", other) for other in tensors):
        arrays[name] = np.delete(arrays[name], 1, axis=1)
        notes.append("the distillation token and its position are left out")


def _check_sizes(arrays, shapes, patch_size) -> None:
    """Raises a UserError that names every size in which checkpoint and config differ."""
    sizes = {
        field: (arrays[name].shape[axis], shapes[name][axis])
        for field, (name, axis) in _ANCHORS.items()
        if name in arrays and len(arrays[name].shape) == len(shapes[name])
    }
    kernel = arrays.get("params/image_encoder/patch_embedding/kernel")
    if kernel is not None:
        sizes["model.patch_size"] = (round((kernel.shape[0] / 3) ** 0.5), patch_size)
    for tower, name in (
        ("image", "params/image_encoder/layer_0/mlp/intermediate/bias"),
        ("text", "params/text_encoder/layers/layer_0/mlp/intermediate/bias"),
    ):
        if name in arrays and sizes[f"model.{tower}_width"][0] == sizes[f"model.{tower}_width"][1]:
            width = sizes[f"model.{tower}_width"][0]
            sizes["model.mlp_ratio"] = (arrays[name].shape[0] / width, shapes[name][0] / width)
    _refuse(
        [
            f"{field} is {wanted:g} in the config, {found:g} in the checkpoint"
            for field, (found, wanted) in sizes.items()
            if found != wanted
        ]
    )


def _resize_image_positions(arrays, notes, *, image_size, patch_size) -> int | None:
    """Interpolates position embeddings in `arrays`; returns the resolution of the checkpoint."""
    resolution = None
    for root in ("params", "teacher"):
        name = f"{root}/{_POSITIONS}"
        if name not in arrays or arrays[name].ndim != 3:
            continue
        try:
            resolution = grid_side(arrays[name].shape[1] - 1) * patch_size
        except ValueError as error:
            raise UserError(
                f"the checkpoint's position embeddings are not those of [CLS] and a square grid: {error}"
            ) from error
        if resolution != image_size:
            arrays[name] = resize_positions(arrays[name], image_size // patch_size)
            if root == "params":
                notes.append(f"position embeddings interpolated from {resolution} to {image_size} pixels")
    return resolution


def _check_shapes(arrays, shapes, queue_size, pairs) -> None:
    there = {own: theirs for theirs, owns in pairs for own in owns}
    width = shapes["params/image_projection/bias"][0]
    queue = {
        "queue/image": (queue_size, width),
        "queue/text": (queue_size, width),
        "queue/ids": (queue_size,),
        "queue/pointer": (),
    }
    for name, array in arrays.items():
        wanted = queue.get(name) or shapes.get("params/" + name.partition("/")[2], ())
        if array.shape != tuple(wanted):
            raise UserError(
                f"{there[name]} gives {name.partition('/')[2]} the shape {array.shape}; it must be {tuple(wanted)}"
            )
        if array.dtype != (np.int32 if name in ("queue/ids", "queue/pointer") else np.float32):
            raise UserError(f"{there[name]} is of type {array.dtype}, not floating-point")


def module_norms(arrays: dict) -> dict:
    """{"params/image_encoder": (number of parameters, sum of their squares), ...}."""
    modules = {}
    for name, array in arrays.items():
        module = "/".join(name.split("/")[:2])
        count, squares = modules.get(module, (0, 0.0))
        modules[module] = (count + array.size, squares + _squares(array))
    return modules


def _squares(array) -> float:
    # In memory order, so that a transposed view is not copied.
    flat = array.ravel(order="K")
    return float(np.einsum("i,i->", flat, flat, dtype=np.float64))


def _some(names) -> str:
    names = list(names)
    rest = len(names) - _MAX_LISTED
    return ", ".join(names[:_MAX_LISTED]) + (f" and {rest} more" if rest > 0 else "")
