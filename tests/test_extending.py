"""The worked examples of cbalign/README.md, "How to add ...": a loss, a task, a data set, a suite's row."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds

from cbalign.data.datasets import catalogue, schema
from cbalign.data.image_files import to_png
from cbalign.evaluation.result_table import format_result
from cbalign.experiments.ablations import ABLATIONS
from cbalign.models.class_head import ClassHead
from cbalign.models.towers import Sizes, image_tower
from cbalign.runs.evaluate import evaluate_run
from cbalign.runs.train import train_run
from cbalign.runs.workdir import open_run
from cbalign.tasks import TASKS
from cbalign.tasks.classification import Classification
from cbalign.tasks.pretrain import Pretrain
from tests.tiny import tiny_config

# A loss: arrays in, a scalar out, used by a variant of pretraining.


def uniformity_loss(features):
    """log mean exp(-2 |x_i - x_j|^2) over pairs of rows (Wang and Isola, 2020); features: float32 [b, d]."""
    squared = 2.0 - 2.0 * features @ features.T
    return jnp.log(jnp.mean(jnp.exp(-2.0 * squared)))


class UniformPretrain(Pretrain):
    """Pretraining with one more loss."""

    name = "uniform_pretrain"
    log_metrics = (*Pretrain.log_metrics, "uniformity")

    def extra_losses(self, features, rows, shared):
        return {"uniformity": 0.1 * (uniformity_loss(features["image"]) + uniformity_loss(features["text"]))}


# A task: which of four quarters of the image is brightest, from the image alone.


class QuarterModel(nn.Module):
    """The image encoder and a head over four classes."""

    sizes: Sizes

    def setup(self):
        self.image_encoder = image_tower(self.sizes)
        self.class_head = ClassHead(4, self.sizes.init_std)

    def classify(self, images, ids, *, deterministic: bool = True):
        """images: one of uint8 [b, S, S, 3] -> float32 logits [b, 4]; the text is not used."""
        (image,) = images
        return self.class_head(self.image_encoder(image)[:, 0])

    def __call__(self, image, ids):
        """Touches every parameter; for initialisation."""
        return self.classify((image,), ids)


class Quarters(Classification):
    """The toy task; its labels are computed from the records' ids."""

    name = "quarters"
    record_kind = "captions"
    result_kind = "quarters"
    classes = ("top left", "top right", "bottom left", "bottom right")

    def build_model(self, sizes):
        return QuarterModel(sizes)

    def encode(self, records, tokenizer, **options):
        columns = super().encode(records, tokenizer, **options)
        columns.arrays["label"] = np.asarray(records.columns["id"], np.int32) % 4
        return columns


# A data set of captions: one TFDS builder in a file of its own.


class BrightQuarters(tfds.core.GeneratorBasedBuilder):
    """Dark images with one bright quarter, the number of which is the id modulo four."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(schema.captions()))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0, 64), "val": self._generate_examples(64, 96)}

    def _generate_examples(self, first, last):
        from PIL import Image

        for number in range(first, last):
            pixels = np.random.default_rng(number).integers(0, 60, (32, 32, 3)).astype(np.uint8)
            row, column = divmod(number % 4, 2)
            pixels[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] += 180
            yield (
                number,
                {
                    "image": to_png(Image.fromarray(pixels)),
                    "id": number,
                    "name": f"image {number}",
                    "captions": [f"{('top', 'bottom')[row]} {('left', 'right')[column]}"],
                },
            )


@pytest.fixture(scope="module", autouse=True)
def extensions():
    """Registers the examples, as a user's module does when it is imported."""
    TASKS["uniform_pretrain"], TASKS["quarters"] = UniformPretrain, Quarters
    catalogue.register("bright_quarters", __name__)
    yield
    for name in ("uniform_pretrain", "quarters"):
        del TASKS[name]


def config(tfds_dir, **changes):
    return tiny_config(
        **{
            "data__name": "bright_quarters",
            "data__dir": str(tfds_dir),
            "data__flip": False,
            "data__rand_augment": False,
            "data__vocabulary_size": 60,
            "data__crop_scale": (0.9, 1.0),
            "train__batch_size": 16,
            **changes,
        }
    )


@pytest.mark.slow
def test_a_loss(tfds_dir, tmp_path):
    others = dict(loss_weights__itm=0.0, loss_weights__mlm=0.0, eval__splits=())
    train_run(config(tfds_dir, task="uniform_pretrain", **others), tmp_path / "run")
    log = (tmp_path / "run" / "train.log").read_text()
    assert "uniformity" in log and open_run(tmp_path / "run").task.name == "uniform_pretrain"


@pytest.mark.slow
def test_a_task_and_a_data_set(tfds_dir, tmp_path):
    config_ = config(
        tfds_dir,
        task="quarters",
        contrast__alpha=0.0,
        optimizer__groups=((".*", 1.0, 1.0),),
        train__steps=500,
        model__init_std=0.15,
        train__log_steps=100,
        optimizer__learning_rate=3e-3,
        eval__splits=("val",),
        eval__best_split="val",
    )
    train_run(config_, tmp_path / "run")
    result = evaluate_run(open_run(tmp_path / "run"), "val")
    assert result["accuracy"]["overall"] > 80, result
    assert "quarters on bright_quarters val" in format_result(result)


def test_a_row_of_a_suite():
    row = dataclasses.replace(ABLATIONS[3], name="two_codes", label="two codes", overrides=("codebook.num_codes=2",))
    assert row.name not in {a.name for a in ABLATIONS} and row.overrides == ("codebook.num_codes=2",)


def test_the_toy_loss_is_its_formula():
    x = np.random.default_rng(0).normal(size=(5, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    expected = np.log(np.mean([np.exp(-2 * np.sum((a - b) ** 2)) for a in x for b in x]))
    assert float(uniformity_loss(jnp.asarray(x, jnp.float32))) == pytest.approx(expected, rel=1e-5)
