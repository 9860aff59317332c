"""launch/paper.sh: the order of a suite's commands, on this machine and on a TPU, and what it does on failure."""

import os
import shutil
import sys

import pytest

from tests.launch.cloud import ROOT, Cloud
from tests.launch.test_tpu import READY

# A cbalign on the worker: leaves what the suite looks for, or nothing once a certain file exists.
WORKER = r"""
exec {python} - "$@" <<'END'
import json, pathlib, sys
sys.path.insert(0, {root!r})
from tests.experiments.folders import add_result, make_run, recalls
command, *flags = sys.argv[1:]
flags = dict(flag.removeprefix("--").split("=", 1) for flag in flags)
workdir = pathlib.Path(flags["workdir"])
with open({log!r}, "a") as log:
    log.write(" ".join([command, workdir.name, flags.get("config", "").rpartition("/")[2]]) + "\n")
if pathlib.Path({broken!r}).exists():
    sys.exit(0)
if command == "train":
    make_run(workdir, config=flags["config"])
else:
    add_result(workdir, flags["split"], recalls(10), settings=flags.get("config", ""))
END
"""
ORDER = [
    "train pretrain pretrain",
    "evaluate pretrain zero_shot_coco",
    "train retrieval_coco retrieval_coco",
    "evaluate retrieval_coco ",
    "evaluate retrieval_coco zero_shot_flickr",
]


@pytest.fixture
def cloud(tmp_path):
    """A TPU that is ready; the real cbalign here, on the worker one that only leaves results."""
    cloud = Cloud(tmp_path)
    cloud.environment |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    cloud.install(cloud.tree, f'exec "{sys.executable}" -m cbalign "$@"')
    cloud.rules(READY)
    worker = cloud.fake / "worker/cbalign"
    shutil.copytree(cloud.tree / "launch", worker / "launch")
    cloud.install(
        worker,
        WORKER.format(
            python=sys.executable, root=str(ROOT), log=str(tmp_path / "log"), broken=str(tmp_path / "broken")
        ),
    )
    (cloud.tree / "tpu.env").write_text("NAME=codis\nZONE=us-central2-b\nTYPE=v4-32\nDATA=gs://b/tfds\n")
    return cloud


def test_a_dry_run_says_the_commands_in_order(cloud):
    done = cloud.call("paper.sh", "--dry-run", "--only=zero_shot_flickr", "--runs=runs/p", "--weights=w/deit,w/bert")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[1] for line in lines] == ["train", "evaluate", "train", "evaluate", "evaluate"]
    assert lines[0].endswith("--workdir=runs/p/pretrain --config.init.weights=w/deit,w/bert")
    assert lines[2].endswith("--config.init.weights=runs/p/pretrain") and not cloud.calls()
    everything = cloud.call("paper.sh", "--dry-run").stdout.splitlines()
    assert len(everything) > 30 and not os.path.exists(cloud.tree / "runs")


@pytest.mark.slow
def test_through_a_tpu_each_command_follows_the_one_it_needs(cloud, tmp_path):
    runs = f"--runs={tmp_path}/runs"
    done = cloud.call("paper.sh", "--tpu", runs, "--only=zero_shot_flickr")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "log").read_text().splitlines() == ORDER
    assert "all rows are done" in done.stdout
    started = [call[-1] for call in cloud.calls() if "supervise.sh start" in call[-1]]
    assert len(started) == 5 and all("TFDS_DATA_DIR=gs://b/tfds" in command for command in started)
    again = cloud.call("paper.sh", "--tpu", runs, "--only=zero_shot_flickr")
    assert again.returncode == 0 and len((tmp_path / "log").read_text().splitlines()) == 5


@pytest.mark.slow
def test_a_command_that_leaves_nothing_is_not_repeated_for_ever(cloud, tmp_path):
    (tmp_path / "broken").touch()
    done = cloud.call("paper.sh", "--tpu", f"--runs={tmp_path}/runs", "--only=pretrain")
    assert done.returncode == 1 and "ended without leaving its result" in done.stderr
    assert (tmp_path / "log").read_text().splitlines() == ORDER[:1]


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--only=nothing", "--dry-run"], "no row"),
        (["--tpu"], "each worker's own disk"),
        (["--dryrun"], "unknown argument --dryrun"),
    ],
)
def test_mistakes_end_in_one_line(cloud, arguments, told):
    done = cloud.call("paper.sh", *arguments)
    assert done.returncode == 2 and told in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
