"""Measures on this machine; the last line of each is one JSON object.

  cbalign bench step --config=configs/emoji.py          the training step: pairs/s, ms, FLOPs, memory, compile time
  cbalign bench transport --config=configs/emoji.py     the transport solvers, and their share of the step
"""

import json

HELP = "speed of the training step and of the transport solvers"


def add_arguments(parser) -> None:
    """Adds the flags of `cbalign bench`."""
    parser.add_argument("what", choices=("step", "transport"), help="what to measure")
    parser.add_argument("--config", default="configs/emoji.py", metavar="FILE", help="configs/emoji.py by default")
    parser.add_argument("--config.KEY", metavar="VALUE", dest="_", help="overrides a field")
    parser.add_argument("--repeats", type=int, default=20, metavar="N", help="timed steps or solutions; 20 by default")


def run(args) -> None:
    """Measures and prints."""
    from cbalign.config import load_config
    from cbalign.errors import UserError
    from cbalign import bench

    if args.repeats < 1:
        raise UserError(f"--repeats={args.repeats} must be 1 or more")
    config = load_config(args.config, args.overrides)
    result = {"step": bench.step, "transport": bench.transport}[args.what](config, repeats=args.repeats)
    for name, value in result.items():
        print(f"{name:<28}{value:,.4g}" if isinstance(value, float) else f"{name:<28}{value}")
    print(json.dumps(result))
