"""The drawn scenes: what is true of them, their captions, their images and their TFDS records."""

import collections
import re

import numpy as np
import pytest
import tensorflow_datasets as tfds

from cbalign.data.datasets.generated import scene_captions, scene_world, scenes
from cbalign.data.datasets.generated.scene_captions import Claim, Phrase, claim_holds, claim_text
from cbalign.data.datasets.generated.scene_world import COLOURS, KINDS, RADII, Scene, SceneObject

SMALL = scenes.SceneConfig(sizes={"train": 1500, "val": 300, "test": 1000}, px=48)


@pytest.fixture(scope="module")
def test_claims():
    return list(scenes.split_claims(SMALL, "test"))


@pytest.fixture
def hand_written():
    """Large red circle top left, small red circle top right, large blue star bottom right."""
    return Scene(
        (
            SceneObject("circle", "red", "large", 0.25, 0.25),
            SceneObject("circle", "red", "small", 0.75, 0.3),
            SceneObject("star", "blue", "large", 0.74, 0.76),
        ),
        "striped",
        "grey",
    )


def record(config, split="test", index=0):
    scene = list(scenes.split_scenes(config, split))[index]
    return scenes.scene_record(config, split, index, scene)


@pytest.mark.parametrize(
    "first, relation, second, expected",
    [
        (0, "left of", 1, True),
        (0, "right of", 1, False),
        (1, "right of", 0, True),
        (1, "left of", 0, False),
        (0, "above", 1, False),
        (1, "below", 0, False),
        (1, "above", 2, True),
        (2, "below", 1, True),
        (2, "above", 1, False),
        (1, "left of", 2, False),
        (2, "left of", 1, False),
        (0, "left of", 2, True),
        (0, "above", 2, True),
        (0, "above", 0, False),
    ],
)
def test_relations(hand_written, first, relation, second, expected):
    assert hand_written.related(first, relation, second) is expected


RED_CIRCLE, BLUE_STAR = Phrase("circle", "red"), Phrase("star", "blue")


@pytest.mark.parametrize(
    "claim, text, expected",
    [
        (Claim((RED_CIRCLE,)), "a red circle", True),
        (Claim((Phrase("circle", "blue"),)), "a blue circle", False),
        (Claim((Phrase("star", "blue", "small"),)), "a small blue star", False),
        (Claim((Phrase("circle", "red", count=2),)), "two red circles", True),
        (Claim((Phrase("circle", "red", count=3),)), "three red circles", False),
        (Claim((Phrase(size="large", count=2),)), "two large shapes", True),
        (Claim((Phrase(colour="red", count=2), BLUE_STAR), ((0, "above"),)), "two red shapes above a blue star", True),
        (
            Claim((Phrase(colour="red", count=2), BLUE_STAR), ((0, "left of"),)),
            "two red shapes left of a blue star",
            False,
        ),
        (Claim((RED_CIRCLE, BLUE_STAR), ((0, "left of"),)), "a red circle left of a blue star", True),
        (Claim((BLUE_STAR, RED_CIRCLE), ((0, "left of"),)), "a blue star left of a red circle", False),
        (Claim((BLUE_STAR, BLUE_STAR)), "a blue star and a blue star", False),
        (Claim((Phrase("star", cell="bottom right"),)), "a star at bottom right", True),
        (Claim((Phrase("star", cell="top right"),)), "a star at top right", False),
        (Claim((RED_CIRCLE,), total=3), "three shapes, a red circle", True),
        (Claim((RED_CIRCLE,), total=1), "only a red circle", False),
        (Claim((RED_CIRCLE,), (), "striped", "grey"), "a red circle on striped grey", True),
        (Claim((RED_CIRCLE,), (), "plain", "grey"), "a red circle on plain grey", False),
        (Claim((RED_CIRCLE,), (), None, "white"), "a red circle on white", False),
    ],
)
def test_claims_of_a_hand_written_scene(hand_written, claim, text, expected):
    assert claim_text(claim) == text
    assert claim_holds(claim, hand_written) is expected


def test_wordings_say_the_same():
    claim = Claim((Phrase("cross", "orange", count=2), BLUE_STAR), ((0, "above"),), "noisy", "brown")
    assert [claim_text(claim, frame) for frame in range(4)] == [
        "two orange crosses above a blue star on noisy brown",
        "two orange crosses above a blue star on a noisy brown ground",
        "on noisy brown, two orange crosses above a blue star",
        "noisy brown ground with two orange crosses above a blue star",
    ]
    assert claim_text(Claim((Phrase("ring", "orange"),), total=1)) == "only an orange ring"


def test_queries_and_description(hand_written):
    assert hand_written.find(kind="circle") == [0, 1]
    assert hand_written.count(colour="red", size="small") == 1 and hand_written.count() == 3
    assert hand_written.description() == (
        "striped grey; top left: large red circle; top right: small red circle; bottom right: large blue star"
    )


def test_json_round_trip(test_claims):
    for scene, _ in test_claims[:200]:
        assert Scene.from_json(scene.to_json()) == scene
        assert hash(Scene.from_json(scene.to_json())) == hash(scene)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "not json",
        '{"objects": [], "texture": "plain", "ground": "grey"}',
        '{"objects": [{"kind": "circle"}], "texture": "plain", "ground": "grey"}',
    ],
)
def test_bad_json(text):
    with pytest.raises(ValueError):
        Scene.from_json(text)


def test_bad_scenes():
    shape = SceneObject("circle", "red", "large", 0.25, 0.25)
    with pytest.raises(ValueError, match="hexagon"):
        SceneObject("hexagon", "red", "large", 0.25, 0.25)
    with pytest.raises(ValueError, match="outside"):
        SceneObject("circle", "red", "large", 1.25, 0.25)
    with pytest.raises(ValueError, match="quarter"):
        Scene((shape, shape), "plain", "grey")
    with pytest.raises(ValueError, match="ground"):
        Scene((shape,), "plain", "red")
    with pytest.raises(ValueError, match="near"):
        Scene((shape,), "plain", "grey").related(0, "near", 0)


def test_no_two_scenes_share_a_description():
    descriptions = [scene.description() for split in scenes.SPLITS for scene in scenes.split_scenes(SMALL, split)]
    assert len(descriptions) == 2800 == len(set(descriptions))


def test_repeated_descriptions_are_drawn_anew(monkeypatch):
    def one_plain_shape(rng):
        shape = SceneObject(KINDS[rng.integers(6)], list(COLOURS)[rng.integers(8)], "large", 0.25, 0.25)
        return Scene((shape,), "plain", "grey")

    monkeypatch.setattr(scenes, "sample_scene", one_plain_shape)
    config = scenes.SceneConfig(sizes={"train": 24, "val": 8, "test": 14})
    found = [scene.description() for split in scenes.SPLITS for scene in scenes.split_scenes(config, split)]
    assert len(set(found)) == 46


def test_scenes_do_not_depend_on_sizes(test_claims):
    config = scenes.SceneConfig(sizes={"train": 5, "test": 50})
    assert list(scenes.split_scenes(config, "test")) == [scene for scene, _ in test_claims[:50]]


def test_every_object_count_and_word_occurs(test_claims):
    found = [scene for scene, _ in test_claims]
    assert set(collections.Counter(len(scene.objects) for scene in found)) == {1, 2, 3, 4}
    words = set(re.findall(r"\w+", " ".join(text for _, pairs in test_claims for _, text in pairs)))
    assert set(KINDS) | set(COLOURS) | set(RADII) | {"left", "right", "above", "below", "two", "circles"} <= words
    assert len(words) < 100


def test_every_caption_is_true_of_its_scene(test_claims):
    for scene, pairs in test_claims:
        assert len(pairs) == scene_captions.CAPTIONS_PER_SCENE
        assert len({text for _, text in pairs}) == 5
        for claim, text in pairs:
            assert claim_holds(claim, scene), text
            assert len(text.split()) <= 24


def test_captions_say_what_their_claims_say(test_claims):
    kinds = {form: kind for kind in KINDS for form in (kind, kind + "s", kind + "es")}
    for _, pairs in test_claims:
        for claim, text in pairs:
            words = text.split(" ground with ")[-1].replace(",", "").split()
            assert [kinds[w] for w in words if w in kinds] == [phrase.kind for phrase in claim.phrases]
            assert [w for w in words if w in COLOURS] == [phrase.colour for phrase in claim.phrases if phrase.colour]
            assert [w for w in words if w in RADII] == [phrase.size for phrase in claim.phrases if phrase.size]
            assert re.findall("left of|right of|above|below", text) == [relation for _, relation in claim.relations]
            assert re.findall("(?:top|bottom) (?:left|right)(?! of)", text) == [p.cell for p in claim.phrases if p.cell]
            assert claim.texture is None or f"{claim.texture} {claim.ground}" in text


def test_the_first_caption_is_a_full_description(test_claims):
    for scene, pairs in test_claims:
        told = sorted((p.kind, p.colour, p.size) for p in pairs[0][0].phrases)
        assert told == sorted((s.kind, s.colour, s.size) for s in scene.objects)


def test_captions_tell_their_scene_from_the_others(test_claims):
    for caption, bound in enumerate((0.99, 0.98, 0.97, 0.97, 0.98)):
        lone = [sum(claim_holds(pairs[caption][0], other) for other, _ in test_claims) == 1 for _, pairs in test_claims]
        assert np.mean(lone) >= bound, f"caption {caption}"


def test_determinism():
    config, other = scenes.SceneConfig(px=32), scenes.SceneConfig(px=32, seed=1)
    first, again, different = record(config), record(config), record(other)
    assert first["image"].tobytes() == again["image"].tobytes()
    assert {k: first[k] for k in first if k != "image"} == {k: again[k] for k in again if k != "image"}
    assert first["image"].tobytes() != different["image"].tobytes() and first["scene"] != different["scene"]
    assert record(config, "val")["scene"] != first["scene"]


@pytest.mark.parametrize("px", [32, 48])
def test_images_show_their_objects(test_claims, px):
    for index, (scene, _) in enumerate(test_claims[:100]):
        image = (
            scenes.scene_record(SMALL, "test", index, scene)["image"]
            if px == 48
            else (scene_world.draw_scene(scene, px, np.random.default_rng(index)))
        )
        assert image.shape == (px, px, 3) and image.dtype == np.uint8
        for shape in scene.objects:
            # A ring has the ground at its centre.
            offset = 0.76 * RADII[shape.size] if shape.kind == "ring" else 0
            pixel = image[int(shape.y * px), int((shape.x + offset) * px)].astype(int)
            assert np.abs(pixel - COLOURS[shape.colour]).max() <= (90 if shape.kind == "ring" else 40), (index, shape)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("px", [32, 48])
def test_sizes_and_kinds_cover_their_areas(kind, px):
    areas = {}
    for size, radius in RADII.items():
        scene = Scene((SceneObject(kind, "red", size, 0.25, 0.25),), "plain", "black")
        image = scene_world.draw_scene(scene, px, np.random.default_rng(0)).astype(int)
        areas[size] = np.mean(image[..., 0] > 118)
        assert 0.25 < areas[size] / (np.pi * radius**2) < 1.15
        assert image[px // 2 :].max() < 80 and image[:, px // 2 :].max() < 80, "a shape leaves its quarter"
    assert 2 < areas["large"] / areas["small"] < 4


def test_shapes_keep_apart_and_inside(test_claims):
    """The nearest any shapes come is still farther than the widest shape reaches."""
    reach = 1.08
    for scene, _ in test_claims:
        for i, shape in enumerate(scene.objects):
            radius = reach * RADII[shape.size]
            assert radius < min(shape.x, shape.y, 1 - shape.x, 1 - shape.y)
            for other in scene.objects[:i]:
                apart = max(abs(shape.x - other.x), abs(shape.y - other.y))
                assert apart > radius + reach * RADII[other.size]


@pytest.mark.parametrize(
    "fields",
    [{"sizes": {"dev": 3}}, {"sizes": {"test": -1}}, {"sizes": {}}, {"px": 8}, {"sizes": {"test": 0}}, {"seed": -1}],
)
def test_bad_config(fields):
    with pytest.raises(ValueError):
        scenes.SceneConfig(**fields)


def test_tiny_loads_through_tfds(tmp_path):
    splits = tfds.load("scenes/tiny", data_dir=str(tmp_path))
    records = {split: list(tfds.as_numpy(dataset)) for split, dataset in splits.items()}
    assert {split: len(found) for split, found in records.items()} == {"train": 256, "val": 64, "test": 64}
    everything = [record for found in records.values() for record in found]
    assert len({int(record["id"]) for record in everything}) == 384 == len({r["name"] for r in everything})
    assert all(r["image"].shape == (32, 32, 3) and len(r["captions"]) == 5 for r in everything)
    config = scenes.Scenes.builder_configs["tiny"]
    found = next(r for r in records["val"] if r["name"] == b"val-000003")
    expected = record(config, "val", 3)
    assert np.array_equal(found["image"], expected["image"]) and found["scene"].decode() == expected["scene"]
    assert [caption.decode() for caption in found["captions"]] == expected["captions"]


def test_any_size_through_tfds(tmp_path):
    config = scenes.SceneConfig(sizes={"train": 6, "test": 3}, px=20, seed=7)
    builder = tfds.builder("scenes", config=config, data_dir=str(tmp_path))
    builder.download_and_prepare()
    assert {split: info.num_examples for split, info in builder.info.splits.items()} == {"train": 6, "test": 3}
    assert builder.info.config_name == "px20_train6_val0_test3_seed7"
