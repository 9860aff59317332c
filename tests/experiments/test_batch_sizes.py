"""The suite that compares batches: equal numbers of pairs, and a teacher of equal memory."""

import numpy as np
import pytest

from cbalign.config import load_config
from cbalign.experiments.batch_sizes import ICONS
from cbalign.experiments.settings import Settings
from cbalign.experiments.trials import Trial

SETTINGS = Settings("icons", 2000, (2e-3,), tuning_seeds=1, seeds=1)


@pytest.fixture(scope="module")
def configs():
    """{row: the config its run is trained with}."""
    trials = {row.name: Trial(row, row.evaluations, 2e-3) for row in ICONS.rows}
    return {
        name: load_config(trial.row.config, trial.overrides(SETTINGS, steps_per_epoch=10**6))
        for name, trial in trials.items()
    }


def test_every_run_sees_as_many_pairs(configs):
    assert {c.train.batch_size for c in configs.values()} == {64, 256, 1024}
    assert {c.train.batch_size * c.train.steps for c in configs.values()} == {64 * 2000}


def test_the_teacher_forgets_at_the_same_number_of_pairs(configs):
    base = load_config("icons_small")
    kept_of_a_pair = base.teacher.momentum ** (1 / base.train.batch_size)
    for c in configs.values():
        np.testing.assert_allclose(c.teacher.momentum, kept_of_a_pair**c.train.batch_size, atol=5e-5)


def test_a_row_is_compared_with_one_of_its_batch_that_differs_in_one_thing(configs):
    compared = [row for row in ICONS.rows if row.against]
    assert len(compared) == 24
    for row in compared:
        one, other = configs[row.name], configs[row.against]
        assert one.train.batch_size == other.train.batch_size
        differs = {
            (section, field)
            for section, fields in one.to_dict().items()
            if isinstance(fields, dict)
            for field, value in fields.items()
            if other[section][field] != value
        }
        softer = {("codebook", "temperature")} if row.name.endswith("tau_c_0.2") else set()
        # The second view comes with the contrast within a modality, which alone needs it.
        view = {("data", "second_view")} if row.name.endswith("intra_modal") else set()
        assert 1 <= len(differs - softer - view) <= 2, (row.name, differs)
