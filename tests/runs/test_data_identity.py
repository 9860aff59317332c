"""The run and its data: other data under the same name is noticed, with the remedy."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from cbalign.data.datasets.folder import import_folder
from cbalign.errors import UserError
from cbalign.runs.data_identity import DATA
from cbalign.runs.workdir import open_run, prepare_workdir
from tests.tiny import tiny_config


def build(folder, out, count, *, word="dog"):
    folder.mkdir(exist_ok=True)
    rows = ["image,caption"]
    for index in range(count):
        Image.new("RGB", (32, 32), (index, 0, 0)).save(folder / f"{index}.png")
        rows.append(f"{index}.png,a {word} of number {index}")
    (folder / "c.csv").write_text("\n".join(rows))
    import_folder(folder, folder / "c.csv", out, test=0, val=0.2)


def vocabulary(config, records, path):
    from cbalign.runs.initialize import write_vocabulary

    write_vocabulary(config, records, path)


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A workdir whose config names a folder of data by a relative path."""
    monkeypatch.chdir(tmp_path)
    build(tmp_path / "photos", tmp_path / "data", 40)
    config = tiny_config(data__name="data", train__batch_size=16)
    prepare_workdir(config, tmp_path / "run", write_vocabulary=vocabulary)
    return config


def replace(tmp_path, count, **changes):
    shutil.rmtree(tmp_path / "data")
    build(tmp_path / "photos", tmp_path / "data", count, **changes)


@pytest.mark.parametrize(
    "count, word, told", [(48, "dog", "train of .* had 32 records"), (40, "cat", "other texts, ids or images")]
)
def test_replaced_data_is_refused(trained, tmp_path, count, word, told):
    run = open_run(tmp_path / "run")
    assert len(run.records("train")) == 32
    replace(tmp_path, count, word=word)
    with pytest.raises(UserError, match=told) as error:
        open_run(tmp_path / "run").records("val")
    assert "--config.init.weights" in str(error.value) and f"delete {tmp_path / 'run' / DATA}" in str(error.value)
    with pytest.raises(UserError, match=told):
        prepare_workdir(trained, tmp_path / "run", write_vocabulary=vocabulary)
    # Said to be meant.
    (tmp_path / "run" / DATA).unlink()
    prepare_workdir(trained, tmp_path / "run", write_vocabulary=vocabulary)
    assert len(open_run(tmp_path / "run").records("val")) == round(0.2 * count)


def test_the_same_data_again_and_elsewhere_in_the_tree(trained, tmp_path, monkeypatch):
    replace(tmp_path, 40)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    run = open_run(tmp_path / "run")
    assert run.config.data.name == str(tmp_path / "data")
    np.testing.assert_array_equal(len(run.records("train")), 32)


def test_a_run_without_a_fingerprint_opens_with_a_line(trained, tmp_path, capsys):
    (tmp_path / "run" / DATA).unlink()
    run = open_run(tmp_path / "run")
    run.records("train")
    run.records("val")
    assert capsys.readouterr().out.count("has no data.json") == 1


def test_relative_parts_of_a_mixture_are_stored_absolute(trained, tmp_path):
    build(tmp_path / "more", tmp_path / "data2", 20)
    config = tiny_config(data__name="data+data2*0.5", data__dir="built")
    run, _ = prepare_workdir(config, tmp_path / "mixed", write_vocabulary=vocabulary)
    assert run.config.data.name == f"{tmp_path / 'data'}+{tmp_path / 'data2'}*0.5"
    assert run.config.data.dir == os.path.abspath("built")
    prepare_workdir(config, tmp_path / "mixed", write_vocabulary=vocabulary)


def test_longer_training_names_its_way(trained, tmp_path):
    with pytest.raises(UserError, match="train.steps 4 -> 8.*--config.init.checkpoint=.*longer schedule"):
        prepare_workdir(tiny_config(data__name="data", train__steps=8), tmp_path / "run", write_vocabulary=vocabulary)
