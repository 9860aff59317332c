"""Several sets of weights merged into the one that a run starts from (`config.init.weights`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cbalign.errors import UserError
from cbalign.weights.weights_folder import Weights, vocabulary_info


def combine(sources: Sequence[Weights], *, tokenizer: Any, other_vocabulary: bool = False) -> Weights:
    """Merges weights that each hold other arrays.

    Args:
      sources: at least one.
      tokenizer: of the run that starts from them.
      other_vocabulary: accept weights whose vocabulary differs from the run's, as long as it is known.

    Returns:
      The merged weights; `words` is None where the vocabulary is the run's own.

    Raises:
      UserError: two sources hold the same array, were trained for different tasks, or have a vocabulary that is not
        accepted.
    """
    arrays, origin, words = {}, {}, None
    for source in sources:
        words = _foreign_vocabulary(source, tokenizer, accepted=other_vocabulary) or words
        for name, array in source.arrays.items():
            if name in arrays:
                raise UserError(
                    f"init.weights: {origin[name]} and {source.folder} both hold {name}; name only one of them"
                )
            arrays[name], origin[name] = array, source.folder
    first = sources[0]
    for source in sources[1:]:
        if source.task != first.task:
            raise UserError(
                f"init.weights: {first.folder} was trained for {first.task}, {source.folder} for "
                f"{source.task}; name weights of one task"
            )
    return Weights(", ".join(source.folder for source in sources), arrays, {}, task=first.task, words=words)


def _foreign_vocabulary(source: Weights, tokenizer: Any, *, accepted: bool) -> list[str] | None:
    """The vocabulary of a source where it is not the run's own, else None."""
    found, own = source.info.get("vocabulary"), vocabulary_info(tokenizer)
    if not found or found == own:
        return None
    if accepted and source.words is not None:
        return source.words
    raise UserError(
        f"init.weights: {source.folder} was made for another vocabulary ({found['size']} tokens, this run "
        f"has {own['size']}); set data.vocabulary to the one it was converted or trained with"
    )
