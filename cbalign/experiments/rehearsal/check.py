"""An independent reader of a rehearsal: every row done, every cell equal to the file it comes from, nothing done twice.

It shares no code with the suite's lookup, its tables and the names of result files: it goes by what the files say.
"""

from __future__ import annotations

import collections
import csv
import json
import pathlib
import re
import shlex
from collections.abc import Iterator

from etils import epath

from cbalign.experiments.rehearsal.official_folders import EVALUATED
from cbalign.experiments.rehearsal.play import LOG

# What the user would get from the evaluation server; entered by `cbalign tables --result`.
SERVER = {"test-dev": 61.25, "test-std": 62.5}

_DATA = {"coco": "coco_karpathy", "flickr": "flickr30k_karpathy"}
_RECALL = re.compile(r"(coco|flickr)_((?:tr|ir)@\d+)")
_ACCURACY = {
    "vqa_val": ("vqa_v2", "val"),
    "nlvr2_dev": ("nlvr2", "val"),
    "nlvr2_test-P": ("nlvr2", "test"),
    "snli-ve_val": ("snli_ve", "val"),
    "snli-ve_test": ("snli_ve", "test"),
}
# What the log line of each task's last step must name.
_TERMS = {
    "pretrain": ("loss",),
    "retrieval": ("ica", "itm"),
    "vqa": ("vqa_hard", "vqa_soft", "token_accuracy"),
    "nlvr2_pretrain": ("class_hard", "class_accuracy"),
    "nlvr2": ("class_hard", "class_soft", "class_accuracy"),
    "snli_ve": ("class_hard", "class_soft", "class_accuracy"),
}


class Check:
    """A finished rehearsal.

    Attributes:
      rows: number of runs found.
      cells: number of cells compared.
      empty: cells that no row of ours can fill, "TABLE: LINE, COLUMN" each.
      problems: what is wrong, in words; empty where all is well.
    """

    def __init__(self, folder: epath.Path, runs: epath.Path, tables: epath.Path, *, partly: bool = False):
        """Reads everything.

        Args:
          folder: of the rehearsal, with the log of the suite and the official folders.
          runs: a folder for each row that trains; may be in a bucket.
          tables: with paper.csv and paper.md.
          partly: only some rows were run: lines that need others are passed over.
        """
        self.folder, self.tables, self.partly = folder, tables, partly
        self.runs = {path.parent.name: path.parent for path in sorted(runs.glob("*/config.json"))}
        self.rows, self.cells, self.empty, self.problems = len(self.runs), 0, [], []
        self._used: set[tuple[str, str]] = set()
        self.results = {name: _results(run) for name, run in self.runs.items()}
        for name, run in self.runs.items():
            self._run(name, run)
        self._commands()
        self._cells()
        for name, files in self.results.items():
            for file in files:
                if (name, file) not in self._used:
                    self._say(f"{self.runs[name] / 'metrics' / file} is in no table")

    def _say(self, problem: str) -> None:
        self.problems.append(problem)

    def _run(self, name: str, run: epath.Path) -> None:
        """One run: trained to its end without a gap, its evaluations whole."""
        config, record = _json(run / "config.json"), _json(run / "run.json")
        steps = config["train"]["steps"]
        if config.get("rehearse") is not True:
            self._say(f"{run} is not a miniature")
        if (record.get("end") or {}).get("status") != "finished":
            self._say(f"{run}/run.json does not say that the run finished")
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        trained = [line["step"] for line in lines if "train/loss" in line]
        if trained != list(range(1, steps + 1)):
            self._say(f"{run}/metrics.jsonl has the steps {trained}, not each of 1 to {steps} once")
        if not (run / "checkpoints" / str(steps)).is_dir():
            self._say(f"{run} has no checkpoint of its last step, {steps}")
        log = [line for line in (run / "train.log").read_text().splitlines() if f" step {steps}/{steps} " in line]
        for term in _TERMS.get(config["task"], ("loss",)):
            if not log or f" {term} " not in log[-1]:
                self._say(f"{run}/train.log does not name {term} at the last step")
        for file, result in self.results[name].items():
            self._result(run / "metrics" / file, result)

    def _result(self, file: epath.Path, result: dict) -> None:
        place = (result["data"], result["split"])
        if place not in EVALUATED:
            self._say(f"{file} is about {' '.join(place)}, of which the reader of the rehearsal knows nothing")
        for what, count in EVALUATED.get(place, {}).items():
            if result[what] != count:
                self._say(f"{file} is about {result[what]} {what}; the official files list {count}")
        protocol = (result["protocol"] or {}).get("name")
        if protocol and any(protocol in note for note in result["notes"]):
            self._say(f"{file} departs from its protocol: {result['notes']}")
        if result.get("confusion"):
            counts = result["confusion"]
            share = 100 * sum(row[i] for i, row in enumerate(counts)) / sum(map(sum, counts))
            if abs(share - result["accuracy"]["overall"]) > 1e-6:
                self._say(f"{file}: its confusion matrix says {share}, it {result['accuracy']['overall']}")
        if "accuracy" in result and result["accuracy"] is None:
            self._server_file(file)

    def _server_file(self, file: epath.Path) -> None:
        """The answers for the evaluation server: one to each question of the official file."""
        official = self.folder / "official/vqa_v2/v2_OpenEnded_mscoco_test2015_questions.json"
        wanted = sorted(entry["question_id"] for entry in _json(official)["questions"])
        answers = file.with_name(f"{file.stem}_answers.json")
        found = json.loads(answers.read_text()) if answers.exists() else []
        if sorted(entry["question_id"] for entry in found) != wanted or not all(entry["answer"] for entry in found):
            self._say(f"{answers} does not answer each question of {official} once")
        self._used.add((file.parent.parent.name, file.name))

    def _commands(self) -> None:
        """Nothing was trained or evaluated twice, except what was interrupted."""
        log = (self.folder / LOG).read_text().splitlines()
        written = collections.Counter(line for line in log if re.match("written to .*/metrics/", line))
        for text, count in written.items():
            if count > 1:
                self._say(f"evaluated {count} times: {text}")
        commands = collections.Counter(line for line in log if re.match("cbalign (train|evaluate) ", line))
        for text, count in commands.items():
            words = shlex.split(text)
            run = epath.Path(next(word.partition("=")[2] for word in words if word.startswith("--workdir=")))
            allowed = len(_json(run / "run.json").get("starts", ())) if words[1] == "train" else 1
            # An evaluation that was ended before it wrote its result is no second one, where the log shows results.
            if count > max(1, allowed) and not (words[1] == "evaluate" and written):
                self._say(f"run {count} times: {text}")

    def _cells(self) -> None:
        """Each cell of the tables, as CSV and as Markdown, against the file it comes from."""
        rows = list(csv.DictReader((self.tables / "paper.csv").read_text().splitlines()))
        shown = dict(_markdown(self.tables / "paper.md"))
        titles = dict(zip(dict.fromkeys(row["table"] for row in rows), dict.fromkeys(title for title, _ in shown)))
        for table, title in titles.items():
            lines = [row for row in rows if row["table"] == table]
            columns = list(dict.fromkeys(row["column"] for row in lines))
            for row in lines:
                label = next((x for x in (f"{row['line']}, ours", row["line"]) if (title, x) in shown), "")
                cells = shown.get((title, label), [])[: len(columns)]
                self._cell(row, dict(zip(columns, cells)).get(row["column"], ""))

    def _cell(self, row: dict, shown: str) -> None:
        own = [pathlib.Path(path).name for path in row["workdir"].split()]
        if not own or (self.partly and "no run" in row["state"]):
            return  # the literature's alone, or of rows that were not to be run
        place = f"{row['table']}: {row['line']}, {row['column']}"
        if "finished" not in row["state"] or re.search("partial|not evaluated|no run|failed", row["state"]):
            self._say(f"{place} is of a row that is {row['state']}")
        wanted = self._value(row, own)
        if wanted is None:
            self.empty.append(place)
            if row["ours"]:
                self._say(f"{place} is {row['ours']}, which no file says")
            return
        self.cells += 1
        if not row["ours"] or float(row["ours"]) != wanted:
            self._say(f"{place} is {row['ours'] or 'empty'}; its file says {wanted}")
        if shown != f"{wanted:.1f}":
            self._say(f"{place} is shown as {shown!r}, not as {wanted:.1f}")

    def _value(self, row: dict, own: list[str]) -> float | None:
        """What the files of a line's runs say of a column; None where none of them is about it."""
        column = row["column"]
        if column.startswith("vqa_test-"):
            return SERVER[column.removeprefix("vqa_")]
        if recall := _RECALL.fullmatch(column):
            kind = "fine-tuned" if row["table"] == "fine_tuned_retrieval" else "zero-shot"
            place, keys = (_DATA[recall[1]], "test"), ("itm", recall[2])
        elif column in _ACCURACY:
            kind, place, keys = "", _ACCURACY[column], ("accuracy", "overall")
        else:
            self._say(f"{row['table']} has a column {column}, of which the reader of the rehearsal knows nothing")
            return None
        found = []
        for name in own:
            for file, result in self.results.get(name, {}).items():
                protocol = (result["protocol"] or {}).get("name", "")
                if (result["data"], result["split"]) == place and protocol.startswith(kind):
                    self._used.add((name, file))
                    if result[keys[0]] is not None:
                        found.append(float(result[keys[0]][keys[1]]))
        if len(found) > 1:
            self._say(f"{row['table']}: {row['line']}, {column} could come from {len(found)} files")
        return found[0] if found else None


def _json(path: epath.Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}


def _results(run: epath.Path) -> dict[str, dict]:
    """{file name: content} of the results of evaluations."""
    found = {path.name: json.loads(path.read_text()) for path in sorted(run.glob("metrics/*.json"))}
    return {name: content for name, content in found.items() if isinstance(content, dict) and "split" in content}


def _markdown(path: epath.Path) -> Iterator[tuple[tuple[str, str], list[str]]]:
    """Yields ((title of the table, first cell), the other cells) of each line of each table."""
    title = ""
    for line in path.read_text().splitlines():
        if line.startswith("## "):
            title = line[3:]
        elif line.startswith("| "):
            first, *others = (cell.strip() for cell in line.strip("|").split(" | "))
            yield (title, first), [cell.strip("* ") for cell in others]
