"""Features of images and texts for use elsewhere, with the names they belong to.

encoder = Encoder.of(open_run("runs/emoji"))
save("captions.npz", embed_texts(encoder, read_texts("captions.txt")))
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

import numpy as np
from etils import epath

from cbalign.errors import UserError
from cbalign.inference.encoder import Encoder
from cbalign.inference.image_index import Skipped, index_folder
from cbalign.storage import write_atomically


@dataclasses.dataclass(frozen=True)
class Features:
    """Features and what they are of.

    Attributes:
      names: n paths within the folder, or n texts.
      features: float32 [n, d], rows of unit length: the cosine of any two is their product.
      weights: digest of the weights; only features of equal ones can be compared.
      skipped: images that cannot be read.
      notes: sentences on what the model does not see.
    """

    names: list[str]
    features: np.ndarray
    weights: str
    skipped: list[Skipped] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


def embed_images(
    folder: os.PathLike | str,
    *,
    encoder: Encoder,
    cache: os.PathLike | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Features:
    """The features of the images of a folder and its sub-folders; arguments and errors as for `index_folder`."""
    index = index_folder(folder, encoder=encoder, cache=cache, progress=progress)
    names = [os.path.relpath(path, folder) for path in index.paths]
    return Features(names, index.features, encoder.fingerprint, index.skipped, index.notes)


def read_texts(file) -> list[str]:
    """The texts of a UTF-8 file, one a line; blank lines are left out.

    Raises:
      UserError: the file is missing, in another encoding, or holds no text.
    """
    file = epath.Path(file)
    if not file.is_file():
        raise UserError(f"no file {file}; name a text file with one text a line")
    try:
        # Split at line feeds alone: a text may contain other characters that Python treats as the end of a line.
        lines = file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise UserError(f"{file} holds no text; write one text a line")
    return texts


def embed_texts(encoder: Encoder, texts: list[str], *, progress: Callable[[int, int], None] | None = None) -> Features:
    """The features of n >= 1 texts, cleaned as captions are in training.

    Args:
      encoder: of a run.
      texts: what to encode, in the order of the result.
      progress: called as progress(done, total).
    """
    encoded, count, notes = encoder.texts(texts, progress=progress), len(texts), []
    if encoded.unknown:
        notes.append(
            f"{len(encoded.unknown)} of {count} texts have no word in the run's vocabulary (such as "
            f"{texts[encoded.unknown[0]][:40]!r}): their features are meaningless"
        )
    if encoded.cut:
        notes.append(
            f"{len(encoded.cut)} of {count} texts are cut to their first {encoder.max_tokens - 1} tokens (such as "
            f"{texts[encoded.cut[0]][:40]!r})"
        )
    return Features(list(texts), encoded.features, encoder.fingerprint, notes=notes)


def check_output(file) -> epath.Path:
    """The path of a file to write, before any work is done.

    Raises:
      UserError: it does not end in .npz, or is a folder.
    """
    file = epath.Path(file)
    if file.suffix != ".npz":
        raise UserError(f"--out={file} must end in .npz")
    if file.is_dir():
        raise UserError(f"--out={file} is a folder; name a file")
    return file


def save(file, features: Features) -> None:
    """Writes {"names": str [n], "features": float32 [n, d], "weights": str} for `np.load`, in one piece.

    Raises:
      UserError: it cannot be written.
    """
    file = check_output(file)
    content = dict(
        names=np.array(features.names, dtype=str), features=features.features, weights=np.array(features.weights)
    )
    try:
        write_atomically(file, lambda stream: np.savez(stream, **content))
    except OSError as error:
        raise UserError(f"{file} cannot be written ({error}); name another --out") from error
