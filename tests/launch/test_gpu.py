"""launch/gpu.sh on one node, and with fakes of SLURM's commands."""

import subprocess
import time

import pytest

from tests.launch.cloud import Cloud

RUN = ("--config=configs/emoji.py", "--workdir=runs/first")
JOB = ("--slurm", "--nodes=2", "--gpus-per-node=4", "--config=configs/emoji.py", "--workdir=/shared/codis")


@pytest.fixture
def cloud(tmp_path):
    made = Cloud(tmp_path)
    made.install(made.tree, 'echo "$CUDA_VISIBLE_DEVICES $*"; trap "exit 75" TERM; sleep 60 & wait')
    yield made
    made.call("gpu.sh", "stop")


def status_of(cloud, text):
    """The status, once it contains the text: the supervisor starts in the background."""
    deadline = time.monotonic() + 20
    while text not in (status := cloud.call("gpu.sh", "status").stdout) and time.monotonic() < deadline:
        time.sleep(0.1)
    return status


def log_of(cloud, name, text):
    log, deadline = cloud.tree / f".launch/{name}/log", time.monotonic() + 20
    while time.monotonic() < deadline and not (log.exists() and text in log.read_text()):
        time.sleep(0.1)
    return log.read_text()


def test_one_node_from_train_to_resume(cloud):
    done = cloud.call("gpu.sh", "train", *RUN, "--gpus=0,1", "--config.seed=3")
    assert done.returncode == 0, done.stderr
    expected = "0,1 train --config=configs/emoji.py --workdir=runs/first --config.seed=3"
    assert expected in log_of(cloud, "first", expected)
    assert "running, start 1" in cloud.call("gpu.sh", "status").stdout
    assert "stopped" in cloud.call("gpu.sh", "stop").stdout
    assert cloud.call("gpu.sh", "resume", "--name=first").returncode == 0
    assert "running, start 1" in status_of(cloud, "running, start 1")
    assert not cloud.calls()


def test_a_job_is_submitted_with_a_process_for_each_gpu(cloud):
    cloud.rules(("sbatch", 0, "4711;cluster\n", ""), ("squeue", 0, "RUNNING 1:02 of 24:00:00, 2 nodes\n", ""))
    done = cloud.call("gpu.sh", "train", *JOB, "--partition=gpu")
    assert done.returncode == 0 and "job 4711 is in the queue" in done.stdout, done.stderr
    job = (cloud.tree / ".launch/codis/job.sh").read_text()
    for line in ("--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4", "--partition=gpu", "--requeue"):
        assert f"#SBATCH {line}\n" in job
    assert "RUNNING 1:02" in cloud.call("gpu.sh", "status").stdout


# (code of training, stopped by the user?, seconds after which a job is sound) -> put back into the queue?
@pytest.mark.parametrize(
    "code, stopped, healthy, requeued",
    [
        (0, False, 0, False),
        (75, False, 600, True),
        (75, True, 600, False),
        (2, False, 0, False),
        (137, False, 0, True),  # a process that was killed beside others that saved
        (137, False, 600, False),
        (137, True, 0, False),
        (130, False, 0, False),
    ],
)
def test_a_preempted_job_is_requeued(cloud, code, stopped, healthy, requeued):
    cloud.rules(("sbatch", 0, "7\n", ""), ("srun", code, "", ""))
    assert cloud.call("gpu.sh", "train", *JOB).returncode == 0
    if stopped:
        assert cloud.call("gpu.sh", "stop").returncode == 0
        assert ["scancel", "--signal=TERM", "7"] in cloud.calls()
    ran = subprocess.run(
        ["bash", ".launch/codis/job.sh"],
        cwd=cloud.tree,
        timeout=60,
        env={**cloud.environment, "SLURM_JOB_ID": "7", "SUPERVISE_HEALTHY": str(healthy)},
    )
    assert ran.returncode == code
    srun = next(call for call in cloud.calls() if call[0] == "srun")
    assert srun[2:6] == ["env", "JAX_PLATFORMS=cuda,cpu", ".venv/bin/cbalign", "train"]
    assert (["scontrol", "requeue", "7"] in cloud.calls()) == requeued


def test_resume_submits_the_same_job_again(cloud):
    cloud.rules(("sbatch", 0, "7\n", ""))
    cloud.call("gpu.sh", "train", *JOB)
    cloud.call("gpu.sh", "stop")
    cloud.rules(("sbatch", 0, "8\n", ""))
    assert "job 8 is in the queue" in cloud.call("gpu.sh", "resume").stdout
    assert not (cloud.tree / ".launch/codis/stopped").exists()


@pytest.mark.parametrize(
    "said, told",
    [
        ("sbatch: error: invalid partition specified: gpu", "no partition"),
        (
            "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
            "SLURM",
        ),
        (
            "sbatch: error: Batch job submission failed: Requested node configuration is not available",
            "no node has that many",
        ),
        ("sbatch: error: Batch job submission failed: Requested time limit is invalid", "--time=24:00:00"),
        ("sbatch: error: slurm_persist_conn_open_without_init: failed to open", "SLURM failed"),
    ],
)
def test_what_slurm_refuses_is_one_line(cloud, said, told):
    cloud.rules(("sbatch", 1, "", said + "\n"))
    done = cloud.call("gpu.sh", "train", *JOB)
    assert done.returncode == 1 and told in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_without_slurm_it_says_so(tmp_path):
    cloud = Cloud(tmp_path, absent=("sbatch",))
    cloud.install(cloud.tree, "")
    done = cloud.call("gpu.sh", "train", *JOB)
    assert done.returncode == 1 and "no sbatch here" in done.stderr


@pytest.mark.parametrize("arguments", [["setup"], ["train", *RUN], ["train", *JOB]])
def test_a_dry_run_prints_and_does_nothing(cloud, arguments):
    done = cloud.call("gpu.sh", *arguments, "--dry-run")
    assert done.returncode == 0 and done.stdout and not cloud.calls() and not (cloud.tree / ".launch").exists()


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["trian"], "unknown action 'trian'"),
        (["train", "--workdir=x"], "--config=… is missing"),
        (["train", *RUN, "--gpu=1"], "unknown argument --gpu=1"),
        (["train", *RUN, "--gpus=all"], "--gpus=all must be numbers"),
        (["train", "--slurm", *RUN], "--gpus-per-node=… is missing"),
        (["train", "--slurm", "--gpus=1", *RUN], "--gpus is for a single node"),
        (["train", "--config=nowhere.py", "--workdir=x"], "no config file nowhere.py"),
        (["status"], "no run yet"),
        (["stop", "--name=other"], "no run other"),
    ],
)
def test_mistakes_are_named(cloud, arguments, told):
    done = cloud.call("gpu.sh", *arguments)
    assert done.returncode == 2 and told in done.stderr, done.stderr
    assert not cloud.calls()


@pytest.mark.parametrize("config", ["emoji", "configs/emoji", "configs/emoji.py", "paper/ablation:sinkhorn"])
def test_configs_are_files_or_names(cloud, config):
    done = cloud.call("gpu.sh", "train", f"--config={config}", "--workdir=x", "--dry-run")
    assert done.returncode == 0 and f"train --config={config} --workdir=x" in done.stdout, done.stderr


def test_what_is_not_installed_is_named(tmp_path):
    done = Cloud(tmp_path).call("gpu.sh", "train", *RUN)
    assert done.returncode == 1 and "run: launch/gpu.sh setup" in done.stderr
