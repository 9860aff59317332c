"""The uninterrupted run that all others are compared with."""

import pytest

from tests.fire import harness


@pytest.fixture(scope="session")
def config_file(made_once, tfds_dir):
    """The config of `harness.write_config`, and its data set, built."""

    def make(folder):
        folder.mkdir()
        harness.write_config(folder, tfds_dir)
        harness.run("data", "build", "scenes/tiny", f"--data-dir={tfds_dir}")

    return made_once("fire", make) / "tiny.py"


@pytest.fixture(scope="session")
def whole(made_once, config_file):
    """(workdir of an uninterrupted run, its seconds)."""

    def make(folder):
        words = ("train", f"--config={config_file}", f"--workdir={folder / 'run'}")
        _, seconds = harness.timed(harness.run, *words)
        (folder / "seconds").write_text(str(seconds))

    folder = made_once("whole", make)
    return folder / "run", float((folder / "seconds").read_text())
