"""The flags that name a trained model: the folder of a run, exported weights, or released weights by name."""

import argparse


class _Once(argparse.Action):
    """Refuses a second model, of which the first would be dropped without a word."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        if namespace.model_flag:
            parser.error(f"{namespace.model_flag} and {option_string} both name a model; give one of them")
        namespace.model_flag = option_string
        setattr(namespace, self.dest, values)


def add_arguments(parser, *, default: str | None = None) -> None:
    """Adds --workdir and --weights, two names of one flag; the value is `args.workdir`, required without a default."""
    parser.add_argument(
        "--workdir",
        "--weights",
        dest="workdir",
        action=_Once,
        required=default is None,
        default=default,
        metavar="DIR|NAME",
        help="folder of a run or of exported weights, or the name of released weights"
        + (f"; {default} by default" if default else ""),
    )
    parser.set_defaults(model_flag=None)
