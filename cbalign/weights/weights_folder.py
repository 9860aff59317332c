"""The folder that `cbalign convert` and `cbalign export` write: safetensors with a description in JSON.

    weights.json          source, resolution, sizes, vocabulary, report
    params.safetensors    the student by this project's names, "image_encoder/cls_token" and so on
    teacher.safetensors   the momentum teacher, where there is one
    queue.safetensors     the momentum queues, where there are any
    vocab.txt             the vocabulary, where there is a text encoder

or, as written for a hub, one model.safetensors with the student alone, by the same names with "." in place of "/".

The JSON is written last: a folder without it is incomplete.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from cbalign.data.text import read_vocabulary
from cbalign.errors import UserError
from cbalign.storage import parse_json, write_atomically, write_json

INFO = "weights.json"
FORMAT = 1
_VOCABULARY = "vocab.txt"
_SECTIONS = ("params", "teacher", "queue")
_ONE_FILE = "model.safetensors"
_SIZES = (
    "image_size",
    "patch_size",
    "image_width",
    "image_depth",
    "image_heads",
    "vocab_size",
    "max_positions",
    "text_width",
    "text_depth",
    "text_heads",
    "fusion_depth",
    "mlp_ratio",
)


@dataclasses.dataclass
class Weights:
    """Weights to start from or to use, with what belongs to them.

    Attributes:
      folder: where they were read.
      arrays: {"params/...", "teacher/...", "queue/...": array}.
      info: the content of weights.json.
      task: the task they were trained for; converted checkpoints count as pretraining.
      words: the vocabulary by id, or None where there is none or only its hash is known.
    """

    folder: str
    arrays: dict[str, np.ndarray]
    info: dict[str, Any]
    task: str = "pretrain"
    words: list[str] | None = None


def check_new_folder(out: os.PathLike | str) -> epath.Path:
    """The folder to write; UserError where it exists and is not empty."""
    out = epath.Path(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"--out={out} is there already; name a new folder, or remove it")
    return out


def write_weights(
    out: os.PathLike | str,
    arrays: Mapping[str, np.ndarray],
    info: Mapping[str, Any],
    words: Sequence[str] | None = None,
    files: Mapping[str, str] | None = None,
    one_file: bool = False,
) -> None:
    """Writes a folder.

    Args:
      out: a new folder.
      arrays: as in `Weights`, float32, float16 (read back as float32) or int32.
      info: what weights.json describes beside the format.
      words: the vocabulary by id, where there is one.
      files: {name: text} of further files.
      one_file: write the student alone, as model.safetensors.

    Raises:
      UserError: the folder is not empty.
    """
    out = check_new_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    for section in _SECTIONS[:1] if one_file else _SECTIONS:
        members = {name.partition("/")[2]: array for name, array in arrays.items() if name.startswith(f"{section}/")}
        if one_file:
            _write_safetensors(out / _ONE_FILE, {name.replace("/", "."): array for name, array in members.items()})
        elif members:
            _write_safetensors(out / f"{section}.safetensors", members)
    if words is not None:
        write_atomically(out / _VOCABULARY, "".join(f"{word}\n" for word in words))
    for name, content in (files or {}).items():
        write_atomically(out / name, content)
    write_json(out / INFO, {"format": FORMAT, **info})


def _write_safetensors(path: epath.Path, arrays: dict) -> None:
    from safetensors.numpy import save, save_file

    # The writer copies raw memory and ignores strides.
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    if "://" in os.fspath(path):
        path.write_bytes(save(arrays, metadata={"format": "np"}))
        return
    save_file(arrays, os.fspath(path), metadata={"format": "np"})
    os.chmod(path, 0o644)  # the writer makes the file readable by its owner only


def read_info(folder: os.PathLike | str) -> dict[str, Any]:
    """The content of a folder's weights.json.

    Raises:
      UserError: there is none, or it was written by another version.
    """
    path = epath.Path(folder) / INFO
    if not path.exists():
        raise UserError(
            f"{folder} holds no {INFO}: it is not a complete folder of `cbalign convert` or `cbalign export`"
        )
    try:
        info = parse_json(path.read_text())
        version = info["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}); convert again") from error
    if version != FORMAT:
        raise UserError(f"{path} is of format {str(version)[:40]}, this version reads {FORMAT}; convert again")
    # Both may be missing; a vocabulary is compared, a config is read field by field.
    config, vocabulary = info.get("config") or {}, info.get("vocabulary") or {"size": 0, "sha256": ""}
    if not (isinstance(config, dict) and isinstance(vocabulary, dict) and {"size", "sha256"} <= vocabulary.keys()):
        raise UserError(f"{path} is damaged; convert or export again")
    return info


def read_weights(folder: os.PathLike | str) -> Weights:
    """Reads a folder.

    Raises:
      UserError: see `read_info`; or a file is truncated.
    """
    info, arrays = read_info(folder), {}
    for section in _SECTIONS:
        members = _read_safetensors(epath.Path(folder) / f"{section}.safetensors")
        arrays |= {f"{section}/{name}": array for name, array in members.items()}
    members = _read_safetensors(epath.Path(folder) / _ONE_FILE)
    arrays |= {f"params/{name.replace('.', '/')}": array for name, array in members.items()}
    if not arrays:
        raise UserError(f"{folder} holds {INFO} but no weights; convert again")
    vocabulary = epath.Path(folder) / _VOCABULARY
    words = read_vocabulary(vocabulary) if vocabulary.exists() else None
    return Weights(str(folder), arrays, info, (info.get("config") or {}).get("task", "pretrain"), words)


def _read_safetensors(path: epath.Path) -> dict[str, np.ndarray]:
    """The arrays of a file, in full precision; none where there is no such file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load, load_file

    if not path.exists():
        return {}
    try:
        members = load(path.read_bytes()) if "://" in os.fspath(path) else load_file(os.fspath(path))
    # A KeyError or TypeError for a type of number that NumPy lacks.
    except (SafetensorError, ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is truncated or damaged ({error}); convert or export again") from error
    return {name: _full_precision(array) for name, array in members.items()}


def _full_precision(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float16 else array


def model_sizes(model: Any) -> dict[str, int]:
    """The sizes of a model by name, with `embed_dim` where it has a joint space."""
    named = {name: getattr(model.sizes, name) for name in _SIZES}
    return named | ({"embed_dim": model.embed_dim} if hasattr(model, "embed_dim") else {})


def vocabulary_info(tokenizer: Any) -> dict[str, Any]:
    """{"size", "sha256"} of a tokenizer's vocabulary; equal for vocabularies that give the same ids."""
    return words_info(vocabulary_tokens(tokenizer))


def words_info(words: Sequence[str]) -> dict[str, Any]:
    """As `vocabulary_info`, of the tokens by id."""
    return {"size": len(words), "sha256": hashlib.sha256("\n".join(words).encode()).hexdigest()}


def vocabulary_tokens(tokenizer: Any) -> list[str]:
    """The tokens of a tokenizer by id."""
    words = tokenizer.get_vocab()
    return sorted(words, key=words.get)
