"""launch/paper.sh: the order of a suite's commands, on this machine and on a TPU, and what it does on failure."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from cbalign.experiments.suites import SUITES
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


def call(cloud, *arguments, seconds):
    """Runs paper.sh, which may take long."""
    return subprocess.run(
        ["bash", "launch/paper.sh", *arguments],
        cwd=cloud.tree,
        env=cloud.environment,
        capture_output=True,
        text=True,
        timeout=seconds,
    )


@pytest.mark.slow
@pytest.mark.long
def test_the_whole_suite_is_rehearsed(cloud, tmp_path):
    """Every command for real, in miniature: about 10 minutes on two cores."""
    out = tmp_path / "rehearsal"
    done = call(cloud, "--rehearse", f"--runs={out}", seconds=3600)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    said = done.stdout.splitlines()
    rows = len(SUITES["paper"].rows)
    assert said[-1].startswith(f"rehearsal passed: {rows} rows, "), said[-1]
    assert any("SIGTERM at step 3 of pretrain" in line for line in said)
    assert any("SIGKILL at the last step of retrieval_coco" in line for line in said)
    starts = {
        file.parent.name: len(json.loads(file.read_text())["starts"]) for file in (out / "runs").glob("*/run.json")
    }
    assert {name for name, count in starts.items() if count == 2} == {"pretrain", "retrieval_coco"}
    # Started again, it does nothing but compare.
    again = call(cloud, "--rehearse", f"--runs={out}", seconds=600)
    assert again.returncode == 0 and again.stdout.splitlines()[-1] == said[-1]


@pytest.mark.slow
@pytest.mark.long
def test_a_rehearsal_through_a_tpu(cloud, tmp_path):
    """The worker is this machine; supervise.sh starts again what the signals end."""
    worker = cloud.fake / "worker/cbalign"
    shutil.rmtree(worker / ".venv")
    cloud.install(worker, f'JAX_PLATFORMS=cpu exec "{sys.executable}" -m cbalign "$@"')  # it is told tpu,cpu
    (cloud.tree / "tpu.env").write_text("NAME=codis\nZONE=us-central2-b\nTYPE=v4-8\n")
    # The real worker has four devices.
    cloud.environment |= {
        "JAX_PLATFORMS": "cpu",
        "SUPERVISE_PAUSE": "1",  # whole seconds, as it doubles with each restart
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4",
    }
    runs = tmp_path / "store"
    done = call(cloud, "--rehearse", "--tpu", f"--runs={runs}", "--only=retrieval_coco", seconds=1800)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert done.stdout.splitlines()[-1].startswith("rehearsal passed: 2 rows, 2 evaluations"), done.stdout[-1000:]
    for name in ("pretrain", "retrieval_coco"):
        assert len(json.loads((runs / "runs" / name / "run.json").read_text())["starts"]) == 2


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--only=nothing", "--dry-run"], "no row"),
        (["--tpu"], "each worker's own disk"),
        (["--dryrun"], "unknown argument --dryrun"),
        (["--rehearse", "--weights=w/deit"], "converts checkpoints of its own"),
        (["--rehearse=slow"], "unknown argument --rehearse=slow"),
        (["--rehearse=full", "--tpu", "--runs=gs://b/r"], "is for this machine"),
        (["--rehearse", "--tpu", "--runs=gs://b/r", "--settings=none.env"], "no file none.env"),
        (["--rehearse", "--only=nothing", "--dry-run"], "no row"),
    ],
)
def test_mistakes_end_in_one_line(cloud, arguments, told):
    done = cloud.call("paper.sh", *arguments)
    assert done.returncode == 2 and told in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
