"""A run whose features are mixtures of codes: trained, evaluated, searched, exported and opened again."""

import jax
import numpy as np
import pytest
from PIL import Image

import cbalign
from cbalign.__main__ import main
from cbalign.evaluation.metrics import recall
from cbalign.experiments.stability import measure_run
from cbalign.inference.encoder import Encoder
from cbalign.report.encoded_split import encode_split
from cbalign.runs.evaluate import evaluate_run
from cbalign.runs.train import train_run
from cbalign.runs.workdir import open_run
from cbalign.tasks.pretrain import Pretrain
from tests.peers.mixture import mixture
from tests.tiny import tiny_config
from tests.weights.test_hub import TEXTS, assert_the_twin_is_equal, exported

pytestmark = pytest.mark.slow

T = 0.2


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, tfds_dir):
    """The workdir of a finished run."""
    config = tiny_config(
        data__dir=str(tfds_dir),
        data__rand_augment=False,
        data__second_view=False,
        train__checkpoint_steps=2,
        codebook__embed=True,
        codebook__embed_temperature=T,
    )
    workdir = tmp_path_factory.mktemp("runs") / "mixed"
    train_run(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 3), np.uint8)
    return [Image.fromarray(x).resize((48, 48)) for x in pixels]


@pytest.mark.parametrize("embed", [False, True])
def test_starting_from_a_run_with_other_features_is_told(mixed, tfds_dir, tmp_path, embed):
    config = tiny_config(
        data__dir=str(tfds_dir),
        data__rand_augment=False,
        data__second_view=False,
        codebook__embed=embed,
        codebook__embed_temperature=T,
        init__weights=(str(mixed),),
        loss_weights__itm=0.0,
        loss_weights__mlm=0.0,
        eval__splits=(),
    )
    train_run(config, tmp_path / "run")
    told = "was trained with codebook.embed=True, so that its features were others"
    assert (told in (tmp_path / "run" / "train.log").read_text()) == (not embed)


def test_features_are_mixtures_of_the_runs_codes(mixed, images):
    """By numpy's formula, from the same parameters in a model that does not mix."""
    run, ours = open_run(mixed), cbalign.load(mixed)
    params = run.params()
    config = run.config.copy_and_resolve_references()
    config.codebook.embed = False
    plain = Pretrain(config, tokens=run.task.tokens).model
    ids, _, _ = Encoder.of(run).token_ids(TEXTS)
    z = np.asarray(plain.apply({"params": jax.device_get(params)}, ids, method="encode_text")["feature"])
    found = ours.encode_text(TEXTS)
    np.testing.assert_allclose(found, mixture(z, params["codebook"]["codes"], T), atol=1e-5)
    assert np.abs(found - z).max() > 0.1
    np.testing.assert_allclose(ours.codes(images=images).sum(axis=1), 1, atol=1e-5)


def test_evaluation_ranks_by_the_mixtures(mixed):
    """The recall that is reported is that of the features."""
    encoded = encode_split(open_run(mixed), "val")
    result = evaluate_run(open_run(mixed), "val")
    expected = recall(encoded.scores, encoded.gallery.image_ids, encoded.gallery.text_ids)
    assert {name: result["contrastive"][name] for name in expected} == pytest.approx(expected)


def test_the_fingerprint_of_stored_features_knows_the_codes(mixed):
    run = open_run(mixed)
    before = Encoder.of(run).fingerprint
    run.config.codebook.embed_temperature = 0.3
    assert Encoder.of(run).fingerprint != before


def test_a_hubs_folder_and_its_twin_mix_too(mixed, images, tmp_path):
    hub = exported(mixed, tmp_path / "hub")
    assert_the_twin_is_equal(hub, mixed, images[:3])
    np.testing.assert_array_equal(cbalign.load(hub).encode_image(images), cbalign.load(mixed).encode_image(images))


def test_albefs_format_is_refused_in_one_line(mixed, tmp_path, capsys):
    assert main(["export", f"--workdir={mixed}", f"--out={tmp_path / 'out'}", "--format=albef"]) == 2
    error = capsys.readouterr().err.strip()
    assert "mixtures of codes" in error and "--format=hub" in error and "\n" not in error
    assert not (tmp_path / "out").exists()


def test_search_and_stability_run(mixed, images, tmp_path, capsys):
    for i, image in enumerate(images):
        image.save(tmp_path / f"{i}.png")
    assert main(["search", f"--workdir={mixed}", f"--images={tmp_path}", "a red circle"]) in (0, None)
    assert ".png" in capsys.readouterr().out
    result = measure_run(open_run(mixed), pairs=16)
    assert len(result["codes"]["moved"]) == 1 and len(result["instances"]["moved"]) == 1
