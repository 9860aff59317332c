"""Measures on this machine; the last line of each is one JSON object.

  cbalign bench step --config=configs/emoji.py          the training step: pairs/s, ms, FLOPs, memory, compile time
  cbalign bench transport --config=configs/emoji.py     the transport solvers, and their share of the step
  cbalign bench input                                   the input pipeline on JPEGs of COCO's size, beside PIL under
                                                        PyTorch's DataLoader (needs torch) on the same cores
"""

import json

HELP = "speed of the training step, the transport solvers and the input pipeline"

_CONFIGS = {"step": "configs/emoji.py", "transport": "configs/emoji.py", "input": "configs/paper/pretrain.py"}


def add_arguments(parser) -> None:
    """Adds the flags of `cbalign bench`."""
    parser.add_argument("what", choices=tuple(_CONFIGS), help="what to measure")
    parser.add_argument("--config", default="", metavar="FILE",
                        help="configs/emoji.py by default, of input configs/paper/pretrain.py")
    parser.add_argument("--config.KEY", metavar="VALUE", dest="_", help="overrides a field")
    parser.add_argument("--repeats", type=int, default=20, metavar="N", help="timed steps or solutions; 20 by default")
    group = parser.add_argument_group("input only")
    group.add_argument("--seconds", type=float, default=20.0, metavar="S", help="to measure each side for; 20 by default")
    group.add_argument("--no-peer", action="store_true", help="leaves the peer out, and with it the need for torch")
    group.add_argument("--utilisation", type=float, default=0.4, metavar="SHARE", help="of a TPU's peak that the training "
                       "step is taken to reach, for the host cores it needs; 0.4 by default")


def run(args) -> None:
    """Measures and prints."""
    from cbalign.config import load_config
    from cbalign.errors import UserError

    if args.repeats < 1:
        raise UserError(f"--repeats={args.repeats} must be 1 or more")
    if not args.seconds > 0:
        raise UserError(f"--seconds={args.seconds} must be above 0")
    if not 0 < args.utilisation <= 1:
        raise UserError(f"--utilisation={args.utilisation} must be above 0 and at most 1")
    config = load_config(args.config or _CONFIGS[args.what], args.overrides)
    result = _measure(args, config)
    for name, value in result.items():
        print(f"{name:<28}{value:,.4g}" if isinstance(value, float) else f"{name:<28}{value}")
    print(json.dumps(result))


def _measure(args, config) -> dict:
    if args.what == "input":
        from cbalign.bench import input as bench_input

        return bench_input.measure(config, seconds=args.seconds, peer=not args.no_peer, utilisation=args.utilisation)
    from cbalign.bench import step

    return {"step": step.step, "transport": step.transport}[args.what](config, repeats=args.repeats)
