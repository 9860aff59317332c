"""The literature's figures, each with where it comes from and how sure it is; data in `published.json`."""

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
      confidence: "read" in the source, or "recalled": from memory of it, to be checked before anyone quotes it.
      source: a paper or thread.
    """

    value: float
    confidence: str
    source: str

    @property
    def mark(self) -> str:
        """What stands after the figure wherever it is shown: "?" where it is recalled only."""
        return "?" if self.confidence == "recalled" else ""


@functools.cache
def _tables() -> dict:
    file = importlib.resources.files("cbalign.report") / "published.json"
    return json.loads(file.read_text(encoding="utf-8"))["tables"]


def methods(table: str) -> tuple[str, ...]:
    """The methods of a table, in its order; of an unknown or empty name none."""
    return tuple(row["method"] for row in _tables().get(table, ()))


def figures(table: str, method: str) -> dict[str, Figure]:
    """{column: figure} of a method; empty where the literature's data has none."""
    for row in _tables().get(table, ()):
        if row["method"] == method:
            own, exceptions = {key: row[key] for key in ("confidence", "source")}, row.get("exceptions", {})
            return {name: Figure(value, **{**own, **exceptions.get(name, {})}) for name, value in row["values"].items()}
    return {}
