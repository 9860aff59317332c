"""Reading weight files: every format, and each kind of broken or foreign file with its own clear error."""

import argparse
import hashlib
import json
import pathlib
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cbalign.errors import UserError
from cbalign.weights import checkpoint_files
from cbalign.weights.checkpoint_files import read_checkpoint

TENSORS = {
    "a.weight": torch.arange(6.0).reshape(2, 3),
    "b": torch.ones(4, dtype=torch.float16),
    "c": torch.full((2,), 0.5, dtype=torch.bfloat16),
    "n": torch.tensor([3]),
}


def check(checkpoint):
    tensors = checkpoint.tensors
    np.testing.assert_array_equal(tensors["a.weight"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(tensors["c"], [0.5, 0.5])
    assert {name: array.dtype.name for name, array in tensors.items()} == {
        "a.weight": "float32",
        "b": "float32",
        "c": "float32",
        "n": "int64",
    }


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        lambda x: {"model": x, "optimizer": {"state": {}}, "epoch": 3},
        lambda x: {"state_dict": x},
        lambda x: {"model": x, "args": argparse.Namespace(lr=1)},
    ],
)
@pytest.mark.parametrize("zip_file", [True, False])
def test_pytorch_files(tmp_path, wrap, zip_file):
    path = tmp_path / "weights.pth"
    torch.save(wrap(TENSORS), path, _use_new_zipfile_serialization=zip_file)
    check(read_checkpoint(path))


@pytest.mark.parametrize(
    "wrap, note",
    [
        (lambda x: {f"_orig_mod.{name}": value for name, value in x.items()}, "_orig_mod"),
        (lambda x: {"model": {f"_orig_mod.{name}": value for name, value in x.items()}}, "_orig_mod"),
        (lambda x: {f"module._orig_mod.{name}": value for name, value in x.items()}, "module"),
        (lambda x: {"a._orig_mod.weight": x["a.weight"], **{n: x[n] for n in "bcn"}}, "_orig_mod"),
        (
            lambda x: {
                "state_dict": {f"model.{name}": value for name, value in x.items()},
                "pytorch-lightning_version": "2.4",
                "epoch": 1,
            },
            "Lightning",
        ),
        (lambda x: {"state_dict": {f"model._orig_mod.{name}": value for name, value in x.items()}}, "Lightning"),
        (lambda x: {"state_dict": x, "state_dict_ema": {k: v * 0 for k, v in x.items()}}, "'state_dict_ema' are not"),
        (
            lambda x: {"model": x, "model_ema": {"b": x["b"]}},
            "under 'model' are taken, those under 'model_ema' are not",
        ),
        (lambda x: {"state_dict_ema": x, "epoch": 1}, "a moving average, are taken"),
    ],
)
def test_what_wrappers_add_is_recognised_and_said(tmp_path, wrap, note):
    torch.save(wrap(TENSORS), tmp_path / "weights.pth")
    read = read_checkpoint(tmp_path / "weights.pth")
    check(read)
    assert any(note in line for line in read.notes), read.notes


def test_prefixes_in_safetensors(tmp_path):
    save_file({f"model.{name}": value for name, value in TENSORS.items()}, tmp_path / "weights.safetensors")
    check(read_checkpoint(tmp_path / "weights.safetensors"))
    # One name without it: then it is part of the others.
    save_file({"model.a": TENSORS["b"], "head": TENSORS["n"]}, tmp_path / "weights.safetensors")
    read = read_checkpoint(tmp_path / "weights.safetensors")
    assert sorted(read.tensors) == ["head", "model.a"] and not read.notes


def test_safetensors_file(tmp_path):
    save_file(TENSORS, tmp_path / "weights.safetensors")
    check(read_checkpoint(tmp_path / "weights.safetensors"))


def test_folder_of_transformers_in_one_file_and_in_shards(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "vocab.txt").write_text("[PAD]\nb\n")
    names = list(TENSORS)
    shards = {"model-1.safetensors": names[:2], "model-2.safetensors": names[2:]}
    for file, members in shards.items():
        save_file({name: TENSORS[name] for name in members}, tmp_path / file)
    index = {name: file for file, members in shards.items() for name in members}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    read = read_checkpoint(tmp_path)
    check(read)
    assert read.config == {"model_type": "bert"} and read.vocabulary == ["[PAD]", "b"]
    torch.save(TENSORS, tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors.index.json").unlink()
    check(read_checkpoint(tmp_path))


def test_sha256_is_that_of_the_file(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    read = read_checkpoint(tmp_path)
    assert read.sha256() == hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "suffix, save",
    [
        (".pth", torch.save),
        (".safetensors", save_file),
        (".bin", lambda x, path: torch.save(x, path, _use_new_zipfile_serialization=False)),
    ],
)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.95])
def test_truncated(tmp_path, suffix, save, share):
    path = tmp_path / f"weights{suffix}"
    save({name: torch.zeros(1000) for name in ("x", "y")}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match="is truncated or not a .* file.*copy or download it again"):
        read_checkpoint(path)


@pytest.mark.parametrize("suffix", [".pth", ".bin", ".safetensors"])
@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><html>not found</html>",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"version https://git-lfs.github.com/spec/v1\n",
    ],
)
def test_another_kind_of_file(tmp_path, suffix, content):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match="is truncated or not a .* file"):
        read_checkpoint(path)


def test_python_objects_are_not_loaded(tmp_path):
    torch.save({"model": TENSORS, "path": pathlib.PurePosixPath("x")}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"holds pathlib\S+ beside tensors; Python objects may run code"):
        read_checkpoint(tmp_path / "weights.pth")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"model": {}}, torch.zeros(3)])
def test_no_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="holds no state dict"):
        read_checkpoint(tmp_path / "weights.pth")


def test_unknown_ending(tmp_path):
    (tmp_path / "weights.npz").write_bytes(b"")
    with pytest.raises(UserError, match="none of .pth, .pt, .bin, .ckpt and .safetensors"):
        read_checkpoint(tmp_path / "weights.npz")


@pytest.mark.parametrize("name", ["/no/such/file.pth", "nothing.bin", "./nothing", "a/b/c"])
def test_nothing_there(name):
    with pytest.raises(UserError, match="no checkpoint at"):
        read_checkpoint(name)


def test_folders_without_weights(tmp_path):
    with pytest.raises(UserError, match="has no config.json"):
        read_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tf_model.h5").write_bytes(b"")
    with pytest.raises(UserError, match="only PyTorch weights can be read"):
        read_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="truncated|not JSON"):
        read_checkpoint(tmp_path)


def test_pytorch_file_without_pytorch(tmp_path, monkeypatch):
    torch.save(TENSORS, tmp_path / "weights.pth")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match="pip install torch"):
        read_checkpoint(tmp_path / "weights.pth")


def test_hub_name_without_a_network(monkeypatch):
    import huggingface_hub

    def unreachable(*_, **__):
        raise ConnectionError("name or service not known")

    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError("not in the cache")),
    )
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    with pytest.raises(UserError, match="hub cannot be reached .*; give a file or a local folder"):
        read_checkpoint("bert-base-uncased")


def test_hub_name_in_the_cache(tmp_path, monkeypatch):
    import huggingface_hub

    (tmp_path / "config.json").write_text("{}")
    save_file(TENSORS, tmp_path / "model.safetensors")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(tmp_path))
    read = checkpoint_files.read_checkpoint("someone/some-model")
    check(read)
    assert read.path == "someone/some-model"
