"""Command lines of any words: each command works, or ends with code 2 and one line, and writes only what it is told to.

No example names a config that could be trained, nor a suite: what is to be found lies before the work begins.
"""

import argparse
import importlib
import os
import shutil

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cbalign.__main__ import COMMANDS
from cbalign.data.datasets.official.miniature import write_image
from tests.fire.fuzzing import examples, files_below, run

pytestmark = pytest.mark.slow

# Words for files and names; the upper-case ones are made by `inside`.
WORDS = (
    *(
        "",
        "-",
        "--",
        ".",
        "..",
        "/",
        "~",
        "*",
        "none",
        "none.py",
        "a/b/c",
        "/dev/null",
        "/proc/self/mem",
        "\udce9",
        "\u202e",
    ),
    *(
        "FILE",
        "FOLDER",
        "EMPTY",
        "IMAGES",
        "IMAGE",
        "TEXT",
        "JSON",
        "PIPE",
        "NEW",
        "NEW.png",
        "NEW.npz",
        "NEW.csv",
        "NEW/NEW",
    ),
    *("a,b", "best", "latest", "val", "train[:1%]", "scenes/nothing", "$(touch NEW)", "`touch NEW`", "gs:/", "x" * 200),
)
NUMBERS = (
    "0",
    "-1",
    "1",
    "3",
    "2147483648",
    "9" * 30,
    "9" * 5000,
    "nan",
    "inf",
    "-inf",
    "1e999",
    "0.5",
    "1_0",
    "٣",
    "",
    "x",
)
OVERRIDES = (
    "--config.",
    "--config.seed=1",
    "--config.x=1",
    "--config.train.steps",
    "--config.data.name=NEW",
    "--config.=",
)
# Flags that start processes or servers, or wait for others.
_LEFT_OUT = ("--coordinator", "--num-processes", "--process-id", "--help")


def flags_of(command):
    """The parsers below a command: [(words before, actions)]."""
    parser = argparse.ArgumentParser(add_help=False)
    importlib.import_module(f"cbalign.cli.{command}").add_arguments(parser)
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        return [((command,), parser._actions)]
    return [((command, word), sub._actions) for word, sub in below[0].choices.items()]


PARSERS = [found for command in COMMANDS for found in flags_of(command)]


@st.composite
def command_lines(draw):
    """A command with its required arguments mostly there, some of the others, and words that nobody asked for."""
    before, actions = draw(st.sampled_from(PARSERS))
    words = list(before)
    for action in actions:
        if set(_LEFT_OUT) & set(action.option_strings) or "--config.KEY" in action.option_strings:
            continue
        if draw(st.integers(0, 9)) < (9 if action.required else 3):
            words += draw(_argument(action))
    for extra in draw(st.lists(st.sampled_from((*OVERRIDES, "--nothing", "word", "-x")), max_size=1)):
        words.insert(draw(st.integers(1, len(words))), extra)
    # A suite is only listed.
    return (*words, "--dry-run") if before == ("suite",) else tuple(words)


@st.composite
def _argument(draw, action):
    if action.nargs == 0:
        return [action.option_strings[0]]
    if action.choices:
        values = (*map(str, action.choices), "none")
    elif action.type in (int, float):
        values = NUMBERS
    else:
        # Names of more than 255 bytes are an error of the operating system.
        values = (*WORDS, *(number for number in NUMBERS if len(number) < 100))
    value = draw(st.one_of(st.sampled_from(values), st.text(st.characters(exclude_characters="\0"), max_size=6)))
    return [f"{draw(st.sampled_from(action.option_strings))}={value}" if action.option_strings else value]


@pytest.fixture
def inside(tmp_path, monkeypatch):
    """The folder in which commands run; {word: what stands for it}."""
    folder = tmp_path / "inside"
    (folder / "folder").mkdir(parents=True)
    (folder / "folder" / "other.txt").write_text("mine")
    (folder / "empty").mkdir()
    write_image(folder / "images" / "a.png", 1, size=(16, 12), kind="PNG")
    (folder / "file").write_bytes(b"\x00\xff\x80")
    (folder / "text.csv").write_text("image,caption\na.png,an a\n")
    (folder / "a.json").write_text("[1, 2]")
    os.mkfifo(folder / "pipe")
    monkeypatch.chdir(folder)
    # Nothing is looked for elsewhere, in homes and on hubs.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder / "home" / "tfds"))
    # What is asked for rightly would serve until it is stopped, or be measured and trained for minutes.
    monkeypatch.setattr("cbalign.cli.bench._measure", lambda args, config: {})
    monkeypatch.setattr("uvicorn.Server.run", lambda server, sockets: None)
    # It closes all handlers of logging, and absl's closes what it writes to: what pytest captures in.
    monkeypatch.setattr("uvicorn.Config.configure_logging", lambda config: None)
    monkeypatch.setattr("cbalign.experiments.rehearsal.play.play", lambda *_, **options: None)
    monkeypatch.setattr("cbalign.experiments.rehearsal.full.train_full", lambda *_, **options: None)
    return {
        "FILE": "file",
        "FOLDER": "folder",
        "EMPTY": "empty",
        "IMAGES": "images",
        "IMAGE": "images/a.png",
        "TEXT": "text.csv",
        "JSON": "a.json",
        "PIPE": "pipe",
        "NEW": "new",
    }


def filled_in(word, names):
    for name in sorted(names, key=len, reverse=True):
        word = word.replace(name, names[name])
    return word


def beside(folder):
    """All that lies beside a folder."""
    return {path for other in folder.parent.iterdir() if other != folder for path in (other, *files_below(other))}


@examples(60)
@given(command_lines())
@example(("data", "import", "--images=IMAGES", "--captions=TEXT", "--out=NEW", "--seed=-1"))
@example(("data", "import", "--images=IMAGES", "--captions=TEXT", "--out=NEW", "--test=nan"))
@example(("data", "import", "--images=IMAGES", "--captions=TEXT", "--out=NEW", "--val=inf", "--test=0"))
@example(("data", "import", "--images=IMAGES", "--captions=TEXT", "--out=NEW", "--max-bad=nan"))
@example(("data", "import", "--images=IMAGES", "--captions=TEXT", "--out=/", "--test=0"))
@example(("data", "import", "--images=IMAGES", "--captions=TEXT", f"--max-side={'9' * 30}", "--test=0", "--out=NEW"))
@example(("data", "check", "--images=IMAGES", "--captions=TEXT", "--min-side=-1", "--out=NEW/NEW"))
@example(("data", "show", "FOLDER", "--sample=-1"))
@example(("data", "show", "scenes/nothing"))
@example(("suite", "--suite=scenes", "--seeds=" + "9" * 5000))
@example(("embed", "--workdir=FOLDER", "--images=IMAGES", "--out=NEW.npz"))
@example(("search", "--workdir=\udce9", "\udce9", "--images=IMAGES"))
@example(("tables", "--suite=none", "--result=none"))
@example(("evaluate", "--workdir=FILE", "--data=NEW"))
@example(("convert", "--source=vit", "--checkpoint=JSON", "--config=emoji", "--out=NEW"))
@example(("convert", "--source=word_embeddings", "--checkpoint=FOLDER", "--config=emoji", "--out=NEW"))
@example(("demo", "--workdir=FOLDER", f"--port={'9' * 30}"))
@example(("rehearse", "prepare", "--out=FOLDER"))
@example(("rehearse", "prepare", "--out=FILE"))
@example(("rehearse", "prepare", "--out=..", "--store=.."))
@example(("bench", "transport", "--config=PIPE", "--repeats=1"))
def test_command_lines(inside, tmp_path, capsys, words):
    folder = tmp_path / "inside"
    outside = beside(folder)
    kept = {path: path.read_bytes() for path in files_below(folder) if path.is_file()}
    run(capsys, *(filled_in(word, inside) for word in words))
    assert beside(folder) == outside
    assert {path: path.read_bytes() for path in kept if path.is_file()} == kept
    # What one command made, later ones find; but not all of the data sets of a rehearsal.
    if len(kept) > 200:
        for made in folder.glob("new*"):
            shutil.rmtree(made) if made.is_dir() else made.unlink()
