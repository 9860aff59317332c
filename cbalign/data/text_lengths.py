"""How many texts lose words to the limits on their length, and which limits would keep them. Imports no tensorflow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cbalign.data.text import CLEANERS, clean_caption

MAX_TOKENS, MAX_WORDS = 25, 30
"""The defaults of `data.max_tokens` and `data.max_words`, by which texts are judged where there is no config."""

# Records looked at before a run; a share is known to a percent then.
_SAMPLE = 5_000
_KEPT = 0.99
# Beyond these, a vocabulary does not fit: share of unknown tokens, and pieces a word.
_UNKNOWN, _PIECES = 0.01, 2.5
_NO_LIMIT = 1 << 20


def length_notes(texts: Iterable[str]) -> list[str]:
    """A line where words of some texts are cut by the default limits; counts words, as no vocabulary is known yet."""
    counts = sorted(len(clean_caption(text, max_words=_NO_LIMIT).split()) for text in texts)
    limit = min(MAX_TOKENS - 1, MAX_WORDS)
    long = sum(count > limit for count in counts)
    if not long:
        return []
    wanted = _quantile(counts)
    line = (
        f"{long / len(counts):.1%} of the texts have more than {limit} words, which training cuts by default "
        f"(data.max_tokens={MAX_TOKENS}, data.max_words={MAX_WORDS}); to keep all words of {_KEPT:.0%} of them, train "
        f"with --config.data.max_words={max(wanted, MAX_WORDS)} and --config.data.max_tokens of {wanted + 1} or more"
    )
    return [line]


def text_lines(split: Any, tokenizer: Any, *, max_tokens: int, max_words: int, cleaning: str = "caption") -> list[str]:
    """Lines on texts that lose words, have none, or whose words the vocabulary does not have, as a sample shows.

    Args:
      split: with `records` and their `columns`.
      tokenizer: of the run.
      max_tokens, max_words: see `cut_line`.
      cleaning: a key of `text.CLEANERS`.
    """
    texts = split.records.texts
    # Every k-th record, since neighbours may be alike.
    sample = [text for i in range(0, len(texts), max(1, -(-len(texts) // _SAMPLE))) for text in texts[i]]
    cleaned = [CLEANERS[cleaning](text, max_words=_NO_LIMIT) for text in sample]
    encoded = tokenizer.ids(cleaned)
    lines = [
        cut_line(cleaned, encoded, max_tokens=max_tokens, max_words=max_words),
        _wordless_line(split),
        _vocabulary_line(cleaned, encoded, tokenizer),
    ]
    return [line for line in lines if line]


def cut_line(cleaned: list[str], encoded: list[list[int]], *, max_tokens: int, max_words: int) -> str:
    """A line on the share of texts that lose words to `max_tokens` or `max_words`, "" where none does.

    Args:
      cleaned: texts.
      encoded: their tokens.
      max_tokens: tokens a text is cut to, [CLS] included.
      max_words: words it is cut to before.
    """
    words, tokens = [len(text.split()) for text in cleaned], [1 + len(ids) for ids in encoded]
    cut = sum(w > max_words or t > max_tokens for w, t in zip(words, tokens))
    if not cut:
        return ""
    remedy = []
    if (wanted := _quantile(sorted(words))) > max_words:
        remedy.append(f"data.max_words={wanted}")
    if (wanted := _quantile(sorted(tokens))) > max_tokens:
        remedy.append(f"data.max_tokens={wanted}")
    told = f"; {' and '.join(remedy)} would keep {_KEPT:.0%} of them whole" if remedy else ""
    return (
        f"{cut / len(cleaned):.1%} of the texts lose words to data.max_tokens={max_tokens} or "
        f"data.max_words={max_words}{told}"
    )


def _wordless_line(split: Any) -> str:
    """A line on captions of which cleaning leaves no word; they are not drawn."""
    wordless, offsets = split.columns.wordless, split.columns.text_offsets
    if wordless is None or not wordless.any():
        return ""
    first = int(wordless.argmax())
    record = int(offsets.searchsorted(first, side="right")) - 1
    example = split.records.texts[record][first - int(offsets[record])]
    return (
        f"{int(wordless.sum()):,} of {len(wordless):,} captions have no words once cleaned (such as {example[:40]!r} "
        f"of {split.records.names[record]}) and are not trained on"
    )


def _vocabulary_line(cleaned: list[str], encoded: list[list[int]], tokenizer: Any) -> str:
    """A line where the vocabulary does not fit the texts: unknown words, or many pieces a word."""
    count, words = sum(map(len, encoded)), sum(len(text.split()) for text in cleaned)
    unknown = sum(ids.count(tokenizer.unk_token_id) for ids in encoded)
    if not count:
        return ""
    if unknown > _UNKNOWN * count:
        text = next(text for text, ids in zip(cleaned, encoded) if tokenizer.unk_token_id in ids)
        pieces = dict(zip(text.split(), tokenizer.ids(text.split())))
        example = next((word for word, ids in pieces.items() if tokenizer.unk_token_id in ids), text)
        return (
            f"{unknown / count:.1%} of the tokens are unknown to the vocabulary, such as {example[:40]!r}: set "
            "data.vocabulary to one of these texts' language, or leave it empty to train one"
        )
    if count > _PIECES * words:
        return (
            f"the vocabulary splits a word into {count / words:.1f} pieces on average, such as in {cleaned[0][:40]!r}: "
            "set data.vocabulary to one of these texts' language, or leave it empty to train one"
        )
    return ""


def _quantile(counts: list[int]) -> int:
    return counts[min(int(_KEPT * len(counts)), len(counts) - 1)]
