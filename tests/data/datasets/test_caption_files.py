"""Caption files as people have them: each is read as it is meant, or refused with a line that says what to do."""

import json
import math

import pandas
import pytest

from cbalign.data.datasets.caption_files import read_pairs
from cbalign.data.datasets.caption_values import texts_in
from cbalign.errors import UserError

ROWS = [("0.jpg", "a dog, a cat"), ("1.jpg", 'the "big" bird'), ("2.jpg", "schön")]


def read(path, content, encoding="utf-8"):
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return [(pair.image, pair.caption or pair.fault) for pair in read_pairs(path)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt"])
def test_separators_and_encodings(tmp_path, suffix, separator, encoding):
    frame = pandas.DataFrame(ROWS, columns=["image", "caption"])
    text = frame.to_csv(index=False, sep=separator)
    assert read(tmp_path / f"c{suffix}", text, encoding) == ROWS


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_line_ends(tmp_path, ends):
    lines = ["image,caption", 'a.jpg,"one, two"', "", "b.jpg,three", ",", ""]
    assert read(tmp_path / "c.csv", ends.join(lines)) == [("a.jpg", "one, two"), ("b.jpg", "three")]
    lines = ["image\tcaption", 'a.jpg\t"one', "b.jpg\tthree", ""]
    assert read(tmp_path / "c.tsv", ends.join(lines)) == [("a.jpg", '"one'), ("b.jpg", "three")]


def test_a_space_after_the_comma(tmp_path):
    content = 'image, caption\n0.jpg, "a man, a plan"\n1.jpg,  plain\n'
    assert read(tmp_path / "c.csv", content) == [("0.jpg", "a man, a plan"), ("1.jpg", "plain")]


def test_quotation_marks_of_tab_separated_files(tmp_path):
    content = 'image\tcaption\na.jpg\t"hello" he said\nb.jpg\t"unclosed\nc.jpg\tplain\nd.jpg\t"whole ""field"""\n'
    expected = [("a.jpg", '"hello" he said'), ("b.jpg", '"unclosed'), ("c.jpg", "plain"), ("d.jpg", 'whole "field"')]
    assert read(tmp_path / "c.tsv", content) == expected
    # As Excel writes a cell of two lines.
    content = 'image\tcaption\na.jpg\t"first\nsecond"\nb.jpg\tplain\n'
    assert read(tmp_path / "c.tsv", content) == [("a.jpg", "first\nsecond"), ("b.jpg", "plain")]
    content = 'caption\timage\n"first\nsecond"\ta.jpg\nplain\tb.jpg\n'
    assert read(tmp_path / "c.tsv", content) == [("a.jpg", "first\nsecond"), ("b.jpg", "plain")]


def test_lines_within_quotation_marks(tmp_path):
    assert read(tmp_path / "c.csv", 'image,caption\n0.jpg,"first\nsecond, of 0"\n') == [
        ("0.jpg", "first\nsecond, of 0")
    ]


def test_trailing_columns_without_a_name(tmp_path):
    assert read(tmp_path / "c.csv", "image,caption,,\na.jpg,x,,\nb.jpg,y\n") == [("a.jpg", "x"), ("b.jpg", "y")]
    assert read(tmp_path / "c.csv", "image,caption\na.jpg,x,,\n") == [("a.jpg", "x")]


def test_excels_note_on_the_separator(tmp_path):
    assert read(tmp_path / "c.csv", "sep=;\nimage;caption\na.jpg;x, y\n") == [("a.jpg", "x, y")]


def test_columns_of_open_clip(tmp_path):
    notes = []
    (tmp_path / "c.csv").write_text("filepath\ttitle\na/b.jpg\tone, two\n")
    assert [tuple(pair[:2]) for pair in read_pairs(tmp_path / "c.csv", notes)] == [("a/b.jpg", "one, two")]
    assert notes == ["fields of c.csv are separated by '\\t'"]


def test_columns_that_are_not_used_are_told(tmp_path):
    notes = []
    (tmp_path / "c.csv").write_text("image,title,caption,split\na.jpg,T,x,test\n")
    assert [tuple(pair[:2]) for pair in read_pairs(tmp_path / "c.csv", notes)] == [("a.jpg", "x")]
    assert "captions from caption; not used: title" in notes[0] and "column split is not used" in notes[1]


@pytest.mark.parametrize(
    "name, content, message",
    [
        (
            "c.csv",
            "image,caption\na.jpg,x\nb.jpg,two dogs, one cat\n",
            "line 3: 3 fields, and the header has 2 .*quota",
        ),
        ("c.csv", "image,caption,id\na.jpg,x\n", "line 2: 2 fields, and the header has 3 .*complete the row"),
        ("c.csv", 'image,caption\n"a.jpg","x\ny"\nb.jpg,y,z\n', "line 4: 3 fields"),
        ("c.tsv", "image\tcaption\na.jpg\tx\ty\n", "line 2: 3 fields.*holds tabs"),
        ("c.tsv", 'image\tcaption\na.jpg\t"x\nno row\nb.jpg\tz\n', "line 2: 2 fields, a quotation mark and no end"),
        ("c.tsv", 'image\tcaption\na.jpg\t"x\nno row\nb.jpg\tz"\n', "line 2: .*closes only after the line 'b.jpg"),
        ("c.csv", "image,caption,Caption\na.jpg,x,y\n", "column caption is there 2 times"),
        ("c.csv", "file,image,image ,caption\nz,a.jpg,x,y\n", "column image is there 2 times"),
        ("c.csv", '0.jpg,"x, y"\n1.jpg,z\n', "has no header: its first line is '0.jpg.*'image,caption'"),
        ("c.tsv", "0.jpg#0\ta dog\n", "has no header"),
        ("c.csv", 'image,caption\na.jpg,"open\nb.jpg,x\n', "line 2: a quotation mark is never closed"),
        ("c.csv", 'image,caption\na.jpg,"open\nb.jpg,x\nc.jpg,"y"\n', "line 2: .*quot"),
        ("c.csv", 'image,caption\na.jpg,"open\nb.jpg,end"\n', "line 2: .*closes only after .*'b.jpg"),
        ("c.csv", 'image,caption\na.jpg,"Big" dog\n', "line 2: .*twice"),
        ("c.csv", b"image,caption\na.jpg,x\0y\n", "line 2: holds a zero byte"),
        ("c.csv", "image,caption\na.jpg,schön\n".encode("latin-1"), "not UTF-8 .*line 2: byte 0xf6.*iconv"),
        ("c.json", '[{"image": "a", "caption": "x", "caption": "y"}]', "names 'caption' twice"),
        ("c.jsonl", '{"image": "a", "caption": "x"}\n{"image": "a", "image": "b", "caption": "y"}', "line 2: .*twice"),
        ("c.json", '{"image": ["a.jpg", "b.jpg"], "caption": ["x"]}', "different lengths .image 2, caption 1"),
        ("c.json", '{"info": {}, "split": "x"}', "does not contain a JSON list.*found an object with 'info'"),
        ("c.parquet", b"PAR1 not", "no Parquet file"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, name, content, message):
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path / name, content)
    assert "\n" not in str(error.value)


VALUES = [
    ("a dog", ["a dog"], []),
    ("  ", [], ["empty caption"]),
    (None, [], ["caption is null"]),
    (math.nan, [], ["caption is null"]),
    ("NaN", [], ["caption is null (NaN)"]),
    ("None", [], ["caption is null (None)"]),
    (7, [], ["caption is no text (7)"]),
    (True, [], ["caption is no text (True)"]),
    ({"raw": "a dog", "tokens": ["a", "dog"]}, ["a dog"], []),
    ({"caption": ["x y", "z"]}, ["x y", "z"], []),
    ({"tokens": ["a"]}, [], ["caption is no text ({'tokens': ['a']})"]),
    ([], [], ["empty caption"]),
    (["a dog", None, "", 7], ["a dog"], ["caption is null", "empty caption", "caption is no text (7)"]),
    ([["one dog", "a cat"]], ["one dog", "a cat"], []),
    ([["a", "dog", "runs"]], [], ["caption is a list of tokens (['a', 'dog', 'runs'])"]),
    (["dog", "puppy", "pet"], ["dog", "puppy", "pet"], []),
    ("['one dog', \"it's two\"]", ["one dog", "it's two"], []),
    ('["one dog", "two"]', ["one dog", "two"], []),
    ("{'raw': 'a dog'}", ["a dog"], []),
    ("['one dog' 'two dogs']", [], ["caption is no text (['one dog' 'two dogs'])"]),
    ("['one dog', nan]", [], ["caption is no text (['one dog', nan])"]),
    ("array(['one'], dtype=object)", [], ["caption is no text (array(['one'], dtype=object))"]),
    ("b'a dog'", ["a dog"], []),
    ("[laughs] a dog", ["[laughs] a dog"], []),
    ("[2]", ["[2]"], []),
    ("(a dog)", ["(a dog)"], []),
]


@pytest.mark.parametrize("value, found, faults", VALUES, ids=[repr(value[0])[:30] for value in VALUES])
def test_values(value, found, faults):
    texts = texts_in(value)
    assert (texts.found, texts.faults) == (found, faults)


def test_the_same_in_every_format(tmp_path):
    values = ["a dog", None, math.nan, "nan", "", ["x y", None]]
    objects = [{"image": f"{i}.jpg", "caption": value} for i, value in enumerate(values)]
    lines = "\n".join(json.dumps(one) for one in objects)
    expected = [
        ("0.jpg", "a dog"),
        ("1.jpg", "caption is null"),
        ("2.jpg", "caption is null"),
        ("3.jpg", "caption is null (nan)"),
        ("4.jpg", "empty caption"),
        ("5.jpg", "x y"),
        ("5.jpg", "caption is null"),
    ]
    assert read(tmp_path / "c.json", json.dumps(objects)) == expected
    assert read(tmp_path / "c.jsonl", lines) == expected
    assert read(tmp_path / "utf16.jsonl", lines, "utf-16") == expected
    assert read(tmp_path / "c.json", json.dumps({"data": objects})) == expected
    assert read(tmp_path / "lines.json", lines) == expected
    assert read(tmp_path / "list.jsonl", json.dumps(objects, indent=1)) == expected
    columns = {"image": {str(i): one["image"] for i, one in enumerate(objects)}}
    columns["caption"] = {str(i): one["caption"] for i, one in enumerate(objects)}
    assert read(tmp_path / "c.json", json.dumps(columns)) == expected
    assert read(tmp_path / "c.json", json.dumps({one["image"]: one["caption"] for one in objects})) == expected
    strings = pandas.DataFrame(objects[:5])
    strings.to_csv(tmp_path / "c.csv", index=False)
    assert [(pair.image, pair.caption) for pair in read_pairs(tmp_path / "c.csv")][:1] == expected[:1]
    assert all(pair.fault for pair in list(read_pairs(tmp_path / "c.csv"))[1:])
    pytest.importorskip("pyarrow")
    pandas.DataFrame([{**one, "caption": texts_list(one["caption"])} for one in objects]).to_parquet(
        tmp_path / "c.parquet"
    )
    pairs = list(read_pairs(tmp_path / "c.parquet"))
    assert [(p.image, p.caption) for p in pairs if p.caption] == [("0.jpg", "a dog"), ("5.jpg", "x y")]


def texts_list(value):
    """Parquet columns have one type."""
    return value if isinstance(value, list) else [value if isinstance(value, str) else None]


def test_shapes_of_json(tmp_path):
    coco = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}, {"id": 9, "file_name": "c.jpg"}],
        "annotations": [
            {"image_id": 8, "caption": "of b"},
            {"image_id": 7, "caption": "of a"},
            {"image_id": 1, "caption": "of none"},
        ],
    }
    expected = [("b.jpg", "of b"), ("a.jpg", "of a"), ("image_id 1", "of none"), ("c.jpg", "caption is null")]
    assert read(tmp_path / "c.json", json.dumps(coco)) == expected
    coco["annotations"] = [{"image_id": 7, "bbox": []}]
    with pytest.raises(UserError, match="COCO's file of captions, not of instances"):
        read(tmp_path / "c.json", json.dumps(coco))
    sentences = [{"raw": "A dog.", "tokens": ["a", "dog"]}, {"raw": "Two.", "tokens": ["two"]}]
    karpathy = {"images": [{"filepath": "val2014", "filename": "a.jpg", "sentences": sentences, "split": "val"}]}
    expected = [("val2014/a.jpg", "A dog."), ("val2014/a.jpg", "Two.")]
    assert read(tmp_path / "c.json", json.dumps(karpathy)) == expected
    assert read(tmp_path / "c.json", json.dumps(karpathy["images"])) == expected
    hugging_face = {"image": {"path": "a.jpg", "bytes": None}, "text": "x"}
    assert read(tmp_path / "c.jsonl", json.dumps(hugging_face)) == [("a.jpg", "x")]
    split = {"columns": ["image", "caption"], "index": [0], "data": [["a.jpg", "x"]]}
    assert read(tmp_path / "c.json", json.dumps(split)) == [("a.jpg", "x")]


def test_images_that_are_not_named(tmp_path):
    rows = [{"image": value, "caption": "x"} for value in (None, "", math.nan, True, {}, 7, 7.0)]
    read_rows = read(tmp_path / "c.json", json.dumps(rows))
    assert read_rows == [("", "x")] * 5 + [("7", "x")] * 2
    assert [pair.fault for pair in read_pairs(tmp_path / "c.json")] == ["no image named"] * 5 + [""] * 2
