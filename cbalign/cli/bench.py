"""Runs a benchmark on this machine; the last output line is a JSON object.

cbalign bench step --config=emoji                training step: pairs/s, ms, FLOPs, memory, compile time
cbalign bench step --config=emoji --peer=torch   the same step in PyTorch, eager and compiled, in turns with ours;
                                                 from a checkout (needs torch and transformers)
cbalign bench transport --config=emoji          transport solvers beside OTT's and POT's (where installed), and
                                                 their share of the step
cbalign bench input                              input pipeline on COCO-sized JPEGs, compared with PIL and PyTorch's
                                                 DataLoader (needs torch) on the same cores
"""

import json

HELP = "benchmark the training step, the transport solvers or the input pipeline"

_CONFIGS = {
    "step": "configs/emoji_scratch.py",
    "transport": "configs/emoji_scratch.py",
    "input": "configs/paper/pretrain.py",
}


def add_arguments(parser) -> None:
    """Adds the flags of `cbalign bench`."""
    parser.add_argument("what", choices=tuple(_CONFIGS), help="component to measure")
    parser.add_argument(
        "--config", default="", metavar="FILE", help="emoji_scratch by default; paper/pretrain for input"
    )
    parser.add_argument("--config.KEY", metavar="VALUE", dest="_", help="override a field")
    parser.add_argument("--repeats", type=int, default=20, metavar="N", help="number of timed repeats; 20 by default")
    parser.add_argument(
        "--peer", choices=("torch",), help="step only: measure the same step in PyTorch in turns with ours"
    )
    parser.add_argument(
        "--no-peer", action="store_true", help="input and transport: skip other libraries, PyTorch or OTT and POT"
    )
    parser.add_argument("--no-step", action="store_true", help="transport only: skip the training step, and its share")
    group = parser.add_argument_group("input only")
    group.add_argument(
        "--seconds", type=float, default=20.0, metavar="S", help="seconds per measurement; 20 by default"
    )
    group.add_argument(
        "--utilisation",
        type=float,
        default=0.4,
        metavar="SHARE",
        help="assumed fraction of a TPU's peak reached by the training step, to compute the host cores "
        "it needs; 0.4 by default",
    )


def run(args) -> None:
    """Measures and prints the result."""
    from cbalign.config import load_config
    from cbalign.errors import UserError

    if args.repeats < 1:
        raise UserError(f"--repeats={args.repeats} must be 1 or more")
    if not args.seconds > 0:
        raise UserError(f"--seconds={args.seconds} must be above 0")
    if not 0 < args.utilisation <= 1:
        raise UserError(f"--utilisation={args.utilisation} must be above 0 and at most 1")
    if args.peer and args.no_peer:
        raise UserError(f"--peer={args.peer} and --no-peer exclude each other")
    if args.peer and args.what != "step":
        raise UserError(f"--peer={args.peer} is for cbalign bench step; {args.what} has its peers by default")
    config = load_config(args.config or _CONFIGS[args.what], args.overrides)
    result = _measure(args, config)
    for name, value in result.items():
        print(f"{name:<30}{value:,.4g}" if isinstance(value, float) else f"{name:<30}{value}")
    print(json.dumps(result))


def _measure(args, config) -> dict:
    if args.what == "input":
        from cbalign.bench import input as bench_input

        return bench_input.measure(config, seconds=args.seconds, peer=not args.no_peer, utilisation=args.utilisation)
    if args.what == "transport":
        from cbalign.bench.transport import transport

        return transport(config, repeats=args.repeats, peer=not args.no_peer, whole_step=not args.no_step)
    if args.peer:
        from cbalign.bench import step_peer

        return step_peer.measure(config, repeats=args.repeats)
    from cbalign.bench import step

    return step.step(config, repeats=args.repeats)
