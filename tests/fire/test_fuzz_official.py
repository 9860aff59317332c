"""Official files of any content: built, with what is left out counted, or refused with one line."""

import json
import shutil

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cbalign.data.datasets.catalogue import find_builder
from cbalign.data.datasets.official import build_report, shard_writer
from cbalign.data.datasets.official import miniature as mini
from cbalign.errors import UserError
from tests.fire.fuzzing import check_refusal, examples, files_below, json_text, mutated, mutated_json

pytestmark = pytest.mark.slow


def _genome(root):
    mini.visual_genome(root)
    mini.coco_karpathy(root)
    mini.flickr30k(root)
    mini.refcoco(root)


def _genome_list(root):
    mini.visual_genome(root)
    mini.vg_albef(root)


def _coco_lists(root):
    mini.coco_images(root)
    mini.coco_albef(root)


def _coco(root):
    mini.coco_images(root)
    mini.coco_karpathy(root)


def _vqa(root):
    mini.vqa(root)
    mini.vg_questions(root)
    mini.write_json(root / "answer_list.json", ["yes", "no"])


def _entailment(root):
    mini.flickr30k(root)
    mini.snli_ve(root, without="?")


def _pairs(root):
    mini.pair_folder(root / "train", "00000", range(3))
    mini.pair_folder(root / "validation", "00000", range(3, 5))


def _pair_lists(root):
    _pairs(root)
    mini.write_json(root / "cc3m_train.json", [{"image": "train/00000/000000001.jpg", "caption": "one"}])
    mini.write_json(root / "cc3m_val.json", [{"image": "validation/00000/000000003.jpg", "caption": "three"}])


FOLDERS = {
    "coco_karpathy": _coco,
    "coco_karpathy (lists)": _coco_lists,
    "flickr30k_karpathy": mini.flickr30k,
    "visual_genome": _genome,
    "visual_genome (list)": _genome_list,
    "vqa_v2": _vqa,
    "nlvr2": mini.nlvr2,
    "snli_ve": _entailment,
    "cc3m": _pairs,
    "cc3m (lists)": _pair_lists,
    "sbu": _pairs,
}


@pytest.fixture(scope="module")
def miniatures(tmp_path_factory):
    """{name: folder} of the official files of each data set."""
    root = tmp_path_factory.mktemp("official")
    for number, make in enumerate(FOLDERS.values()):
        (root / str(number)).mkdir()
        make(root / str(number))
    return {name: root / str(number) for number, name in enumerate(FOLDERS)}


def annotations(folder):
    """The JSON files of a folder."""
    return sorted(path for path in folder.rglob("*.json*") if path.stat().st_size)


def build(name, manual, data_dir):
    """Builds a data set in one process and without the checks of its size."""
    builder = find_builder(name.partition(" ")[0], str(data_dir))
    contents = builder.contents(manual)
    skipped = {split: rows.skipped for split, rows in contents.splits.items()}
    for line in [*contents.notes, *build_report.skipped_lines(skipped)]:
        assert isinstance(line, str)
    build_report.check_share(contents, 0.5)
    shard_writer.write_shards(builder, contents, workers=1)
    return builder


def check(name, folder, tmp_path, file, content):
    """Reads and builds a copy of a miniature in which one file has another content."""
    for part in ("manual", "data"):
        shutil.rmtree(tmp_path / part, ignore_errors=True)
    shutil.copytree(folder, tmp_path / "manual")
    (tmp_path / "manual" / file.relative_to(folder)).write_bytes(content)
    before = files_below(tmp_path / "manual")
    try:
        build(name, tmp_path / "manual", tmp_path / "data")
    except UserError as error:
        check_refusal(error)
    assert files_below(tmp_path / "manual") == before
    assert {path.name for path in tmp_path.iterdir()} <= {"manual", "data"}


@pytest.mark.parametrize("name", FOLDERS)
def test_builds(miniatures, tmp_path, name):
    folder = miniatures[name]
    file = annotations(folder)[0]
    check(name, folder, tmp_path, file, file.read_bytes())
    assert list((tmp_path / "data").rglob("dataset_info.json"))


@pytest.mark.parametrize("name", FOLDERS)
@examples(8)
@given(st.data())
def test_mutated(miniatures, tmp_path, capsys, name, data):
    folder = miniatures[name]
    file = data.draw(st.sampled_from(annotations(folder)))
    text = file.read_text()
    if data.draw(st.integers(0, 4)) == 0:
        content = data.draw(mutated(text.encode()))
    elif file.suffix == ".jsonl" or name == "nlvr2":
        lines = text.splitlines()
        place = data.draw(st.integers(0, len(lines) - 1))
        lines[place] = data.draw(mutated_json(json.loads(lines[place])))
        content = "\n".join(lines).encode(errors="replace")
    else:
        content = data.draw(mutated_json(json.loads(text))).encode(errors="replace")
    check(name, folder, tmp_path, file, content)
    capsys.readouterr()


@pytest.mark.parametrize(
    "name, file, path, value",
    [
        ("visual_genome", "region_descriptions.json", (0, "regions", 0, "width"), 2**70),
        ("visual_genome", "region_descriptions.json", (0, "regions", 0, "width"), "x" * 1000),
        ("visual_genome", "region_descriptions.json", (0, "regions", 0, "width"), 0.5),
        ("visual_genome", "region_descriptions.json", (0, "regions", 0, "height"), "RAW-BIG"),
        ("visual_genome", "region_descriptions.json", (0, "id"), "1"),
        ("visual_genome", "region_descriptions.json", (0, "id"), 10**400),
        ("coco_karpathy", "dataset_coco.json", ("images", 0, "cocoid"), 2**70),
        ("coco_karpathy", "dataset_coco.json", ("images", 0, "cocoid"), {}),
        ("coco_karpathy", "dataset_coco.json", ("images", 0, "sentences"), "RAW-CAPTIONS"),
        ("coco_karpathy", "dataset_coco.json", ("images",), "RAW-DEEPER"),
        ("coco_karpathy", "dataset_coco.json", ("images", 0, "sentences", 0, "raw"), "half a pair \ud83d"),
        ("coco_karpathy", "dataset_coco.json", ("images", 0, "filename"), 7),
        ("coco_karpathy (lists)", "coco_karpathy_train.json", (0, "image"), 7),
        ("cc3m (lists)", "cc3m_train.json", (0, "image"), "\ud83d"),
        ("vqa_v2", "v2_OpenEnded_mscoco_train2014_questions.json", ("questions", 0, "question_id"), 2**70),
        ("vqa_v2", "v2_mscoco_train2014_annotations.json", ("annotations", 0, "question_type"), 3),
        ("vqa_v2", "v2_mscoco_train2014_annotations.json", ("annotations", 0, "answers"), {"a": 1}),
        ("vqa_v2", "question_answers.json", (0, "qas", 0, "qa_id"), 0.5),
    ],
)
def test_values_that_found_something(miniatures, tmp_path, name, file, path, value):
    folder = miniatures[name]
    (place,) = folder.rglob(file)
    content = json.loads(place.read_text())
    part = content
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    check(name, folder, tmp_path, place, json_text(content).encode(errors="replace"))


@examples(20)
@given(
    mutated([b"one caption", json.dumps({"caption": "one", "key": "1"}).encode()]), st.sampled_from((".txt", ".json"))
)
@example(b'{"caption": ' + b"[" * 3000, ".json")
@example(b"[]", ".json")
def test_texts_beside_images(miniatures, tmp_path, content, suffix):
    folder = miniatures["cc3m"]
    check("cc3m", folder, tmp_path, folder / "train" / "00000" / f"000000001{suffix}", content)
