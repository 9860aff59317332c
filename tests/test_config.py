"""Config files, overrides and their errors."""

import json

import pytest

from cbalign.config import (
    base_config,
    check_config,
    field_names,
    field_value,
    from_json,
    load_config,
    override,
    resolve_epochs,
    stored_config,
    to_json,
)
from cbalign.config_fields import FIELDS
from cbalign.errors import UserError
from cbalign.runs.workdir import task_class
from cbalign.tasks import TASKS


def test_the_table_of_fields_is_the_base_config():
    config = base_config()
    assert sorted(field_names(config)) == sorted(FIELDS)
    assert all(field_value(config, name) == field.default and field.meaning for name, field in FIELDS.items())
    check_config(config)


def test_a_task_that_does_not_exist_is_named():
    assert all(name in FIELDS["task"].meaning for name in TASKS)
    with pytest.raises(UserError, match="task is 'captioning'; it must be one of pretrain, retrieval, "):
        task_class(load_config("emoji", ["task=captioning"]))


def test_overrides_take_the_fields_type():
    config = load_config(
        "emoji",
        [
            "train.steps=7",
            "optimizer.learning_rate=1",
            "data.flip=true",
            "data.name=scenes",
            "contrast.terms=i2t,t2i",
            "data.crop_scale=(0.5,1.0)",
            "loss_weights.mlm=0",
        ],
    )
    assert config.train.steps == 7 and config.optimizer.learning_rate == 1.0 and config.data.flip is True
    assert config.data.name == "scenes" and config.contrast.terms == ("i2t", "t2i")
    assert config.data.crop_scale == (0.5, 1.0) and config.loss_weights.mlm == 0.0


@pytest.mark.parametrize(
    "override, message",
    [
        ("train.stesp=7", "did you mean 'train.steps'"),
        ("train=7", "no config field 'train'"),
        ("train.steps", "has no value"),
        ("train.steps=many", "expected int"),
        ("train.steps=1.5", "expected int"),
        ("data.flip=7", "expected bool"),
        ("train.steps=-1", "train.steps is -1; it must be 0 or more"),
        ("contrast.alpha=1.5", "between 0 and 1"),
        ("contrast.terms=i2x", "one or more of i2t, t2i, i2i, t2t"),
        ("codebook.solver=simplex", "ipot or sinkhorn"),
        ("itm.group_size=1", "2 or more"),
        ("train.epochs=3", "exactly one of train.steps"),
        ("train.microbatches=3", "train.batch_size=128 is not a multiple of train.microbatches=3"),
        ("model.patch_size=7", "not a multiple of model.patch_size=7"),
        ("data.max_tokens=20", "data.max_tokens=20 is more than model.max_positions=10"),
        ("data.crop_scale=0.5", "low, high"),
        ("optimizer.groups=(('(', 1, 1),)", "optimizer.groups"),
        ("teacher.momentum=2.0", "between 0 and 1"),
        ("seed=4294967296", "at least 0 and below 2**32"),
    ],
)
def test_mistakes_in_overrides_are_named(override, message):
    with pytest.raises(UserError) as caught:
        load_config("emoji", [override])
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "task, overrides, message",
    [
        ("pretrain", ["queue.size=100"], "not a multiple of train.batch_size=64; use 128"),
        ("pretrain", [f"loss_weights.{name}=0" for name in ("mlm", "itm", "ica", "code")], "nothing would be learned"),
        ("pretrain", ["codebook.queue_rows=4096"], "more than queue.size=2048"),
        ("pretrain", ["codebook.queue_rows=64", "codebook.teacher=False"], "features of the teacher"),
        ("pretrain", ["codebook.queue_rows=64", "codebook.embed=True"], "the queues hold mixtures of codes"),
        (
            "pretrain",
            ["codebook.num_codes=600000", "codebook.queue_rows=2048"],
            "takes 14 GiB; use codebook.queue_rows of at most 1725",
        ),
        ("pretrain", ["mlm.max_predictions=10"], "must be below data.max_tokens=10"),
        (
            "pretrain",
            ["contrast.learn_temperature=False", "optimizer.groups=(('.*',1.0,1.0),)"],
            "decays temperature/value",
        ),
        ("retrieval", [], "loss_weights.mlm=1.0: the task retrieval has no masked tokens"),
        ("vqa", ["vqa.answer_tokens=11"], "vqa.answer_tokens=11 is more than model.max_positions=10"),
    ],
)
def test_each_task_checks_its_own_rules(task, overrides, message):
    config = load_config("emoji_scratch", [f"task={task}", *overrides])
    with pytest.raises(UserError) as caught:
        TASKS[task].check(config)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "task, overrides",
    [
        (
            "vqa",
            [
                "queue.size=100",
                "mlm.max_predictions=10",
                *(f"loss_weights.{n}=0" for n in ("mlm", "itm", "ica", "code")),
            ],
        ),
        ("retrieval", ["loss_weights.mlm=0", "mlm.max_predictions=10"]),
        ("snli_ve", ["vqa.answer_tokens=11"]),
    ],
)
def test_rules_of_other_tasks_do_not_bind(task, overrides):
    TASKS[task].check(load_config("emoji_scratch", [f"task={task}", *overrides]))


@pytest.mark.parametrize(
    "body, message",
    [
        ("c.trian = 3", "trian"),
        ("c.train.steps = 'ten'", "steps"),
        ("c.optimizer.lr = 1.0", "lr"),
        ("return 1 +", "invalid syntax"),
        ("import no_such_module", "no_such_module"),
        ("return None", "get_config() returns NoneType"),
        ("raise ValueError", "ValueError"),
    ],
)
def test_mistakes_in_files_are_named(tmp_path, body, message):
    file = tmp_path / "mine.py"
    file.write_text(
        f"from cbalign.config import base_config\ndef get_config():\n    c = base_config()\n    {body}\n    return c\n"
    )
    with pytest.raises(UserError) as caught:
        load_config(str(file))
    assert message in str(caught.value) and "mine.py" in str(caught.value) and "\n" not in str(caught.value)


def test_configs_are_found_by_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert to_json(load_config("emoji")) == to_json(load_config("configs/emoji.py"))
    assert load_config("paper/vqa").task == "vqa"
    # A file comes before a name.
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "emoji.py").write_text(
        "from cbalign.config import base_config\ndef get_config():\n    return base_config(), 1\n"
    )
    with pytest.raises(UserError, match="get_config.. returns tuple"):
        load_config("configs/emoji.py")
    assert load_config("emoji").data.name == "emoji"


@pytest.mark.parametrize(
    "name, message",
    [
        ("nowhere.py", "no config file nowhere.py; those that come with cbalign are emoji, "),
        ("emojii", "no config file emojii; did you mean emoji?"),
        ("paper/ablation:sinkhron", "no ablation 'sinkhron'; .*sinkhorn"),
        ("paper/ablation", "no ablation ''; name one as in --config=paper/ablation:sinkhorn"),
        ("emoji:small", "config file emoji: get_config.. takes 0 positional arguments"),
    ],
)
def test_unknown_configs_and_arguments_are_named(name, message):
    with pytest.raises(UserError, match=message):
        load_config(name)


def test_an_argument_goes_to_the_config():
    assert load_config("paper/ablation:codes_500").codebook.num_codes == 500
    assert load_config("configs/paper/ablation.py:codes_500").codebook.num_codes == 500


def test_a_miniature_keeps_the_order_of_sizes_and_whatever_is_named():
    plain = load_config("paper/pretrain")
    small = load_config("paper/pretrain", ["rehearse=True"])
    finer = load_config("paper/retrieval_coco", ["rehearse=True"])
    assert (small.data.image_size, finer.data.image_size, finer.protocol.image_size) == (32, 48, 48)
    names = [f"paper/ablation:codes_{size}" for size in (500, 1000, 2000)]
    codes = [load_config(name, ["rehearse=True"]).codebook.num_codes for name in names]
    assert [*codes, small.codebook.num_codes] == [4, 8, 16, 32]
    changed = [name for name in FIELDS if field_value(small, name) != field_value(plain, name)]
    kept = ("task", "data.name", "data.train_split", "loss_weights", "contrast.terms", "optimizer.schedule")
    assert not [name for name in changed if name.startswith(kept)] and small.model.dtype == "bfloat16"
    # What is named beside the switch, before it or after it, is as named.
    named = load_config("paper/pretrain", ["train.batch_size=32", "rehearse=True", "data.image_size=64"])
    assert (named.train.batch_size, named.data.image_size, named.model.image_width) == (32, 64, 32)
    assert from_json(to_json(small)).to_dict() == small.to_dict()


@pytest.mark.parametrize("name", ["emoji", "scenes_long", "vqa_scenes", "nlvr2_scenes", "paper/snli_ve", "paper/vqa"])
def test_a_miniature_of_any_config_can_be_trained(name):
    config = load_config(name, ["rehearse=True"])
    for devices in (1, 2, 8):
        TASKS[config.task].check(config, devices=devices)


def test_epochs_become_steps():
    config = base_config()
    resolved = resolve_epochs(config, steps_per_epoch=100)
    assert (resolved.train.steps, resolved.train.epochs, resolved.contrast.alpha_ramp_steps) == (3000, 0, 100)
    assert config.train.epochs == 30
    check_config(resolved)


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"contrast": {"gamma": 1}}', "contrast.gamma that this version does not know"),
        ('{"train": {"steps"', "damaged"),
        ('{"train": 3}', "train is no JSON object"),
        ('{"train": {"steps": "ten"}}', "train.steps='ten'"),
    ],
)
def test_stored_configs_that_cannot_be_read_are_named(text, message):
    with pytest.raises(UserError, match=message):
        from_json(text)


def test_a_stored_config_takes_overrides_and_defaults_of_later_versions(tmp_path):
    config = base_config()
    override(config, ["train.steps=7", "train.epochs=0", "contrast.terms=i2t,t2i"])
    stored = json.loads(to_json(config))
    del stored["contrast"]["mask_empty"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert stored_config(tmp_path).to_dict() == config.to_dict()
    assert stored_config(tmp_path, ["train.log_steps=3"]).train.log_steps == 3
    with pytest.raises(UserError, match="train.log_steps is 0"):
        stored_config(tmp_path, ["train.log_steps=0"])
    with pytest.raises(UserError, match="holds no run yet"):
        stored_config(tmp_path / "nothing")
