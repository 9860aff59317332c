"""Reads weight files: `.pth` and `.bin`, `.safetensors`, folders that `transformers` saved, names on the hub."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import pickle
import re
from typing import Any

import numpy as np

from cbalign import hub
from cbalign.data.text import read_vocabulary
from cbalign.errors import UserError
from cbalign.storage import parse_json

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_INDEX = "model.safetensors.index.json"
_PYTORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".pth.tar")
# Keys under which training scripts save the state dict beside optimizer and epoch (ALBEF, TCL, DeiT: "model").
_WRAPPERS = ("model", "state_dict")
# A moving average beside it, or in its place (timm).
_AVERAGES = ("model_ema", "state_dict_ema", "ema_state_dict")


@dataclasses.dataclass
class Checkpoint:
    """A checkpoint as read.

    Attributes:
      path: as given by the user.
      files: the weight files read.
      tensors: {name in the checkpoint: array}, half and double precision converted to float32; large files are
        memory-mapped, not copied.
      config: the folder's config.json, or None.
      vocabulary: the tokens of the folder's vocab.txt by id, or None.
      notes: remarks on what was chosen and which prefixes were removed.
    """

    path: str
    files: list[str]
    tensors: dict[str, np.ndarray]
    config: dict[str, Any] | None = None
    vocabulary: list[str] | None = None
    notes: list[str] = dataclasses.field(default_factory=list)

    def sha256(self) -> str:
        """The hash of the weight files, concatenated."""
        digest = hashlib.sha256()
        for file in self.files:
            with open(file, "rb") as opened:
                while block := opened.read(1 << 22):
                    digest.update(block)
        return digest.hexdigest()


def read_checkpoint(path: os.PathLike | str) -> Checkpoint:
    """Reads a weight file, a folder that `transformers` saved, or a model on the hub.

    Raises:
      UserError: nothing is found, or the file is truncated, of another kind, or holds Python objects beside tensors.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        return _read_folder(path, pathlib.Path(path))
    if os.path.isfile(path):
        notes: list[str] = []
        return Checkpoint(path, [path], _without_prefixes(_read_file(path, notes), notes), notes=notes)
    if hub.is_hub_name(path) and not path.endswith((*_PYTORCH_SUFFIXES, ".safetensors")):
        return _read_folder(path, _fetch(path))
    raise UserError(
        f"no checkpoint at {path}; give a .pth, .bin or .safetensors file, or a folder that transformers saved"
    )


def _read_folder(name: str, folder: pathlib.Path) -> Checkpoint:
    if not (folder / "config.json").is_file():
        raise UserError(f"{name} has no config.json, so transformers did not save it; name the weight file itself")
    files = [folder / file for file in WEIGHT_FILES if (folder / file).is_file()][:1]
    if (folder / _INDEX).is_file():
        files = _indexed(folder)
    if not files:
        raise UserError(f"{name} holds neither {' nor '.join(WEIGHT_FILES)}; only PyTorch weights can be read")
    tensors, notes = {}, []
    for file in files:
        tensors |= _read_file(str(file), notes)
    tensors = _without_prefixes(tensors, notes)
    vocabulary = folder / "vocab.txt"
    words = read_vocabulary(vocabulary) if vocabulary.is_file() else None
    return Checkpoint(name, [str(file) for file in files], tensors, _json(folder / "config.json"), words, notes)


def _indexed(folder: pathlib.Path) -> list[pathlib.Path]:
    """The weight files that an index names, all beside it."""
    names = _json(folder / _INDEX).get("weight_map")
    names = set(map(str, names.values())) if isinstance(names, dict) else set()
    if not names or any(pathlib.PurePath(name).name != name for name in names):
        raise UserError(f"{folder / _INDEX} names no weight files beside it; copy or download it again")
    return sorted(folder / name for name in names)


def _json(path: pathlib.Path) -> dict:
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); copy or download it again") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no JSON object; copy or download it again")
    return found


def _without_prefixes(tensors: dict, notes: list[str]) -> dict:
    """The tensors without what wrappers add to their names: `_orig_mod.` (torch.compile), `model.` (Lightning)."""
    for shown, removed in (
        ("_orig_mod. (torch.compile)", lambda name: re.sub(r"(^|\.)_orig_mod\.", r"\1", name)),
        ("module. (DataParallel)", lambda name: name.removeprefix("module.")),
        ("model. (Lightning)", _without_common_prefix(tensors)),
    ):
        names = {removed(name): name for name in tensors}
        changed = sum(new != old for new, old in names.items())
        if changed and len(names) == len(tensors):
            notes.append(f"the prefix {shown} is removed from {changed} names")
            tensors = {new: tensors[old] for new, old in names.items()}
    return tensors


def _without_common_prefix(tensors: dict):
    # Alone at the start of all names: elsewhere it may be part of them.
    prefix = re.compile(r"^(?:module\.)?(?:_orig_mod\.)?model\.")
    own = [name for name in tensors if not name.startswith("cbalign.")]
    if own and all(map(prefix.match, own)):
        return lambda name: name.removeprefix("model.")
    return lambda name: name


def _read_file(path: str, notes: list[str]) -> dict:
    if path.endswith(".safetensors"):
        return _read_safetensors(path)
    if not path.endswith(_PYTORCH_SUFFIXES):
        raise UserError(f"{path} is none of .pth, .pt, .bin, .ckpt and .safetensors")
    return _read_pytorch(path, notes)


def _read_safetensors(path: str) -> dict:
    import ml_dtypes  # noqa: F401  bfloat16 for numpy
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return {name: _full_precision(array) for name, array in load_file(path).items()}
    # A KeyError or TypeError for a type of number that NumPy lacks.
    except (SafetensorError, ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is truncated or not a safetensors file ({error}); copy or download it again"
        ) from error


def _read_pytorch(path: str, notes: list[str]) -> dict:
    import argparse

    torch = import_torch(f"to read {path}")
    # DeiT's and other training scripts save their command line beside the weights; loading it is harmless.
    with torch.serialization.safe_globals([argparse.Namespace]):
        try:
            loaded = _load_pytorch(torch, path)
        except pickle.UnpicklingError as error:
            found = re.search(r"Unsupported global: GLOBAL (\S+) was not", str(error))
            # A forbidden name within PyTorch itself is a truncated one.
            if found and not found.group(1).startswith("torch."):
                raise UserError(
                    f"{path} holds {found.group(1)} beside tensors; Python objects may run code and are not loaded. "
                    "Save only its state dict, with torch.save(model.state_dict(), FILE)"
                ) from error
            raise UserError(f"{path} is truncated or not a PyTorch file; copy or download it again") from error
        except Exception as error:
            # PyTorch raises nearly anything on damaged files.
            raise UserError(
                f"{path} is truncated or not a PyTorch file ({_first_line(error)}); copy or download it again"
            ) from error
    return _state_dict(torch, loaded, path, notes)


def import_torch(purpose: str):
    """PyTorch, needed for `.pth` and `.bin` files only; UserError where it is not installed."""
    try:
        import torch
    except ImportError as error:
        raise UserError(f"{purpose} PyTorch is needed: pip install torch (not needed for safetensors files)") from error
    return torch


def _load_pytorch(torch, path):
    # Memory-mapped, so that an optimizer's state beside the weights is never read; files older than PyTorch 1.6, which
    # are no zip archives, cannot be mapped.
    return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))


def _is_zip(path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _state_dict(torch, loaded, path, notes: list[str]) -> dict:
    """The tensors of a loaded file, {name: array}; those that this project's export adds are named "cbalign.NAME"."""
    held = [key for key in (*_WRAPPERS, *_AVERAGES) if isinstance(loaded, dict) and isinstance(loaded.get(key), dict)]
    found = loaded[held[0]] if held else loaded
    if len(held) > 1:
        notes.append(
            f"the tensors under {held[0]!r} are taken, those under {' and '.join(map(repr, held[1:]))} are not"
        )
    elif held and held[0] in _AVERAGES:
        notes.append(f"the tensors under {held[0]!r}, a moving average, are taken: there are no others")
    tensors = (
        {}
        if not isinstance(found, dict)
        else {str(name): value for name, value in found.items() if isinstance(value, torch.Tensor)}
    )
    if not tensors:
        raise UserError(
            f"{path} holds no state dict; expected tensors by name, or such a dict under "
            f"{' or '.join(repr(key) for key in _WRAPPERS)}"
        )
    if found is not loaded and isinstance(loaded.get("cbalign"), dict):
        own = loaded["cbalign"].items()
        tensors |= {f"cbalign.{name}": value for name, value in own if isinstance(value, torch.Tensor)}
    try:
        return {name: _full_precision(_as_numpy(torch, tensor)) for name, tensor in tensors.items()}
    except (TypeError, RuntimeError, NotImplementedError) as error:
        reason = _first_line(error)
        raise UserError(
            f"{path} holds tensors that are not plain arrays ({reason}); save dense float tensors"
        ) from error


def _as_numpy(torch, tensor):
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()


def _full_precision(array):
    return array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16", "float64") else array


def _first_line(error) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")[:120]


def _fetch(name: str) -> pathlib.Path:
    wanted = ("config.json", "vocab.txt", *WEIGHT_FILES, _INDEX, "model-*.safetensors")
    try:
        return hub.fetch(name, wanted, instead_of=(WEIGHT_FILES,))
    except UserError as error:
        raise UserError(f"no checkpoint at {name}, and {error}; give a file or a local folder") from error
