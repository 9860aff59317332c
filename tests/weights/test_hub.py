"""A folder for a hub: opened by transformers and PyTorch, and by this package, from one file of weights."""

import json

import numpy as np
import pytest
from PIL import Image

import cbalign
from cbalign.__main__ import main
from cbalign.data.image_files import read_resized
from cbalign.models.vit import normalise_image
from cbalign.weights.hub_files import modeling_cbalign

TEXTS = [
    "A large, red circle!",
    "a small blue/green square",
    "a-green star and something that is longer than the limit",
]


@pytest.fixture(scope="module")
def hub(tiny_run, tmp_path_factory):
    return exported(tiny_run, tmp_path_factory.mktemp("hub") / "tiny")


def exported(run, out):
    assert main(["export", f"--workdir={run}", f"--out={out}", "--format=hub"]) in (0, None)
    return out


@pytest.fixture(scope="module")
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 7, 9, 4), np.uint8)
    return [Image.fromarray(x).resize((50 + 9 * i, 61)) for i, x in enumerate(pixels)]


def test_transformers_opens_it_and_finds_the_same_features(hub, tiny_run, images):
    assert_the_twin_is_equal(hub, tiny_run, images)


def assert_the_twin_is_equal(hub, tiny_run, images):
    torch = pytest.importorskip("torch")
    from transformers import AutoModel, BertTokenizer

    twin = AutoModel.from_pretrained(hub, trust_remote_code=True, dtype=torch.float32).eval()
    tokenizer = BertTokenizer.from_pretrained(hub)
    ours = cbalign.load(tiny_run)
    pixels = np.stack([read_resized(image, 32) for image in images])
    levels = np.asarray(twin.preprocess(images).permute(0, 2, 3, 1)) * modeling_cbalign.IMAGE_STD
    assert np.abs((levels + modeling_cbalign.IMAGE_MEAN) * 255 - pixels).max() < 1.01  # rounded once more or less
    pixels = torch.from_numpy(np.asarray(normalise_image(pixels))).permute(0, 3, 1, 2)
    with torch.no_grad():
        ids = twin.tokenize(tokenizer, TEXTS)
        found = twin(pixels, ids)
        match, codes = twin.match(pixels, ids), twin.codes(found["image_features"])
    np.testing.assert_allclose(found["image_features"], ours.encode_image(images), atol=1e-4)
    np.testing.assert_allclose(found["text_features"], ours.encode_text(TEXTS), atol=1e-4)
    np.testing.assert_allclose(match, np.diagonal(ours.match(images, TEXTS)), atol=1e-4)
    np.testing.assert_allclose(codes, ours.codes(images=images), atol=1e-4)


def test_cbalign_opens_it(hub, tiny_run, images):
    ours, loaded = cbalign.load(tiny_run), cbalign.load(hub)
    np.testing.assert_array_equal(loaded.encode_image(images), ours.encode_image(images))
    np.testing.assert_array_equal(loaded.encode_text(TEXTS), ours.encode_text(TEXTS))
    card = (hub / "README.md").read_text()
    assert "library_name: cbalign" in card and "AutoModel" in card


def test_the_twin_cleans_texts_as_training_does():
    from cbalign.data.text import clean_caption

    for text in (*TEXTS, "  <person> 's  dog...  ", "a\tb\n", " ".join(map(str, range(40)))):
        assert modeling_cbalign.clean(text) == clean_caption(text)


def test_half_precision_moves_the_features_little(hub, tiny_run, tmp_path, images):
    main(["export", f"--workdir={tiny_run}", f"--out={tmp_path / 'half'}", "--format=hub", "--dtype=float16"])
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tmp_path / "half", hub)]
    assert sizes[0] < 0.6 * sizes[1]
    features = cbalign.load(tmp_path / "half").encode_image(images)
    np.testing.assert_allclose(features, cbalign.load(hub).encode_image(images), atol=5e-3)


def test_a_task_without_a_joint_space_is_refused(hub, tmp_path, capsys):
    folder = tmp_path / "vqa"
    folder.mkdir()
    for path in hub.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    info = json.loads((folder / "weights.json").read_text())
    info["config"]["task"] = "snli_ve"
    (folder / "weights.json").write_text(json.dumps(info))
    assert main(["export", f"--workdir={folder}", f"--out={tmp_path / 'out'}", "--format=hub"]) == 2
    assert "--format=hub holds a model of pretraining or retrieval" in capsys.readouterr().err
