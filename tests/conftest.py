"""Fixtures shared by the tests, and a store of compiled programs that they and the processes they start share."""

import gc
import os
import pathlib
import shutil
import sys

import filelock
import pytest

# The same small step is compiled by many tests and processes. Before JAX is imported, which reads these once.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parents[1] / ".cache" / "jax_tests"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
STORE = {
    "jax_compilation_cache_dir": os.environ["JAX_COMPILATION_CACHE_DIR"],
    "jax_persistent_cache_min_compile_time_secs": float(os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"]),
}
# Most programs here are small and run a few times: what the compiler saves by optimising, it took to do so. The older of
# its two emitters of fused loops compiles a step in two thirds of the time.
_FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{_FLAGS} {os.environ.get('XLA_FLAGS', '')}"

# A test process has about one core: more threads of OpenMP (scikit-learn, PyTorch, OpenBLAS) only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# TensorFlow then imports without Keras, which nothing here uses and which takes half of the time.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

# As the command line does.
gc.set_threshold(100_000, 50, 100)

from tests.tiny import tiny_config


def pytest_collection_modifyitems(config, items):
    """Files with slow tests first, so that several processes come to their end at about the same time.

    Tests marked long are skipped unless `-m long` asks for them.
    """
    if "long" not in config.option.markexpr:
        skipped = pytest.mark.skip(reason="takes many minutes: ./launch/test.sh -m long")
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(skipped)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish():
    """What importing the tests and the libraries made stays: no later garbage collection walks over it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def store_of_programs():
    """A suite's run names another store of compiled programs for its process: the next test has that of the tests."""
    yield
    if jax := sys.modules.get("jax"):
        changed = {name: value for name, value in STORE.items() if getattr(jax.config, name) != value}
        for name, value in changed.items():
            jax.config.update(name, value)
        if changed:
            from jax.experimental.compilation_cache import compilation_cache

            compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """`made_once(NAME, make)`: a folder that `make(folder)` creates in one of the test processes, for all of them.

    Others that ask for it meanwhile wait. What it holds must not be changed.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"

    def folder_of(name, make):
        folder, complete = shared / name, shared / f"{name}.complete"
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{folder}.lock"):
            if not complete.exists():
                shutil.rmtree(folder, ignore_errors=True)
                make(folder)
                complete.touch()
        return folder

    return folder_of


@pytest.fixture(scope="session")
def tfds_dir(made_once):
    """A folder for built data sets, at first empty, so that tests neither use nor fill the user's."""
    return made_once("tfds", pathlib.Path.mkdir)


@pytest.fixture(scope="session")
def tiny_run(made_once, tmp_path_factory, tfds_dir):
    """The workdir of a finished run of `tiny_config`; tests must not change what it holds."""

    def train(workdir):
        from cbalign.runs.train import train_run

        train_run(
            tiny_config(
                data__dir=str(tfds_dir),
                data__rand_augment=False,
                data__second_view=False,
                train__log_steps=1,
                train__eval_steps=2,
                train__checkpoint_steps=2,
                eval__best_split="val",
            ),
            workdir,
        )

    # A copy for each process: commands under test add results and search indices.
    return shutil.copytree(made_once("tiny", train), tmp_path_factory.mktemp("runs") / "tiny")
