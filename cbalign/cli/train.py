"""Trains a model, or resumes an interrupted run.

  cbalign train --config=emoji --workdir=runs/emoji
  cbalign train --config=emoji --workdir=runs/seed1 --config.seed=1 --config.train.steps=500
  cbalign train --workdir=runs/emoji

--config is a config file, or the name of one that comes with cbalign. Without it, a run in the workdir resumes with its
stored config. The workdir receives config.json, data.json, vocab.txt, train.log, metrics.jsonl, TensorBoard events and
checkpoints. Running the same command again resumes from the newest checkpoint. Ctrl-C and SIGTERM save a checkpoint and
exit with codes 130 and 75; a second Ctrl-C exits at once.

On TPU pods and under SLURM and MPI, the processes find each other; elsewhere three flags identify them:

  cbalign train --config=... --workdir=... --coordinator=10.0.0.1:8476 --num-processes=2 --process-id=0

Exit code 75 means that the run should be started again. SIGTERM to any process makes all of them save and exit; if one
is killed or stands still, the others exit within two minutes with a line that names it.
"""

import shlex

from cbalign.cli import process_flags

HELP = "train a model, or resume a run"


def add_arguments(parser) -> None:
    """Adds the flags of `cbalign train`."""
    parser.add_argument(
        "--config",
        default="",
        metavar="NAME|FILE",
        help="config file, or a name such as emoji; by default the config stored in the workdir",
    )
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of the run, created if needed")
    parser.add_argument(
        "--fall-back", action="store_true", help="resume from an older checkpoint where the newest cannot be read"
    )
    process_flags.add_arguments(parser)
    parser.add_argument(
        "--config.KEY", metavar="VALUE", dest="_", help="override a field, as in --config.train.steps=100"
    )


def run(args) -> int:
    """Trains; returns 0, or 75 (SIGTERM) or 130 (Ctrl-C) if interrupted."""
    from cbalign.config import load_config, stored_config

    if args.config:
        config = load_config(args.config, args.overrides)
    else:
        config = stored_config(args.workdir, args.overrides)
    with process_flags.joined(args, agree_to_stop=True):
        return _train(config, args)


def _train(config, args) -> int:
    import jax

    from cbalign.distributed.processes import exit_code
    from cbalign.runs.train import train_run

    overrides = [f"--config.{override}" for override in args.overrides]
    named = [f"--config={args.config}"] if args.config else []
    command = shlex.join(["cbalign", "train", *named, f"--workdir={args.workdir}", *overrides])
    outcome = train_run(config, args.workdir, command=command, fall_back=args.fall_back)
    if outcome.interrupted_by:
        return exit_code(outcome.interrupted_by)
    if jax.process_index() == 0:
        print(f"trained {outcome.step} steps; evaluate with: cbalign evaluate --workdir={args.workdir}")
    return 0
