"""What a suite is made of: rows, each one run or several, and the tables that show them."""

import dataclasses
from collections.abc import Iterable

from cbalign.errors import UserError


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluation of a row's run, as `cbalign evaluate` writes it.

    Attributes:
      split: of the data set.
      data: the data set; "" is the run's own.
      protocol: config to evaluate by (`cbalign evaluate --config`), whose data set `data` then names; "" is the run's
        own.
    """

    split: str
    data: str = ""
    protocol: str = ""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The figures of `metrics/stability.json`, which every run of a suite with several seeds gets."""


@dataclasses.dataclass(frozen=True)
class ServerFigure:
    """A figure of a row's run that only an evaluation server computes, entered with `cbalign tables --result`.

    Attributes:
      config: of the rows that have it.
      split: as the server names it.
    """

    config: str
    split: str

    def key(self, row: "Row") -> str:
        """What names a row's figure on the command line, as in "vqa.test-dev"."""
        return f"{row.name}.{self.split}"


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a suite: a config, changed by overrides, trained and evaluated.

    Attributes:
      name: unique in the suite; its runs are in the folder of that name.
      label: as tables show it.
      config: name of the config, as for `cbalign train --config`.
      overrides: fields changed on top of it, "a.b=value" each.
      evaluations: of the trained run.
      after: the row whose run this one starts from (`config.init.weights`), or whose run it evaluates where `trains` is
        False.
      trains: False for a row that only evaluates the run of `after`.
      against: the row its paired difference is taken to.
      steps_share: its steps, as a share of the suite's; a row with another batch size sees as many pairs with it.
    """

    name: str
    label: str
    config: str
    overrides: tuple[str, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    after: str = ""
    trains: bool = True
    against: str = ""
    steps_share: float = 1.0


@dataclasses.dataclass(frozen=True)
class Column:
    """A figure of a table.

    Attributes:
      name: key of the figure in the literature's data, and in the CSV.
      label: as tables show it.
      source: where the figure is.
      path: keys into the file of an evaluation or measurement.
      mean: the path ends at several figures and their mean is meant.
      digits: shown after the decimal point.
    """

    name: str
    label: str
    source: Evaluation | Measurement | ServerFigure
    path: tuple[str, ...] = ()
    mean: bool = False
    digits: int = 1


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a table: our figures of one or several rows, and the literature's.

    Attributes:
      label: as the table shows it.
      rows: names of the rows its figures come from; each column takes the first that has its source.
      method: in the literature's data, or "" where it has none.
    """

    label: str
    rows: tuple[str, ...] = ()
    method: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """One table of a suite.

    Attributes:
      name: short, unique.
      title: in words.
      columns: its figures.
      lines: from top to bottom.
      literature: key of the table in the literature's data, or "".
      note: a sentence below it, or "".
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    literature: str = ""
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Search:
    """Several seeds a row, at a learning rate chosen for the row on validation.

    Attributes:
      validation: evaluations whose mean recall chooses the rate.
      steps: default budget of every run, before a row's `steps_share`.
      rates: default grid of learning rates.
    """

    validation: tuple[Evaluation, ...]
    steps: int
    rates: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Suite:
    """Rows in an order in which they can be run, and the tables made of them.

    Attributes:
      name: as on the command line.
      rows: a row stands after the one it starts from.
      tables: what is shown.
      search: how seeds and rates are tried; None for one run a row, made as its config says.
    """

    name: str
    rows: tuple[Row, ...]
    tables: tuple[Table, ...]
    search: Search | None = None

    def row(self, name: str) -> Row:
        """The row of that name.

        Raises:
          UserError: there is none.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise UserError(f"the suite {self.name} has no row {name!r}; it has {', '.join(r.name for r in self.rows)}")

    def select(self, names: Iterable[str]) -> tuple[Row, ...]:
        """The named rows with all they start from, in the suite's order; all rows where none is named."""
        wanted = set()
        for name in names:
            while name and name not in wanted:
                wanted.add(name)
                name = self.row(name).after
        return tuple(row for row in self.rows if row.name in wanted) if wanted else self.rows


def recall_columns(
    evaluation: Evaluation, prefix: str, label: str, *, score: str, ks: tuple[int, ...] = (1, 5, 10)
) -> tuple[Column, ...]:
    """TR@k and IR@k of a retrieval evaluation.

    Args:
      evaluation: which.
      prefix: of the columns' names, as in "coco_tr@1".
      label: of the data set, as in "COCO TR@1".
      score: "contrastive", "itm" or "sum": what pairs are ranked by.
      ks: ranks.
    """
    return tuple(
        Column(f"{prefix}_{direction}@{k}", f"{label} {direction.upper()}@{k}", evaluation, (score, f"{direction}@{k}"))
        for direction in ("tr", "ir")
        for k in ks
    )
