"""The paper's configs say what the published recipes have, and have what they say.

The numbers are those of the YAML files and scripts of salesforce/ALBEF at b9727e4; uta-smile/TCL at 74a3e4f has the same
ones in its files of the same names. Paths, `opt: adamW`, `sched: cosine` and what has no effect there (`decay_rate: 1`,
`cooldown_epochs: 0`, and `schedular.lr`, which repeats `optimizer.lr`) are left out.
"""

import ast
import re

import numpy as np
import pytest

from cbalign.config import config_folder, field_value, load_config
from cbalign.training.optimizer import build_optimizer

_OPTIMIZER = {"optimizer.weight_decay": 0.02, "schedular.warmup_lr": 1e-5}
_RETRIEVAL = {
    "image_res": 384,
    "batch_size_train": 32,
    "batch_size_test": 64,
    "queue_size": 65536,
    "momentum": 0.995,
    "vision_width": 768,
    "embed_dim": 256,
    "temp": 0.07,
    "alpha": 0.4,
    "warm_up": True,
    "optimizer.lr": 1e-5,
    "schedular.min_lr": 1e-6,
    "schedular.warmup_epochs": 1,
    **_OPTIMIZER,
}
PUBLISHED = {
    "configs/Pretrain.yaml": {
        "image_res": 256,
        "vision_width": 768,
        "embed_dim": 256,
        "batch_size": 64,
        "temp": 0.07,
        "mlm_probability": 0.15,
        "queue_size": 65536,
        "momentum": 0.995,
        "alpha": 0.4,
        "optimizer.lr": 1e-4,
        "schedular.epochs": 30,
        "schedular.min_lr": 1e-5,
        "schedular.warmup_epochs": 20,
        **_OPTIMIZER,
    },
    "configs/Retrieval_coco.yaml": {**_RETRIEVAL, "k_test": 256, "schedular.epochs": 5},
    "configs/Retrieval_flickr.yaml": {**_RETRIEVAL, "k_test": 128, "schedular.epochs": 10},
    "configs/VQA.yaml": {
        "image_res": 384,
        "batch_size_train": 32,
        "batch_size_test": 16,
        "k_test": 128,
        "alpha": 0.4,
        "warm_up": True,
        "optimizer.lr": 2e-5,
        "schedular.epochs": 8,
        "schedular.min_lr": 1e-6,
        "schedular.warmup_epochs": 4,
        **_OPTIMIZER,
    },
    "configs/NLVR_pretrain.yaml": {
        "image_res": 256,
        "vision_width": 768,
        "embed_dim": 256,
        "batch_size": 64,
        "optimizer.lr": 2e-5,
        "schedular.epochs": 1,
        "schedular.min_lr": 1e-5,
        "schedular.warmup_epochs": 1,
        **_OPTIMIZER,
    },
    "configs/NLVR.yaml": {
        "image_res": 384,
        "batch_size": 16,
        "alpha": 0.4,
        "warm_up": True,
        "optimizer.lr": 2e-5,
        "schedular.epochs": 10,
        "schedular.min_lr": 1e-6,
        "schedular.warmup_epochs": 1,
        **_OPTIMIZER,
    },
    "configs/VE.yaml": {
        "image_res": 384,
        "batch_size_train": 32,
        "batch_size_test": 64,
        "alpha": 0.4,
        "warm_up": False,
        "optimizer.lr": 2e-5,
        "schedular.epochs": 5,
        "schedular.min_lr": 1e-6,
        "schedular.warmup_epochs": 1,
        **_OPTIMIZER,
    },
    # mshukor/ViCHA at aaa90d2, where its numbers are not those of ALBEF's Pretrain.yaml.
    "ViCHA configs/Pretrain.yaml": {"batch_size": 32, "schedular.epochs": 11},
}
# Numbers that stand in the scripts, by file.
SCRIPTS = {
    "Pretrain.py": {"max_length": 25},  # tokenizer(text, ..., truncation=True, max_length=25)
    "Pretrain_nlvr.py": {"max_length": 25},
    "Retrieval.py": {"max_length": 30},  # of evaluation; training names it and does not truncate
    "VQA.py": {"max_length": 25},  # of training; evaluation does not truncate
    "dataset/caption_dataset.py": {"max_words": 30},
    "dataset/nlvr_dataset.py": {"max_words": 30},
    "dataset/ve_dataset.py": {"max_words": 30},
    "dataset/vqa_dataset.py": {"max_ques_words": 30, "max_ques_words of test": 50},
    "dataset/__init__.py": {"scale": None},  # (0.2, 1.0) of pretrain_transform, (0.5, 1.0) of train_transform
    "models/model_vqa.py": {"momentum": 0.995},
    "configs/config_bert.json": {"fusion_layer": 6, "hidden_dropout_prob": 0.1},
}
RECIPES = {
    "paper/pretrain": "configs/Pretrain.yaml",
    "paper/albef_small": "ViCHA configs/Pretrain.yaml",
    "paper/retrieval_coco": "configs/Retrieval_coco.yaml",
    "paper/retrieval_flickr": "configs/Retrieval_flickr.yaml",
    "paper/zero_shot_coco": "configs/Retrieval_coco.yaml",
    "paper/zero_shot_flickr": "configs/Retrieval_flickr.yaml",
    "paper/vqa": "configs/VQA.yaml",
    "paper/nlvr2_pretrain": "configs/NLVR_pretrain.yaml",
    "paper/nlvr2": "configs/NLVR.yaml",
    "paper/snli_ve": "configs/VE.yaml",
}
PARTIAL = ("paper/albef_small", "paper/retrieval_flickr", "paper/zero_shot_coco", "paper/zero_shot_flickr")
"""Configs that state some lines and name the config that states the others."""
GPUS = {"paper/albef_small": 4}
"""Eight in ALBEF's README, `--nproc_per_node=8`; four in ViCHA's."""
_LINE = re.compile(r"^  (\S.*?): (\S.*?) {2,}([a-z0-9_.]+) = (\S.*?)(?: {2,}(\S.*))?$", re.MULTILINE)


def stated(name):
    """[(key, value, field, its value, note)] of the table in a config's docstring."""
    text = (config_folder() / f"{name}.py").read_text().split('"""')[1]
    return [
        (key, ast.literal_eval(value), field, ast.literal_eval(ours), note)
        for key, value, field, ours, note in _LINE.findall(text)
    ]


def converted(name, key, value):
    """A published value in the unit of our field."""
    if key in ("batch_size", "batch_size_train"):
        return value * GPUS.get(name, 8)
    if key == "schedular.warmup_epochs":
        return 100 * value
    if key == "warm_up":
        return -1 if value else 0
    return value


@pytest.mark.parametrize("name", RECIPES)
def test_what_a_config_states_is_published_and_true(name):
    lines, config, published = stated(name), load_config(name), PUBLISHED[RECIPES[name]]
    assert lines
    for key, value, field, ours, note in lines:
        file = next((file for file in SCRIPTS if note.startswith(file)), "")
        known = SCRIPTS[file] if file else published
        assert key in known, f"{key} is not in {file or RECIPES[name]}"
        assert known[key] in (value, None), key
        assert field_value(config, field) == ours, field
        assert note.startswith("differs: ") == (converted(name, key, value) != ours), key
    if name not in PARTIAL:
        assert set(published) <= {key for key, *_ in lines}


@pytest.mark.parametrize("name", ["retrieval_flickr"])
def test_lines_that_are_not_repeated_are_the_same(name):
    other, config = stated("paper/retrieval_coco"), load_config(f"paper/{name}")
    own = {field for _, _, field, *_ in stated(f"paper/{name}")}
    assert all(field_value(config, field) == ours for _, _, field, ours, _ in other if field not in own)


@pytest.mark.parametrize(
    "name, steps_per_epoch, mean",
    [
        # Means over all iterations of a run of the rates that ALBEF's own `scheduler.create_scheduler` gives in the loop
        # of its training scripts, with the settings of its YAML file and so many iterations an epoch.
        ("pretrain", 10000, 5.618470e-05),
        ("albef", 10000, 5.618470e-05),
        ("retrieval_coco", 2213, 6.400000e-06),
        ("albef_retrieval_coco", 2213, 6.400000e-06),
        ("retrieval_flickr", 566, 5.950000e-06),
        ("vqa", 5000, 1.162475e-05),
        ("nlvr2_pretrain", 10000, 1.989900e-05),
        ("nlvr2", 674, 1.130015e-05),
        ("snli_ve", 2068, 1.230232e-05),
    ],
)
def test_the_mean_rate_of_a_run_is_the_recipes(name, steps_per_epoch, mean):
    config = load_config(f"paper/{name}")
    o, steps = config.optimizer, config.train.epochs * steps_per_epoch
    _, rate = build_optimizer(
        {"x": {"bias": np.zeros(1)}},
        schedule=o.schedule,
        learning_rate=o.learning_rate,
        final_learning_rate=o.final_learning_rate,
        warmup_learning_rate=o.warmup_learning_rate,
        warmup_steps=o.warmup_steps,
        steps=steps,
        steps_per_epoch=steps_per_epoch,
        groups=((".*", 1.0, 1.0),),
        weight_decay=o.weight_decay,
        b1=o.b1,
        b2=o.b2,
        eps=o.eps,
    )
    assert np.asarray(rate(np.arange(steps)), np.float64).mean() == pytest.approx(mean, rel=2e-6)
    # To two decimals, where the config's docstring states it; one that derives from another states it there.
    found = re.search(r"mean\b.{0,90}?(\d\.\d\de-\d)", (config_folder() / f"paper/{name}.py").read_text(), re.DOTALL)
    assert (found is None) == name.startswith("albef")
    assert found is None or float(found.group(1)) == pytest.approx(mean, rel=3e-3)


def test_epochs_of_captions_pass_over_pairs():
    """Of every config of the paper that trains on captions; so the 5 and 10 epochs of retrieval are the recipe's."""
    over = {
        path.stem: load_config(f"paper/{path.stem}").data
        for path in (config_folder() / "paper").glob("*.py")
        if path.stem != "ablation"
    }
    captions = {name for name, data in over.items() if "coco_karpathy" in data.name or "flickr" in data.name}
    assert captions == {
        "pretrain",
        "albef",
        "albef_small",
        "retrieval_coco",
        "retrieval_flickr",
        "albef_retrieval_coco",
        "zero_shot_coco",
        "zero_shot_flickr",
        "nlvr2_pretrain",
    }
    assert all(over[name].epoch_over == "pairs" for name in captions)
    assert load_config("paper/ablation:sinkhorn").data.epoch_over == "pairs"


def test_albef_as_published_has_its_losses_alone():
    for name in ("albef", "albef_small", "albef_retrieval_coco"):
        c = load_config(f"paper/{name}")
        # models/model_pretrain.py: loss_ita of i2t and t2i, loss_itm, loss_mlm; one view of the image for both models.
        assert set(c.contrast.terms) == {"i2t", "t2i"} and c.loss_weights.code == 0 and not c.data.second_view
        assert (c.loss_weights.ica, c.loss_weights.itm) == (1, 1)
        assert c.loss_weights.mlm == (0 if "retrieval" in name else 1)
        # optim/optim_factory.py: all but vectors and biases is decayed, the temperature (a scalar) included.
        decays = [d for pattern, _, d in c.optimizer.groups if re.fullmatch(pattern, "temperature/value")]
        assert decays[0] == 1
