"""Fixtures shared by the tests."""

import pytest


@pytest.fixture(scope="session")
def tfds_dir(tmp_path_factory):
    """An empty folder for built data sets, so that tests neither use nor fill the user's."""
    return tmp_path_factory.mktemp("tfds")
