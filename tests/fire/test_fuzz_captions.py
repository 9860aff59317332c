"""Caption files of any content: read, or refused with one line; and imported without a trace elsewhere."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cbalign.data.datasets.caption_files import read_pairs
from cbalign.data.datasets.official.miniature import write_image
from cbalign.errors import UserError
from tests.fire.fuzzing import check_refusal, examples, files_below, json_text, mutated, mutated_json, run

pytestmark = pytest.mark.slow

ROWS = [{"image": f"{name}.png", "caption": f"the letter {name}, or so"} for name in "abcd"]
COCO = {
    "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
    "annotations": [{"image_id": 1, "caption": "an a"}, {"image_id": 2, "caption": ["a b", "b"]}],
}
SPLIT = {"columns": ["image", "caption"], "index": [0], "data": [["a.png", "an a"], ["b.png", "a b"]]}
COLUMNS = {"image": ["a.png", "b.png"], "caption": {"0": "an a", "1": "a b"}}
SHAPES = (ROWS, {"data": ROWS}, COCO, SPLIT, COLUMNS, {"a.png": ["an a"], "b.png": "a b"})
TABLES = [
    text.encode(encoding)
    for text in (
        'image,caption\na.png,"an a, or so"\nb.png,"a ""b"""\n',
        'image\tcaption\na.png\tan a\nb.png\t"a\nb"\n',
        'sep=;\r\nimage;caption\r\na.png;"an a"\r\n',
        "image,caption\na.png,['an a', 'an ä']\nb.png,{'raw': 'x'}\n",
    )
    for encoding in ("utf-8", "utf-16", "utf-8-sig")
]


def texts():
    """(suffix, content) of a caption file that was one."""
    lines = st.lists(st.one_of(mutated_json(ROWS[0]), st.text(max_size=9)), min_size=1, max_size=4).map("\n".join)
    return st.one_of(
        st.tuples(st.just(".json"), st.one_of(*map(mutated_json, SHAPES)).map(lambda x: x.encode(errors="replace"))),
        st.tuples(st.just(".jsonl"), lines.map(lambda x: x.encode(errors="replace"))),
        st.tuples(st.sampled_from((".csv", ".tsv", ".txt", ".tab")), mutated(TABLES)),
        st.tuples(st.sampled_from((".json", ".jsonl")), mutated([json.dumps(shape).encode() for shape in SHAPES])),
    )


def captions_of(*values):
    return ".json", json_text([{"image": "a.png", "caption": value} for value in values]).encode()


@examples(300)
@given(texts())
@example(captions_of("RAW-DIGITS"))
@example(captions_of("RAW-DEEP", "RAW-DEEPER", "RAW-CAPTIONS"))
@example(captions_of("RAW-CAPTIONS"))
@example(captions_of(f"['a', 0x{'f' * 5000}]"))
@example(captions_of("half of a pair \ud83d"))
@example((".json", json_text([{"image": "RAW-OBJECTS", "caption": "a"}]).encode()))
@example((".json", json.dumps(SPLIT | {"data": [1]}).encode()))
@example((".json", json.dumps(SPLIT | {"columns": [[], {}]}).encode()))
@example((".json", json.dumps(COCO | {"images": [{"id": 1, "file_name": []}]}).encode()))
# Took time by the square of its length: 80 seconds for this one.
@example((".csv", b"x" * 100_000 + b"\n"))
@example((".csv", b"image,caption\n" + b'"' * 999))
def test_reading(tmp_path, file):
    suffix, content = file
    path = tmp_path / f"captions{suffix}"
    path.write_bytes(content)
    try:
        pairs = list(read_pairs(path))
    except UserError as error:
        check_refusal(error)
        return
    for pair in pairs:
        pair.caption.encode()
        assert isinstance(pair.image, str)
        assert bool(pair.caption.strip()) or pair.fault


@examples(12, full=300)
@given(texts())
@example((".json", json.dumps([{"image": "a.png", "caption": "a"}, {"image": "\udce9.png", "caption": "b"}]).encode()))
def test_import(tmp_path_factory, capsys, file):
    suffix, content = file
    folder = tmp_path_factory.mktemp("import")
    for number, name in enumerate("abcd"):
        write_image(folder / "images" / f"{name}.png", number, size=(16, 12), kind="PNG")
    (folder / "images" / "\udce9.png").write_bytes((folder / "images" / "a.png").read_bytes())
    (folder / f"captions{suffix}").write_bytes(content)
    before = files_below(folder)
    code, *_ = run(
        capsys,
        *("data", "import", f"--images={folder / 'images'}", f"--captions={folder}/captions{suffix}"),
        *(f"--out={folder / 'out'}", "--test=0", "--max-bad=0.9"),
    )
    after = {path: size for path, size in files_below(folder).items() if folder / "out" not in (path, *path.parents)}
    assert after == before
    assert (folder / "out").exists() == (code == 0)
