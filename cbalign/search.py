"""A trained model put to use: index a folder of pictures, rank it for a text or for another picture.

    run = open_run("runs/emoji")
    encoder = Encoder.of(run)
    index = index_folder(run, "holiday", encoder=encoder)
    for hit in search(index, encoder.text("a delivery truck")[0], top=5):
        print(hit.score, hit.path)
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import io
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from etils import epath
from PIL import Image, ImageOps

from cbalign import runs
from cbalign.data import augment, text
from cbalign.data.sources.pictures import pillow_limit, to_rgb
from cbalign.errors import UserError

BATCH = 32
"""Pictures encoded together; the last batch is filled up, so that the encoder is compiled once."""
MAX_PIXELS = 1 << 28
"""Pictures of more pixels are not decoded."""

# To be raised when the same file would come out of `read_picture` as other pixels.
_FORMAT = 1
# The towers whose weights a picture's feature depends on.
_IMAGE_MODULES = ("image_encoder", "image_projection")
# Pillow only writes these, or only recognises them.
_NOT_PICTURES = {".pdf", ".mpg", ".mpeg", ".h5", ".hdf", ".grib", ".bufr"}


class Hit(NamedTuple):
    """One picture of an answer: its cosine score in [-1, 1], and its path."""

    score: float
    path: str


class Skipped(NamedTuple):
    """A picture that could not be read, and why."""

    path: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Index:
    """The pictures of a folder, ready to be searched.

    Attributes:
      paths: n paths, the folder's name as it was given in front.
      features: float32 [n, d], rows of unit length.
      skipped: files that look like pictures and cannot be read.
      encoded: how many of the n features had to be computed; the others were kept from before.
      note: what went wrong with keeping them, or "".
    """

    paths: list[str]
    features: np.ndarray
    skipped: list[Skipped]
    encoded: int = 0
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Encoder:
    """A run's encoders with the parameters of one checkpoint.

    Attributes:
      image_size: side S of the pictures it takes, in pixels.
      max_tokens: length of a text, [CLS] included.
      tokenizer: the run's.
      functions: the evaluator's `Functions`.
      fingerprint: digest of all that a picture's feature depends on.
    """

    image_size: int
    max_tokens: int
    tokenizer: object
    functions: object
    fingerprint: str

    @classmethod
    def of(cls, run: runs.Run, *, checkpoint: str = "best") -> "Encoder":
        """The encoder of a run; `checkpoint` as for `Run.params`.

        Raises:
          UserError: the run has no such checkpoint.
        """
        params = run.params(checkpoint=checkpoint)
        functions = runs.bind(runs.model_functions(run.task.model), params)
        size = run.config.data.image_size
        return cls(size, run.config.data.max_tokens, run.tokenizer, functions, _fingerprint(params, run.config))

    def pictures(self, pixels: np.ndarray) -> np.ndarray:
        """Features float32 [b, d] of unit length, of at most `BATCH` pictures uint8 [b, S, S, 3]."""
        rows = np.minimum(np.arange(BATCH), len(pixels) - 1)
        return np.asarray(self.functions.encode_image(pixels[rows])["feature"], np.float32)[:len(pixels)]

    def picture(self, path) -> np.ndarray:
        """The feature float32 [d] of a picture file.

        Raises:
          UserError: it cannot be read.
        """
        with pillow_limit(MAX_PIXELS):
            try:
                pixels = read_picture(path, self.image_size)
            except UnreadablePicture as error:
                raise UserError(f"the picture {path} cannot be used ({error}); name another one") from error
        return self.pictures(pixels[np.newaxis])[0]

    def text(self, caption: str) -> tuple[np.ndarray, list[str]]:
        """The feature of a text, cleaned as the captions were.

        Returns:
          (float32 [d] of unit length, warnings: sentences on what the model does not see of the text).
        """
        # One more than the model takes, to see whether anything is cut off.
        ids = text.encode(self.tokenizer, [text.clean_caption(caption)], max_length=self.max_tokens + 1)
        words = ids[0, 1:][ids[0, 1:] != self.tokenizer.pad_token_id]
        warnings = []
        if np.all(words == self.tokenizer.unk_token_id):
            warnings.append(f"no word of {caption!r} is in the run's vocabulary: the ranking means nothing")
        elif len(words) >= self.max_tokens:
            warnings.append(f"only the first {self.max_tokens - 1} tokens of the text are used")
        feature = self.functions.encode_text(ids[:, :self.max_tokens])["feature"]
        return np.asarray(feature, np.float32)[0], warnings


def _fingerprint(params, config) -> str:
    """Digest of the image tower: a step's number alone would not tell a run from one trained anew in its place."""
    digest = hashlib.blake2b(f"{_FORMAT} {config.data.image_size} {config.model.to_dict()}".encode(), digest_size=16)
    leaves, _ = jax.tree_util.tree_flatten_with_path({name: params[name] for name in _IMAGE_MODULES})
    for path, leaf in leaves:
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf.addressable_data(0)).data)
    return digest.hexdigest()


class UnreadablePicture(Exception):
    """A file that cannot be read as a picture; the message is the reason in a few words."""


def read_picture(path, size: int) -> np.ndarray:
    """Reads a picture as the evaluation sees it: upright, RGB, transparent parts on white, the first frame, resized.

    Args:
      path: a file of any format Pillow reads.
      size: side S in pixels; the aspect is not kept.

    Returns:
      uint8 [S, S, 3].

    Raises:
      UnreadablePicture: `missing`, `empty`, `too large` or `broken`.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UnreadablePicture("missing")
    try:
        if not path.stat().st_size:
            raise UnreadablePicture("empty")
        with path.open("rb") as stream, Image.open(stream) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise UnreadablePicture("too large")
            picture.load()
            plain = io.BytesIO()
            to_rgb(_upright(picture)).save(plain, "BMP")
    except UnreadablePicture:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadablePicture("too large") from error
    except Exception as error:
        # Pillow's decoders raise nearly anything on damaged files.
        raise UnreadablePicture("broken") from error
    # By way of the evaluation's own code, since Pillow's resize rounds between its passes and may differ by 3 of 255.
    return augment.resize(augment.decode(plain.getvalue()), size).numpy()


def _upright(picture):
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:
        # The pixels are sound, only the camera's notes are damaged.
        return picture


def search(index: Index, query: np.ndarray, top: int) -> list[Hit]:
    """The best pictures of an index, best first.

    Args:
      index: from `index_folder`.
      query: float32 [d] of unit length, from `Encoder.text` or `Encoder.picture`.
      top: how many; fewer where the index has no more.
    """
    scores = index.features @ query
    best = np.argsort(-scores, kind="stable")[:top]
    return [Hit(float(scores[i]), index.paths[i]) for i in best]


@dataclasses.dataclass
class _Entry:
    """What is kept of a file: its state when it was read, and its feature or why it has none."""

    size: int
    mtime_ns: int
    feature: np.ndarray | None
    reason: str = ""


def index_folder(
    run: runs.Run, folder, *, encoder: Encoder | None = None, progress: Callable[[int, int], None] | None = None
) -> Index:
    """Encodes the pictures of a folder and its sub-folders; what is unchanged since the last time is kept.

    The features are kept in `search/NAME-HASH.npz` in the workdir, per file by (relative path, size, time of change)
    and all together by the weights of the encoder.

    Args:
      run: from `open_run`.
      folder: of pictures, in any format Pillow reads; hidden files and folders are passed over.
      encoder: of the run; the best checkpoint's by default.
      progress: called as progress(done, total) while files are read.

    Raises:
      UserError: no such folder, or no picture in it that can be read.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; name a folder of pictures")
    files = dict(_picture_files(folder))
    if not files:
        raise UserError(f"no pictures in {folder} or below it; name a folder of JPEG, PNG or other picture files")
    encoder = encoder or Encoder.of(run)
    cache = _cache_file(run.workdir, folder)
    known = _load(cache, encoder.fingerprint)
    entries = {name: known[name] for name, state in files.items()
               if name in known and (known[name].size, known[name].mtime_ns) == state}
    missing = [name for name in files if name not in entries]
    note = ""
    if missing or len(entries) != len(known):
        try:
            _encode(encoder, folder, files, missing, entries, progress)
        finally:
            # Also where it was interrupted: what is done is not to be done again.
            note = _store(cache, encoder.fingerprint, entries)
    return _as_index(folder, files, entries, missing, note)


def _as_index(folder, files, entries, missing, note) -> Index:
    readable = [name for name in files if entries[name].feature is not None]
    skipped = [Skipped(str(folder / name), entries[name].reason) for name in files if entries[name].feature is None]
    if not readable:
        raise UserError(f"none of the {len(skipped)} pictures in {folder} can be read "
                        f"({skipped[0].path}: {skipped[0].reason}); name another folder")
    features = np.stack([entries[name].feature for name in readable])
    encoded = sum(entries[name].feature is not None for name in missing)
    return Index([str(folder / name) for name in readable], features, skipped, encoded, note)


@functools.cache
def _suffixes() -> frozenset:
    """Suffixes, with the dot, of the formats Pillow reads."""
    return frozenset(s for s, name in Image.registered_extensions().items() if name in Image.OPEN) - _NOT_PICTURES


def _picture_files(folder: pathlib.Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yields (relative path, (size in bytes, time of change in ns)) of the picture files, in a fixed order."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = pathlib.Path(root, name)
            if name.startswith(".") or path.suffix.lower() not in _suffixes():
                continue
            try:
                state = path.stat()
            except OSError:
                continue  # a link to nothing, or a file that has just gone
            yield str(path.relative_to(folder)), (state.st_size, state.st_mtime_ns)


def _encode(encoder, folder, files, missing, entries, progress) -> None:
    """Adds the missing files to the entries, batch by batch; threads read ahead of the encoder."""
    progress = progress or (lambda done, total: None)

    def read(name):
        try:
            return read_picture(folder / name, encoder.image_size), ""
        except UnreadablePicture as error:
            return None, str(error)

    with pillow_limit(MAX_PIXELS), concurrent.futures.ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1)) as pool:
        batches = [missing[start:start + BATCH] for start in range(0, len(missing), BATCH)]
        waiting = [pool.submit(lambda names: [read(n) for n in names], names) for names in batches[:4]]
        try:
            for number, names in enumerate(batches):
                if number + 4 < len(batches):
                    waiting.append(pool.submit(lambda names: [read(n) for n in names], batches[number + 4]))
                _add(encoder, files, names, waiting.pop(0).result(), entries)
                progress(min((number + 1) * BATCH, len(missing)), len(missing))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _add(encoder, files, names, read, entries) -> None:
    """Adds one batch of read files to the entries."""
    pixels = [picture for picture, _ in read if picture is not None]
    features = iter(encoder.pictures(np.stack(pixels)) if pixels else ())
    for name, (picture, reason) in zip(names, read):
        feature = None if picture is None else next(features)
        entries[name] = _Entry(*files[name], feature, reason)


def _cache_file(workdir, folder: pathlib.Path) -> epath.Path:
    resolved = folder.resolve()
    name = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in resolved.name)
    digest = hashlib.blake2b(os.fsencode(resolved), digest_size=6).hexdigest()
    return epath.Path(workdir) / "search" / f"{name or 'root'}-{digest}.npz"


def _load(cache, fingerprint: str) -> dict:
    """{relative path: _Entry} as stored; nothing where there is no file, a damaged one, or one of other weights."""
    try:
        with cache.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if str(stored["fingerprint"]) != fingerprint:
                return {}
            features = iter(stored["features"])
            columns = (stored[name].tolist() for name in ("paths", "sizes", "mtimes", "reasons"))
            return {path: _Entry(size, mtime, None if reason else next(features), reason)
                    for path, size, mtime, reason in zip(*columns)}
    except Exception:
        # It can be made anew whatever is wrong with it: zip, header and array errors are of many kinds.
        return {}


def _store(cache, fingerprint: str, entries: dict) -> str:
    """Writes the entries under a temporary name and renames; returns what went wrong, or ""."""
    features = [entry.feature for entry in entries.values() if entry.feature is not None]
    temporary = cache.parent / f".{cache.name}.{os.getpid()}"
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez(
                file, fingerprint=np.array(fingerprint), paths=np.array(list(entries), dtype=str),
                sizes=np.array([entry.size for entry in entries.values()], np.int64),
                mtimes=np.array([entry.mtime_ns for entry in entries.values()], np.int64),
                reasons=np.array([entry.reason for entry in entries.values()], dtype=str),
                features=np.stack(features) if features else np.zeros((0, 0), np.float32),
            )
        temporary.replace(cache)
    except OSError as error:
        return f"the pictures' features cannot be kept in {cache.parent} ({error}); the next search reads them again"
    return ""
