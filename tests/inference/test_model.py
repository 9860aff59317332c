"""`cbalign.load` and `cbalign.Model`, on a tiny run and on the weights it exports."""

import doctest
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import cbalign
from cbalign.data import text
from cbalign.data.augment import views
from cbalign.errors import UserError
from cbalign.inference import Source, open_source
from cbalign.inference import model as model_module
from cbalign.runs.workdir import task_class
from cbalign.weights import released as released_module
from tests.inference.conftest import blotches
from tests.tiny import tiny_config

TEXTS = ["a large red circle", "a small blue square", "a green star"]


@pytest.fixture(scope="module")
def model(tiny_run):
    return cbalign.load(tiny_run)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Three images as files."""
    folder = tmp_path_factory.mktemp("three")
    paths = [folder / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        blotches(number).save(path)
    return paths


@pytest.fixture(scope="module")
def apply(opened):
    """The model's own `apply`, compiled: one by one, each operation is a program of its own."""
    return jax.jit(opened.task.model.apply, static_argnames="method")


@pytest.fixture(scope="module")
def reference(opened, images, apply):
    """What flax says of the images and texts: (params, image outputs, token ids, text outputs)."""
    params = opened.params()
    pixels = np.stack([views.resize(views.decode(path.read_bytes()), 32).numpy() for path in images])
    cleaned, length = [text.clean_caption(caption) for caption in TEXTS], opened.config.data.max_tokens
    ids = text.encode(opened.tokenizer, cleaned, max_length=length)
    return (
        params,
        apply({"params": params}, pixels, method="encode_image"),
        ids,
        apply({"params": params}, ids, method="encode_text"),
    )


def test_attributes_say_what_it_is(model, tiny_run):
    assert (model.task_name, model.image_size, model.config.model.embed_dim) == ("pretrain", 32, 32)
    assert str(tiny_run) in repr(model) and "pretrain" in repr(model)


def test_features_are_the_models_own(model, images, reference):
    _, image_outputs, _, text_outputs = reference
    features = model.encode_image(images)
    assert features.shape == (3, 32) and features.dtype == np.float32
    np.testing.assert_allclose(features, image_outputs["feature"], atol=1e-5)
    np.testing.assert_allclose(model.encode_text(TEXTS), text_outputs["feature"], atol=1e-5)
    np.testing.assert_allclose(
        model.similarity(images, TEXTS), np.asarray(image_outputs["feature"] @ text_outputs["feature"].T), atol=1e-5
    )


def test_an_image_is_the_same_in_every_form(model, images):
    expected = model.encode_image(images)
    with Image.open(images[0]) as opened:
        pixels = np.array(opened.convert("RGB"))
        for form in (images[0], str(images[0]), images[0].read_bytes(), opened, pixels, pixels[np.newaxis], [pixels]):
            found = model.encode_image(form)
            assert found.shape == (1, 32)
            np.testing.assert_allclose(found, expected[:1], atol=1e-5)
    stacked = np.stack([np.array(Image.open(path).convert("RGB")) for path in images])
    np.testing.assert_allclose(model.encode_image(stacked), expected, atol=1e-5)
    np.testing.assert_allclose(model.encode_image([images[1], stacked[2]]), expected[1:], atol=1e-5)


def test_more_images_than_a_batch_and_none(model, images):
    many = [images[number % 3] for number in range(35)]
    np.testing.assert_allclose(model.encode_image(many), model.encode_image(images)[np.arange(35) % 3], atol=1e-5)
    assert model.encode_image([]).shape == model.encode_text([]).shape == (0, 32)
    assert model.match([], TEXTS).shape == (0, 3)


def test_matching_is_the_softmax_of_the_matching_head(model, apply, images, reference):
    params, image_outputs, ids, text_outputs = reference
    expected = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            fused = apply(
                {"params": params},
                text_outputs["tokens"][j : j + 1],
                ids[j : j + 1],
                image_outputs["tokens"][i : i + 1],
                method="fuse",
            )
            logits = apply({"params": params}, fused, method="match")
            expected[i, j] = jax.nn.softmax(logits)[0, 1]
    found = model.match(images, TEXTS)
    assert found.shape == (3, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(model.match(images, TEXTS, paired=True), np.diag(expected), atol=1e-5)
    # More images than a batch: each has its own row.
    many = [images[number % 3] for number in range(35)]
    np.testing.assert_allclose(model.match(many, TEXTS[:2]), expected[np.arange(35) % 3, :2], atol=1e-5)
    names = dict(model.predict(images[1], TEXTS[2]))
    assert names["match"] == pytest.approx(expected[1, 2], abs=1e-5) and sum(names.values()) == pytest.approx(1)


def test_code_probabilities_are_of_the_scaled_cosines(model, images, reference):
    params, image_outputs, _, text_outputs = reference
    codes = np.asarray(params["codebook"]["codes"], np.float64)
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    for found, outputs in ((model.codes(images=images), image_outputs), (model.codes(texts=TEXTS), text_outputs)):
        logits = np.asarray(outputs["feature"], np.float64) @ codes.T / model.config.codebook.temperature
        expected = np.exp(logits - logits.max(axis=1, keepdims=True))
        np.testing.assert_allclose(found, expected / expected.sum(axis=1, keepdims=True), rtol=1e-3, atol=1e-6)
        assert found.shape == (3, 32) and found.dtype == np.float32


def test_search_ranks_a_folder(model, folder, tiny_run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy, ignore=shutil.ignore_patterns("search"))
    model = cbalign.load(copy)
    with pytest.warns(UserWarning, match="1 images in .* cannot be read, such as .*broken.png .broken"):
        hits = model.search(folder, folder / "b.JPG", top=2)
    assert hits[0].path == str(folder / "b.JPG") and hits[0].score == pytest.approx(1, abs=1e-5) and len(hits) == 2
    assert len(list((copy / "search").iterdir())) == 1
    index = model.index(folder)
    assert index.encoded == 0
    with pytest.warns(UserWarning):
        by_text = model.search(folder, TEXTS[0], top=9)
    scores = dict(zip(index.paths, index.features @ model.encode_text(TEXTS[0])[0]))
    assert [hit.path for hit in by_text] == sorted(scores, key=lambda path: -scores[path])


def test_exported_weights_are_the_same_model(model, exported, images, opened):
    other = cbalign.load(exported)
    expected = opened.config.to_dict()
    expected["data"]["dir"] = ""  # of the machine that trained it
    assert (other.task_name, other.image_size, other.config.to_dict()) == ("pretrain", 32, expected)
    np.testing.assert_array_equal(other.encode_image(images), model.encode_image(images))
    np.testing.assert_array_equal(other.encode_text(TEXTS), model.encode_text(TEXTS))
    np.testing.assert_array_equal(other.match(images, TEXTS), model.match(images, TEXTS))
    np.testing.assert_array_equal(other.codes(texts=TEXTS), model.codes(texts=TEXTS))
    assert other.predict(images[0], TEXTS[0]) == model.predict(images[0], TEXTS[0])


def test_the_teacher_is_loaded_where_the_config_says_so(exported, opened, tmp_path):
    shutil.copytree(exported, tmp_path / "teacher")
    rewrite(tmp_path / "teacher", config__eval__weights="teacher")
    loaded, student = open_source(tmp_path / "teacher").params, open_source(exported).params
    shapes = jax.eval_shape(opened.task.init_params, jax.random.key(0))
    teacher = opened.restore({"teacher": opened.task.teacher_params(shapes)})["teacher"]
    assert loaded.keys() == student.keys() and teacher.keys() < loaded.keys()
    for module in loaded:
        expected = teacher[module] if module in teacher else student[module]
        jax.tree.map(np.testing.assert_array_equal, loaded[module], jax.device_get(expected))
    differ = jax.tree.map(lambda x, y: not np.array_equal(x, y), loaded["image_encoder"], student["image_encoder"])
    assert any(jax.tree.leaves(differ))


def test_released_weights_are_found_by_name(exported, tmp_path, monkeypatch, images, model):
    shutil.copytree(exported, tmp_path / "released" / "tiny")
    monkeypatch.setattr(released_module, "released", lambda: {"tiny": tmp_path / "released" / "tiny"})
    np.testing.assert_array_equal(cbalign.load("tiny").encode_image(images), model.encode_image(images))
    with pytest.raises(UserError, match="nor the name of released weights .tiny.;"):
        cbalign.load("huge")


@pytest.mark.parametrize(
    "task, count, names",
    [
        pytest.param("vqa", 1, {"red", "two", "yes"}, marks=pytest.mark.slow),
        pytest.param("nlvr2", 2, {"false", "true"}, marks=pytest.mark.slow),
        ("snli_ve", 1, {"contradiction", "neutral", "entailment"}),
    ],
)
def test_every_tasks_model_predicts_and_is_exported(task, count, names, opened, tmp_path, images):
    """A model at random, written as `cbalign export` writes it, answers as the one it was written from."""
    import flax

    from cbalign.weights import weights_folder

    config = tiny_config(task=task)
    built = task_class(config)(config, tokens=text.special_ids(opened.tokenizer))
    for name in built.asset_files:
        built.use_assets({name: sorted(names)}, opened.tokenizer)
    params = built.init_params(jax.random.key(3))
    arrays = {f"params/{name}": np.asarray(x) for name, x in flax.traverse_util.flatten_dict(params, sep="/").items()}
    words = weights_folder.vocabulary_tokens(opened.tokenizer)
    info = {"source": "cbalign", "config": config.to_dict()}
    weights_folder.write_weights(tmp_path / "out", arrays, info, words=words)
    for name in built.asset_files:
        (tmp_path / "out" / name).write_text(json.dumps(sorted(names)))
    direct, loaded = cbalign.Model(Source("here", built, opened.tokenizer, params)), cbalign.load(tmp_path / "out")
    question = "is there a red circle"
    answers = loaded.predict(images[:count], question)
    assert answers == direct.predict(images[:count], question)
    assert {name for name, _ in answers} == names and sum(p for _, p in answers) == pytest.approx(1, abs=1e-5)
    assert [p for _, p in answers] == sorted((p for _, p in answers), reverse=True)
    assert loaded.predict(images[:count], question, top=1) == answers[:1]

    for call in (
        lambda: loaded.encode_image(images),
        lambda: loaded.encode_text(TEXTS),
        lambda: loaded.codes(texts="a"),
        lambda: loaded.search(images[0].parent, "a"),
    ):
        with pytest.raises(UserError, match=f"task {task}, which has no shared embedding space"):
            call()
    with pytest.raises(UserError, match="matching head of .* was never trained"):
        loaded.match(images, TEXTS)
    with pytest.raises(UserError, match=rf"{task} looks at {count} image\(s\), 3 given"):
        loaded.predict(images, question)
    with pytest.raises(UserError, match="no word of '漢字'"):
        loaded.predict(images[:count], "漢字")


def test_heads_that_were_never_trained_are_named(opened, images):
    config = tiny_config(loss_weights__itm=0.0, loss_weights__code=0.0)
    task = task_class(config)(config, tokens=text.special_ids(opened.tokenizer))
    model = cbalign.Model(Source("runs/x", task, opened.tokenizer, opened.params()))
    for call, message in (
        (lambda: model.match(images, TEXTS), "loss_weights.itm=0"),
        (lambda: model.predict(images[0], TEXTS[0]), "loss_weights.itm is 0"),
        (lambda: model.codes(texts=TEXTS), "codebook of runs/x was never trained"),
    ):
        with pytest.raises(UserError, match=message):
            call()


def test_mistakes_are_named(model, exported, images, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    for call, message in (
        (lambda: model.encode_image(tmp_path / "none.png"), "none.png cannot be used .missing"),
        (lambda: model.encode_image([images[0], tmp_path / "broken.png"]), "broken.png cannot be used .broken"),
        (lambda: model.encode_image(np.zeros((8, 8, 3))), r"array of float64 \[8, 8, 3\] holds no images"),
        (lambda: model.match(images, TEXTS[:2], paired=True), "3 and 2 given"),
        (lambda: model.codes(), "either images=... or texts=..."),
        (lambda: model.codes(images=images, texts=TEXTS), "either images=... or texts=..."),
        (lambda: model.search(tmp_path / "none", "a"), "is not a folder"),
        (lambda: model.search(tmp_path, "a", top=0), "top=0 must be 1 or more"),
        (lambda: model.predict(images, "a red circle"), r"match looks at 1 image\(s\), 3 given"),
        (
            lambda: cbalign.load(tmp_path),
            "is not the folder of a run .no config.json.*name of released weights .icons.;",
        ),
        (lambda: cbalign.load(exported, checkpoint="4"), "holds one set of weights"),
        (lambda: cbalign.load(model._source.name, checkpoint="3000"), "3000"),
    ):
        with pytest.raises(UserError, match=message):
            call()
    with pytest.warns(UserWarning, match="1 of 2 texts have no word in the model's vocabulary, such as '漢字'"):
        model.encode_text(["a circle", "漢字"])


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda folder: (folder / "vocab.txt").unlink(), "lacks vocab.txt"),
        (lambda folder: rewrite(folder, config=None), "holds converted weights"),
        (lambda folder: rewrite(folder, config__model__image_depth=2), "are missing, unknown or of another shape"),
        (lambda folder: rewrite(folder, config__model__embed_dim=16), "are missing, unknown or of another shape"),
        (lambda folder: (folder / "params.safetensors").write_bytes(b"x"), "damaged"),
    ],
)
def test_damaged_exports_are_named(exported, tmp_path, change, message):
    shutil.copytree(exported, tmp_path / "copy")
    change(tmp_path / "copy")
    with pytest.raises(UserError, match=message):
        open_source(tmp_path / "copy")


def rewrite(folder, **changes):
    """Changes fields of weights.json, named with "__" between the levels."""
    info = json.loads((folder / "weights.json").read_text())
    for name, value in changes.items():
        *path, last = name.split("__")
        section = info
        for part in path:
            section = section[part]
        section[last] = value
    (folder / "weights.json").write_text(json.dumps(info))


def test_the_examples_in_the_documentation_run(tiny_run, model, images, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number in range(2):
        (tmp_path / "folder").mkdir(exist_ok=True)
        blotches(number).save(tmp_path / "folder" / f"{number}.png")
    names = {"cbalign": cbalign, "model": model, "workdir": tiny_run, "image": images[0], "folder": tmp_path / "folder"}
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    tried = 0
    for example in finder.find(model_module, "cbalign.inference.model", globs=names):
        tried += runner.run(example).attempted
    assert runner.summarize(verbose=False).failed == 0 and tried >= 12
