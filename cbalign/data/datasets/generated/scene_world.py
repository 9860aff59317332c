"""Scenes of coloured shapes: their description, their properties, and how they are rendered.

A :class:`Scene` is one to four shapes, at most one in each quarter of the image, on a ground. It is hashable, can be
stored as JSON, and answers the queries that the tasks need: which shapes match, how many, and the spatial relation of
two shapes. Captions of scenes are in :mod:`cbalign.data.datasets.generated.scene_captions`.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import numpy as np
from PIL import Image, ImageDraw

KINDS = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = {
    "red": (222, 28, 36),
    "orange": (255, 138, 0),
    "yellow": (252, 228, 32),
    "green": (24, 158, 52),
    "cyan": (48, 216, 226),
    "blue": (28, 60, 224),
    "purple": (134, 40, 180),
    "pink": (255, 132, 196),
}
# Fractions of the image's side, as large as possible: with `jitter`, shapes stay apart and inside the image. (At 48
# pixels, a transformer learns the kinds of smaller shapes slowly: 36 % accuracy where these give 86 %.)
RADII = {"small": 0.145, "large": 0.22}
CELLS = ("top left", "top right", "bottom left", "bottom right")
RELATIONS = ("left of", "right of", "above", "below")
TEXTURES = ("plain", "striped", "dotted", "checked", "noisy")
# Two shades of each ground, the second for the texture's marks; greys and brown are distinct from the shapes' colours.
GROUNDS = {
    "white": ((248, 248, 248), (200, 200, 200)),
    "grey": ((142, 142, 142), (96, 96, 96)),
    "black": ((14, 14, 14), (66, 66, 66)),
    "brown": ((122, 82, 50), (78, 50, 28)),
}

# Shapes in one row or column differ by at most 0.16 in that coordinate, others by at least 0.34 (see `jitter`).
RELATION_MARGIN = 0.25
OBJECT_COUNT_ODDS = (0.20, 0.35, 0.27, 0.18)
REPEAT_ODDS = 0.15
SUPERSAMPLING = 4


def jitter(size: str) -> float:
    """Largest offset of a shape's centre from its quarter's centre, as a fraction of the image's side."""
    return 0.08 if size == "small" else 0.01


@dataclasses.dataclass(frozen=True)
class SceneObject:
    """One shape.

    Attributes:
      kind: One of `KINDS`.
      colour: A key of `COLOURS`.
      size: A key of `RADII`.
      x: Centre, as a fraction of the image's width from the left, inside (0, 1).
      y: Centre, as a fraction of the image's height from the top, inside (0, 1).

    Raises:
      ValueError: If a word is unknown or the centre lies outside the image.
    """

    kind: str
    colour: str
    size: str
    x: float
    y: float

    def __post_init__(self):
        for field, known in (("kind", KINDS), ("colour", COLOURS), ("size", RADII)):
            if getattr(self, field) not in known:
                raise ValueError(f"{field} is {getattr(self, field)!r}; expected one of {', '.join(known)}")
        if not (0 < self.x < 1 and 0 < self.y < 1):
            raise ValueError(f"centre ({self.x}, {self.y}) lies outside the image")

    @property
    def cell(self) -> str:
        """The quarter of the image holding the centre, one of `CELLS`."""
        return CELLS[2 * (self.y >= 0.5) + (self.x >= 0.5)]


@dataclasses.dataclass(frozen=True)
class Scene:
    """Shapes on a ground.

    Attributes:
      objects: One to four shapes in the order of their quarters (`CELLS`), at most one in each.
      texture: One of `TEXTURES`.
      ground: A key of `GROUNDS`.

    Raises:
      ValueError: If a word is unknown, or the quarters are repeated or out of order.
    """

    objects: tuple[SceneObject, ...]
    texture: str
    ground: str

    def __post_init__(self):
        if self.texture not in TEXTURES or self.ground not in GROUNDS:
            raise ValueError(f"unknown ground: {self.texture!r} {self.ground!r}")
        cells = [CELLS.index(shape.cell) for shape in self.objects]
        if not cells or any(a >= b for a, b in itertools.pairwise(cells)):
            raise ValueError("a scene needs one to four shapes, one per quarter, in the order of CELLS")

    def find(
        self, kind: str | None = None, colour: str | None = None, size: str | None = None, cell: str | None = None
    ) -> list[int]:
        """Indices into `objects` of the shapes with all given attributes; None matches any value."""
        return [
            i
            for i, shape in enumerate(self.objects)
            if (kind is None or shape.kind == kind)
            and (colour is None or shape.colour == colour)
            and (size is None or shape.size == size)
            and (cell is None or shape.cell == cell)
        ]

    def count(self, **attributes: str | None) -> int:
        """Number of shapes that `find` returns for these attributes."""
        return len(self.find(**attributes))

    def related(self, first: int, relation: str, second: int) -> bool:
        """Whether shape `first` is clearly in `relation` to shape `second`.

        Only the axis of the relation counts: a shape may be both left of and above another.

        Args:
          first: Index into `objects`.
          relation: One of `RELATIONS`.
          second: Index into `objects`.

        Raises:
          ValueError: If the relation is unknown.
        """
        if relation not in RELATIONS:
            raise ValueError(f"relation is {relation!r}; expected one of {', '.join(RELATIONS)}")
        axis = "x" if relation in ("left of", "right of") else "y"
        distance = getattr(self.objects[second], axis) - getattr(self.objects[first], axis)
        return (distance if relation in ("left of", "above") else -distance) > RELATION_MARGIN

    def description(self) -> str:
        """Canonical text of the ground and of each quarter's shape; equal only for scenes with equal attributes."""
        shapes = [f"{s.cell}: {s.size} {s.colour} {s.kind}" for s in self.objects]
        return "; ".join([f"{self.texture} {self.ground}", *shapes])

    def to_json(self) -> str:
        """JSON text from which `from_json` restores an equal scene."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Scene:
        """Scene written by `to_json`.

        Raises:
          ValueError: If the text is not such JSON.
        """
        try:
            fields = json.loads(text)
            return cls(tuple(SceneObject(**shape) for shape in fields["objects"]), fields["texture"], fields["ground"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a scene: {text[:80]!r}") from error


def _pick(rng: np.random.Generator, words) -> str:
    words = tuple(words)
    return words[int(rng.integers(len(words)))]


def sample_scene(rng: np.random.Generator) -> Scene:
    """A random scene; some shapes repeat the colour and kind of an earlier one, so that counts above one occur."""
    count = 1 + int(np.searchsorted(np.cumsum(OBJECT_COUNT_ODDS), rng.random(), side="right").clip(0, 3))
    shapes: list[SceneObject] = []
    for cell in sorted(rng.permutation(len(CELLS))[:count]):
        colour, kind, size = _pick(rng, COLOURS), _pick(rng, KINDS), _pick(rng, RADII)
        if shapes and rng.random() < REPEAT_ODDS:
            model = shapes[int(rng.integers(len(shapes)))]
            colour, kind = model.colour, model.kind
        # Rounded, so that the JSON in the record has exactly the values that are rendered.
        dx, dy = (round(float(d), 4) for d in rng.uniform(-1, 1, 2) * jitter(size))
        shapes.append(
            SceneObject(
                kind, colour, size, round(0.25 + 0.5 * (cell % 2) + dx, 4), round(0.25 + 0.5 * (cell // 2) + dy, 4)
            )
        )
    return Scene(tuple(shapes), _pick(rng, TEXTURES), _pick(rng, GROUNDS))


def _draw_ground(scene: Scene, side: int, rng: np.random.Generator) -> Image.Image:
    """The ground as an RGB image of `side` pixels; marks of about an eighth of the image remain visible at 32 px."""
    base, mark = (np.array(shade, np.float32) for shade in GROUNDS[scene.ground])
    phase = rng.random(2)
    u, v = (np.arange(side) / side + p for p in phase)
    if scene.texture == "striped":
        marked = ((u[None, :] + v[:, None]) * 7) % 1 < 0.5
    elif scene.texture == "dotted":
        marked = ((u * 6) % 1 - 0.5)[None, :] ** 2 + ((v * 6) % 1 - 0.5)[:, None] ** 2 < 0.08
    elif scene.texture == "checked":
        marked = (np.floor(u * 8)[None, :] + np.floor(v * 8)[:, None]) % 2 < 1
    elif scene.texture == "noisy":
        grains = (base + (mark - base) * rng.random((24, 24, 1))).astype(np.uint8)
        return Image.fromarray(grains).resize((side, side), Image.Resampling.NEAREST)
    else:
        marked = np.zeros((side, side), bool)
    ground = Image.fromarray(marked.astype(np.uint8))
    ground.putpalette(np.concatenate([base, mark]).astype(np.uint8).tobytes())
    return ground.convert("RGB")


def _corners(kind: str) -> list[tuple[float, float]]:
    """Corners of a shape of unit radius around the origin, y downwards."""
    if kind == "star":
        # With the inner radius of a true pentagram (0.38), a small star would be too thin.
        return [(r * math.sin(i * math.pi / 5), -r * math.cos(i * math.pi / 5)) for i, r in enumerate((1.08, 0.44) * 5)]
    if kind == "cross":
        a = 0.34
        return [
            (-a, -1),
            (a, -1),
            (a, -a),
            (1, -a),
            (1, a),
            (a, a),
            (a, 1),
            (-a, 1),
            (-a, a),
            (-1, a),
            (-1, -a),
            (-a, -a),
        ]
    return {
        "square": [(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)],
        "triangle": [(0, -1), (0.95, 0.8), (-0.95, 0.8)],
    }[kind]


def _mask(kind: str, x: float, y: float, radius: float, tilt: float) -> Image.Image:
    """Mask of a shape around (x, y), just large enough for the shape; lengths in pixels, tilt in radians."""
    mask = Image.new("L", (math.ceil(2.4 * radius) + 2,) * 2)
    pen = ImageDraw.Draw(mask)
    if kind in ("circle", "ring"):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
        if kind == "ring":
            hole = 0.52 * radius
            pen.ellipse((x - hole, y - hole, x + hole, y + hole), fill=0)
    else:
        cos, sin = math.cos(tilt) * radius, math.sin(tilt) * radius
        pen.polygon([(x + u * cos - v * sin, y + u * sin + v * cos) for u, v in _corners(kind)], fill=255)
    return mask


def draw_scene(scene: Scene, px: int, rng: np.random.Generator) -> np.ndarray:
    """Image of a scene.

    Args:
      scene: The scene.
      px: Side of the image in pixels; shapes are recognizable from 32 pixels on.
      rng: Determines what the scene leaves open: phase and grain of the ground, slight tilts and tints.

    Returns:
      RGB image of shape [px, px, 3], uint8.

    Raises:
      ValueError: If `px` is not positive.
    """
    if px <= 0:
        raise ValueError(f"px is {px}; expected a positive number of pixels")
    side = px * SUPERSAMPLING
    image = _draw_ground(scene, side, rng)
    for shape in scene.objects:
        tint = np.clip(np.array(COLOURS[shape.colour]) + rng.integers(-10, 11, 3), 0, 255)
        tilt = math.radians(rng.uniform(-8, 8))
        radius = RADII[shape.size] * side
        left, top = (int(centre * side - 1.2 * radius) for centre in (shape.x, shape.y))
        mask = _mask(shape.kind, shape.x * side - left, shape.y * side - top, radius, tilt)
        image.paste(tuple(int(c) for c in tint), (left, top), mask)
    return np.asarray(image.reduce(SUPERSAMPLING))
