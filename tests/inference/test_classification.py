"""Zero-shot classification of a folder, in Python and as a command."""

import csv
import json

import numpy as np
import pytest
import sklearn.metrics
import torch

import cbalign
from cbalign.__main__ import main
from cbalign.data import text
from cbalign.data.image_files import read_resized
from cbalign.errors import UserError
from tests.inference.conftest import blotches

CLASSES = ["red circle", "blue square", "green star"]
FOLDERS = {"Red_Circle": 3, "blue-square": 2, "other": 2}


@pytest.fixture
def sorted_folder(tmp_path):
    """Images in folders named like two of the classes, in another folder, and in none."""
    root = tmp_path / "sorted"
    for number, (name, count) in enumerate(FOLDERS.items()):
        (root / name / "deep").mkdir(parents=True)
        for place in range(count):
            blotches(10 * number + place).save(root / name / "deep" / f"{place}.png")
    blotches(99).save(root / "loose.png")
    (root / "broken.png").write_bytes(b"no image")
    return root


def expected_probabilities(opened, paths, texts_of_class):
    """softmax(cosine / temperature), from the model itself and PyTorch."""
    params, model, size = opened.params(), opened.task.model, opened.config.data.image_size
    pixels = np.stack([read_resized(path, size) for path in paths])
    images = np.asarray(model.apply({"params": params}, pixels, method="encode_image")["feature"])
    means = []
    for texts in texts_of_class:
        cleaned = [text.clean_caption(one) for one in texts]
        ids = text.encode(opened.tokenizer, cleaned, max_length=opened.config.data.max_tokens)
        encoded = np.asarray(model.apply({"params": params}, ids, method="encode_text")["feature"])
        means.append(torch.nn.functional.normalize(torch.tensor(encoded), dim=-1).mean(0))
    classes = torch.nn.functional.normalize(torch.stack(means), dim=-1)
    images = torch.nn.functional.normalize(torch.tensor(images), dim=-1)
    return torch.softmax(images @ classes.T / float(params["temperature"]["value"]), dim=-1).numpy()


@pytest.mark.parametrize("templates", [("{}",), ("a {}", "there is a {}")])
def test_in_python(tiny_run, opened, sorted_folder, templates):
    paths = sorted(sorted_folder.glob("*/deep/*.png"))
    found = cbalign.load(tiny_run).classify(paths, CLASSES, templates=templates, top=2)
    expected = expected_probabilities(opened, paths, [[t.replace("{}", name) for t in templates] for name in CLASSES])
    assert len(found) == len(paths)
    for answers, shares in zip(found, expected, strict=True):
        order = np.argsort(-shares)[:2]
        assert [name for name, _ in answers] == [CLASSES[i] for i in order]
        np.testing.assert_allclose([share for _, share in answers], shares[order], atol=1e-4)


def test_mistakes_in_python(tiny_run, sorted_folder):
    model, image = cbalign.load(tiny_run), sorted_folder / "loose.png"
    with pytest.raises(UserError, match="1 classes to choose from"):
        model.classify(image, ["cat"])
    with pytest.raises(UserError, match="'Cat' is named twice"):
        model.classify(image, ["cat", "dog", "Cat"])
    with pytest.raises(UserError, match="has no {}"):
        model.classify(image, "cat,dog", templates=["a photo"])
    with pytest.warns(
        UserWarning, match="1 class has no word in the model's vocabulary; the model can only guess: 漢字"
    ):
        model.classify(image, ["red circle", "漢字"])


@pytest.mark.usefixtures("compiled")
def test_the_command_states_the_accuracy_of_labelled_images(tiny_run, sorted_folder, opened, capsys, tmp_path):
    arguments = ["classify", f"--workdir={tiny_run}", f"--images={sorted_folder}", f"--classes={','.join(CLASSES)}"]
    assert main([*arguments, "--json", "--top=3", f"--out={tmp_path / 'out.csv'}"]) == 0
    printed = capsys.readouterr()
    answer = json.loads(printed.out)
    assert "broken.png: broken" in printed.err and len(answer["images"]) == sum(FOLDERS.values()) + 1
    labels = {row["path"]: row["label"] for row in answer["images"]}
    assert sorted(map(str, labels.values())) == ["None"] * 3 + ["blue square"] * 2 + ["red circle"] * 3
    known = [row for row in answer["images"] if row["label"]]
    right = [row["answers"][0]["class"] == row["label"] for row in known]
    assert answer["accuracy"]["top1"] == pytest.approx(100 * np.mean(right)) and answer["accuracy"]["images"] == 5
    assert answer["accuracy"]["top5"] is None and answer["accuracy"]["chance"] == pytest.approx(100 / 3)
    recalls = sklearn.metrics.recall_score(
        [row["label"] for row in known],
        [row["answers"][0]["class"] for row in known],
        labels=CLASSES[:2],
        average=None,
        zero_division=0,
    )
    assert [answer["accuracy"]["by_class"][name] for name in CLASSES[:2]] == pytest.approx(list(100 * recalls))
    assert answer["accuracy"]["by_class"]["green star"] is None
    with (tmp_path / "out.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3 * len(labels)
    best = {row["path"]: row["class"] for row in rows if row["rank"] == "1"}
    assert best == {row["path"]: row["answers"][0]["class"] for row in answer["images"]}


@pytest.mark.usefixtures("compiled")
def test_the_folders_are_the_classes_by_default(tiny_run, sorted_folder, capsys, tmp_path):
    assert main(["classify", f"--weights={tiny_run}", f"--images={sorted_folder}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.endswith(".png")]) == sum(FOLDERS.values()) + 1
    (summary,) = [line for line in lines if line.startswith("accuracy")]
    assert "chance 33.3 % (7 of 8 images lie in a folder named like a class)" in summary
    file = tmp_path / "classes.txt"
    file.write_text("\n".join(f"shape {number}" for number in range(7)) + "\n\n")
    arguments = ["classify", f"--weights={tiny_run}", f"--images={sorted_folder}", f"--classes={file}"]
    assert main([*arguments, f"--out={tmp_path / 'out.json'}", "--template=a {}"]) == 0
    assert capsys.readouterr().out == ""
    assert json.loads((tmp_path / "out.json").read_text())["classes"] == [f"shape {number}" for number in range(7)]


def test_mistakes_of_the_command(tiny_run, sorted_folder, tmp_path, capsys):
    flat = tmp_path / "flat"
    flat.mkdir()
    blotches(1).save(flat / "a.png")
    for rest, message in (
        ([f"--images={sorted_folder}", "--classes=cat"], "name two or more"),
        ([f"--images={sorted_folder}", "--classes=cat,,dog"], "a class has no name"),
        ([f"--images={sorted_folder}", "--classes=cat,dog", "--top=0"], "--top=0"),
        ([f"--images={sorted_folder}", "--classes=cat,dog", "--template=photo"], "has no {}"),
        ([f"--images={sorted_folder}", "--classes=cat,dog", "--out=a.txt"], "must end in .csv or .json"),
        ([f"--images={sorted_folder}", f"--classes={tmp_path / 'none.txt'}"], "No such file"),
        ([f"--images={flat}"], "0 classes to choose from"),
        ([f"--images={tmp_path / 'none'}", "--classes=cat,dog"], "is not a folder"),
    ):
        assert main(["classify", f"--workdir={tiny_run}", *rest]) == 2
        assert message in capsys.readouterr().err
