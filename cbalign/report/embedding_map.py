"""The shared embedding space: one map of images, texts and codes, and the modality gap before and after training."""

from __future__ import annotations

import dataclasses
import warnings

import jax
import numpy as np

from cbalign.errors import UserError
from cbalign.evaluation import encoders
from cbalign.evaluation.modality_gap import mean_cosines, modality_gap
from cbalign.report.codebook_view import CodebookView
from cbalign.report.encoded_split import EncodedSplit, encode
from cbalign.runs.initialize import load_weights
from cbalign.runs.workdir import Run, evaluated_params
from cbalign.training.state import TrainState

# Pairs and codes on the map; more would overlap. Pairs that the gap is measured on.
_PAIRS, _CODES, _GAP_PAIRS = 250, 250, 512
WIDTH, HEIGHT, _BORDER = 1000, 680, 24
_LABELLED = 40  # letters of a tooltip
_DIGIT, _LINE = 12, 20  # width and height of a digit with the seam around it


@dataclasses.dataclass(frozen=True)
class Point:
    """A point of the map: its place in the drawing, and what it is, in words."""

    x: float
    y: float
    label: str


@dataclasses.dataclass(frozen=True)
class Label:
    """The number of a code, and where it starts: left end and baseline."""

    x: float
    y: float
    code: int


@dataclasses.dataclass(frozen=True)
class EmbeddingMap:
    """Images, texts and used codes in two dimensions; pairs join an image with its text by their places.

    Attributes:
      images, texts: of the same drawn pairs, in the same order.
      codes: that images or texts of the split use, the most used ones.
      numbers: {place in `codes`: number of the code} of those that the page describes.
    """

    images: list[Point]
    texts: list[Point]
    codes: list[Point]
    numbers: dict[int, int]

    @property
    def labels(self) -> list[Label]:
        """Where the numbers are written: beside their codes, and where there is room, not on one another."""
        placed: list[tuple[float, float, float]] = []  # left, baseline, width
        labels = []
        for place, code in self.numbers.items():
            point, wide = self.codes[place], _DIGIT * len(str(code))
            corners = [(right, low) for low in (False, True) for right in (True, False)]
            boxes = [
                (point.x + 7 if right else point.x - 7 - wide, point.y + 19 if low else point.y - 6)
                for right, low in corners
            ]
            inside = [(x, y) for x, y in boxes if 0 <= x <= WIDTH - wide and _LINE <= y <= HEIGHT]
            free = [
                (x, y)
                for x, y in inside
                if all(x >= left + width or left >= x + wide or abs(y - base) >= _LINE for left, base, width in placed)
            ]
            x, y = (free or inside or boxes)[0]
            placed.append((x, y, wide))
            labels.append(Label(x, y, code))
        return labels


def embedding_map(encoded: EncodedSplit, view: CodebookView | None, *, seed: int = 0) -> EmbeddingMap | None:
    """Places pairs of a split and the codes by t-SNE of their cosines; None where there are too few pairs."""
    from sklearn.manifold import TSNE  # takes longer to load than all else here

    pairs = _drawn(encoded.pairs, _PAIRS, seed)
    used = view.usage.most_used(_CODES) if view else []
    codes = view.codes[used] if view else np.zeros((0, encoded.image_features.shape[1]), np.float32)
    features = np.concatenate([encoded.image_features[pairs[:, 0]], encoded.text_features[pairs[:, 1]], codes])
    if len(pairs) < 4:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tsne = TSNE(metric="cosine", init="random", perplexity=min(30.0, (len(features) - 1) / 3), random_state=seed)
        places = tsne.fit_transform(features.astype(np.float64))
    low, high = places.min(axis=0), places.max(axis=0)
    room = np.array([WIDTH - 2 * _BORDER, HEIGHT - 2 * _BORDER])
    places = np.round(_BORDER + (places - low) / np.maximum(high - low, 1e-9) * room, 1)
    captions, count = encoded.captions, len(pairs)
    words = {card.code: ", ".join(word for word, _ in card.words[:3]) for card in (view.cards if view else ())}
    labels = [f"image: {_short(captions[i])}" for i in pairs[:, 0].tolist()]
    labels += [f"text: {_short(encoded.gallery.texts[j])}" for j in pairs[:, 1].tolist()]
    labels += [f"code {code}" + (f": {words[code]}" if words.get(code) else "") for code in used]
    points = [Point(float(x), float(y), label) for (x, y), label in zip(places, labels)]
    numbers = {place: code for place, code in enumerate(used) if code in words}
    return EmbeddingMap(points[:count], points[count : 2 * count], points[2 * count :], numbers)


@dataclasses.dataclass(frozen=True)
class Gap:
    """The modality gap of one set of parameters.

    Attributes:
      label: which parameters.
      gap: see `modality_gap`.
      own, other: mean cosine of pairs, and of other combinations.
    """

    label: str
    gap: float
    own: float
    other: float


def gaps(encoded: EncodedSplit, run: Run, *, seed: int = 0) -> list[Gap]:
    """The modality gap before and after the training of a run, on the same drawn pairs of a split it has encoded."""
    pairs = _drawn(encoded.pairs, _GAP_PAIRS, seed)
    if not len(pairs):
        return []
    label, initial = _start(run)
    functions = encoders.bind(encoders.compiled_methods(run.task.model), initial)
    untrained = encode(encoded, functions, pairs[:, 0], encoded.gallery.token_ids[pairs[:, 1]])
    trained = encoded.image_features[pairs[:, 0]], encoded.text_features[pairs[:, 1]]
    own = np.stack([np.arange(len(pairs))] * 2, axis=1)
    return [
        Gap(label, modality_gap(*features), *mean_cosines(*features, own))
        for label, features in ((label, untrained), ("after training", trained))
    ]


def _start(run: Run) -> tuple[str, dict]:
    """(what it is, parameters) of a run's start; random ones where what it started from cannot be read any more."""
    config, task, init = run.config, run.task, run.config.init
    # As `runs.train` draws them.
    params = task.init_params(jax.random.fold_in(jax.random.key(config.seed), 0))
    if not (init.weights or init.checkpoint):
        return "before training", params
    if init.checkpoint:
        return "random parameters (the run itself continued a checkpoint)", params
    bare = TrainState(0, config.seed, params, task.teacher_params(params), queue={}, opt_state=())
    try:
        state, _ = load_weights(run, bare)
    except UserError:
        return "random parameters (the weights the run started from are gone)", params
    return f"before training (the weights {', '.join(init.weights)})", evaluated_params(state, config)


def _drawn(pairs: np.ndarray, count: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).choice(len(pairs), min(count, len(pairs)), replace=False)
    return pairs[np.sort(rows)]


def _short(text: str) -> str:
    return text if len(text) <= _LABELLED else text[: _LABELLED - 1].rstrip() + "…"
