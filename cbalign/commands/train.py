"""Trains a model, or goes on where a killed or interrupted run stopped.

  cbalign train --config=configs/emoji.py --workdir=runs/emoji
  cbalign train --config=configs/emoji.py --workdir=runs/seed1 --config.seed=1 --config.train.steps=500

The workdir gets config.json, vocab.txt, train.log, metrics.jsonl, TensorBoard events and checkpoints. Started again
with the same config it resumes from the newest checkpoint. Ctrl-C and SIGTERM save before they stop (code 128 plus
the signal's number); a second Ctrl-C stops at once.
"""

import shlex
import signal

HELP = "train a model, or go on with a run"


def add_arguments(parser) -> None:
    """Adds the flags of `cbalign train`."""
    parser.add_argument("--config", required=True, metavar="FILE", help="a config file, such as configs/emoji.py")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of the run; made if need be")
    parser.add_argument("--config.KEY", metavar="VALUE", dest="_", help="overrides a field, as --config.train.steps=100")


def run(args) -> int:
    """Trains; returns 0, or 128 + signal where it was interrupted."""
    from cbalign.config import load_config

    config = load_config(args.config, args.overrides)
    from cbalign import runs

    overrides = [f"--config.{override}" for override in args.overrides]
    command = shlex.join(["cbalign", "train", f"--config={args.config}", f"--workdir={args.workdir}", *overrides])
    outcome = runs.train(config, args.workdir, command=command)
    if outcome.interrupted_by:
        return 128 + signal.Signals[outcome.interrupted_by]
    print(f"trained {outcome.step} steps; evaluate with: cbalign evaluate --workdir={args.workdir}")
    return 0
