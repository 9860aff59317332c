"""Captions of scenes: structured claims, their truth in a scene, and their English text.

Each caption is generated from a :class:`Claim`, so it can be verified against any scene (:func:`claim_holds`).
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from cbalign.data.datasets.generated.scene_world import RELATIONS, Scene, SceneObject

CAPTIONS_PER_SCENE = 5
NUMBERS = ("no", "one", "two", "three", "four")


@dataclasses.dataclass(frozen=True)
class Phrase:
    """Some shapes of a scene; None leaves an attribute unspecified.

    Attributes:
      kind: Kind of shape.
      colour: Colour.
      size: Size.
      cell: Quarter of the image.
      count: 1 claims at least one such shape, 2 or more exactly that many.
    """

    kind: str | None = None
    colour: str | None = None
    size: str | None = None
    cell: str | None = None
    count: int = 1

    def text(self, article: bool) -> str:
        """The phrase in English, with "a" or "an" before a single shape if `article`."""
        kind = self.kind or "shape"
        if self.count > 1:
            kind += "es" if kind.endswith("s") else "s"
        words = [word for word in (self.size, self.colour, kind) if word]
        if self.count > 1:
            words.insert(0, NUMBERS[self.count])
        elif article:
            words.insert(0, "an" if words[0][0] in "aeiou" else "a")
        return " ".join(words + ([f"at {self.cell}"] if self.cell else []))


@dataclasses.dataclass(frozen=True)
class Claim:
    """What a caption states about a scene; None leaves a field unspecified.

    Attributes:
      phrases: Disjoint groups of shapes of the scene.
      relations: Pairs (i, relation): each shape of phrase i is in that relation to each shape of phrase i + 1.
      texture: Texture of the ground.
      ground: Colour of the ground.
      total: Exact number of shapes in the scene.
    """

    phrases: tuple[Phrase, ...]
    relations: tuple[tuple[int, str], ...] = ()
    texture: str | None = None
    ground: str | None = None
    total: int | None = None


def claim_holds(claim: Claim, scene: Scene) -> bool:
    """Whether all parts of a claim are true of a scene."""
    if claim.texture not in (None, scene.texture) or claim.ground not in (None, scene.ground):
        return False
    if claim.total not in (None, len(scene.objects)):
        return False
    options = []
    for phrase in claim.phrases:
        found = scene.find(phrase.kind, phrase.colour, phrase.size, phrase.cell)
        if not found or (phrase.count > 1 and len(found) != phrase.count):
            return False
        options.append(list(itertools.combinations(found, phrase.count)))
    for chosen in itertools.product(*options):
        used = [index for group in chosen for index in group]
        if len(set(used)) == len(used) and all(
            scene.related(a, relation, b) for i, relation in claim.relations for a in chosen[i] for b in chosen[i + 1]
        ):
            return True
    return False


def claim_text(claim: Claim, frame: int = 0) -> str:
    """The English text of a claim.

    Args:
      claim: The claim.
      frame: Wording, modulo 4; it determines where and how the ground and the total are mentioned, not the meaning.
        Claims with four phrases have only wordings 0 and 2.

    Returns:
      Lowercase text without a period.
    """
    # Only shorter lists use the longer wordings, so that no caption exceeds 24 words.
    frame = frame % 4 if len(claim.phrases) < 4 else frame % 4 & 2
    article = len(claim.phrases) <= 2 and claim.total != 1
    relations = dict(claim.relations)
    parts = [phrase.text(article) for phrase in claim.phrases]
    body = parts[0]
    for i, part in enumerate(parts[1:]):
        # With "and", a relation could be read as applying to the rest of the list.
        last = i + 2 == len(parts) and not relations
        body += f" {relations[i]} {part}" if i in relations else f" and {part}" if last else f", {part}"
    if claim.total == 1:
        body = ("only a", "just one", "a single", "nothing but one")[frame] + f" {body}"
        body = body.replace("only a o", "only an o")
    elif claim.total:
        body = f"{NUMBERS[claim.total]} shapes, {body}"
    ground = " ".join(word for word in (claim.texture, claim.ground) if word)
    if not ground:
        return body
    return (
        f"{body} on {ground}",
        f"{body} on a {ground} ground",
        f"on {ground}, {body}",
        f"{ground} ground with {body}",
    )[frame]


def _phrase(shape: SceneObject, *fields: str) -> Phrase:
    return Phrase(**{field: getattr(shape, field) for field in fields})


def _relation(scene: Scene, first: list[int], second: list[int], rng: np.random.Generator) -> str | None:
    """A random relation that holds between all first and all second shapes, or None."""
    true = [r for r in RELATIONS if all(scene.related(a, r, b) for a in first for b in second)]
    return true[int(rng.integers(len(true)))] if true else None


def _full(scene: Scene, order: list[int], rng: np.random.Generator) -> Claim:
    """All shapes with all attributes, a relation between the first two, and the ground."""
    fields = ("kind", "colour", "size") + (("cell",) if len(order) == 1 else ())
    relations = ((0, _relation(scene, [order[0]], [order[1]], rng)),) if len(order) > 1 else ()
    return Claim(
        tuple(_phrase(scene.objects[i], *fields) for i in order),
        relations,
        scene.texture,
        scene.ground,
        1 if len(order) == 1 else None,
    )


def _counted(scene: Scene, order: list[int], rng: np.random.Generator) -> Claim:
    """All shapes without their sizes, grouped and counted by colour and kind, and the ground."""
    groups: dict[tuple[str, str], list[int]] = {}
    for i in order:
        groups.setdefault((scene.objects[i].kind, scene.objects[i].colour), []).append(i)
    members = list(groups.values())
    relation = _relation(scene, members[0], members[1], rng) if len(members) > 1 else None
    # A single group hardly distinguishes the scene from others, so the total is stated as well.
    return Claim(
        tuple(Phrase(*key, count=len(group)) for key, group in groups.items()),
        ((0, relation),) if relation else (),
        scene.texture,
        scene.ground,
        len(order) if len(members) == 1 else None,
    )


def _pair(scene: Scene, order: list[int], rng: np.random.Generator) -> Claim:
    """The number of shapes, a relation between two of them, and the ground."""
    first, second = order[:2]
    return Claim(
        (_phrase(scene.objects[first], "kind", "colour", "size"), _phrase(scene.objects[second], "kind", "colour")),
        ((0, _relation(scene, [first], [second], rng)),),
        scene.texture,
        scene.ground,
        len(order),
    )


def _placed(scene: Scene, order: list[int], *, sizes: bool) -> Claim:
    """All shapes by quarter, and the ground; four shapes get only size or colour and no ground, to limit the length."""
    fields = ("kind", "cell") + (("size",) if sizes else ())
    if len(order) < 4 or not sizes:
        fields += ("colour",)
    ground = (scene.texture, scene.ground) if len(order) < 4 else (None, None)
    return Claim(tuple(_phrase(scene.objects[i], *fields) for i in order), (), *ground)


def scene_claims(scene: Scene, rng: np.random.Generator) -> list[Claim]:
    """Five claims true of a scene.

    The first is a full description. The others contain less or are worded differently: all shapes by position, with
    sizes and, in another order, without; counted shapes; the number of shapes and a relation between two of them.
    Positions are frequent because they help a model to learn: the quarter tells which shape a word refers to. For a
    scene with one shape, the others omit its size or its position.
    """

    def order():
        return [int(i) for i in rng.permutation(len(scene.objects))]

    if len(scene.objects) == 1:
        full = _full(scene, [0], rng)
        shape = full.phrases[0]
        return [
            full,
            full,
            dataclasses.replace(full, phrases=(dataclasses.replace(shape, size=None),)),
            dataclasses.replace(full, phrases=(dataclasses.replace(shape, cell=None),)),
            full,
        ]
    return [
        _full(scene, order(), rng),
        _placed(scene, order(), sizes=True),
        _counted(scene, order(), rng),
        _pair(scene, order(), rng),
        _placed(scene, order(), sizes=False),
    ]


def scene_captions(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Five captions of a scene: the texts of `scene_claims` in varied wordings; the first always has wording 0."""
    return [text for _, text in captioned_claims(scene, rng)]


def captioned_claims(scene: Scene, rng: np.random.Generator) -> list[tuple[Claim, str]]:
    """Five (claim, caption) pairs of a scene; the captions are those of `scene_captions` for an equal `rng`."""
    # Captions 1 and 4 may share the claim of caption 0 and then need a different wording.
    a, b, c = (int(f) for f in rng.permutation((1, 2, 3)))
    frames = [0, a, c, 0, b] if rng.random() < 0.5 else [0, a, 0, c, b]
    return [(claim, claim_text(claim, frame)) for claim, frame in zip(scene_claims(scene, rng), frames)]
