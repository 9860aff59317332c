"""The real command on a folder with hostile names, links and captions, and a browser to look at its page."""

import contextlib
import csv
import json
import os
import pathlib
import re
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parents[3]
HOSTILE_NAME = "<img src=x onerror=window.hacked=1>**bold** ${window.hacked=2} {{constructor}}.png"
HOSTILE_CAPTION = (
    "<script>window.hacked=3</script><img src=x onerror=window.hacked=4> **bold** [link](javascript:alert) "
    "${window.hacked=5} {{#each this}}{{this}}{{/each}} `code` $x^2$"
)
HOSTILE_EXAMPLE = "<b onclick=x>red</b> ${1} {{x}} **y**"  # short enough to be offered to click on
SECRET = b"a file outside the folder"


def blotches(seed, size=(60, 40)):
    """An image of random colours."""
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)


def make_folder(outside, root):
    """Images, one with a hostile name; beside them links that lead outside, and captions of which one is hostile."""
    blotches(90).save(outside / "private.png")
    (outside / "secret.txt").write_bytes(SECRET)
    (root / "sub").mkdir(parents=True)
    for number in range(6):
        blotches(number).save(root / f"{number}.png")
    blotches(6).save(root / "sub" / "6.jpg", quality=95)
    blotches(7).save(root / HOSTILE_NAME)
    (root / "broken.png").write_bytes(b"no image")
    (root / "inside.png").symlink_to(root / "0.png")
    (root / "link.png").symlink_to(outside / "private.png")
    (root / "linked").symlink_to(outside, target_is_directory=True)
    with (root / "captions.csv").open("w", newline="") as file:
        rows = [("image", "caption"), ("1.png", HOSTILE_CAPTION), ("2.png", "a red circle"), ("sub/6.jpg", "漢字 😀")]
        rows.append(("3.png", HOSTILE_EXAMPLE))
        csv.writer(file).writerows(rows)
    return root


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The folder of `make_folder`; tests leave it as it is."""
    return make_folder(tmp_path_factory.mktemp("outside"), tmp_path_factory.mktemp("shown") / "images")


def start(arguments, *, cwd, cache, timeout=600):
    """Starts the command; returns (process, address, lines of standard error) once it serves."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XDG_CACHE_HOME": str(cache),
        "TMPDIR": str(cwd),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "cbalign", "demo", "--port=0", *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = []
    threading.Thread(target=lambda: said.extend(process.stderr), daemon=True).start()
    timer = threading.Timer(timeout, process.kill)
    timer.start()
    address = process.stdout.readline().strip()
    timer.cancel()
    assert re.fullmatch(r"http://\S+/", address), "".join(said)
    return process, address, said


@contextlib.contextmanager
def served(*arguments, cwd, cache):
    """The address of a served page; afterwards the process has ended as a signal ends it, and left no file."""
    process, address, said = start(arguments, cwd=cwd, cache=cache)
    try:
        yield address, said
        assert process.poll() is None, "".join(said)
    finally:
        process.terminate()
        code = process.wait(60)
    assert code == 143
    assert not list(cwd.glob("cbalign-demo-*")), "the page left its files"
    assert "Traceback" not in "".join(said), "".join(said)


@pytest.fixture(scope="session")
def page_of_folder(tiny_run, folder, tmp_path_factory):
    """(address, standard error) of the page of the tiny run and the folder, started in a folder with a secret in it."""
    cwd = tmp_path_factory.mktemp("cwd")
    (cwd / "secret.txt").write_bytes(SECRET)
    with served(f"--workdir={tiny_run}", f"--images={folder}", cwd=cwd, cache=cwd / "cache") as (address, said):
        yield address, said


class Tab:
    """A tab of the browser, and what went wrong in it."""

    def __init__(self, browser, address, **options):
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.page = self.context.new_page()
        self.page.set_default_timeout(90_000)
        self.address, self.wrong = address, []
        self.page.on("console", lambda m: self.wrong.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self._note_address(request.url))
        self.page.on("response", lambda r: self.wrong.append(f"{r.status} {r.url}") if r.status >= 400 else None)
        self.page.goto(address)

    def _note_address(self, url):
        if not url.startswith((self.address, "data:", "blob:")):
            self.wrong.append(f"asks for {url}")

    def tab(self, name):
        self.page.get_by_role("tab", name=name).click()

    def search(self, text):
        self.page.fill("#query textarea, #query input", text)
        self.page.keyboard.press("Enter")

    def wait_for_status(self, text):
        self.page.locator("#status", has_text=text).wait_for()

    def labels(self, grid="#results"):
        return [label.strip() for label in self.page.locator(f"{grid} .caption-label").all_inner_texts()]

    def open(self, place):
        self.page.locator("#results .thumbnail-item").nth(place).click()
        self.page.locator("#details .cb-pair").wait_for()

    def assert_fine(self):
        assert self.wrong == []
        assert self.page.evaluate("window.hacked") is None
        assert self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.fixture
def tab(browser, page_of_folder):
    """The page of the folder in a new tab; at the end nothing has gone wrong in it."""
    tab = Tab(browser, page_of_folder[0])
    yield tab
    tab.assert_fine()
    tab.context.close()


def event_numbers(address, get):
    """{number of an event: {names of its inputs}} of a page."""
    config = json.loads(get(address, "config")[1])
    kinds = {part["id"]: part["props"].get("elem_id") for part in config["components"]}
    return {number: [kinds[i] for i in event["inputs"]] for number, event in enumerate(config["dependencies"])}
