"""The images and texts that retrieval ranks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from cbalign.evaluation.retrieval import Functions, evaluate_retrieval

if TYPE_CHECKING:
    from cbalign.data.columns import Columns
    from cbalign.data.records import Records


@dataclasses.dataclass(frozen=True)
class Gallery:
    """The images of a split, in the order of its records, and some of their texts.

    Attributes:
      image_ids: int32 [n_i]; images with equal ids are joint positives.
      texts: n_t captions.
      token_ids: int32 [n_t, L], their tokens.
      text_ids: int32 [n_t], the id of each text's image.
    """

    image_ids: np.ndarray
    texts: list[str]
    token_ids: np.ndarray
    text_ids: np.ndarray

    @classmethod
    def of(cls, records: Records, columns: Columns, *, captions_per_image: int = 0) -> Gallery:
        """Builds a gallery of the first captions of each image; equal texts of one id are included once.

        Args:
          records: of captions.
          columns: their tokens and ids.
          captions_per_image: maximum number of captions per image; 0 takes all.
        """
        assert columns.text_offsets is not None, "records of captions have offsets"
        ids, rows, seen = columns.arrays["id"], [], set()
        for i, captions in enumerate(records.texts):
            first = int(columns.text_offsets[i])
            for j, caption in enumerate(captions[:captions_per_image] if captions_per_image else captions):
                if (key := (caption, int(ids[i]))) not in seen:
                    seen.add(key)
                    rows.append((i, first + j, caption))
        return cls(
            ids,
            [caption for _, _, caption in rows],
            np.asarray(columns.text[[row for _, row, _ in rows]], np.int32),
            ids[[i for i, _, _ in rows]],
        )


def retrieve(
    functions: Functions,
    gallery: Gallery,
    batches: Iterable[tuple[dict, int]],
    *,
    top_k: int,
    batch_size: int,
    token_bytes: int,
    reranking: bool,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict:
    """Runs `evaluate_retrieval` on a gallery.

    Args:
      functions: from `encoders.bind`.
      gallery: images and texts.
      batches: the gallery's images in its order, as ({"image": uint8 [B, S, S, 3]}, number of valid rows).
      top_k, batch_size, token_bytes, reranking, progress: see `evaluate_retrieval`.
    """
    return evaluate_retrieval(
        functions,
        ((batch["image"], valid) for batch, valid in batches),
        gallery.token_ids,
        image_ids=gallery.image_ids,
        text_ids=gallery.text_ids,
        top_k=top_k,
        batch_size=batch_size,
        token_bytes=token_bytes,
        reranking=reranking,
        progress=progress,
    )
