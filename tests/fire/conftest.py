"""The uninterrupted run that all others are compared with."""

import pytest

from tests.fire import harness


@pytest.fixture(scope="session")
def config_file(tmp_path_factory, tfds_dir):
    """The config of `harness.write_config`, and its data set, built."""
    file = harness.write_config(tmp_path_factory.mktemp("fire"), tfds_dir)
    harness.run("data", "build", "scenes/tiny", f"--data-dir={tfds_dir}")
    return file


@pytest.fixture(scope="session")
def whole(tmp_path_factory, config_file):
    """(workdir of an uninterrupted run, its seconds)."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    _, seconds = harness.timed(harness.run, "train", f"--config={config_file}", f"--workdir={workdir}")
    return workdir, seconds
