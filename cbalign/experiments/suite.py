"""What a suite is made of: rows, each one run or several, and the tables that show them."""

import dataclasses

from cbalign.errors import UserError


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluation of a row's run, written by `cbalign evaluate` to metrics/KIND_DATA_SPLIT.json in its workdir.

    Attributes:
      split: of the data set.
      data: the data set; "" is the run's own.
      kind: what the file's name starts with.
      protocol: config file to evaluate by (`cbalign evaluate --config`), whose data set `data` then names; "" is the
        run's own.
    """

    split: str
    data: str = ""
    kind: str = "retrieval"
    protocol: str = ""

    def file(self, data: str) -> str:
        """The file's path in a workdir whose run has the data set `data`."""
        return f"metrics/{self.kind}_{_plain(self.data or data)}_{_plain(self.split)}.json"


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A file of figures that every run of a suite gets, whatever its data."""

    name: str

    def file(self, data: str) -> str:
        """The file's path in a workdir."""
        return f"metrics/{self.name}.json"


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a suite: a config, changed by overrides, trained and evaluated.

    Attributes:
      name: unique in the suite; its runs lie in the folder of that name.
      label: as tables show it.
      config: config file, relative to the folder of the project.
      overrides: fields changed on top of it, "a.b=value" each.
      evaluations: of the run when it is trained.
      after: the row whose run this one starts from (`config.init.weights`), or whose run it evaluates where `trains` is False.
      trains: False for a row that only evaluates the run of `after`.
      against: the row its paired difference is taken to.
    """

    name: str
    label: str
    config: str
    overrides: tuple[str, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    after: str = ""
    trains: bool = True
    against: str = ""


@dataclasses.dataclass(frozen=True)
class Column:
    """A figure of a table.

    Attributes:
      name: key of the figure in the literature's data, and in the CSV.
      label: as tables show it.
      evaluation: whose file it is in, of the row's evaluations where it is one.
      path: keys into that file; where it ends at several figures, their mean is meant.
      factor: what the figure is multiplied with, 100 where the file has a share and the table per cent.
      digits: shown after the point.
    """

    name: str
    label: str
    evaluation: Evaluation | Measurement
    path: tuple[str, ...]
    factor: float = 1.0
    digits: int = 1


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a table: our figures of one or several rows, and the literature's.

    Attributes:
      label: as the table shows it.
      rows: names of the rows its figures come from; of a column the first that has the column's evaluation.
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
class Suite:
    """Rows in an order in which they can be run, and the tables made of them.

    Attributes:
      name: as on the command line.
      rows: a row stands after the one it starts from.
      tables: what is shown.
    """

    name: str
    rows: tuple[Row, ...]
    tables: tuple[Table, ...]

    def row(self, name: str) -> Row:
        """The row of that name.

        Raises:
          UserError: there is none.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise UserError(f"the suite {self.name} has no row {name!r}; it has {', '.join(r.name for r in self.rows)}")

    def select(self, names) -> tuple[Row, ...]:
        """The named rows with all they start from, in the suite's order; all of them without a name."""
        wanted = set()
        for name in names:
            while name and name not in wanted:
                wanted.add(name)
                name = self.row(name).after
        return tuple(row for row in self.rows if row.name in wanted) if wanted else self.rows


def recall_columns(evaluation: Evaluation, prefix: str, label: str, *, score: str, ks=(1, 5, 10)) -> tuple[Column, ...]:
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
        for direction in ("tr", "ir") for k in ks
    )
