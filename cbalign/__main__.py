"""`python -m cbalign COMMAND ...`, and the console script `cbalign`: a table of commands, nothing more."""

import argparse
import gc
import importlib
import os
import sys

from cbalign.errors import UserError

COMMANDS = ("train", "evaluate", "predict", "search", "embed", "report", "suite", "tables", "data", "convert", "export",
            "bench", "plan")

# Codes of exit: a user's mistake, and (as shells have it) 128 plus the signal. Code 75 of `train` is
# `cbalign.distributed.processes.TRY_AGAIN`: the launchers start it again, as they do what a signal killed.
MISTAKE = 2


def main(arguments: list[str] | None = None) -> int:
    """Parses the command line and runs one command; returns the code of exit."""
    # Imports and traced programs are millions of objects that stay; to search them for garbage again and again takes a
    # seventh of a start.
    gc.set_threshold(100_000, 50, 100)
    parser = argparse.ArgumentParser(
        prog="cbalign", description="Image-text alignment with a representation codebook (CODIS, CVPR 2022).",
        epilog="Each command tells more with --help, as in: cbalign train --help",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f"cbalign.cli.{name}")
        sub = commands.add_parser(
            name, help=module.HELP, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    parsed, rest = parser.parse_known_args(arguments)
    overrides = [word.removeprefix("--config.") for word in rest if word.startswith("--config.")]
    unknown = [word for word in rest if not word.startswith("--config.")]
    if unknown or (overrides and not hasattr(parsed, "config")):
        parser.error(f"unknown argument {(unknown or rest)[0]}; see cbalign {parsed.command} --help")
    parsed.overrides = overrides
    try:
        return parsed.run(parsed) or 0
    except UserError as error:
        print(f"cbalign: {error}", file=sys.stderr)
        return MISTAKE
    except KeyboardInterrupt:
        print("cbalign: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output (head, less) went away; nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
