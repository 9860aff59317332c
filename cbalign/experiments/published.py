"""The literature's figures, each with its source and how certain it is; the data are in `published.json`."""

import dataclasses
import functools
import importlib.resources
import json

CONFIDENCES = ("read", "recalled")


@dataclasses.dataclass(frozen=True)
class Figure:
    """A published figure.

    Attributes:
      value: in the unit of its table's column.
      confidence: "read" in the source, or "recalled" from memory of it, to be checked before anyone quotes it.
      source: a paper.
      note: about the row it belongs to, or "".
    """

    value: float
    confidence: str
    source: str
    note: str = ""

    @property
    def mark(self) -> str:
        """What follows the figure wherever it is shown: "?" where it is only recalled."""
        return "?" if self.confidence == "recalled" else ""


@dataclasses.dataclass(frozen=True)
class Spread:
    """How much figures vary with the seed of fine-tuning, as published for a sister method.

    Attributes:
      deviations: {column: standard deviation, in the unit of the column}.
      about: what was repeated, in words.
      source: a paper.
    """

    deviations: dict[str, float]
    about: str
    source: str


@functools.cache
def _data() -> dict:
    file = importlib.resources.files("cbalign.experiments") / "published.json"
    return json.loads(file.read_text(encoding="utf-8"))


def methods(table: str) -> tuple[str, ...]:
    """The methods of a table, in its order; none for an unknown or empty name."""
    return tuple(row["method"] for row in _data()["tables"].get(table, {}).get("rows", ()))


def figures(table: str, method: str) -> dict[str, Figure]:
    """{column: figure} of a method; empty where the literature's data has none."""
    content = _data()["tables"].get(table, {"columns": (), "rows": ()})
    for row in content["rows"]:
        if row["method"] == method:
            values = zip(content["columns"], row["values"], strict=True)
            return {
                name: Figure(value, row["confidence"], row["source"], row.get("note", ""))
                for name, value in values
                if value is not None
            }
    return {}


def spread(table: str) -> Spread:
    """The spread of a table's figures; without deviations where none is published."""
    data = _data()["spread"]
    return Spread(data["tables"].get(table, {}), data["about"], data["source"])
