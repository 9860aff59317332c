"""Zero-shot classification of a folder of images."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from cbalign.errors import UserError
from cbalign.evaluation.classification import classification_scores
from cbalign.evaluation.zero_shot import class_features, class_probabilities, top_accuracy
from cbalign.inference.encoder import Encoder
from cbalign.inference.image_index import Index, index_folder
from cbalign.storage import write_atomically, write_json

TEMPLATES = ("{}",)
"""A class is its name alone, as images are captioned in `icons` and `emoji`."""
FORMATS = (".csv", ".json")
_TOP = 5


@dataclasses.dataclass(frozen=True)
class Classified:
    """The classes of the images of a folder.

    Attributes:
      classes: k names.
      index: the n images, and which files were left out.
      probabilities: float32 [n, k].
      labels: int [n], the class whose name the image's first sub-folder has, -1 for none.
      notes: sentences on what the user should know.
    """

    classes: list[str]
    index: Index
    probabilities: np.ndarray
    labels: np.ndarray
    notes: list[str]

    def best(self, row: int, top: int) -> list[tuple[str, float]]:
        """The likeliest classes of an image with their probabilities, best first."""
        order = np.argsort(-self.probabilities[row], kind="stable")[:top]
        return [(self.classes[i], float(self.probabilities[row, i])) for i in order]

    def accuracy(self) -> dict | None:
        """Accuracy over the images with a label, in percent; None if no image has one.

        Returns:
          {"images", "top1", "top5", "by_class": {class: recall or None}, "chance"}; top5 is None for 5 classes or less.
        """
        known = np.flatnonzero(self.labels >= 0)
        if not len(known):
            return None
        probabilities, labels = self.probabilities[known], self.labels[known]
        scores = classification_scores(probabilities.argmax(axis=1), labels, self.classes)["accuracy"]
        top5 = top_accuracy(probabilities, labels, _TOP) if len(self.classes) > _TOP else None
        by_class = {name: scores[name] for name in self.classes}
        chance = 100 / len(self.classes)
        return {"images": len(known), "top1": scores["overall"], "top5": top5, "by_class": by_class, "chance": chance}


def classify_folder(
    folder: os.PathLike | str,
    classes: Sequence[str] | None,
    *,
    encoder: Encoder,
    templates: Sequence[str] = TEMPLATES,
    cache: os.PathLike | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Classified:
    """Finds the likeliest class of each image of a folder and its sub-folders.

    Args:
      folder: of images; see `index_folder`.
      classes: their names; None for the names of the folder's own sub-folders.
      encoder: of the model.
      templates: texts with "{}" in the place of the name.
      cache, progress: see `index_folder`.

    Raises:
      UserError: fewer than two classes, a class named twice, a template without "{}", or no image.
    """
    if classes is None:
        classes = folder_classes(folder)
    names = checked_classes(classes or ())
    features, notes = encode_classes(encoder, names, templates)
    index = index_folder(folder, encoder=encoder, cache=cache, progress=progress)
    probabilities = class_probabilities(index.features, features, temperature=encoder.functions.temperature)
    place = {plain(name): number for number, name in enumerate(names)}
    labels = [place.get(plain(part), -1) for part in _first_folders(index.paths, folder)]
    return Classified(names, index, probabilities, np.array(labels, np.int64), [*notes, *index.notes])


def folder_classes(folder: os.PathLike | str) -> list[str]:
    """The names of a folder's sub-folders, as words, in alphabetical order; hidden ones do not count.

    Raises:
      UserError: there is no such folder.
    """
    if not pathlib.Path(folder).is_dir():
        raise UserError(f"{os.fspath(folder)} is not a folder; name a folder of images")
    found = sorted(path.name for path in pathlib.Path(folder).iterdir() if path.is_dir())
    return [plain(name) for name in found if not name.startswith(".")]


def checked_classes(classes: Sequence[str]) -> list[str]:
    """The names without the blanks around them; of a single string, those between its commas.

    Raises:
      UserError: fewer than two, or one of them twice or empty.
    """
    names = [name.strip() for name in (classes.split(",") if isinstance(classes, str) else classes)]
    if len(names) < 2:
        raise UserError(f"{len(names)} classes to choose from; name two or more, as in cat,dog,tractor")
    twice = next((name for number, name in enumerate(names) if plain(name) in map(plain, names[:number])), None)
    if twice is not None or not all(names):
        raise UserError(f"the class {twice!r} is named twice" if twice else "a class has no name")
    return names


def encode_classes(encoder: Encoder, classes: Sequence[str], templates: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Features of classes, float32 [k, d], and notes on those that the model has no word for.

    Raises:
      UserError: no template, or one without "{}".
    """
    wrong = next((template for template in templates if "{}" not in template), None)
    if wrong is not None or not templates:
        raise UserError(f'the template {wrong or ""!r} has no {{}}; write one such as "a photo of a {{}}"')
    features = class_features(lambda texts: encoder.texts(texts).features, classes, templates)
    _, unknown, _ = encoder.token_ids(list(classes))
    notes = []
    if unknown:
        named = ", ".join(classes[row] for row in unknown[:_TOP])
        count = "1 class has" if len(unknown) == 1 else f"{len(unknown)} classes have"
        notes.append(f"{count} no word in the model's vocabulary; the model can only guess: {named}")
    return features, notes


def rank_classes(
    encoder: Encoder, images: np.ndarray, classes: Sequence[str], features: np.ndarray, top: int
) -> list[list[tuple[str, float]]]:
    """The `top` likeliest of k classes of features [k, d], for each of n images of features [n, d].

    Returns:
      n lists of (class, probability), best first; see `Model.classify`.
    """
    shares = class_probabilities(images, features, temperature=encoder.functions.temperature)
    order = np.argsort(-shares, axis=1, kind="stable")[:, :top]
    return [[(classes[i], float(share[i])) for i in best] for share, best in zip(shares, order)]


def plain(name: str) -> str:
    """A name as it is compared: lowercase words, with spaces for hyphens and underscores."""
    return " ".join(name.replace("_", " ").replace("-", " ").lower().split())


def _first_folders(paths: list[str], folder: os.PathLike | str) -> list[str]:
    """The first sub-folder that each path lies in, "" for none."""
    inside = [pathlib.Path(path).relative_to(folder).parts for path in paths]
    return [parts[0] if len(parts) > 1 else "" for parts in inside]


def check_output(file: os.PathLike | str) -> None:
    """Raises UserError unless results can be written to a file of that name."""
    path = pathlib.Path(file)
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"--out={path} must end in {' or '.join(FORMATS)}")
    if path.is_dir():
        raise UserError(f"--out={path} is a folder; name a file")


def save(file: os.PathLike | str, result: Classified, *, top: int) -> None:
    """Writes the `top` likeliest classes of each image as CSV or JSON, by the suffix.

    Raises:
      UserError: the file cannot be written.
    """
    path = pathlib.Path(file)
    try:
        if path.suffix.lower() == ".json":
            write_json(path, as_json(result, top=top))
        else:
            write_atomically(path, _as_csv(result, top))
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror or error}); name another file") from None


def as_json(result: Classified, *, top: int) -> dict:
    """The result as JSON: {"classes", "accuracy", "images": [{"path", "label", "answers"}], "skipped", "left_out"}."""
    images = [
        {
            "path": path,
            "label": result.classes[label] if label >= 0 else None,
            "answers": [{"class": name, "probability": share} for name, share in result.best(row, top)],
        }
        for row, (path, label) in enumerate(zip(result.index.paths, result.labels.tolist()))
    ]
    return {
        "classes": result.classes,
        "accuracy": result.accuracy(),
        "images": images,
        "skipped": [entry._asdict() for entry in result.index.skipped],
        "left_out": result.index.left_out,
    }


def _as_csv(result: Classified, top: int) -> str:
    """One line an image and class: path, label, rank, class, probability."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["path", "label", "rank", "class", "probability"])
    for row, (path, label) in enumerate(zip(result.index.paths, result.labels.tolist())):
        for rank, (name, share) in enumerate(result.best(row, top), 1):
            writer.writerow([path, result.classes[label] if label >= 0 else "", rank, name, f"{share:.6f}"])
    return buffer.getvalue()
