"""Reads weight files: `.pth` and `.bin`, `.safetensors`, folders as `transformers` saves them, names on the hub."""

import dataclasses
import hashlib
import json
import os
import pathlib
import pickle
import re

import numpy as np

from cbalign.errors import UserError

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_INDEX = "model.safetensors.index.json"
# Where training scripts put the state dict beside optimizer and epoch (ALBEF, TCL, DeiT: "model").
_WRAPPERS = ("model", "state_dict")


@dataclasses.dataclass
class Checkpoint:
    """A checkpoint as read.

    Attributes:
      path: as it was named.
      files: the weight files read.
      tensors: {name there: array}, half precision turned into float32; large files are mapped, not copied.
      config: the folder's config.json, or None.
      vocabulary: the tokens of the folder's vocab.txt in their order, or None.
    """

    path: str
    files: list
    tensors: dict
    config: dict | None = None
    vocabulary: list | None = None

    def sha256(self) -> str:
        """Of the weight files, one after the other."""
        digest = hashlib.sha256()
        for file in self.files:
            with open(file, "rb") as opened:
                while block := opened.read(1 << 22):
                    digest.update(block)
        return digest.hexdigest()


def read_checkpoint(path) -> Checkpoint:
    """Reads what a path or a hub name stands for.

    Raises:
      UserError: nothing there, a truncated file, a file of another kind, one with Python objects other than tensors.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        return _read_folder(path, pathlib.Path(path))
    if os.path.isfile(path):
        return Checkpoint(path, [path], _read_file(path))
    if _is_hub_name(path):
        return _read_folder(path, _fetch(path))
    raise UserError(f"no checkpoint at {path}; give a .pth, .bin or .safetensors file or a folder of transformers")


def _read_folder(name: str, folder: pathlib.Path) -> Checkpoint:
    if not (folder / "config.json").is_file():
        raise UserError(f"{name} has no config.json: it is not a folder that transformers saved; name the weight file "
                        "itself")
    files = [folder / file for file in WEIGHT_FILES if (folder / file).is_file()][:1]
    if (folder / _INDEX).is_file():
        files = sorted({folder / file for file in _json(folder / _INDEX)["weight_map"].values()})
    if not files:
        raise UserError(f"{name} holds neither {' nor '.join(WEIGHT_FILES)}; only weights of PyTorch are read")
    tensors = {}
    for file in files:
        tensors |= _read_file(str(file))
    vocabulary = folder / "vocab.txt"
    words = vocabulary.read_text(encoding="utf-8").splitlines() if vocabulary.is_file() else None
    return Checkpoint(name, [str(file) for file in files], tensors, _json(folder / "config.json"), words)


def _json(path: pathlib.Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); copy or download it again") from error


def _read_file(path: str) -> dict:
    if path.endswith(".safetensors"):
        return _read_safetensors(path)
    if not path.endswith((".pth", ".pt", ".bin")):
        raise UserError(f"{path} is none of .pth, .pt, .bin and .safetensors")
    return _read_pytorch(path)


def _read_safetensors(path: str) -> dict:
    import ml_dtypes  # noqa: F401  bfloat16 for numpy
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return {name: _full_precision(array) for name, array in load_file(path).items()}
    except (SafetensorError, ValueError, OSError) as error:
        raise UserError(f"{path} is truncated or no safetensors file ({error}); copy or download it again") from error


def _read_pytorch(path: str) -> dict:
    import argparse

    torch = import_torch(f"to read {path}")
    # DeiT's and other training scripts keep their command line beside the weights; it can do no harm.
    with torch.serialization.safe_globals([argparse.Namespace]):
        try:
            loaded = _load_pytorch(torch, path)
        except pickle.UnpicklingError as error:
            found = re.search(r"Unsupported global: GLOBAL (\S+) was not", str(error))
            # A name of PyTorch's own that is not allowed is one that was cut off.
            if found and not found.group(1).startswith("torch."):
                raise UserError(
                    f"{path} holds {found.group(1)} beside tensors; Python objects may run code and are not loaded. "
                    "Save its state dict alone, as torch.save(model.state_dict(), FILE)") from error
            raise UserError(f"{path} is truncated or no PyTorch file; copy or download it again") from error
        except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
            raise UserError(f"{path} is truncated or no PyTorch file ({_first_line(error)}); copy or download it "
                            "again") from error
    return _state_dict(torch, loaded, path)


def import_torch(purpose: str):
    """PyTorch, which only `.pth` and `.bin` files need; UserError where it is not installed."""
    try:
        import torch
    except ImportError as error:
        raise UserError(f"{purpose} PyTorch is needed: pip install torch (safetensors files do without)") from error
    return torch


def _load_pytorch(torch, path):
    # Mapped, so that an optimizer's state beside the weights is never read; files from before PyTorch 1.6 can't be.
    mapped = _is_zip(path)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def _is_zip(path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _state_dict(torch, loaded, path) -> dict:
    """The {name: array} in what a file held; what this project's export put beside it as "cbalign.NAME"."""
    found = next((loaded[key] for key in _WRAPPERS if isinstance(loaded, dict) and isinstance(loaded.get(key), dict)),
                 loaded)
    tensors = {} if not isinstance(found, dict) else {
        name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise UserError(f"{path} holds no state dict; expected tensors by name, or such a dict under "
                        f"{' or '.join(repr(key) for key in _WRAPPERS)}")
    if found is not loaded and isinstance(loaded.get("cbalign"), dict):
        tensors |= {f"cbalign.{name}": value for name, value in loaded["cbalign"].items()}
    return {name: _full_precision(_as_numpy(torch, tensor)) for name, tensor in tensors.items()}


def _as_numpy(torch, tensor):
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()


def _full_precision(array):
    return array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16", "float64") else array


def _first_line(error) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")[:120]


def _is_hub_name(name: str) -> bool:
    return bool(name) and not os.path.isabs(name) and not name.startswith(".") and name.count("/") <= 1 and not (
        name.endswith((".pth", ".pt", ".bin", ".safetensors")))


def _fetch(name: str) -> pathlib.Path:
    """The local folder of a model on the hub: from the cache, else fetched."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    wanted = ["config.json", "vocab.txt", *WEIGHT_FILES, _INDEX, "model-*.safetensors"]
    try:
        return pathlib.Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted, local_files_only=True))
    except HFValidationError as error:
        raise UserError(f"no checkpoint at {name}, and it is no name on a hub") from error
    except OSError:
        pass
    try:
        # One short question first: a download retries for minutes on a machine without a network.
        files = [file.rfilename for file in huggingface_hub.HfApi().model_info(name, timeout=5).siblings]
        if WEIGHT_FILES[0] in files:
            wanted.remove(WEIGHT_FILES[1])
        return pathlib.Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # The client lets its transport's own exceptions through, of whatever library that is.
        kind = f"the hub has no model {name!r} for you" if isinstance(error, HfHubHTTPError) else (
            f"the hub cannot be reached ({_first_line(error)})")
        raise UserError(f"no checkpoint at {name}, and {kind}; give a file or a local folder") from error
