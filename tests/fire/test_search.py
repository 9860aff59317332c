"""The index of a folder: large, killed, built twice at once, of files that change meanwhile."""

import itertools
import json
import os
import random
import shutil
import signal
import threading
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from cbalign import inference
from cbalign.data.datasets.official import miniature
from tests.fire import harness

COUNT = int(os.environ.get("CBALIGN_FIRE_IMAGES", "100000"))
"""Images of the long test."""
_DIFFERENT = 300


def pictures(folder, count):
    """So many PNG files in sub-folders of a thousand, most of them links to a few different ones; returns their paths."""
    found = []
    for number in range(count):
        path = folder / f"{number // 1000:03d}" / f"{number:06d}.png"
        if number < _DIFFERENT:
            miniature.write_image(path, number, kind="PNG")
        else:
            path.parent.mkdir(exist_ok=True)
            os.link(found[number % _DIFFERENT], path)
        found.append(path)
    return found


def search(workdir, images):
    return ("search", f"--workdir={workdir}", f"--images={images}", "--json", "a red circle")


def index(workdir):
    """{name: array} of the only stored index."""
    (file,) = (workdir / "search").glob("*.safetensors")
    return load_file(file)


def change(files, until):
    """Overwrites files in place, replaces, empties, removes and adds some until told to stop."""
    generator, new = random.Random(0), itertools.count()
    while not until.is_set():
        file = generator.choice(files)
        kind = generator.choice(("overwrite", "replace", "empty", "remove", "add"))
        if kind == "overwrite":
            miniature.write_image(file, generator.randrange(1000), kind="PNG")
        elif kind == "replace":
            miniature.write_image(file.parent / f".{file.name}", generator.randrange(1000), kind="PNG")
            (file.parent / f".{file.name}").replace(file)
        elif kind == "empty":
            file.write_bytes(b"")
        elif kind == "remove":
            file.unlink(missing_ok=True)
        else:
            miniature.write_image(file.parent / f"new{next(new)}.png", generator.randrange(1000), kind="PNG")
        time.sleep(0.002)


@pytest.mark.slow
def test_two_searches_at_once_of_files_that_change(whole, tmp_path):
    files = [tmp_path / "images" / f"{number}.png" for number in range(1500)]
    for number, file in enumerate(files):
        miniature.write_image(file, number, kind="PNG")
    workdir, fresh = (shutil.copytree(whole[0], tmp_path / name) for name in ("run", "fresh"))
    stop = threading.Event()
    changer = threading.Thread(target=change, args=(files, stop))
    changer.start()
    started = [harness.start(*search(workdir, tmp_path / "images")) for _ in range(2)]
    ended = [harness.finish(process) for process in started]
    stop.set()
    changer.join()
    for code, out, error in ended:
        assert code == 0 and len(json.loads(out)["results"]) == 10, error
    # What they stored is no other than what the files now hold.
    after, anew = (json.loads(harness.run(*search(folder, tmp_path / "images"))) for folder in (workdir, fresh))
    assert after == anew
    assert not list((workdir / "search").glob(".*"))


@pytest.mark.long
def test_a_hundred_thousand_images(whole, tmp_path):
    workdir, images = shutil.copytree(whole[0], tmp_path / "run"), tmp_path / "images"
    pictures(images, COUNT)
    # It stands still, lest a fast machine be done before it first stores what it has; then it is killed.
    process = harness.start(*search(workdir, images))
    stored = workdir / "search"
    time.sleep(15)
    process.send_signal(signal.SIGSTOP)
    time.sleep(46)
    process.send_signal(signal.SIGCONT)
    while process.poll() is None and not list(stored.glob("*.safetensors")):
        time.sleep(0.2)
    first = len(index(workdir)["sizes"])
    time.sleep(1)
    process.kill()
    code, _, error = harness.finish(process)
    assert code == -9, f"it was done too soon ({error})"
    kept = len(index(workdir)["sizes"])
    print(f"{first:,} images after the first store, {kept:,} when killed a second later", flush=True)
    assert COUNT > kept >= first > 0
    # Two at once do the rest.
    started, seconds = [harness.start(*search(workdir, images)) for _ in range(2)], time.monotonic()
    ended = [harness.finish(process, timeout=7200) for process in started]
    print(f"two at once: {time.monotonic() - seconds:.0f} s", flush=True)
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert ended[0][1] == ended[1][1]
    assert len(index(workdir)["sizes"]) == COUNT
    # What is stored is read, not made again.
    again, seconds = harness.timed(harness.run, *search(workdir, images))
    assert json.loads(again)["results"] == json.loads(ended[0][1])["results"]
    print(f"the whole command, of a stored index: {seconds:.1f} s", flush=True)
    source = inference.open_source(workdir)
    encoder = inference.Encoder.of(source)
    found, seconds = harness.timed(lambda: inference.index_folder(images, encoder=encoder, cache=source.cache))
    print(f"index_folder, nothing to read: {seconds:.2f} s; {found.features.shape}", flush=True)
    assert found.encoded == 0
    queries = np.random.default_rng(0).normal(size=(50, found.features.shape[1])).astype(np.float32)
    times = [harness.timed(inference.search, found, query, 10)[1] for query in queries]
    print(f"a query: median {1e3 * np.median(times):.1f} ms, slowest {1e3 * max(times):.1f} ms", flush=True)
    assert np.median(times) < 0.05
    for query in queries[:3]:
        scores = found.features @ query
        expected = sorted(range(COUNT), key=lambda row: (-scores[row], row))[:10]
        assert [hit.path for hit in inference.search(found, query, 10)] == [found.paths[row] for row in expected]
