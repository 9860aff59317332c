"""A folder of images, the encoders of the tiny run, and the weights it exports."""

import jax
import jax.experimental.compilation_cache.compilation_cache
import numpy as np
import pytest
from PIL import Image

from cbalign import inference
from cbalign.runs.workdir import open_run


def blotches(seed, size=(40, 30)):
    """An image of random colours."""
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)


@pytest.fixture
def folder(tmp_path):
    """Five images of several kinds, one of them broken, beside other files."""
    root = tmp_path / "images"
    (root / "sub").mkdir(parents=True)
    (root / ".hidden").mkdir()
    blotches(0).save(root / "a.png")
    blotches(1).save(root / "b.JPG", "JPEG")
    blotches(2).convert("P").save(root / "sub" / "c.gif")
    blotches(3).save(root / "sub" / "d.webp")
    blotches(9).save(root / ".hidden" / "no.png")
    (root / "broken.png").write_bytes((root / "a.png").read_bytes()[:40])
    (root / "notes.txt").write_text("not an image")
    return root


@pytest.fixture(scope="session")
def opened(tiny_run):
    return open_run(tiny_run)


@pytest.fixture(scope="session")
def encoder(opened):
    return inference.Encoder.of(opened)


@pytest.fixture(scope="session")
def exported(opened, tmp_path_factory):
    """The folder of the tiny run's exported weights."""
    from cbalign.runs.export import export_run

    return export_run(opened, tmp_path_factory.mktemp("exported") / "tiny")


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """The folder where the commands keep what is compiled, for this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names = ("compilation_cache_dir", "compilation_cache_max_size", "persistent_cache_min_compile_time_secs")
    before = {f"jax_{name}": getattr(jax.config, f"jax_{name}") for name in names}
    jax.config.update("jax_compilation_cache_dir", None)  # the tests' own
    jax.experimental.compilation_cache.compilation_cache.reset_cache()
    yield tmp_path / "cache" / "cbalign" / "xla"
    for name, value in before.items():
        jax.config.update(name, value)
    jax.experimental.compilation_cache.compilation_cache.reset_cache()
