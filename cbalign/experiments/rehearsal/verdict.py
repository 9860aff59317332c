"""Makes tables and reports of a rehearsal by the commands a user types, and says whether it passed."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterable

from etils import epath

from cbalign.errors import UserError
from cbalign.experiments.engine import Job, outstanding
from cbalign.experiments.rehearsal.check import SERVER, Check
from cbalign.experiments.suites import get_suite
from cbalign.storage import read_json


def judge(
    folder: pathlib.Path,
    call: Callable[[list[str]], int],
    *,
    store: str = "",
    only: Iterable[str] = (),
    say: Callable[[str], None] = print,
) -> int:
    """Compares a rehearsal with the files it left.

    Args:
      folder: of the rehearsal, on this machine.
      call: runs the arguments of a `cbalign` command and returns its exit code.
      store: where the runs are; the folder by default.
      only: rows that were run; all by default.
      say: called with a line for the user.

    Returns:
      0 if all is as it must be, else 1, after a line that names the first thing that differs.
    """
    suite, runs, only = get_suite("paper"), epath.Path(store or folder) / "runs", tuple(only)
    job = Job(suite, runs, only=only)
    before = _evaluated(runs)
    asked = [row.name for row in suite.rows if row.config == "paper/vqa"]
    entered = [f"--result={name}.{split}={figure}" for name in asked for split, figure in SERVER.items()]
    _must(call(["tables", "--suite=paper", f"--runs={runs}", f"--out={folder / 'tables'}", *entered]), "tables")
    problems = [f"{step.trial.workdir(runs)} is not done: {step.kind} is missing" for step in outstanding(job)]
    check = Check(epath.Path(folder), runs, epath.Path(folder) / "tables", partly=bool(only))
    expected = {row.name for row in suite.select(only) if row.trains}
    problems += [f"{runs / name} is missing" for name in sorted(expected - check.runs.keys())]
    problems += check.problems + _reports(check, call)
    if _evaluated(runs) != before:
        problems.append(f"tables or reports changed what lies in {runs}/*/metrics")
    empty = f", {len(check.empty)} cells that no row fills" if check.empty else ""
    for place in check.empty:
        say(f"no row fills {place}")
    if problems:
        more = f" (and {len(problems) - 1} more: {folder / 'problems.txt'})" if len(problems) > 1 else ""
        (folder / "problems.txt").write_text("".join(f"{problem}\n" for problem in problems), encoding="utf-8")
        say(f"rehearsal failed: {problems[0]}{more}")
        return 1
    rows, evaluations = len(suite.select(only)), sum(map(len, check.results.values()))
    say(f"rehearsal passed: {rows} rows, {evaluations} evaluations, {check.cells} cells{empty}; it lies in {folder}")
    return 0


def _must(code: int, what: str) -> None:
    if code:
        raise UserError(f"rehearsal failed: cbalign {what} ended with code {code}")


def _evaluated(runs: epath.Path) -> dict[str, float]:
    """{result of an evaluation: when it was written}."""
    return {str(path): path.stat().mtime for path in sorted(runs.glob("*/metrics/*.json"))}


def _reports(check: Check, call: Callable[[list[str]], int]) -> list[str]:
    """A report for one run of each task; what it lacks."""
    problems, seen = [], set()
    for name, run in check.runs.items():
        task = (read_json(run / "config.json") or {}).get("task")
        if task in seen or "://" in str(run):
            continue
        seen.add(task)
        _must(call(["report", f"--workdir={run}"]), f"report --workdir={run}")
        page = (run / "report.html").read_text()
        figures = [figure for result in check.results[name].values() for figure in _figures(result)]
        missing = [figure for figure in figures if f">{figure:.2f}<" not in page.replace("\n", "").replace(" ", "")]
        if missing:
            problems.append(f"{run}/report.html does not show {missing[0]:.2f}, a figure of its evaluations")
        if not (run / "report" / "losses.png").exists():
            problems.append(f"{run}/report/losses.png is missing")
    return problems


def _figures(result: dict) -> list[float]:
    """The main figures of a result."""
    if "accuracy" in result:
        return [result["accuracy"]["overall"]] if result["accuracy"] else []
    return list((result["itm"] or result["contrastive"]).values())
