"""A run whose epochs pass over pairs of a mixture: text assignment, interrupted and resumed."""

import json
import shutil

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from cbalign.runs.train import train_run
from cbalign.runs.workdir import open_run
from cbalign.tasks.transfer import flatten
from tests.data import stored_sets
from tests.tiny import tiny_config


@pytest.mark.slow
def test_text_assignment_on_a_mixture_counts_pairs_and_resumes(tfds_dir, tmp_path):
    made = [stored_sets.record(n, captions=[f"thing {n} {i}" for i in range(n % 2 + 1)]) for n in range(12)]
    other = stored_sets.write(tmp_path, "other", {"train": made})
    config = tiny_config(
        task="nlvr2_pretrain",
        data__name=f"scenes/tiny+{other}",
        data__dir=str(tfds_dir),
        data__train_split="train[:10]",
        data__epoch_over="pairs",
        data__rand_augment=False,
        contrast__alpha=0.0,
        optimizer__groups=((".*/(bias|scale)", 1.0, 0.0), (".*", 1.0, 1.0)),
        train__steps=0,
        train__epochs=1,
        train__log_steps=1,
        train__checkpoint_steps=2,
        eval__splits=(),
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    outcome = train_run(config, whole)
    # Five captions of each of ten scenes, and one or two of ten others: 65 pairs, four batches of 16.
    assert outcome.step == 4 and json.loads((whole / "losses.json").read_text())["steps_per_epoch"] == 4
    log = (whole / "train.log").read_text()
    assert "an epoch: 65 samples (65 pairs of an image and a text; 20 records)" in log
    shares = {line.split()[-3]: line.split()[-2:] for line in log.splitlines() if line.endswith("%")}
    assert shares == {"scenes/tiny": ["50", "76.9%"], other: ["15", "23.1%"]}
    shutil.copytree(whole, parts)
    shutil.rmtree(parts / "checkpoints" / "4")  # as a kill after step 2 leaves it
    train_run(config, parts)
    a, b = (flatten(open_run(path).params(checkpoint="latest")) for path in (whole, parts))
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
