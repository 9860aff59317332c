"""Which images of an imported folder are the same, or have a caption in common, and so are joint positives."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from collections.abc import Mapping

FEW = 5
"""A caption that more images share says too little about each to make them positives of one another."""


@dataclasses.dataclass
class Shared:
    """What images have in common.

    Attributes:
      copies: images whose pixels are those of an earlier one.
      joined: captions that several images share and that join them.
      common: captions that too many images share to join them.
      example: the most frequent of those, "" for none.
      example_images: how many images share it.
      largest: images of the largest id.
    """

    copies: int
    joined: int
    common: int
    example: str
    example_images: int
    largest: int

    def lines(self, images: int) -> list[str]:
        """The same for the user."""
        lines = []
        if self.copies:
            lines.append(f"{self.copies:,} of {images:,} images are copies of others: copies share an id and a split")
        if self.joined:
            lines.append(
                f"{self.joined:,} captions are shared by several images, which thereby share an id and a split; the "
                f"largest id has {self.largest:,} images"
            )
        if self.common:
            lines.append(
                f"{self.common:,} captions are shared by more than {FEW} images, or half of them (such as "
                f"{self.example[:60]!r}, by {self.example_images:,}), and join none; --joint-captions makes those "
                "images positives of one another"
            )
        return lines


def number_images(
    captions: Mapping[pathlib.Path, list[str]], digests: Mapping[pathlib.Path, bytes], *, joint_captions: bool
) -> tuple[dict[pathlib.Path, int], Shared]:
    """Numbers images in order of appearance; equal images, and those linked by a shared caption, get the same number.

    Args:
      captions: {image: its captions}; compared ignoring case.
      digests: {image: digest of its content}.
      joint_captions: whether a caption links all its images, not only up to `FEW` and half of them.
    """
    parent: dict = {}

    def root(node):
        while parent.setdefault(node, node) != node:
            parent[node] = node = parent[parent[node]]
        return node

    images_of: dict[str, list[pathlib.Path]] = collections.defaultdict(list)
    for path, own in captions.items():
        parent[root(digests[path])] = root(path)
        for caption in dict.fromkeys(map(str.casefold, own)):
            images_of[caption].append(path)
    shared = {caption: images for caption, images in images_of.items() if len(images) > 1}
    limit = len(captions) if joint_captions else min(FEW, max(len(captions) // 2, 2))
    common = [caption for caption, images in shared.items() if len(images) > limit]
    for caption, images in shared.items():
        if len(images) <= limit:
            for path in images:
                parent[root(caption)] = root(path)
    numbers: dict = {}
    ids = {path: numbers.setdefault(root(path), len(numbers)) for path in captions}
    most = max(common, key=lambda caption: len(images_of[caption]), default="")
    return ids, Shared(
        copies=len(captions) - len({digests[path] for path in captions}),
        joined=len(shared) - len(common),
        common=len(common),
        example=most,
        example_images=len(images_of[most]) if most else 0,
        largest=max(collections.Counter(ids.values()).values()),
    )
