"""What the page asks of a model, without the page."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

import cbalign
from cbalign.data.image_files import MAX_PIXELS
from cbalign.errors import UserError
from cbalign.inference import Encoder, open_source
from cbalign.report.demo import markup
from cbalign.report.demo.answers import MAX_TEXT, Answers, Query
from cbalign.report.demo.images import ShownImages
from tests.report.demo.conftest import blotches

CLASSES = ["red circle", "blue square", "green star"]


@pytest.fixture(scope="module")
def answers(tiny_run, tmp_path_factory):
    root = tmp_path_factory.mktemp("answers")
    source = open_source(tiny_run)
    encoder = Encoder.of(source)
    features = []
    for number in range(9):
        blotches(number).save(root / f"{number}.png")
        features.append(encoder.image(root / f"{number}.png"))
    features[7] = features[2]  # two that always score alike
    names = [f"{number}.png" for number in range(9)]
    return Answers(source, encoder, ShownImages(root, names, np.stack(features), {}, []))


def test_classes_are_the_softmax_of_cosines_at_the_models_temperature(answers, tiny_run):
    file, template = answers.images.root / "4.png", "a {} on white"
    found, notes = answers.classify(file, "red circle\n blue square,green star,, red circle", template)
    assert notes == []
    model = cbalign.load(tiny_run)
    image, texts = model.encode_image(file)[0], model.encode_text([template.format(name) for name in CLASSES])
    logits = texts @ image / float(np.asarray(open_source(tiny_run).params["temperature"]["value"]))
    expected = np.exp(logits) / np.exp(logits).sum()
    assert [name for name, _ in found] == [CLASSES[i] for i in np.argsort(-expected)]
    np.testing.assert_allclose([share for _, share in found], np.sort(expected)[::-1], rtol=1e-4)


def test_classes_and_words_outside_the_vocabulary_are_named(answers):
    file = answers.images.root / "4.png"
    found, (note,) = answers.classify(file, "red circle, 漢字", "{}")
    assert {name for name, _ in found} == {"red circle", "漢字"}
    assert note.startswith("1 class has no word in the model's vocabulary") and note.endswith("漢字")
    with pytest.raises(UserError, match="no word of '漢字' is in the model's vocabulary") as error:
        answers.predict([file], "漢字")
    assert str(answers.source.name) not in str(error.value)  # where it lies is not the visitors' business
    found, notes = answers.predict([file], "a red 漢字")
    assert {name for name, _ in found} == {"match", "no match"} and notes == ["not in the vocabulary: '漢字'"]


def test_what_is_found_is_ranked_by_cosine(answers):
    query = answers.text_query("a red circle")
    scores = answers.images.features @ query.feature
    order = sorted(range(9), key=lambda row: (-scores[row], row))
    assert answers.find(query, least=-1, count=9).rows == order
    found = answers.find(query, least=-1, count=4)
    assert found.rows == order[:4] and found.scores == [float(scores[row]) for row in order[:4]] and found.enough == 9
    least = float(scores[order[2]])
    found = answers.find(query, least=least, count=9)
    assert found.rows == [row for row in order if scores[row] >= least] and found.enough == len(found.rows)
    assert answers.find(Query(), least=0.9, count=2).rows == [0, 1]


def test_long_and_odd_texts(answers):
    assert answers.text_query("  ").feature is None and answers.text_query(None).feature is None
    long = answers.text_query("circle " * 5000)
    assert long.notes[0] == f"only the first {MAX_TEXT:,} characters are used" and len(long.text) == MAX_TEXT
    assert "words are used" in long.notes[1]
    odd = answers.text_query("\ud800" + "漢" * 300)
    assert np.linalg.norm(odd.feature) == pytest.approx(1, abs=1e-5)
    assert "is in the run's vocabulary" in odd.notes[0] and len(odd.notes[0]) < 210


def test_mistakes_are_named(answers, tmp_path):
    file = answers.images.root / "0.png"
    Image.new("1", (9000, 9000)).save(tmp_path / "bomb.png")
    (tmp_path / "empty.png").write_bytes(b"")
    assert MAX_PIXELS < 9000 * 9000
    for call, message in (
        (lambda: answers.classify(None, "a, b", "{}"), "choose an image"),
        (lambda: answers.classify(file, "a", "{}"), "two classes or more"),
        (lambda: answers.classify(file, ",".join(map(str, range(201))), "{}"), "201 classes are more than 200"),
        (lambda: answers.classify(file, "a, b", "no place"), "with {} where the class goes"),
        (lambda: answers.explain(np.zeros((8, 8, 3), np.uint8), " "), "type a text"),
        (lambda: answers.image_query(tmp_path / "bomb.png"), "too large, more than 64 megapixels"),
        (lambda: answers.image_query(tmp_path / "empty.png"), "empty file"),
        (lambda: answers.image_query(tmp_path), "missing"),
    ):
        with pytest.raises(UserError, match=message):
            call()


def test_code_images_are_the_nearest_of_the_folder(answers, tiny_run):
    model = cbalign.load(tiny_run)
    top = answers.codes(answers.images.features[3])
    shares = model.codes(images=answers.images.root / "3.png")[0]
    np.testing.assert_array_equal(top.codes, np.argsort(-shares, kind="stable")[:4])
    np.testing.assert_allclose(top.probabilities, np.sort(shares)[::-1][:4], rtol=1e-5)
    codes = np.asarray(open_source(tiny_run).task.model.apply({"params": open_source(tiny_run).params}, method="codes"))
    code = int(top.codes[0])
    cosines = answers.images.features @ codes[code]
    assert answers.code_images(code) == sorted(range(9), key=lambda row: (-cosines[row], row))[:4]


def test_a_spotlight_dims_what_has_no_attention():
    pixels = np.full((40, 60, 3), 200, np.uint8)
    attention = np.zeros((4, 4), np.float32)
    attention[0, 3] = 1
    lit = markup.spotlight(pixels, attention)
    assert lit.shape == pixels.shape and lit[2, 57, 0] >= 195 and lit[35, 5, 0] == 40
    np.testing.assert_array_equal(markup.spotlight(pixels, np.ones((4, 4), np.float32)), pixels)
    assert np.all(markup.spotlight(pixels, np.zeros((4, 4), np.float32)) == 40)


def test_maps_are_shown_where_there_are_any(answers):
    explanation = answers.explain(answers.images.pixels(3), "a red circle")
    whole, words = markup.attention_maps(explanation)
    assert (whole == []) == (not explanation.token_maps[0].any()) and len(words) in (0, len(explanation.words))
    tokens = np.stack([np.full((2, 2), value, np.float32) for value in (3, 4, 0, 2)])
    some = dataclasses.replace(explanation, token_maps=tokens, word_maps=tokens[1:], words=["a", "red", "circle"])
    whole, words = markup.attention_maps(some)
    shown = [(name, float(light.max())) for name, light in (*whole, *words)]
    assert shown == [("whole text", 1.0), ("a", 1.0), ("red", 0.0), ("circle", 0.5)]
    assert markup.attention_maps(dataclasses.replace(some, token_maps=tokens * 0, word_maps=None)) == ([], [])


def test_every_text_of_the_page_is_escaped():
    text = "<b>&\"'</b> ${x} {{y}} `z`"
    for part in (markup.note(text), markup.heading(text, [text])):
        assert "<b>" not in part and "${" not in part and "{{" not in part and "`" not in part
        assert "&lt;b&gt;&amp;&#34;&#39;&lt;/b&gt; &#36;&#123;x&#125;" in part
    assert markup.note("", "") == ""
