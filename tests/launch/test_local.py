"""Arguments and installation of local.sh and test.sh, with a Python that records; what they run is tested elsewhere."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"


def call(*arguments, **environment):
    return subprocess.run(
        ["bash", *map(str, arguments)], capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
    )


def test_help_prints_the_ways_to_call_it():
    result = call(LAUNCH / "local.sh", "--help")
    assert result.returncode == 0 and "--device=cuda" in result.stdout and result.stdout.count("./launch/local.sh") >= 4


@pytest.mark.parametrize("argument", ["--device=abacus", "emoji", "--confg=x"])
def test_unknown_arguments_are_named(argument):
    result = call(LAUNCH / "local.sh", argument)
    assert result.returncode == 2 and argument in result.stderr


@pytest.mark.parametrize("script", ["local.sh", "test.sh"])
def test_an_old_or_missing_python_is_named(script):
    result = call(LAUNCH / script, PYTHON="/no/such/python3")
    assert result.returncode == 2 and "Python 3.11 or newer" in result.stderr


@pytest.fixture
def tree(tmp_path):
    """A copy of the scripts whose .venv records: `pip` each installation, `cbalign` each command."""
    shutil.copytree(LAUNCH, tmp_path / "launch")
    for name in ("setup.py", "constraints.txt"):
        shutil.copy(LAUNCH.parent / name, tmp_path)
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    for name in ("python", "cbalign"):
        (programs / name).write_text(f'#!/usr/bin/env bash\necho "{name} $*" >>"{tmp_path}/log"\n')
        (programs / name).chmod(0o755)
    return tmp_path


def log_of(tree):
    lines = (tree / "log").read_text().splitlines()
    (tree / "log").unlink()
    return lines


@pytest.mark.parametrize(
    "config, workdir, split",
    [
        ("emoji", "runs/emoji", "--split=test_vendor --split=test_concept"),
        ("configs/scenes.py", "runs/scenes", "--split=test"),
        ("paper/ablation:sinkhorn", "runs/ablation_sinkhorn", "--split=test"),
    ],
)
def test_the_commands_of_a_run(tree, config, workdir, split):
    done = call(tree / "launch/local.sh", f"--config={config}", "--config.train.steps=3")
    assert done.returncode == 0, done.stderr
    install, *commands = log_of(tree)
    assert install.endswith("-e .[train,emoji,report]") and "-c constraints.txt" in install
    searches = [line for line in commands if line.startswith("cbalign search")]
    assert [line for line in commands if line not in searches] == [
        f"cbalign train --config={config} --workdir={workdir} --config.train.steps=3",
        f"cbalign evaluate --workdir={workdir} {split}",
        f"cbalign report --workdir={workdir}",
    ]
    # Only models of named pictures know the words of the five texts.
    start = f"cbalign search --workdir={workdir} --sheet={workdir}/found.png --top=5 a penguin"
    assert len(searches) == (config == "emoji") and all(line.startswith(start) for line in searches)


def test_extras_are_installed_once_until_the_versions_change(tree):
    def setup(extras):
        done = call("-c", f"source {tree}/launch/setup.sh; setup {extras}")
        assert done.returncode == 0, done.stderr
        return [line.partition("-e ")[2] for line in log_of(tree)] if (tree / "log").exists() else []

    assert setup("train,emoji") == [".[train,emoji]"]
    assert setup("emoji") == setup("train") == []
    assert setup("emoji,cuda") == [".[emoji,cuda]"]
    assert setup("train,emoji,cuda") == []
    with open(tree / "constraints.txt", "a") as file:
        file.write("# newer\n")
    assert setup("train") == [".[train]"]


def test_icons_are_fetched_once_and_built(tree, tmp_path):
    """With an npm that packs a package of its own."""
    package, programs = tmp_path / "source" / "package", tmp_path / "npm"
    package.mkdir(parents=True)
    programs.mkdir()
    (package / "collections.json").write_text("{}")
    (programs / "npm").write_text(
        f'#!/usr/bin/env bash\necho "npm $*" >>"{tmp_path}/log"\ntar -czf pack.tgz -C "{package.parent}" package\n'
    )
    (programs / "npm").chmod(0o755)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    folder = tmp_path / "cache/cbalign/iconify-2.2.535/package"
    built = [
        f"cbalign data build icons --manual-dir={folder} --data-dir=data",
        f"cbalign data build icons/emoji --manual-dir={folder} --data-dir=data",
        "cbalign data show icons --data-dir=.",
    ]
    done = call(tree / "launch/local.sh", "--data=icons", **environment)
    assert done.returncode == 0, done.stderr
    install, fetch, *commands = log_of(tree)
    assert install.endswith("-e .[train,emoji,report,icons]") and fetch == "npm pack --silent @iconify/json@2.2.535"
    assert commands == built and (folder / "collections.json").is_file()
    assert [path.name for path in folder.parent.iterdir()] == ["package"]
    assert call(tree / "launch/local.sh", "--data=icons", **environment).returncode == 0 and log_of(tree) == built


def test_icons_without_npm_and_without_network(tree, tmp_path):
    programs = tmp_path / "bare"
    programs.mkdir()
    for name in ("bash", "cat", "cksum", "cut", "dirname", "mkdir", "rm"):
        (programs / name).symlink_to(shutil.which(name))
    environment = {"PATH": str(programs), "PYTHON": sys.executable, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = call(tree / "launch/local.sh", "--data=icons", **environment)
    assert done.returncode == 2 and "install npm" in done.stderr.splitlines()[-1]
    (programs / "npm").write_text("#!/usr/bin/env bash\nexit 1\n")
    (programs / "npm").chmod(0o755)
    done = call(tree / "launch/local.sh", "--data=icons", **environment)
    assert done.returncode == 1 and "could not be fetched" in done.stderr
    assert not (tmp_path / "cache/cbalign/iconify-2.2.535/package").exists()
