"""Results that are kept among the user's cache files."""

import json
import pathlib

import pytest

from cbalign import storage
from cbalign.storage import remembered


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "cbalign" / "figures"


def once(value):
    """A function that may be called once."""
    values = [value]
    return values.pop


def test_a_result_is_computed_once_for_each_key(cache):
    assert remembered("figures", {"size": 32, "data": ["a", 1]}, once({"tr@1": 1.5, "words": None})) == {
        "tr@1": 1.5,
        "words": None,
    }
    assert remembered("figures", {"data": ["a", 1], "size": 32}, once({})) == {"tr@1": 1.5, "words": None}
    assert remembered("figures", {"data": ["b", 1], "size": 32}, once({"tr@1": 2.0})) == {"tr@1": 2.0}
    stored = [json.loads(path.read_text()) for path in cache.iterdir()]
    assert sorted(file["result"]["tr@1"] for file in stored) == [1.5, 2.0]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"key": 2, "result": {"n": 3}}'])
def test_a_damaged_file_or_one_of_another_key_is_computed_anew(cache, content):
    remembered("figures", 1, once({"n": 1}))
    (path,) = cache.iterdir()
    path.write_bytes(content)
    assert remembered("figures", 1, once({"n": 2})) == {"n": 2}
    assert remembered("figures", 1, once({"n": 4})) == {"n": 2}


def test_without_a_place_it_is_computed_each_time(cache, monkeypatch):
    cache.parent.write_text("a file where the folder should be")
    assert remembered("figures", 1, once({"n": 1})) == {"n": 1}
    assert remembered("figures", 1, once({"n": 2})) == {"n": 2}

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(pathlib.Path, "home", no_home)
    with pytest.raises(RuntimeError):
        storage.user_cache()
    assert remembered("figures", 1, once({"n": 3})) == {"n": 3}
