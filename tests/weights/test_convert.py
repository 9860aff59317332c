"""The written folder and its report; what only a folder that transformers saved says: heads, activation, vocabulary."""

import dataclasses
import hashlib
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file

from cbalign.__main__ import main
from cbalign.errors import UserError
from cbalign.weights.conversion_report import format_report
from cbalign.weights.convert import convert
from cbalign.weights.weights_folder import read_weights
from tests.peers.randomise import randomise
from tests.weights.models import CODES, EMBED_DIM, SIZES, albef_checkpoint

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(35))]


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "vocabulary" / "vocab.txt"
    path.parent.mkdir()
    path.write_text("\n".join(VOCABULARY) + "\n")
    return path


def converted(source, checkpoint, out, vocabulary="", **changes):
    """`convert` for the small model, with queues of 16 entries."""
    return convert(
        source,
        checkpoint,
        out,
        sizes=dataclasses.replace(SIZES, **changes),
        embed_dim=EMBED_DIM,
        num_codes=CODES,
        queue_size=16,
        vocabulary=str(vocabulary),
    )


def save_albef(path):
    torch.save({"model": {name: torch.tensor(array) for name, array in albef_checkpoint().items()}, "epoch": 29}, path)
    return path


def save_bert(folder, **changes):
    sizes = dict(
        hidden_size=16,
        num_attention_heads=4,
        intermediate_size=64,
        vocab_size=40,
        num_hidden_layers=4,
        max_position_embeddings=12,
    )
    model = transformers.BertForMaskedLM(transformers.BertConfig(**{**sizes, **changes}))
    randomise(model, seed=1).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return folder


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused(tmp_path, vocabulary, value):
    tensors = {name: torch.tensor(array) for name, array in albef_checkpoint().items()}
    tensors["visual_encoder.blocks.1.mlp.fc1.weight"][2, 3] = value
    torch.save({"model": tensors}, tmp_path / "albef.pth")
    with pytest.raises(UserError, match="NaN or infinite values in 1 of its tensors .1 in visual_encoder.blocks.1.mlp"):
        converted("albef", tmp_path / "albef.pth", tmp_path / "out", vocabulary)
    assert not (tmp_path / "out").exists()


def test_prefixes_are_in_the_report(tmp_path, vocabulary):
    tensors = {f"model.{name}": torch.tensor(array) for name, array in albef_checkpoint().items()}
    torch.save({"state_dict": tensors, "global_step": 7}, tmp_path / "lightning.ckpt.pth")
    info = converted("albef", tmp_path / "lightning.ckpt.pth", tmp_path / "out", vocabulary)
    assert "the prefix model. (Lightning) is removed" in format_report(info)


def test_folder_says_what_it_holds(tmp_path, vocabulary):
    path = save_albef(tmp_path / "albef.pth")
    info = converted("albef", path, tmp_path / "out", vocabulary)
    read = read_weights(tmp_path / "out")
    assert read.info == json.loads((tmp_path / "out" / "weights.json").read_text())
    assert read.info == {"format": 1, **json.loads(json.dumps(info))}
    assert info["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (info["source"], info["source_image_size"], info["image_size"]) == ("albef", 32, 32)
    assert info["sizes"] == {
        "image_size": 32,
        "patch_size": 8,
        "image_width": 24,
        "image_depth": 2,
        "image_heads": 4,
        "vocab_size": 40,
        "max_positions": 12,
        "text_width": 16,
        "text_depth": 2,
        "text_heads": 4,
        "fusion_depth": 2,
        "embed_dim": 8,
        "mlp_ratio": 4,
    }
    assert info["vocabulary"]["size"] == 40 and read.words == VOCABULARY and read.task == "pretrain"
    assert {name.split("/")[0] for name in read.arrays} == {"params", "teacher"}  # queues of 8 slots, 16 are wanted
    params = load_file(tmp_path / "out" / "params.safetensors")
    weight = albef_checkpoint()["visual_encoder.blocks.1.mlp.fc1.weight"]
    np.testing.assert_array_equal(params["image_encoder/layer_1/mlp/intermediate/kernel"], weight.T)


def test_report_counts_every_tensor(tmp_path, vocabulary):
    info = converted("albef", save_albef(tmp_path / "albef.pth"), tmp_path / "out", vocabulary)
    checkpoint, report = albef_checkpoint(), info["report"]
    named = [theirs for theirs, _ in report["matched"]] + [theirs for theirs, _ in report["unused"]]
    assert sorted(named) == sorted(checkpoint)
    assert report["initialised"] == ["codebook/codes"] and report["teacher"] and not report["queue"]
    row = report["modules"]["params/image_encoder"]
    theirs = [array for name, array in checkpoint.items() if name.startswith("visual_encoder.")]
    for column in ("parameters_there", "parameters_taken", "parameters_of_model"):
        assert row[column] == sum(array.size for array in theirs)
    norm = sum((x.astype(np.float64) ** 2).sum() for x in theirs) ** 0.5
    assert row["norm_there"] == pytest.approx(norm) and row["norm_taken"] == pytest.approx(norm)
    text = format_report(info)
    assert re.search(r"initialised by the run: codebook$", text, re.MULTILINE)
    assert "unused, queue of another size: image_queue, text_queue, queue_ptr" in text
    assert "note: queues of 8 slots are left out: queue.size is 16" in text
    assert re.search(
        rf"^image_encoder +{row['parameters_there']:,} +{row['parameters_there']:,} +{norm:.4f} ", text, re.MULTILINE
    )


def test_bert_folder(tmp_path, vocabulary):
    info = converted("bert", save_bert(tmp_path / "bert"), tmp_path / "out", vocabulary)
    assert info["source_image_size"] is None and not info["report"]["notes"]
    assert "fusion_encoder/layer_*/cross_attention (16 tensors)" in format_report(info)


@pytest.mark.parametrize(
    "changes, sizes, message",
    [
        (dict(num_attention_heads=2), {}, "num_attention_heads is 2 in the checkpoint, 4 in model.text_heads"),
        (dict(hidden_act="gelu_new"), {}, "hidden_act is 'gelu_new' in the checkpoint, 'gelu' in this model"),
        ({}, dict(text_width=32), "model.text_width is 32 in the config, 16 in the checkpoint"),
    ],
)
def test_folder_that_does_not_fit(tmp_path, vocabulary, changes, sizes, message):
    with pytest.raises(UserError, match=message):
        converted("bert", save_bert(tmp_path / "bert", **changes), tmp_path / "out", vocabulary, **sizes)
    assert not (tmp_path / "out").exists()


def test_vocabulary_must_be_the_checkpoints(tmp_path, vocabulary):
    bert = save_bert(tmp_path / "bert")
    with pytest.raises(UserError, match="the config trains a vocabulary of its own"):
        converted("bert", bert, tmp_path / "out")
    vocabulary.write_text("\n".join([*VOCABULARY[:-2], VOCABULARY[-1], VOCABULARY[-2]]) + "\n")
    with pytest.raises(UserError, match="is not the checkpoint's: 2 tokens differ"):
        converted("bert", bert, tmp_path / "out", vocabulary)


def test_another_model_types_folder(tmp_path, vocabulary):
    folder = save_bert(tmp_path / "bert")
    text = (folder / "config.json").read_text().replace('"model_type": "bert"', '"model_type": "distilbert"')
    (folder / "config.json").write_text(text)
    with pytest.raises(UserError, match="model_type is 'distilbert'"):
        converted("bert", folder, tmp_path / "out", vocabulary)


@pytest.mark.parametrize(
    "break_it, message",
    [
        (lambda folder: (folder / "weights.json").unlink(), "holds no weights.json"),
        (lambda folder: (folder / "weights.json").write_text("{"), "cannot be read .*convert again"),
        (lambda folder: (folder / "weights.json").write_text('{"format": 2}'), "is of format 2, this version reads 1"),
        (
            lambda folder: (folder / "params.safetensors").write_bytes(
                (folder / "params.safetensors").read_bytes()[:-9]
            ),
            "params.safetensors is truncated or damaged",
        ),
        (lambda folder: [file.unlink() for file in folder.glob("*.safetensors")], "but no weights; convert again"),
    ],
)
def test_broken_folders(tmp_path, vocabulary, break_it, message):
    converted("albef", save_albef(tmp_path / "albef.pth"), tmp_path / "out", vocabulary)
    break_it(tmp_path / "out")
    with pytest.raises(UserError, match=message):
        read_weights(tmp_path / "out")


def test_command(tmp_path, capsys):
    path = save_albef(tmp_path / "albef.pth")
    flags = ["--config=configs/emoji_scratch.py", f"--out={tmp_path / 'out'}"]
    assert main(["convert", "--source=deit", f"--checkpoint={path}", *flags]) == 2
    assert "they look like --source=albef" in capsys.readouterr().err
    assert main(["convert", "--source=deit", f"--checkpoint={tmp_path / 'none.pth'}", *flags]) == 2
    assert "no checkpoint at" in capsys.readouterr().err
    assert main(["convert", "--source=albef", f"--checkpoint={path}", f"--out={tmp_path}", flags[0]]) == 2
    assert "is there already; name a new folder" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["convert", "--source=clip", f"--checkpoint={path}", *flags])
    assert stopped.value.code == 2


def test_reading_weights_needs_no_tensorflow():
    code = (
        "import sys, cbalign.weights.convert, cbalign.weights.loading, cbalign.weights.export; "
        "assert 'tensorflow' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
