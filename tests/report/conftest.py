"""A run with results to report, and the browser that the tests of both pages drive."""

import json
import os
import pathlib
import shutil

import pytest

from tests.report.pages import result

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or ""


@pytest.fixture(scope="module")
def browser():
    """Chromium, for the tests of a file: while Playwright is started, an event loop runs in this thread."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not pathlib.Path(CHROMIUM).is_file():
        pytest.skip("Chromium is not installed: apt-get install chromium, or name it in CHROMIUM")
    with playwright.sync_playwright() as started:
        # Every name but this machine's own is unknown to it.
        offline = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", offline])
        yield opened
        opened.close()


@pytest.fixture
def workdir(tiny_run, tmp_path):
    """A copy of the run with results of two splits."""
    folder = tmp_path / "copy"
    shutil.copytree(tiny_run, folder, ignore=shutil.ignore_patterns("search", "report*", "metrics"))
    (folder / "metrics").mkdir()
    for split in ("test", "val"):
        (folder / "metrics" / f"retrieval_tiny_{split}.json").write_text(json.dumps(result(split)))
    return folder
