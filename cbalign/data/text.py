"""Text: caption cleaning, WordPiece vocabularies, and captions as rows of token ids. Imports no tensorflow.

A caption is encoded as `[CLS] x_1 ... x_n` without a closing `[SEP]`, as ALBEF does; `add_sep=True` appends it, as the
answers of visual question answering need. Lengths are static, so that a long caption changes neither the shape nor the
memory of a training step.
"""

import os
import re

import numpy as np
from etils import epath

from cbalign import hub
from cbalign.data.word_pieces import SPECIAL_TOKENS, WordPieces
from cbalign.errors import UserError
from cbalign.storage import write_atomically

_DELETED = re.compile(r"[,.'!?\"()*#:;~]")
_RUN_OF_SPACE = re.compile(r"\s{2,}")
_CHUNK = 8192


def clean_caption(text: str, *, max_words: int = 30) -> str:
    """Returns the caption as ALBEF's `pre_caption` (`dataset/utils.py`) leaves it.

    Lower case; `, . ' ! ? " ( ) * # : ; ~` deleted; `-` and `/` turned into spaces; `<person>` into `person`; runs of
    white space into one space; no space at the ends; the first `max_words` words.
    """
    text = _DELETED.sub("", text.lower()).replace("-", " ").replace("/", " ").replace("<person>", "person")
    text = _RUN_OF_SPACE.sub(" ", text).rstrip("\n").strip(" ")
    return " ".join(text.split(" ")[:max_words])


def clean_question(text: str, *, max_words: int = 30) -> str:
    """Returns the question as ALBEF's `pre_question` (`dataset/utils.py`) leaves it.

    Lower case; `, . ' ! ? " ( ) * # : ; ~` deleted; `-` and `/` turned into spaces; no space at the end; the first
    `max_words` words. Other than `clean_caption`, it keeps runs of spaces, and counts what is between two as a word.
    """
    text = _DELETED.sub("", text.lower()).replace("-", " ").replace("/", " ").rstrip(" ")
    return " ".join(text.split(" ")[:max_words])


CLEANERS = {"caption": clean_caption, "question": clean_question}
"""How texts are cleaned before they are encoded: (text, max_words) -> text."""


def train_vocabulary(captions, path, *, size: int) -> int:
    """Learns a lower-case WordPiece vocabulary and writes it as BERT's `vocab.txt`, one token per line.

    The same captions give the same file, byte for byte, in any order. The file is written atomically.

    Args:
      captions: iterable of str.
      path: the file to write; its folder is created if needed.
      size: maximum number of tokens, including the five special ones.

    Returns:
      The number of tokens written, at most `size`; fewer if the captions yield fewer.

    Raises:
      UserError: there are no captions, or `size` is too small for the alphabet of the captions.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    captions = sorted(captions)
    if not captions:
        raise UserError("no captions to learn a vocabulary from; give a data set with captions")
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    alphabet = _alphabet(tokenizer, captions)
    required = len(SPECIAL_TOKENS) + len(alphabet)
    if size < required:
        raise UserError(
            f"a vocabulary of {size} tokens cannot hold the {required} single characters and special tokens of these "
            f"captions; ask for at least {required}"
        )
    # As special tokens the characters have fixed ids; otherwise the trainer numbers them in the order of a randomly
    # seeded hash map and breaks ties between equally frequent pairs by those numbers.
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*SPECIAL_TOKENS, *alphabet],
        continuing_subword_prefix="##",
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    vocabulary = tokenizer.get_vocab()
    write_atomically(path, "".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.get)))
    return len(vocabulary)


def _alphabet(tokenizer, captions) -> list:
    """The single characters of the captions, those within a word with "##" before them, sorted."""
    characters = set()
    for caption in captions:
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(caption)):
            characters.add(word[0])
            characters.update("##" + character for character in word[1:])
    return sorted(characters)


def load_tokenizer(source) -> WordPieces:
    """Returns the BERT WordPiece tokenizer that `source` names.

    Args:
      source: a `vocab.txt` file, a folder with one, or a name on the Hugging Face hub such as "bert-base-uncased",
        looked up in the local cache first.

    Raises:
      UserError: there is no tokenizer of that name, or the file is not a BERT vocabulary.
    """
    source, file = os.fspath(source), epath.Path(source)
    if file.is_dir():
        if not (file / "vocab.txt").exists():
            raise UserError(f"the folder {source} has no vocab.txt; give a folder with one, or the file itself")
        return _from_file(file / "vocab.txt")
    if file.exists():
        return _from_file(file)
    return _from_hub(source)


def read_vocabulary(path: os.PathLike | str) -> list[str]:
    """The tokens of a `vocab.txt` by id.

    Raises:
      UserError: the file is not UTF-8 text.
    """
    try:
        content = epath.Path(path).read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}), so that it is no vocabulary") from error
    # Not splitlines(), which also splits at characters that may be tokens.
    return [line.rstrip("\r") for line in content.removesuffix("\n").split("\n")]


def _from_file(path: epath.Path) -> WordPieces:
    words = read_vocabulary(path)
    vocabulary = {word: number for number, word in enumerate(words)}
    if len(vocabulary) < len(words):
        twice = next(word for number, word in enumerate(words) if vocabulary[word] != number)
        raise UserError(f"{path} is not a BERT vocabulary: the token {twice!r} is there twice; give each one line")
    missing = [token for token in SPECIAL_TOKENS if token not in vocabulary]
    if missing:
        raise UserError(f"{path} is not a BERT vocabulary: it lacks {', '.join(missing)}; give one token a line")
    if vocabulary["[PAD]"] != 0:
        raise UserError(f"{path} has [PAD] on line {vocabulary['[PAD]'] + 1}: it must be the first line, id 0")
    return WordPieces(vocabulary)


def _from_hub(name: str) -> WordPieces:
    remedy = "give a local folder with a vocab.txt, or the file itself"
    if not hub.is_hub_name(name) or name.endswith(".txt"):
        raise UserError(f"no tokenizer at {name}: there is no such file or folder; {remedy}")
    try:
        file = epath.Path(hub.fetch(name, ["vocab.txt"])) / "vocab.txt"
    except UserError as error:
        raise UserError(f"no tokenizer at {name}, and {error}; {remedy}") from error
    if not file.exists():
        raise UserError(f"the model {name!r} on the hub has no vocab.txt, so no BERT tokenizer; {remedy}")
    return _from_file(file)


def encode(tokenizer, captions, *, max_length: int, add_sep: bool = False) -> np.ndarray:
    """Returns captions as token ids, int32 [n, max_length].

    Each row is [CLS], the tokens of the caption, [SEP] if `add_sep`, then [PAD]. Captions are truncated to fit
    `max_length`; [CLS] and [SEP] always stay. They are not cleaned here, see `clean_caption`.

    Raises:
      ValueError: `max_length` has no room for the special tokens.
    """
    room = max_length - 1 - bool(add_sep)
    if room < 0:
        raise ValueError(f"max_length={max_length} has no room for [CLS] and, if asked for, [SEP]")
    captions = list(captions)
    ids = np.full((len(captions), max_length), tokenizer.pad_token_id, np.int32)
    if captions:
        ids[:, 0] = tokenizer.cls_token_id
    for start in range(0, len(captions), _CHUNK):
        for row, tokens in enumerate(tokenizer.ids(captions[start : start + _CHUNK]), start):
            tokens = tokens[:room]
            ids[row, 1 : 1 + len(tokens)] = tokens
            if add_sep:
                ids[row, 1 + len(tokens)] = tokenizer.sep_token_id
    return ids


def special_ids(tokenizer) -> dict:
    """Returns the ids of the special tokens and the size: {"pad", "cls", "sep", "mask", "unk", "vocab_size"}."""
    return {
        "pad": tokenizer.pad_token_id,
        "cls": tokenizer.cls_token_id,
        "sep": tokenizer.sep_token_id,
        "mask": tokenizer.mask_token_id,
        "unk": tokenizer.unk_token_id,
        "vocab_size": len(tokenizer),
    }
