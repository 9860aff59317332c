"""Data sets and search indices whose making is killed: the next command completes what an uninterrupted one makes."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from cbalign.data.datasets.official import miniature
from tests.fire import harness
from tests.fire.test_disks import pictures


def contents(folder):
    """{name of a file that is not hidden: its records, in any order, or None}, read with TensorFlow alone.

    The bytes of equal records differ, since the features of an example are stored in no order.
    """
    import tensorflow as tf

    def records(path):
        examples = map(tf.train.Example.FromString, tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
        return sorted(str(sorted((name, str(value)) for name, value in e.features.feature.items())) for e in examples)

    files = (path for path in folder.rglob("*") if path.is_file())
    shown = {str(path.relative_to(folder)): path for path in files}
    return {
        name: records(path) if ".tfrecord" in name else None
        for name, path in shown.items()
        if not any(part.startswith(".") for part in name.split("/"))
    }


def kill(name, seconds, *words):
    """Kills a command at random moments, as often as asked for; returns where the kills fell."""
    fell = []
    for _, moment in zip(range(harness.SCALE or 1), harness.moments(name, seconds), strict=False):
        killed, out = harness.kill_at(moment, *words)
        fell.append(f"{name} {moment:.1f} s {killed}: " + (out.strip().splitlines() or ["nothing printed"])[-1])
    print(*fell, sep="\n")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["import", "sbu", "scenes/tiny"])
def test_a_data_set_whose_build_was_killed(tmp_path, what):
    if what == "import":
        images, captions = pictures(tmp_path / "images", 300)
    elif what == "sbu":
        miniature.pair_folder(tmp_path / "manual", "00000", range(400))

    def words(folder):
        if what == "import":
            return ("data", "import", f"--images={images}", f"--captions={captions}", f"--out={folder / 'out'}")
        manual = (f"--manual-dir={tmp_path / 'manual'}",) if what == "sbu" else ()
        return ("data", "build", what, f"--data-dir={folder}", *manual)

    _, seconds = harness.timed(harness.run, *words(tmp_path / "whole"))
    kill(what, seconds, *words(tmp_path / "killed"))
    code, out, error = harness.finish(harness.start(*words(tmp_path / "killed")))
    done_before = "exists and is not empty" in error or "has already been built" in out
    assert code == 0 or done_before, error
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    if what == "import" and not done_before:  # nor does it leave what the killed one began
        assert [path.name for path in (tmp_path / "killed").iterdir()] == ["out"]


@pytest.mark.slow
def test_a_search_whose_index_was_killed(whole, tmp_path):
    images, _ = pictures(tmp_path / "images", 200)
    workdir = shutil.copytree(whole[0], tmp_path / "run")
    words = ("search", f"--workdir={workdir}", f"--images={images}", "--json", "a red circle")
    expected, seconds = harness.timed(harness.run, *words)
    (index,) = (workdir / "search").iterdir()
    features = load_file(index)
    shutil.rmtree(workdir / "search")
    kill("search", seconds, *words)
    assert json.loads(harness.run(*words)) == json.loads(expected)
    (again,) = (path for path in (workdir / "search").iterdir() if path.suffix == ".safetensors")
    arrays = load_file(again)
    assert again.name == index.name and sorted(arrays) == sorted(features)
    for name, values in features.items():
        np.testing.assert_array_equal(arrays[name], values)
