"""How many texts lose words to the limits on their length, and which limits would keep them. Imports no tensorflow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cbalign.config_fields import FIELDS
from cbalign.data.text import clean_caption

# Texts looked at before a run; a share is known to half a percent then.
_SAMPLE = 10_000
_KEPT = 0.99
_NO_LIMIT = 1 << 20


def length_notes(texts: Iterable[str]) -> list[str]:
    """A line where words of some texts are cut by the default limits; counts words, as no vocabulary is known yet."""
    counts = sorted(len(clean_caption(text, max_words=_NO_LIMIT).split()) for text in texts)
    tokens, words = FIELDS["data.max_tokens"].default, FIELDS["data.max_words"].default
    limit = min(tokens - 1, words)
    long = sum(count > limit for count in counts)
    if not long:
        return []
    wanted = _quantile(counts)
    return [
        f"{long / len(counts):.1%} of the texts have more than {limit} words, which training cuts by default "
        f"(data.max_tokens={tokens}, data.max_words={words}); to keep all words of {_KEPT:.0%} of them, train with "
        f"--config.data.max_words={max(wanted, words)} and --config.data.max_tokens of {wanted + 1} or more"
    ]


def cut_line(texts: Sequence[str], tokenizer: Any, *, max_tokens: int, max_words: int) -> str:
    """A line on the share of texts that lose words to `max_tokens` or `max_words`, "" where none of a sample does.

    Args:
      texts: all texts; some ten thousand are looked at.
      tokenizer: of the run.
      max_tokens: tokens a text is cut to, [CLS] included.
      max_words: words it is cut to before.
    """
    # Every k-th, since neighbours may be alike.
    sample = [texts[i] for i in range(0, len(texts), max(1, -(-len(texts) // _SAMPLE)))]
    cleaned = [clean_caption(text, max_words=_NO_LIMIT) for text in sample]
    if not cleaned:
        return ""
    encoded = tokenizer(cleaned, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
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


def _quantile(counts: list[int]) -> int:
    return counts[min(int(_KEPT * len(counts)), len(counts) - 1)]
