"""The launch scripts' own arguments; what they run is tested where it lives."""

import pathlib
import subprocess

import pytest

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"


def call(*arguments, **environment):
    import os

    return subprocess.run(["bash", *map(str, arguments)], capture_output=True, text=True, timeout=60,
                          env={**os.environ, **environment})


def test_help_prints_the_ways_to_call_it():
    result = call(LAUNCH / "local.sh", "--help")
    assert result.returncode == 0 and "--device=cuda" in result.stdout and result.stdout.count("./launch/local.sh") >= 4


@pytest.mark.parametrize("argument", ["--device=abacus", "emoji", "--confg=x"])
def test_unknown_arguments_are_named(argument):
    result = call(LAUNCH / "local.sh", argument)
    assert result.returncode == 2 and argument in result.stderr


@pytest.mark.parametrize("script", ["local.sh", "test.sh"])
def test_an_old_or_missing_python_is_named(script):
    result = call(LAUNCH / script, PYTHON="/no/such/python3")
    assert result.returncode == 2 and "Python 3.11 or newer" in result.stderr
