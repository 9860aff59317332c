"""What the fuzz tests share: how many examples they take, mutations of bytes and of JSON, and what counts as a failure.

`CBALIGN_FIRE=full` takes 1,000 examples of each kind, at random; a number multiplies the few that are taken by default,
the same ones in each run.
"""

import copy
import datetime
import json
import os
import pathlib

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from cbalign.__main__ import main

FULL = 1000
# Beyond this an example counts as a hang: on a busy machine the slowest take a second.
DEADLINE = datetime.timedelta(seconds=30)


def examples(few, full=FULL):
    """The settings of a test that takes `few` examples by default, and `full` in a full run."""
    wanted = os.environ.get("CBALIGN_FIRE", "")
    count = full if wanted == "full" else max(1, round(few * float(wanted or 1)))
    return settings(
        max_examples=count,
        deadline=DEADLINE,
        database=None,
        derandomize=wanted != "full",
        print_blob=True,
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
            HealthCheck.filter_too_much,
            HealthCheck.function_scoped_fixture,
        ],
    )


@st.composite
def mutated(draw, data):
    """Bytes with up to six changes: bits flipped, a part removed, repeated, replaced, moved, or the end cut off."""
    changed = bytearray(draw(st.sampled_from(data)) if isinstance(data, list) else data)
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, max(len(changed) - 1, 0)))
        length = draw(st.integers(1, 64))
        kind = draw(st.sampled_from(("flip", "set", "remove", "repeat", "insert", "cut", "swap", "number")))
        if kind == "flip" and changed:
            changed[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set" and changed:
            changed[place] = draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF)))
        elif kind == "remove":
            del changed[place : place + length]
        elif kind == "repeat":
            changed[place:place] = changed[place : place + length] * draw(st.integers(1, 20))
        elif kind == "insert":
            changed[place:place] = draw(st.binary(max_size=16))
        elif kind == "cut":
            del changed[place:]
        elif kind == "swap":
            part = changed[place : place + length]
            del changed[place : place + length]
            changed += part
        elif kind == "number" and len(changed) >= place + 4:
            order = draw(st.sampled_from(("big", "little")))
            number = draw(st.sampled_from((0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1)))
            changed[place : place + 4] = number.to_bytes(4, order)
    return bytes(changed)


# Text that `json.dumps` cannot write, by the words that stand for it in `ODD`.
_RAW = {
    "RAW-DIGITS": "9" * 5000,
    "RAW-DEEP": "[" * 450 + "]" * 450,
    "RAW-DEEPER": "[" * 3000 + "]" * 3000,
    "RAW-OBJECTS": '{"path":' * 450 + "1" + "}" * 450,
    "RAW-CAPTIONS": '{"raw":' * 450 + "1" + "}" * 450,
    "RAW-BIG": "1e999",
}
ODD = (
    *(None, True, False, 0, 1, -1, 3, 2**31, -(2**31) - 1, 2**63, 2**64, 10**400),
    *(0.5, -0.0, 1e308, float("nan"), float("inf"), float("-inf")),
    *("", " ", "a", "1", "-", "\0", "\ud800", "\udcff", "e\u0301", "\u202e", "x" * 300, "a/" * 200, "[1", "{'a': [1]}"),
    *("../../escape.jpg", "/etc/passwd", "..", ".", "~", "%00", "%2e%2e/x", "file:///etc/passwd", "C:\\a.jpg", "*.jpg"),
    *([], {}, [[]], [None], ["a"], [1], {"a": 1}, {"raw": None}, {"path": "a"}, {"bytes": "x", "path": None}),
    *_RAW,
)


def odd():
    """A value that does not belong where it stands."""
    return st.one_of(st.sampled_from(ODD), st.text(max_size=8), st.integers(), st.floats())


@st.composite
def mutated_json(draw, value):
    """The text of a JSON value in which up to four parts are replaced, removed, repeated, renamed or wrapped."""
    value = [json.loads(json.dumps(value))]
    for _ in range(draw(st.integers(1, 4))):
        places = list(_places(value))
        # Large files are mostly leaves of one kind: half of the changes are made near the top.
        if draw(st.booleans()):
            places = places[:12]
        container, key = places[draw(st.integers(0, len(places) - 1))]
        kind = draw(st.sampled_from(("replace", "replace", "remove", "repeat", "rename", "wrap", "text")))
        if kind == "remove" and container is not value:
            del container[key]
        elif kind == "repeat" and isinstance(container, list) and container is not value:
            container.insert(key, copy.deepcopy(container[key]))
        elif kind == "rename" and isinstance(container, dict):
            container[draw(st.text(max_size=4))] = container.pop(key)
        elif kind == "wrap":
            container[key] = draw(st.sampled_from(([container[key]], {"a": container[key]})))
        elif kind == "text":
            container[key] = str(container[key])
        else:
            container[key] = copy.deepcopy(draw(odd()))
    return json_text(value[0])


def json_text(value):
    """JSON of a value, with what `json.dumps` cannot write."""
    text = json.dumps(value)
    for word, raw in _RAW.items():
        text = text.replace(f'"{word}"', raw)
    return text


def _places(value):
    """(container, key) of each part of a value, breadth first, without the copies of shared ones."""
    waiting = [value]
    while waiting:
        container = waiting.pop(0)
        for key in range(len(container)) if isinstance(container, list) else list(container):
            yield container, key
            if isinstance(container[key], (list, dict)):
                waiting.append(container[key])


def check_refusal(error, among=None):
    """A refusal is one line of readable length, or one of some fixed phrases."""
    message = str(error)
    assert message in among if among else message and "\n" not in message and len(message) < 2000, message[:300]


def files_below(folder):
    """{path: size} of everything below a folder."""
    return {path: path.lstat().st_size for path in pathlib.Path(folder).rglob("*")}


def run(capsys, *arguments):
    """Runs a command; it must succeed, or end with code 2 and one line for it; returns (code, stdout, stderr)."""
    try:
        code = main([os.fspath(word) for word in arguments])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert code in (0, 2), (code, err)
    if code:
        # argparse prints its usage first.
        lines = [line for line in err.splitlines() if line.startswith("cbalign") and ": " in line]
        assert lines, err
        assert len(lines[-1]) < 2000, lines[-1][:200]
    assert "Traceback" not in err, err
    return code, out, err
