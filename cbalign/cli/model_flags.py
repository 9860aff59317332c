"""The flags that name a trained model: the folder of a run, exported weights, or released weights by name."""


def add_arguments(parser) -> None:
    """Adds --workdir and --weights, two names of one flag; the value is `args.workdir`."""
    parser.add_argument(
        "--workdir",
        "--weights",
        dest="workdir",
        required=True,
        metavar="DIR|NAME",
        help="folder of a run or of exported weights, or the name of released weights",
    )
