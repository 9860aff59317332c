"""Caption cleaning, the vocabulary, and token ids against a greedy longest-match-first transcription."""

import os
import random
import subprocess
import sys
import types

import huggingface_hub
import numpy as np
import pytest

from cbalign.data import text
from cbalign.errors import UserError

TOKENS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "dog",
    "##s",
    "run",
    "##ning",
    "on",
    "the",
    "beach",
    "un",
    "##run",
    "##n",
    "##nable",
    "s",
    "two",
]

CLEANED = [
    ("A dog, running!", "a dog running"),
    ('A DOG\'s ball (red) - "new" #1: ok; no*pe?~', "a dogs ball red new 1 ok nope"),
    ("black/white t-shirt", "black white t shirt"),
    ("<person> and <PERSON> smile.", "person and person smile"),
    ("  too   many\t\n spaces \n", "too many spaces"),
    ("tab\tstays", "tab\tstays"),
    ("50% of <b>bold</b> & más", "50% of <b>bold< b> & más"),
    ("...", ""),
    ("a - b", "a b"),
]

CAPTIONS = ["A dog runs on the beach, smiling!", "two cats - one red, one blue", "A dog's life", "Ünïcode café"] * 20


@pytest.fixture
def vocab(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
    return path


def wordpiece(word):
    """Greedy longest match first, [UNK] for the whole word when it fails (Devlin et al., tokenization.py)."""
    pieces, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in TOKENS:
                break
        else:
            return [TOKENS.index("[UNK]")]
        pieces.append(TOKENS.index(piece))
        start = end
    return pieces


@pytest.mark.parametrize(
    "raw, cleaned",
    [
        # Returned by ALBEF's own `pre_question(raw, 50)` (`dataset/utils.py`).
        ("What time is it: 10:30?", "what time is it 1030"),
        ("Is this  a T-shirt / dress?", "is this  a t shirt   dress"),
        (" What's 5.5+2? ", " whats 55+2"),
        ("How many (or few) <person>s are there?", "how many or few <person>s are there"),
        ("Red, blue;green~", "red bluegreen"),
        ("w " * 60, " ".join(["w"] * 50)),
    ],
)
def test_clean_question_is_albefs(raw, cleaned):
    assert text.clean_question(raw, max_words=50) == cleaned


def test_clean_question_counts_what_is_between_spaces_as_albef_does():
    # `pre_question("a  b  c d", 3)` and `pre_question("w " * 60, 30)`.
    assert text.clean_question("a  b  c d", max_words=3) == "a  b"
    assert text.clean_question("w " * 60) == " ".join(["w"] * 30)


@pytest.mark.parametrize("raw, cleaned", CLEANED)
def test_clean_caption_golden(raw, cleaned):
    assert text.clean_caption(raw) == cleaned


def test_clean_caption_keeps_first_words():
    words = [f"w{number}" for number in range(40)]
    assert text.clean_caption(" ".join(words)) == " ".join(words[:30])
    assert text.clean_caption(" ".join(words), max_words=3) == "w0 w1 w2"


@pytest.mark.parametrize(
    "caption", ["a dog running on the beach", "Dogs unrunnable", "two zebras", "runs unruns dogning", "a-dog!"]
)
def test_encode_is_greedy_wordpiece(vocab, caption):
    tokenizer = text.load_tokenizer(vocab)
    words = caption.lower().replace("-", " - ").replace("!", " !").split()
    expected = [2] + sum((wordpiece(word) for word in words), [])
    ids = text.encode(tokenizer, [caption], max_length=16)
    assert ids.dtype == np.int32 and ids.shape == (1, 16)
    assert ids[0].tolist() == expected + [0] * (16 - len(expected))


def test_ids_are_those_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    path, generator = tmp_path / "vocab.txt", random.Random(0)
    text.train_vocabulary([*CAPTIONS, "naïve café 北京 5 1/2"], path, size=110)
    ours = text.load_tokenizer(path)
    theirs = transformers.BertTokenizer(vocab=ours.get_vocab(), do_lower_case=True)
    parts = [
        *" ".join(CAPTIONS),
        *"éÉßİǅ北京\u0301\u200b\x00\ufffd\t\n😀",
        "[MASK]",
        "[mask]",
        "[CLS] ",
        "##a",
        "a" * 150,
    ]
    texts = ["", *("".join(generator.choices(parts, k=generator.randrange(1, 40))) for _ in range(500))]
    assert ours.ids(texts) == theirs(texts, add_special_tokens=False)["input_ids"]
    assert len(ours) == len(theirs) and ours.get_vocab() == theirs.get_vocab()
    for name in ("pad", "unk", "cls", "sep", "mask"):
        assert getattr(ours, f"{name}_token_id") == getattr(theirs, f"{name}_token_id")
    every = list(range(len(ours)))
    assert ours.convert_ids_to_tokens(every) == theirs.convert_ids_to_tokens(every)


def test_a_token_that_is_there_twice_is_named(tmp_path):
    """Its ids would be no rows of the embedding."""
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ndog\ncat\ndog\n")
    with pytest.raises(UserError, match="the token 'dog' is there twice"):
        text.load_tokenizer(tmp_path)


def test_vocabulary_lines_end_at_line_ends_alone(tmp_path):
    """U+2028 and U+0085 are tokens of multilingual vocabularies, and Python's line ends."""
    (tmp_path / "vocab.txt").write_bytes("[PAD]\r\na\u2028b\r\n\u0085\r\nc\r\n".encode())
    assert text.read_vocabulary(tmp_path / "vocab.txt") == ["[PAD]", "a\u2028b", "\u0085", "c"]


def test_encode_without_and_with_sep(vocab):
    tokenizer = text.load_tokenizer(vocab)
    captions = ["a dog", "", "a dog runs on the beach"]
    assert text.encode(tokenizer, captions, max_length=4).tolist() == [[2, 5, 6, 0], [2, 0, 0, 0], [2, 5, 6, 8]]
    closed = text.encode(tokenizer, captions, max_length=4, add_sep=True)
    assert closed.tolist() == [[2, 5, 6, 3], [2, 3, 0, 0], [2, 5, 6, 3]]
    assert text.encode(tokenizer, [], max_length=4).shape == (0, 4)
    assert text.encode(tokenizer, ["a dog"], max_length=1).tolist() == [[2]]
    with pytest.raises(ValueError, match="room"):
        text.encode(tokenizer, ["a dog"], max_length=1, add_sep=True)


def test_encode_in_chunks_equals_one_by_one(vocab, monkeypatch):
    tokenizer = text.load_tokenizer(vocab)
    captions = ["a dog", "the beach", "two dogs", "running", "a"]
    whole = text.encode(tokenizer, captions, max_length=5)
    monkeypatch.setattr(text, "_CHUNK", 2)
    np.testing.assert_array_equal(text.encode(tokenizer, captions, max_length=5), whole)


def test_special_ids(vocab):
    for source in (vocab, str(vocab), vocab.parent):
        assert text.special_ids(text.load_tokenizer(source)) == {
            "pad": 0,
            "cls": 2,
            "sep": 3,
            "mask": 4,
            "unk": 1,
            "vocab_size": len(TOKENS),
        }


def test_vocabulary_round_trip(tmp_path):
    path = tmp_path / "new" / "vocab.txt"
    count = text.train_vocabulary(CAPTIONS, path, size=90)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(set(lines)) == count <= 90
    assert lines[:5] == list(text.SPECIAL_TOKENS) and "dog" in lines and "e" in lines
    assert os.listdir(path.parent) == ["vocab.txt"]
    tokenizer = text.load_tokenizer(path)
    ids = text.encode(tokenizer, CAPTIONS, max_length=40)
    assert not np.any(ids == 1)
    pieces = tokenizer.convert_ids_to_tokens(ids[0, 1:][ids[0, 1:] > 0].tolist())
    assert "".join(piece.removeprefix("##") for piece in pieces) == "adogrunsonthebeach,smiling!"


def test_vocabulary_does_not_depend_on_order_or_process(tmp_path):
    program = "import sys; from cbalign.data import text; text.train_vocabulary(sys.argv[2:], sys.argv[1], size=75)"
    contents = set()
    for number, captions in enumerate([CAPTIONS, CAPTIONS[::-1], CAPTIONS]):
        path = tmp_path / f"{number}.txt"
        subprocess.run([sys.executable, "-c", program, str(path), *captions], check=True)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_loading_needs_no_framework(vocab):
    program = (
        "import sys; from cbalign.data import text; "
        "text.encode(text.load_tokenizer(sys.argv[1]), ['a'], max_length=3); "
        "assert not {'torch', 'tensorflow', 'jax', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(vocab)], check=True)


def unreachable(*_, **__):
    raise ConnectionError("name or service not known")


def test_hub_name_in_the_cache_needs_no_network(vocab, monkeypatch):
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(vocab.parent))
    assert text.load_tokenizer("someone/some-model").get_vocab() == text.load_tokenizer(vocab).get_vocab()


def test_model_cached_without_its_vocabulary_is_completed(vocab, tmp_path_factory, monkeypatch):
    empty, asked = tmp_path_factory.mktemp("cache"), []

    def download(name, *, local_files_only=False, **_):
        asked.append(local_files_only)
        return str(empty if local_files_only else vocab.parent)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: types.SimpleNamespace(siblings=[]))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert len(text.load_tokenizer("someone/some-model")) == len(TOKENS) and asked == [True, False]
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(empty))
    with pytest.raises(UserError, match="'someone/some-model' on the hub has no vocab.txt"):
        text.load_tokenizer("someone/some-model")


def test_user_mistakes(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    for source, message in [
        (tmp_path, "has no vocab.txt"),
        (tmp_path / "none.txt", "no such file"),
        ("no-such-tokenizer-cbalign", "the hub cannot be reached .*; give a local folder with a vocab.txt"),
    ]:
        with pytest.raises(UserError, match=message):
            text.load_tokenizer(source)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\nword\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"lacks \[CLS\], \[SEP\], \[MASK\]"):
        text.load_tokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_text("[UNK]\n[PAD]\n[CLS]\n[SEP]\n[MASK]\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"\[PAD\] on line 2"):
        text.load_tokenizer(tmp_path)
    with pytest.raises(UserError, match="ask for at least"):
        text.train_vocabulary(CAPTIONS, tmp_path / "v.txt", size=8)
    with pytest.raises(UserError, match="no captions"):
        text.train_vocabulary([], tmp_path / "v.txt", size=100)
    assert not (tmp_path / "v.txt").exists()
