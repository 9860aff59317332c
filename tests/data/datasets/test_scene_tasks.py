"""The scene tasks: answers and labels against the scenes themselves, and what blind guesses reach, by counting."""

import collections
import re

import numpy as np
import pytest
import tensorflow_datasets as tfds

import cbalign.data.datasets.generated.scenes_nlvr2
import cbalign.data.datasets.generated.scenes_ve
import cbalign.data.datasets.generated.scenes_vqa  # noqa: F401
from cbalign.data.datasets import schema
from cbalign.data.datasets.generated.scene_captions import Phrase
from cbalign.data.datasets.generated.scene_entailment import all_hypotheses, entailment_blocks, label_scenes
from cbalign.data.datasets.generated.scene_questions import all_questions, answer_scenes, question_rounds
from cbalign.data.datasets.generated.scene_statements import all_statements, statement_blocks, statement_holds
from cbalign.data.datasets.generated.scene_table import NOTHING, SceneTable, SplitImages, TaskConfig, in_rounds
from cbalign.data.datasets.generated.scene_world import CELLS, RELATIONS, Scene, SceneObject
from cbalign.data.datasets.generated.scenes import SceneConfig

WORLD = SceneConfig(sizes={"train": 1, "val": 1, "test": 1000})


@pytest.fixture(scope="module")
def images():
    return SplitImages(WORLD, "test")


@pytest.fixture(scope="module")
def questions(images):
    return list(in_rounds(question_rounds(images.table, np.random.default_rng(0)), 5000))


@pytest.fixture(scope="module")
def statements(images):
    return list(in_rounds(statement_blocks(images.table, np.random.default_rng(0)), 4000))


@pytest.fixture(scope="module")
def hypotheses(images):
    return list(in_rounds(entailment_blocks(images.table, np.random.default_rng(0)), 4500))


@pytest.fixture
def two_scenes():
    """Red circle top left over a blue star bottom left; red circle, red circle, green ring."""
    first = Scene(
        (SceneObject("circle", "red", "large", 0.25, 0.25), SceneObject("star", "blue", "small", 0.3, 0.8)),
        "striped",
        "grey",
    )
    second = Scene(
        (
            SceneObject("circle", "red", "small", 0.2, 0.2),
            SceneObject("circle", "red", "large", 0.75, 0.25),
            SceneObject("ring", "green", "small", 0.8, 0.7),
        ),
        "plain",
        "white",
    )
    return SceneTable([first, second])


# The words of a description, read back from the text alone.
_DESCRIBED = re.compile(
    r"(small|large)? ?(red|orange|yellow|green|cyan|blue|purple|pink)? ?"
    r"(circle|square|triangle|star|cross|ring|shape)(?:s|es)?"
    r"(?: at ((?:top|bottom) (?:left|right)))?$"
)


def described(scene, words):
    """Numbers of the shapes that a description such as "large red circle" fits."""
    size, colour, kind, cell = _DESCRIBED.match(words.strip()).groups()
    return scene.find(None if kind == "shape" else kind, colour, size, cell)


def answer_by_reading(scene, text):
    """The answer to a question, from its words and the scene's own methods; None where it has none."""
    text = text.rstrip("?")
    if text == "what colour is the ground":
        return scene.ground
    if text == "what pattern does the ground have":
        return scene.texture
    if found := re.match(r"how many (.+) are there", text):
        return str(len(described(scene, found[1])))
    if found := re.match(r"is there an? (.+)", text):
        return "yes" if described(scene, found[1]) else "no"
    between = f"({'|'.join(RELATIONS)})"
    if found := re.match(rf"is the (.+) {between} the (.+)", text):
        first, second = described(scene, found[1]), described(scene, found[3])
        if len(first) != 1 or len(second) != 1 or first == second:
            return None
        return "yes" if scene.related(first[0], found[2], second[0]) else "no"
    if found := re.match(rf"what (is|colour is the shape) {between} the (.+)", text):
        to = described(scene, found[3])
        beside = [i for i in range(len(scene.objects)) if len(to) == 1 and scene.related(i, found[2], to[0])]
        shape = scene.objects[beside[0]] if len(beside) == 1 else None
        return shape and (shape.kind if found[1] == "is" else shape.colour)
    form, attribute = next(
        (form, attribute)
        for form, attribute in (
            (r"what colour is the (.+)", "colour"),
            (r"what is the (.+)", "kind"),
            (r"where is the (.+)", "cell"),
            (r"is the (.+) large or small", "size"),
        )
        if re.fullmatch(form, text)
    )
    shapes = described(scene, re.fullmatch(form, text)[1])
    return getattr(scene.objects[shapes[0]], attribute) if len(shapes) == 1 else None


def test_answers_are_those_of_the_scenes(images, questions):
    for scene, question, answer in questions:
        assert answer_by_reading(images.scenes[scene], question.text) == answer, question.text
    assert len({question.topic for _, question, _ in questions}) == 10


def test_questions_without_an_answer_are_known(images):
    scenes = images.scenes[:60]
    table = SceneTable(scenes)
    for question in sum(all_questions().values(), [])[::5]:
        wanted = [answer_by_reading(scene, question.text) for scene in scenes]
        found = [question.answers[n] if n != NOTHING else None for n in answer_scenes(question, table)]
        assert found == [a if a in question.answers else None for a in wanted], question.text


def test_table_relations_are_those_of_the_scenes(images):
    for index in range(100):
        scene, table = images.scenes[index], images.table.take(np.array([index]))
        for i, a in enumerate(scene.objects):
            mark = np.zeros((1, 4), bool)
            mark[0, CELLS.index(a.cell)] = True
            for relation in RELATIONS:
                beside = table.in_relation(relation, mark)[0]
                for j, b in enumerate(scene.objects):
                    assert beside[CELLS.index(b.cell)] == scene.related(j, relation, i)


@pytest.mark.parametrize(
    "text, first, second",
    [
        ("the circle is red", 2, -1),
        ("the star is blue", 2, 1),
        ("the star is red", 0, 1),
        ("the blue shape is a star", 2, 1),
        ("the green shape is a star", 1, 0),
        ("the red circle is large", 2, -1),
        ("the star is at bottom left", 2, 1),
        ("the ring is at bottom left", 1, 0),
        ("the circle is above the star", 2, -1),
        ("the circle is left of the star", 0, -1),
        ("the large circle is red", 2, 2),
        ("the blue shape is below the red shape", 2, -1),
        ("the ring is below the star", 1, 1),
    ],
)
def test_labels_of_hand_written_scenes(two_scenes, text, first, second):
    hypothesis = next(h for h in all_hypotheses() if h.text == text)
    assert label_scenes(hypothesis, two_scenes).tolist() == [first, second]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("there is a blue star in the left picture", True),
        ("there is a blue star in the right picture", False),
        ("there is a ring in the right picture", True),
        ("just one picture shows a star", True),
        ("just one picture shows a circle", False),
        ("both pictures show a red circle", True),
        ("both pictures show a ring", False),
        ("no picture shows a square", True),
        ("no picture shows a star", False),
        ("there are three circles", True),
        ("there are two circles", False),
        ("there are three red shapes", True),
        ("there are more circles in the right picture", True),
        ("there are more circles in the left picture", False),
        ("there are more shapes in the right picture", True),
        ("there are more blue shapes in the left picture", True),
        ("both pictures are striped", False),
        ("both pictures are white", False),
    ],
)
def test_statements_about_hand_written_scenes(two_scenes, text, expected):
    statement = next(s for s in all_statements() if s.text == text)
    left, right = two_scenes.take(np.array([0])), two_scenes.take(np.array([1]))
    assert statement_holds(statement, left, right).tolist() == [expected]


def right_guesses(examples, seen, answer):
    """Share of examples that the most frequent answer to what is seen of them gets right, counted on themselves."""
    groups = collections.defaultdict(collections.Counter)
    for example in examples:
        groups[seen(example)][answer(example)] += 1
    return sum(max(counts.values()) for counts in groups.values()) / len(examples)


def test_no_blind_guess_answers_questions(questions):
    chance = np.mean([1 / len(question.answers) for _, question, _ in questions])
    views = {
        "nothing": lambda e: 0,
        "question": lambda e: e[1].text,
        "type": lambda e: e[1].type,
        "topic": lambda e: e[1].topic,
        "image": lambda e: e[0],
    }
    for name, seen in views.items():
        assert right_guesses(questions, seen, lambda e: e[2]) < chance + 0.03, name
    # The same of each answer type by itself.
    for kind in ("yes/no", "number", "other"):
        group = [e for e in questions if e[1].answer_type == kind]
        chance = np.mean([1 / len(e[1].answers) for e in group])
        assert right_guesses(group, views["question"], lambda e: e[2]) < chance + 0.03, kind


def test_no_blind_guess_judges_statements(statements):
    views = {
        "statement": lambda e: e.statement.text,
        "pair": lambda e: (e.left, e.right),
        "left": lambda e: e.left,
        "right": lambda e: e.right,
        "topic": lambda e: e.statement.topic,
    }
    for name, seen in views.items():
        assert right_guesses(statements, seen, lambda e: e.label) < 0.53, name
    assert len({(e.statement.text, e.left, e.right) for e in statements}) == len(statements)


def test_no_blind_guess_judges_hypotheses(hypotheses):
    views = {"hypothesis": lambda e: e[1].text, "image": lambda e: e[0], "topic": lambda e: e[1].topic}
    for name, seen in views.items():
        assert right_guesses(hypotheses, seen, lambda e: e[2]) < 1 / 3 + 0.03, name
    assert len({(e[0], e[1].text) for e in hypotheses}) == len(hypotheses)


def test_the_counting_would_find_a_bias(questions):
    # Yes to three in four: the count above must see it.
    biased = [
        e for i, e in enumerate(q for q in questions if q[1].answer_type == "yes/no") if e[2] == "yes" or i % 3 == 0
    ]
    assert right_guesses(biased, lambda e: e[1].text, lambda e: e[2]) > 0.6


def test_more_examples_begin_with_the_fewer(images):
    for blocks in (question_rounds, statement_blocks, entailment_blocks):
        few, many = (list(in_rounds(blocks(images.table, np.random.default_rng(3)), n)) for n in (50, 400))
        assert many[:50] == few and len(many) == 400


@pytest.mark.parametrize("blocks", [question_rounds, statement_blocks, entailment_blocks])
def test_too_few_scenes_are_told(images, blocks):
    with pytest.raises(ValueError, match="more scenes"):
        list(in_rounds(blocks(images.table.take(np.arange(6)), np.random.default_rng(0)), 100_000))


def test_bad_sizes():
    with pytest.raises(ValueError, match="sizes"):
        TaskConfig(sizes={"dev": 3})
    with pytest.raises(ValueError, match="no"):
        TaskConfig(sizes={"train": 3}, scenes=SceneConfig(sizes={"test": 5}))


@pytest.mark.parametrize(
    "name, features",
    [("scenes_vqa", schema.questions), ("scenes_nlvr2", schema.image_pairs), ("scenes_ve", schema.entailment)],
)
def test_built_records(tmp_path, name, features):
    """Two builds agree; the features are those of the real data set; the images those of the scenes they tell of."""
    small = TaskConfig(sizes={"train": 30, "test": 30}, scenes=SceneConfig(sizes={"train": 60, "test": 60}, px=32))
    builds = []
    for folder in ("a", "b"):
        builder = tfds.builder(name, config=small, data_dir=tmp_path / folder)
        builder.download_and_prepare()
        builds.append([dict(r) for r in tfds.as_numpy(builder.as_dataset(split="test"))])
    assert list(builder.info.features) == list(tfds.features.FeaturesDict(features()))
    assert len(builds[0]) == 30
    for first, second in zip(*builds):
        for key, value in first.items():
            np.testing.assert_array_equal(value, second[key])
    if name == "scenes_vqa":
        images = SplitImages(small.scenes, "test")
        for record in builds[0]:
            scene = images.scenes[record["image_id"]]
            answer = answer_by_reading(scene, record["question"].decode())
            assert [a.decode() for a in record["answers"]] == [answer] * 10
            assert record["question"].decode().startswith(record["question_type"].decode())


def test_phrases_in_english():
    from cbalign.data.datasets.generated.scene_table import plural, the

    assert the(Phrase("circle", "red", "large", "top left")) == "the large red circle at top left"
    assert plural(Phrase("cross", "orange")) == "orange crosses" and plural(Phrase()) == "shapes"
