"""The folder that conversion and export write: safetensors by this project's names, and a JSON that says what they are.

    weights.json          source, resolution, sizes, vocabulary, report
    params.safetensors    the student, "image_encoder/cls_token" and so on
    teacher.safetensors   the momentum teacher, where there is one
    queue.safetensors     the momentum queues, where there are any

The JSON is written last: a folder without it is not whole.
"""

import dataclasses
import hashlib
import json
import os
import tempfile

import numpy as np
from etils import epath

from cbalign.errors import UserError

INFO = "weights.json"
FORMAT = 1
_SECTIONS = ("params", "teacher", "queue")
_SIZES = ("image_size", "patch_size", "image_width", "image_depth", "image_heads", "vocab_size", "max_positions",
          "text_width", "text_depth", "text_heads", "fusion_depth", "embed_dim", "mlp_ratio")


@dataclasses.dataclass
class Weights:
    """A folder as read.

    Attributes:
      folder: its path.
      arrays: {"params/...", "teacher/...", "queue/...": array}.
      info: what weights.json says.
    """

    folder: str
    arrays: dict
    info: dict


def check_new_folder(out) -> epath.Path:
    """Raises UserError where the folder to write holds something already."""
    out = epath.Path(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"--out={out} is there already; name a new folder, or remove it")
    return out


def write_weights(out, arrays: dict, info: dict) -> None:
    """Writes a folder; arrays are by name as in `Weights`, float32 or int32."""
    out = check_new_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    for section in _SECTIONS:
        members = {name.partition("/")[2]: array for name, array in arrays.items() if name.startswith(f"{section}/")}
        if members:
            _write_safetensors(out / f"{section}.safetensors", members)
    (out / INFO).write_text(json.dumps({"format": FORMAT, **info}, indent=2) + "\n")


def _write_safetensors(path: epath.Path, arrays: dict) -> None:
    from safetensors.numpy import save_file

    # The writer takes memory as it lies, whatever the strides say.
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    if "://" not in os.fspath(path):
        save_file(arrays, os.fspath(path), metadata={"format": "np"})
        os.chmod(path, 0o644)  # the writer leaves the file to its owner alone
        return
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, path.name)
        save_file(arrays, file, metadata={"format": "np"})
        epath.Path(file).copy(path)


def read_info(folder) -> dict:
    """What weights.json of a folder says.

    Raises:
      UserError: there is none, or it was written by a later version.
    """
    path = epath.Path(folder) / INFO
    if not path.exists():
        raise UserError(f"{folder} holds no {INFO}: it is not a whole folder of `cbalign convert` or `cbalign export`")
    try:
        info = json.loads(path.read_text())
        version = info["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}); convert again") from error
    if version != FORMAT:
        raise UserError(f"{path} is of format {version}, this version reads {FORMAT}; convert again")
    return info


def read_weights(folder) -> Weights:
    """Reads a folder.

    Raises:
      UserError: see `read_info`; or a file is truncated.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load, load_file

    info, arrays = read_info(folder), {}
    for section in _SECTIONS:
        path = epath.Path(folder) / f"{section}.safetensors"
        if not path.exists():
            continue
        try:
            members = load(path.read_bytes()) if "://" in os.fspath(path) else load_file(os.fspath(path))
        except (SafetensorError, ValueError) as error:
            raise UserError(f"{path} is truncated or damaged ({error}); convert again") from error
        arrays |= {f"{section}/{name}": array for name, array in members.items()}
    if not arrays:
        raise UserError(f"{folder} holds {INFO} but no weights; convert again")
    return Weights(str(folder), arrays, info)


def sizes(model) -> dict:
    """The sizes of a model by name, those that it has."""
    return {name: getattr(model, name) for name in _SIZES if hasattr(model, name)}


def vocabulary_info(tokenizer) -> dict:
    """{"size", "sha256"}: tells whether two vocabularies give the same ids."""
    tokens = vocabulary_tokens(tokenizer)
    return {"size": len(tokens), "sha256": hashlib.sha256("\n".join(tokens).encode()).hexdigest()}


def vocabulary_tokens(tokenizer) -> list:
    """The tokens in the order of their ids."""
    words = tokenizer.get_vocab()
    return sorted(words, key=words.get)
