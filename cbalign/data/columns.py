"""What goes into batches beside images: token ids, labels, ids and answers. Imports no tensorflow."""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from cbalign.data import text
from cbalign.data.progress import Progress
from cbalign.data.string_columns import StringLists
from cbalign.errors import UserError
from cbalign.storage import write_atomically

if TYPE_CHECKING:
    from cbalign.data.records import Records

# ALBEF's weight of Visual Genome's questions, which one person answered.
SINGLE_ANSWER_WEIGHT = 0.5
# Texts encoded at a time.
_CHUNK = 1 << 16


@dataclasses.dataclass(eq=False)
class Columns:
    """The encoded texts and the other arrays of n records.

    Attributes:
      text: int32 or int16 [c, L], all texts, those of a record next to one another.
      text_offsets: int64 [n + 1], the texts of record i are rows text_offsets[i] to text_offsets[i + 1]; None where
        each record has exactly one.
      arrays: {name: array [n, ...]}.
      wordless: bool [c], texts of which cleaning leaves nothing; None where there are none.
    """

    text: np.ndarray
    text_offsets: np.ndarray | None = None
    arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    wordless: np.ndarray | None = None

    def rows_of(self, record: int) -> range:
        """The rows of `text` of one record."""
        if self.text_offsets is None:
            return range(record, record + 1)
        return range(int(self.text_offsets[record]), int(self.text_offsets[record + 1]))

    def first_text(self, records) -> np.ndarray:
        """The first text of some records, int32 [k, L]; [CLS] alone for a record without any."""
        records = np.asarray(records)
        if self.text_offsets is None:
            return self.text[records].astype(np.int32)
        first, end = self.text_offsets[records], self.text_offsets[records + 1]
        found = self.text[np.minimum(first, len(self.text) - 1)].astype(np.int32)
        found[first == end, 1:] = 0  # [PAD], see `text.load_tokenizer`
        return found

    @functools.cached_property
    def drawable(self) -> tuple[np.ndarray, np.ndarray | None]:
        """What texts are drawn from: int64 [n + 1] offsets of each record's, and rows of `text` (None: all)."""
        offsets = np.arange(len(self.text) + 1, dtype=np.int64) if self.text_offsets is None else self.text_offsets
        if self.wordless is None:
            return offsets, None
        kept = np.cumsum(np.concatenate([[0], ~self.wordless]), dtype=np.int64)
        return kept[offsets], np.flatnonzero(~self.wordless)

    @functools.cached_property
    def silent(self) -> int:
        """Number of records without a text to draw."""
        return int(np.sum(np.diff(self.drawable[0]) == 0))


def text_columns(
    records: Records, tokenizer: Any, *, max_length: int, max_words: int = 30, cleaning: str = "caption"
) -> Columns:
    """Encodes the texts of records, or finds them encoded beside data that is read from disk.

    Args:
      records: of any kind.
      tokenizer: from `text.load_tokenizer`.
      max_length: tokens a text, [CLS] included.
      max_words: words a text is cut to beforehand.
      cleaning: how it is cleaned, a key of `text.CLEANERS`.

    Returns:
      The columns, with "id" (captions) or "label" int32 [n] in `arrays` where the records have them.

    Raises:
      UserError: no texts at all, or ids that do not fit 32 bits.
    """
    arrays = {}
    for name in ("id", "label"):
        if name in records.columns:
            values = np.asarray(records.columns[name])
            if np.any(values != values.astype(np.int32)):
                raise UserError(f"numbers of the feature {name} do not fit 32 bits: number the images from 0")
            arrays[name] = values.astype(np.int32)
    several, offsets = records.kind.several_texts, None
    if several:
        offsets = records.text_offsets
        if not offsets[-1]:
            raise UserError(f"none of {len(records)} records has a caption: caption them")
    if records.stored:
        feature = records.kind.text
        tokens = [
            _stored_tokens(source, feature, tokenizer, max_length, max_words, cleaning) for source in records.sources
        ]
        tokens = tokens[0] if len(tokens) == 1 else np.concatenate(tokens)
    else:
        clean = text.CLEANERS[cleaning]
        cleaned = [clean(line, max_words=max_words) for group in records.texts for line in group]
        tokens = text.encode(tokenizer, cleaned, max_length=max_length)
    # Cleaning leaves a text without words where nothing follows [CLS].
    wordless = (tokens[:, 1] == tokenizer.pad_token_id) if several else np.zeros(0, bool)
    return Columns(tokens, offsets, arrays, wordless if wordless.any() else None)


def _stored_tokens(source, feature: str, tokenizer, max_length: int, max_words: int, cleaning: str) -> np.ndarray:
    """The encoded texts [c, L] of one source: int16, or int32 for a vocabulary that needs it; kept in its folder."""
    column, clean = source.index.columns[feature], text.CLEANERS[cleaning]
    strings = column.strings if isinstance(column, StringLists) else column
    made_by = [sorted(tokenizer.get_vocab().items()), max_length, max_words, source.index.fingerprint]
    if cleaning != "caption":  # files of captions keep the names they had before there were others
        made_by.append(cleaning)
    key = json.dumps(made_by)
    path = epath.Path(source.folder) / f"tokens-{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}.npy"
    shape = (len(strings), max_length)
    if (kept := _load_array(path, shape)) is not None:
        return kept
    tokens = np.empty(shape, np.int16 if len(tokenizer) <= np.iinfo(np.int16).max else np.int32)
    with Progress("encoding texts", len(tokens), unit="text") as progress:
        for start in range(0, len(tokens), _CHUNK):
            lines = strings[start : start + _CHUNK]
            cleaned = [clean(line, max_words=max_words) for line in lines]
            tokens[start : start + len(cleaned)] = text.encode(tokenizer, cleaned, max_length=max_length)
            progress.update(len(cleaned))
    try:
        write_atomically(path, lambda file: np.save(file, tokens))
    except OSError as error:
        print(f"{path} cannot be written ({error.strerror or error}): texts are encoded at every start")
    return tokens


def _load_array(path: epath.Path, shape: tuple) -> np.ndarray | None:
    """The array in a .npy file, or None where there is none of that shape."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as file:
            array = np.load(file)
    except (ValueError, OSError, EOFError):
        return None
    return array if array.shape == shape else None


def encode_answers(tokenizer: Any, answers: Sequence[str], *, max_length: int) -> np.ndarray:
    """Answers as the decoder reads and writes them: int32 [n, max_length] of [CLS] x_1 ... [SEP].

    They are not cleaned, as in ALBEF (`dataset/vqa_dataset.py`): "10:30" is not 1030, nor is "5.5" 55. Longer ones are
    cut, and their number is printed.
    """
    # One more token than asked for shows which are longer.
    ids = text.encode(tokenizer, answers, max_length=max_length + 1, add_sep=True)
    cut, ids = ids[:, -1] != tokenizer.pad_token_id, ids[:, :-1]
    if cut.any():
        ids[cut, -1] = tokenizer.sep_token_id
        print(f"{cut.sum():,} of {len(cut):,} different answers are cut to {max_length} tokens (vqa.answer_tokens)")
    return ids


def answer_columns(records: Records, tokenizer: Any, *, slots: int, max_length: int) -> dict[str, np.ndarray]:
    """The distinct answers to each question and their weights.

    A weight is the share of people who gave the answer, 0.5 where one person was asked (ALBEF
    `dataset/vqa_dataset.py`). Of more than `slots` answers the most frequent are kept; of equally frequent ones those
    given first.

    Returns:
      {"answers": int32 [n, slots, max_length], "answer_weights": float32 [n, slots]}, empty slots with weight 0.

    Raises:
      UserError: a question without an answer.
    """
    given = list(records.columns["answers"])
    if not all(given):
        bare = sum(not people for people in given)
        raise UserError(f"{bare} of {len(records)} questions have no answer: train on a split that has them")
    distinct = sorted({answer for people in given for answer in people})
    number = {answer: i for i, answer in enumerate(distinct)}
    encoded = encode_answers(tokenizer, distinct, max_length=max_length)
    ids = np.zeros((len(given), slots, max_length), np.int32)
    weights = np.zeros((len(given), slots), np.float32)
    for row, people in enumerate(given):
        for slot, (answer, count) in enumerate(collections.Counter(people).most_common(slots)):
            ids[row, slot] = encoded[number[answer]]
            weights[row, slot] = count / len(people) if len(people) > 1 else SINGLE_ANSWER_WEIGHT
    return {"answers": ids, "answer_weights": weights}
