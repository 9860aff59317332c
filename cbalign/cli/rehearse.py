"""Runs the paper's suite in miniature, for real, before it is run at full size; see ./launch/paper.sh --rehearse.

  cbalign rehearse prepare --out=runs/rehearsal      miniature folders, data sets and checkpoints, by the real commands
  cbalign rehearse play --out=runs/rehearsal         the suite, ended by SIGTERM and by kill -9 on the way
  cbalign rehearse check --out=runs/rehearsal        its tables, and every cell of them against the files they come from
  cbalign rehearse full --out=runs/rehearsal         two steps of a row at full size: memory and time

Each is resumed by the same command. Figures of a rehearsal mean nothing.
"""

import argparse
import os
import pathlib

HELP = "rehearse the paper's suite in miniature"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `cbalign rehearse`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    texts = {
        "prepare": "make what the suite reads",
        "play": "run the suite on this machine, interrupted twice",
        "check": "compare the tables with the files they come from",
        "full": "train two steps of a row at full size",
        "devices": "print how many devices this machine has",
        "flags": "print the flags of cbalign suite for a rehearsal elsewhere, one a line",
    }
    for name, text in texts.items():
        action = actions.add_parser(name, help=text, allow_abbrev=False)
        if name not in ("devices", "flags"):
            action.add_argument("--out", required=True, metavar="DIR", help="folder of the rehearsal, on this machine")
        if name in ("prepare", "play", "flags"):
            action.add_argument(
                "--devices", type=int, default=1, metavar="N", help="devices of the runs, for the batch (%(default)s)"
            )
        if name in ("play", "check"):
            action.add_argument("--only", action="append", default=[], metavar="ROW", help="a row, as of cbalign suite")
        if name in ("prepare", "check", "flags"):
            action.add_argument(
                "--store", default="", metavar="DIR", help="where workers read and write, such as gs://BUCKET/FOLDER"
            )
        if name == "full":
            action.add_argument("--row", default="pretrain", metavar="ROW", help="of the suite paper (%(default)s)")
            action.add_argument("--config.KEY", metavar="VALUE", dest="_", help="changes a field of its config")
            action.set_defaults(config="")


def run(args: argparse.Namespace) -> int:
    """Runs one action."""
    actions = {"prepare": _prepare, "play": _play, "check": _check, "full": _full, "devices": _devices, "flags": _flags}
    return actions[args.action](args)


def _devices(args: argparse.Namespace) -> int:
    import jax

    del args
    print(jax.device_count())
    return 0


def _flags(args: argparse.Namespace) -> int:
    from cbalign.experiments.rehearsal import prepare

    for flag in prepare.suite_flags(args.store, args.devices):
        print(flag)
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _built(out: str) -> pathlib.Path:
    """The folder of a prepared rehearsal; from now on its data sets are the ones that are read."""
    from cbalign.errors import UserError

    folder = pathlib.Path(out).resolve()
    if not (folder / "prepared").exists():
        raise UserError(f"{folder} holds no rehearsal; make one with: cbalign rehearse prepare --out={out}")
    os.environ["TFDS_DATA_DIR"] = str(folder / "tfds")
    return folder


def _prepare(args: argparse.Namespace) -> int:
    from cbalign.__main__ import main
    from cbalign.experiments.rehearsal.prepare import prepare

    prepare(pathlib.Path(args.out).resolve(), main, store=args.store, devices=args.devices, say=_say)
    return 0


def _play(args: argparse.Namespace) -> int:
    from etils import epath

    from cbalign.experiments.engine import Job, check
    from cbalign.experiments.rehearsal import prepare
    from cbalign.experiments.rehearsal.play import play
    from cbalign.experiments.suites import get_suite

    folder = _built(args.out)
    weights, changed = prepare.weights(folder), prepare.overrides(args.devices)
    job = Job(get_suite("paper"), epath.Path(folder / "runs"), None, tuple(args.only), weights, changed)
    check(job)
    only = [f"--only={row}" for row in args.only]
    play(job, folder, ["suite", "--suite=paper", *prepare.suite_flags(folder, args.devices), *only], say=_say)
    return 0


def _check(args: argparse.Namespace) -> int:
    folder = _built(args.out)
    from cbalign.__main__ import main
    from cbalign.experiments.rehearsal.verdict import judge

    return judge(folder, main, store=args.store, only=args.only, say=_say)


def _full(args: argparse.Namespace) -> int:
    folder = _built(args.out)
    from cbalign.__main__ import main
    from cbalign.experiments.rehearsal.full import train_full

    train_full(folder, main, row=args.row, overrides=args.overrides, say=_say)
    return 0
