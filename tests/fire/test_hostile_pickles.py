"""Files that run code when they are loaded the careless way: nothing of them runs, and one line says why."""

import io
import json
import pathlib
import pickle

import numpy as np
import pytest

from cbalign.data.datasets.caption_files import read_pairs
from cbalign.data.text import load_tokenizer
from cbalign.errors import UserError
from cbalign.inference import index_file
from cbalign.weights.checkpoint_files import read_checkpoint
from tests.fire.fuzzing import run

torch = pytest.importorskip("torch")


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


@pytest.fixture
def trap(tmp_path):
    return tmp_path / "touched"


def test_the_trap_works(trap):
    pickle.loads(pickle.dumps(Touch(trap)))
    assert trap.exists()


def pickles(trap):
    """{file name: content} of files that would create the trap."""
    good = {"a": torch.zeros(2)}
    found = {}
    for name, value in {
        "bare.pth": Touch(trap),
        "beside.pth": {"model": good, "args": Touch(trap)},
        "within.bin": {"model": {"a": Touch(trap), "b": torch.zeros(2)}},
        "key.pt": [Touch(trap), good],
    }.items():
        buffer = io.BytesIO()
        torch.save(value, buffer)
        found[name] = buffer.getvalue()
        buffer = io.BytesIO()
        torch.save(value, buffer, _use_new_zipfile_serialization=False)
        found[f"old_{name}"] = buffer.getvalue()
        found[f"plain_{name}"] = pickle.dumps(value)
    return found


def test_convert_runs_nothing_of_a_checkpoint(tmp_path, trap, capsys):
    for name, content in pickles(trap).items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError) as refusal:
            read_checkpoint(tmp_path / name)
        assert "\n" not in str(refusal.value), name
        assert not trap.exists(), name
    code, _, err = run(
        capsys,
        *("convert", "--source=deit", f"--checkpoint={tmp_path / 'beside.pth'}", "--config=emoji"),
        f"--out={tmp_path / 'out'}",
    )
    assert code == 2 and "may run code" in err
    assert not trap.exists() and not (tmp_path / "out").exists()


def test_a_folder_with_a_pickle_for_weights(tmp_path, trap):
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "pytorch_model.bin").write_bytes(pickles(trap)["beside.pth"])
    with pytest.raises(UserError):
        read_checkpoint(folder)
    (folder / "pytorch_model.bin").unlink()
    # An index may name only files beside it.
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../beside.pth"}}))
    (tmp_path / "beside.pth").write_bytes(pickles(trap)["beside.pth"])
    with pytest.raises(UserError, match="beside it"):
        read_checkpoint(folder)
    assert not trap.exists()


def test_a_pickle_under_the_name_of_safetensors(tmp_path, trap):
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Touch(trap)))
    with pytest.raises(UserError, match="safetensors"):
        read_checkpoint(tmp_path / "model.safetensors")
    assert not trap.exists()


def test_stored_features_are_loaded_without_pickles(tmp_path, trap):
    file = tmp_path / "features.safetensors"
    arrays = {
        name: np.array([Touch(trap)], dtype=object) for name in ("paths", "features", "sizes", "mtimes", "reasons")
    }
    with file.open("wb") as stream:
        np.savez(stream, fingerprint=np.array("mine"), **arrays)
    assert index_file.read(file, "mine") is None
    file.write_bytes(pickle.dumps(Touch(trap)))
    assert index_file.read(file, "mine") is None
    assert not trap.exists()


def test_texts_are_data(tmp_path, trap):
    """Captions that are printed Python lists are read as literals, and vocabularies line by line."""
    code = f"__import__('pathlib').Path({str(trap)!r}).touch()"
    rows = [{"image": "a.png", "caption": text} for text in (f"[{code}]", f"({code},)", f"{{'raw': {code}}}", code)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    assert len(list(read_pairs(tmp_path / "rows.json"))) == 4
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", f"!!python/object/apply:{code}", code, "a"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    assert len(load_tokenizer(tmp_path / "vocab.txt")) == len(words)
    assert not trap.exists()


@pytest.mark.parametrize("field", ["data.crop_scale", "train.steps", "optimizer.groups", "rehearse", "optimizer.b1"])
def test_overrides_are_literals(trap, capsys, tmp_path, field):
    code = f"__import__('pathlib').Path({str(trap)!r}).touch()"
    result, _, _ = run(capsys, "plan", "--config=emoji", f"--config.{field}={code}")
    assert result == 2 and not trap.exists()
