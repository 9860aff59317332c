"""Opening records of every kind: slices, mixtures, memory and disk, and that texts never need the images."""

import json
import pathlib

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from cbalign.data import pipeline
from cbalign.data import records as records_module
from cbalign.data.columns import answer_columns, text_columns
from cbalign.data.datasets import catalogue
from cbalign.data.datasets.schema import KINDS
from cbalign.data.records import open_records, records_in_memory
from cbalign.data.split_index import write_indices
from cbalign.errors import UserError
from tests.data import stored_sets

COUNT = 12


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Names of data sets of every kind by kind; another half of each under "more"."""
    folder, names = tmp_path_factory.mktemp("sets"), {}
    for kind, make in stored_sets.MAKERS.items():
        splits = {"train": [make(number) for number in range(COUNT)], "val": [make(number) for number in range(20, 24)]}
        names[kind] = stored_sets.write(folder, f"set_{kind}", splits, kind=kind)
        names["more", kind] = stored_sets.write(
            folder, f"more_{kind}", {"train": [make(number) for number in range(30, 36)]}, shards=2, kind=kind
        )
    return names


@pytest.fixture(params=["memory", "disk"])
def place(request, monkeypatch):
    """Where images are read from, however small the split."""
    if request.param == "disk":
        monkeypatch.setattr(records_module, "MEMORY_LIMIT", 0)
    return request.param


def images_of(records, **options):
    """All images, resized: one array for each side."""
    batches = list(pipeline.eval_batches(records, image_size=8, batch_size=5, **options))
    names = ("image", "image_second")[: records.sides]
    return [np.concatenate([batch[name][:valid] for batch, valid in batches]) for name in names]


@pytest.mark.parametrize("kind", stored_sets.MAKERS)
@pytest.mark.parametrize(
    "split, numbers",
    [
        ("train", range(COUNT)),
        ("train[3:9]", range(3, 9)),
        ("train[:50%]", range(6)),
        ("train[9:]+val", [9, 10, 11, 20, 21, 22, 23]),
        ("train[8:10]+train[1:3]", [8, 9, 1, 2]),
    ],
)
def test_what_a_split_holds(sets, place, kind, split, numbers):
    records = open_records(kind, sets[kind], split)
    made, names = [stored_sets.MAKERS[kind](number) for number in numbers], KINDS[kind]
    assert records.stored == (place == "disk") and len(records) == records.epoch_size == len(made)
    texts = [record[names.text] for record in made]
    assert list(records.texts) == [text if isinstance(text, list) else [text] for text in texts]
    assert list(records.names) == [str(record[names.identifier]) for record in made]
    for name in set(names.features) - {names.text, *names.images}:
        column = records.columns[name]
        values = column.tolist() if isinstance(column, np.ndarray) else list(column)
        assert values == [record[name] for record in made]
    for side, name in enumerate(names.images):
        assert [records.image(i, side) for i in range(len(made))] == [record[name] for record in made]
    assert records.sides == len(names.images) == len(images_of(records))
    shown = [image for record in made for image in (record[name] for name in names.images)]
    assert records.image_ids.shape == (len(made), records.sides)
    assert records.image_count == (len(shown) if place == "disk" else len(set(shown)))


@pytest.mark.parametrize("kind", stored_sets.MAKERS)
def test_memory_and_disk_show_the_same_images(sets, monkeypatch, kind):
    name = f"{sets[kind]}+{sets['more', kind]}*0.5"
    memory = open_records(kind, name, "train")
    monkeypatch.setattr(records_module, "MEMORY_LIMIT", 0)
    disk = open_records(kind, name, "train")
    assert disk.stored and not memory.stored and memory.images.decoded
    for one, other in zip(images_of(memory), images_of(disk), strict=True):
        np.testing.assert_array_equal(one, other)


def test_equal_images_have_equal_numbers_in_memory(sets):
    ids = open_records("questions", sets["questions"], "train").image_ids[:, 0]
    assert ids.tolist() == [number // 3 for number in range(COUNT)]
    pairs = open_records("image_pairs", sets["image_pairs"], "train").image_ids
    assert pairs.ravel().tolist() == list(range(2 * COUNT))


@pytest.mark.parametrize("kind", stored_sets.MAKERS)
def test_mixtures_of_every_kind(sets, place, kind):
    records = open_records(kind, f"{sets[kind]}*2+{sets['more', kind]}*0.5", "train")
    assert len(records) == COUNT + 6 and records.epoch_size == 2 * COUNT + 3
    expected = [stored_sets.MAKERS[kind](number)[KINDS[kind].text] for number in [*range(COUNT), *range(30, 36)]]
    assert list(records.texts) == [text if isinstance(text, list) else [text] for text in expected]
    if kind == "captions":
        assert len(set(records.columns["id"].tolist())) == COUNT + 6


def test_ids_of_captions_that_do_not_fit_are_renumbered(tmp_path, place):
    wide = [{**stored_sets.record(n), "id": 2**40 + n // 2} for n in range(6)]
    records = open_records("captions", stored_sets.write(tmp_path, "wide", {"train": wide}, shards=1), "train")
    assert records.columns["id"].tolist() == [0, 0, 1, 1, 2, 2] and records.columns["id"].dtype == np.int32


def test_ids_of_a_mixture_remain_where_they_are_distinct(tmp_path, place):
    """Else they are renumbered, so that no two sources share one."""

    def named(folder, *ids):
        made = [{**stored_sets.record(n), "id": number} for n, number in enumerate(ids)]
        return stored_sets.write(tmp_path / folder, "same", {"train": made}, shards=1)

    one, other, third = named("a", 7, 2_000_000_000, 7), named("b", 5, 9), named("c", 9, 7)
    assert open_records("captions", f"{one}+{other}", "train").columns["id"].tolist() == [7, 2_000_000_000, 7, 5, 9]
    ids = open_records("captions", f"{one}+{third}", "train").columns["id"].tolist()
    assert ids[0] == ids[2] and len(set(ids)) == 4


@pytest.mark.parametrize("kind", stored_sets.MAKERS)
def test_texts_are_read_without_the_images(tmp_path, place, kind):
    """Once there is an index, the shards may hold anything: nothing but images is read from them."""
    make = stored_sets.MAKERS[kind]
    name = stored_sets.write(tmp_path, "set", {"train": [make(number) for number in range(9)]}, kind=kind)
    write_indices(catalogue.prepare(name))
    for shard in pathlib.Path(name).glob("*.tfrecord-*"):
        shard.write_bytes(bytes(shard.stat().st_size))
    records, names = open_records(kind, name, "train[2:8]"), KINDS[kind]
    texts = [make(number)[names.text] for number in range(2, 8)]
    assert list(records.texts) == [text if isinstance(text, list) else [text] for text in texts]
    columns = text_columns(records, stored_sets.tokenizer(tmp_path), max_length=6)
    assert len(columns.text) >= 6 and not columns.silent
    if kind == "questions":
        assert records.answer_list()[0] == "here" and len(records.answer_list()) == 7
        answers = answer_columns(records, stored_sets.tokenizer(tmp_path), slots=2, max_length=4)
        np.testing.assert_array_equal(answers["answer_weights"], [[0.75, 0.25]] * 6)
    # Every image is lost, and counted.
    with pytest.raises(UserError, match="records have images that cannot be read"):
        images_of(records)
    assert all((image == 128).all() for image in images_of(records, max_bad_share=1.0))


@pytest.mark.parametrize("kind", ["questions", "image_pairs"])
def test_a_record_damaged_after_indexing_is_lost_alone(tmp_path, place, kind, caplog):
    make, names = stored_sets.MAKERS[kind], KINDS[kind]
    made = [make(number) for number in range(9)]
    name = stored_sets.write(tmp_path, "set", {"train": made}, kind=kind)
    write_indices(catalogue.prepare(name))
    shard = pathlib.Path(name) / "set-train.tfrecord-00001-of-00003"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 0xFF  # within record 4 of 3 to 5
    shard.write_bytes(data)
    lost = images_of(open_records(kind, name, "train"), max_bad_share=0.2)
    good = images_of(records_in_memory(kind, [tuple(r[n] for n in names.images) for r in made], [["a"]] * 9))
    for shown, expected in zip(lost, good, strict=True):
        assert (shown[4] == 128).all()
        np.testing.assert_array_equal(np.delete(shown, 4, axis=0), np.delete(expected, 4, axis=0))
    assert "1 of 9 records have unreadable images" in caplog.text


def test_answer_list(sets, tmp_path):
    """Without a file the answers given, the most frequent first; with one that of the data set."""
    asked = [["b", "a", "a"], ["b"], ["c", "c"]]
    made = [stored_sets.question(number, answers=answers) for number, answers in enumerate(asked)]
    name = stored_sets.write(tmp_path, "asked", {"train": made}, kind="questions")
    assert open_records("questions", name, "train").answer_list() == ["b", "a", "c"]
    (pathlib.Path(name) / "answer_list.json").write_text(json.dumps(["x", "y"]))
    assert open_records("questions", name, "train").answer_list() == ["x", "y"]
    mixed = f"{sets['questions']}+{name}"
    assert open_records("questions", mixed, "train").answer_list() == ["x", "y"]


def test_sources_without_the_split_are_left_out_if_asked(sets):
    name = f"{sets['captions']}+{sets['more', 'captions']}"
    assert len(open_records("captions", name, "val", missing="skip")) == 4
    assert len(open_records("captions", name, "train[:2]+val", missing="skip")) == 6
    with pytest.raises(UserError, match="has no split val"):
        open_records("captions", name, "val")
    with pytest.raises(UserError, match="has no split nothing"):
        open_records("captions", name, "nothing", missing="skip")
    with pytest.raises(UserError, match=r"has no split train\+dev: give one of train"):
        open_records("captions", sets["captions"], "train+dev")


def test_another_kind_of_data_set_is_refused(sets):
    with pytest.raises(UserError, match="not a data set of questions: it has no image_id, question_id"):
        open_records("questions", sets["captions"], "val")
    with pytest.raises(UserError, match="not a data set of images and captions: it has no captions, id"):
        open_records("captions", sets["questions"], "val")


def test_an_empty_part_is_refused(sets):
    with pytest.raises(UserError, match="holds no records"):
        open_records("captions", sets["captions"], "train[12:]")


@pytest.mark.slow
def test_generated_sets_of_every_kind(tfds_dir):
    for kind, name, split in (
        ("questions", "scenes_vqa/tiny", "val"),
        ("image_pairs", "scenes_nlvr2/tiny", "val[:40]"),
        ("entailment", "scenes_ve/tiny", "val+test"),
        ("captions", "scenes/tiny", "val"),
    ):
        memory = open_records(kind, name, split, str(tfds_dir))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(records_module, "MEMORY_LIMIT", 0)
            disk = open_records(kind, name, split, str(tfds_dir))
        assert disk.stored and not memory.stored
        assert list(memory.texts) == list(disk.texts) and list(memory.names) == list(disk.names)
        for one, other in zip(images_of(memory), images_of(disk), strict=True):
            np.testing.assert_array_equal(one, other)
