"""The file of stored features: read by safetensors' own reader, mapped, damaged, replaced, in a bucket."""

import json

import numpy as np
import pytest
from etils import epath
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from cbalign.inference import index_file
from cbalign.inference.index_file import Entry
from tests.inference.mapped import mapped_file
from tests.training.bucket import make_bucket

# In no order; one that is no valid text, as a file's name may be.
NAMES = ("b.png", "sub/ü.jpg", "a\nb.png", "\udcff.gif", "empty.png", "broken.webp", "z.png")


def some_entries(width=3, seed=0):
    """Entries of `NAMES`, two of them without a feature."""
    features = np.random.default_rng(seed).normal(size=(len(NAMES), width)).astype(np.float32)
    reasons = {"empty.png": "empty file", "broken.webp": "broken"}
    return {
        name: Entry((row, -row * 10**18), None if name in reasons else features[row], reasons.get(name, ""))
        for row, name in enumerate(NAMES)
    }


def assert_equal(found, entries):
    assert list(found) == sorted(entries)
    for name, entry in entries.items():
        assert (found[name].state, found[name].reason) == (entry.state, entry.reason)
        assert (found[name].feature is None) == (entry.feature is None)
        if entry.feature is not None:
            np.testing.assert_array_equal(found[name].feature, entry.feature)


@pytest.fixture
def file(tmp_path):
    return epath.Path(tmp_path / "new" / "images-0123.safetensors")


@pytest.mark.parametrize("width", [1, 3, 192])
def test_safetensors_reads_it(file, width):
    entries = some_entries(width)
    assert index_file.write(file, "mine", entries) == ""
    with safe_open(file, framework="np") as opened:
        assert opened.metadata()["fingerprint"] == "mine"
        arrays = {name: opened.get_tensor(name) for name in opened.offset_keys()}
    ordered = sorted(NAMES)
    assert arrays["names"].tobytes().split(b"\0") == [name.encode(errors="surrogateescape") for name in ordered]
    assert arrays["sizes"].tolist() == [NAMES.index(name) for name in ordered]
    assert arrays["mtimes"].tolist() == [-(10**18) * NAMES.index(name) for name in ordered]
    assert [ordered[row] for row in arrays["without"]] == ["broken.webp", "empty.png"]
    assert arrays["reasons"].tobytes() == b"broken\0empty file"
    features = [entries[name].feature for name in ordered if entries[name].feature is not None]
    np.testing.assert_array_equal(arrays["features"], np.stack(features))
    assert arrays["features"].dtype == np.float32 and arrays["features"].shape == (5, width)


@pytest.mark.parametrize("width", [1, 3, 192])
def test_what_is_read_was_written_and_is_mapped(file, width, monkeypatch):
    entries = some_entries(width)
    monkeypatch.setattr(index_file, "_ROWS", 2)
    index_file.write(file, "mine", entries)
    stored = index_file.read(file, "mine")
    assert_equal(stored.entries(), entries)
    assert mapped_file(stored.features) == str(file)
    assert not stored.features.flags.writeable and stored.features.ctypes.data % 64 == 0
    files = {name: entries[name].state for name in sorted(NAMES)}
    assert stored.holds(files)
    for changed in (
        files | {"z.png": (6, 7)},
        files | {"z.png": (7, files["z.png"][1])},
        {name: state for name, state in files.items() if name != "z.png"},
        {name.replace("b", "c"): state for name, state in files.items()},
    ):
        assert not stored.holds(changed)


def test_features_alone_reasons_alone_and_nothing(file):
    whole = some_entries()
    for names in (("b.png", "z.png"), ("empty.png",), ()):
        entries = {name: whole[name] for name in names}
        index_file.write(file, "mine", entries)
        stored = index_file.read(file, "mine")
        assert_equal(stored.entries(), entries)
        assert stored.holds({name: whole[name].state for name in names}) and not stored.holds({"x.png": (0, 0)})
        assert load_file(file)["sizes"].shape == (len(names),)


def test_what_is_mapped_outlives_the_file(file):
    index_file.write(file, "mine", some_entries(seed=1))
    first = index_file.read(file, "mine").features
    before = first.copy()
    index_file.write(file, "mine", some_entries(seed=2))
    np.testing.assert_array_equal(first, before)
    assert not np.array_equal(index_file.read(file, "mine").features, before)
    file.unlink()
    np.testing.assert_array_equal(first, before)


def test_damage_to_any_byte_is_noticed(file):
    index_file.write(file, "mine", some_entries())
    whole = file.read_bytes()
    assert index_file.read(file, "other") is None and index_file.read(None, "mine") is None
    for place in range(len(whole)):
        file.write_bytes(whole[:place])
        assert index_file.read(file, "mine") is None, f"cut to {place} bytes"
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert index_file.read(file, "mine") is None, f"byte {place}"
    for content in (whole + b"\0", whole + whole, b"\0" * 5000, b"\xff" * 5000):
        file.write_bytes(content)
        assert index_file.read(file, "mine") is None
    file.write_bytes(whole)
    assert_equal(index_file.read(file, "mine").entries(), some_entries())


def test_headers_that_claim_what_is_not_there(file):
    index_file.write(file, "mine", some_entries())
    whole = file.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    good = json.loads(whole[8 : 8 + length])
    ends = {name: tensor["data_offsets"] for name, tensor in good.items() if name != "__metadata__"}

    def claim(**changes):
        text = json.dumps({**good, **changes}).encode()
        file.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])
        assert index_file.read(file, "mine") is None, changes

    claim(features={"dtype": "F32", "shape": [1 << 40, 3], "data_offsets": [0, 12 << 40]})
    claim(features={"dtype": "F32", "shape": [-5, -3], "data_offsets": ends["features"]})
    claim(features={"dtype": "F32", "shape": [3, 5], "data_offsets": ends["features"]})
    claim(features={"dtype": "F64", "shape": [5, 3], "data_offsets": ends["features"]})
    claim(sizes={"dtype": "I64", "shape": [7], "data_offsets": [1 << 50, (1 << 50) + 56]})
    claim(sizes={"dtype": "I64", "shape": [7.0], "data_offsets": ends["sizes"]})
    claim(sizes={"shape": "7"}, names=None, __metadata__=[])
    for nested in (b"[" * 100_000, b'{"features":' * 100_000):
        file.write_bytes(len(nested).to_bytes(8, "little") + nested)
        assert index_file.read(file, "mine") is None


def test_other_files_under_its_name(file):
    index_file.write(file, "mine", some_entries())
    arrays = load_file(file)
    # Of another writer, without the order and the check sum.
    save_file(arrays, file, metadata={"format": "cbalign image index 1", "fingerprint": "mine"})
    assert index_file.read(file, "mine") is None
    with file.open("wb") as stream:
        np.savez(stream, fingerprint=np.array("mine"), features=arrays["features"])
    assert index_file.read(file, "mine") is None
    file.unlink()
    file.mkdir()
    assert index_file.read(file, "mine") is None
    assert "cannot be stored" in index_file.write(file, "mine", some_entries())


def test_in_a_bucket_it_is_read_whole(tmp_path, monkeypatch):
    make_bucket(tmp_path, monkeypatch)
    file = epath.Path("gs://b/run/search/images-0123.safetensors")
    assert index_file.read(file, "mine") is None
    index_file.write(file, "mine", some_entries())
    index_file.remove_abandoned(file)
    stored = index_file.read(file, "mine")
    assert_equal(stored.entries(), some_entries())
    assert mapped_file(stored.features) == ""
    assert [path.name for path in (tmp_path / "b/run/search").iterdir()] == [file.name]
    assert len(load_file(tmp_path / "b/run/search" / file.name)["features"]) == 5
