"""launch/tpu.sh with a fake gcloud that records calls and answers them, failures included."""

import shutil
import time

import pytest

from tests.launch.cloud import Cloud

POD = ("--name=codis", "--zone=us-central2-b")
TYPE = "--type=v4-32"
READY = ("describe", 0, "READY\n", "")
NOT_FOUND = (
    "describe",
    1,
    "",
    "ERROR: (gcloud.compute.tpus.tpu-vm.describe) NOT_FOUND: Resource 'codis' was not found\n",
)


@pytest.fixture
def cloud(tmp_path):
    return Cloud(tmp_path)


@pytest.fixture
def pod(cloud):
    """A TPU that is ready, whose only worker has the scripts and a program that waits."""
    cloud.rules(READY)
    worker = cloud.fake / "worker/cbalign"
    shutil.copytree(cloud.tree / "launch", worker / "launch")
    cloud.install(worker, 'trap "echo saved; exit 75" TERM; echo "step 50/100"; sleep 60 & wait')
    yield cloud
    cloud.call("tpu.sh", "stop", *POD)


def verbs(cloud):
    return [" ".join(call[3:5]) for call in cloud.calls()]


def test_create_asks_and_waits_until_it_is_ready(cloud):
    cloud.rules({"match": "describe", "out": "CREATING\n", "once": True}, READY)
    done = cloud.call("tpu.sh", "create", *POD, TYPE, "--spot", "--project=p1")
    assert done.returncode == 0, done.stderr
    asked = cloud.calls()[0]
    assert asked == [
        "gcloud",
        "compute",
        "tpus",
        "tpu-vm",
        "create",
        "codis",
        "--zone=us-central2-b",
        "--project=p1",
        "--accelerator-type=v4-32",
        "--version=tpu-ubuntu2204-base",
        "--spot",
    ]
    assert verbs(cloud)[1:] == ["tpu-vm describe"] * 2 and "codis is CREATING" in done.stdout
    assert "codis is READY" in done.stdout


def test_a_queued_request_is_one(cloud):
    cloud.rules(
        {**dict(zip(("match", "rc", "out", "err"), NOT_FOUND)), "match": "tpu-vm describe", "once": True},
        ("queued-resources describe", 0, "WAITING_FOR_RESOURCES\n", ""),
        READY,
    )
    done = cloud.call("tpu.sh", "create", *POD, "--type=v5litepod-64", "--queued")
    assert done.returncode == 0, done.stderr
    assert cloud.calls()[0][3:6] == ["queued-resources", "create", "codis"]
    assert "--node-id=codis" in cloud.calls()[0] and "--runtime-version=v2-alpha-tpuv5-lite" in cloud.calls()[0]
    assert "WAITING_FOR_RESOURCES" in done.stdout


# (what gcloud says, what we say)
@pytest.mark.parametrize(
    "said, told",
    [
        (
            (
                'ERROR: (gcloud.tpu-vm.create) {"code": 8, "message": "There is no more capacity in the zone '
                '\\"us-central2-b\\"; you can try in another zone where Cloud TPU Nodes are offered"}'
            ),
            "queue the request with --queued",
        ),
        (
            (
                "ERROR: (gcloud.tpu-vm.create) RESOURCE_EXHAUSTED: Quota limit 'TPUV4sPodPerProjectPerZoneForTPUAPI' "
                "has been exceeded. Limit: 0 in zone us-central2-b."
            ),
            "no quota for v4-32",
        ),
        (
            (
                "ERROR: (gcloud.tpu-vm.create) PERMISSION_DENIED: Permission denied on 'locations/us-central2-b' (or "
                "it may not exist)."
            ),
            "no zone us-central2-b",
        ),
        (
            (
                "ERROR: (gcloud.tpu-vm.create) There was a problem refreshing your current auth tokens. Please run: "
                "$ gcloud auth login"
            ),
            "gcloud auth login",
        ),
        (
            "ERROR: (gcloud.tpu-vm.create) ALREADY_EXISTS: Resource 'codis' already exists",
            "there already is a TPU codis",
        ),
        ("ERROR: something nobody has seen", "something nobody has seen"),
    ],
)
def test_what_gcloud_refuses_is_one_line_with_the_remedy(cloud, said, told):
    cloud.rules(("create", 1, "", f"Create request issued\n{said}\n"))
    done = cloud.call("tpu.sh", "create", *POD, TYPE)
    assert done.returncode == 1 and told in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_refused_ssh_is_explained(cloud):
    cloud.rules(
        READY,
        (
            "ssh",
            255,
            "",
            (
                "ssh: connect to host 10.1.1.1 port 22: Connection refused\nERROR: "
                "(gcloud.compute.tpus.tpu-vm.ssh) Could not SSH into the instance.\n"
            ),
        ),
    )
    done = cloud.call("tpu.sh", "train", *POD, "--config=configs/emoji.py", "--workdir=gs://b/x")
    assert done.returncode == 1 and "ssh to codis was refused" in done.stderr


def test_setup_carries_the_tree_to_all_workers(cloud):
    cloud.rules(("--command", 0, "", ""))
    done = cloud.call("tpu.sh", "setup", *POD)
    assert done.returncode == 0, done.stderr
    copy, install = cloud.calls()
    assert copy[4] == "scp" and "--worker=all" in copy and install[4] == "ssh" and "--worker=all" in install
    assert "setup train,emoji,report,tpu" in install[-1]
    assert (cloud.tree / ".launch/cbalign.tgz").stat().st_size > 1000


def test_train_status_logs_and_stop_on_a_worker(pod):
    train = pod.call(
        "tpu.sh",
        "train",
        *POD,
        "--config=configs/emoji.py",
        "--workdir=gs://b/x",
        "--data=gs://b/tfds",
        "--config.seed=3",
    )
    assert train.returncode == 0, train.stderr
    command = (pod.fake / "worker/cbalign/.launch/codis/command").read_text().split("\0")
    assert command[:6] == [
        "env",
        "JAX_PLATFORMS=tpu,cpu",
        "TFDS_DATA_DIR=gs://b/tfds",
        ".venv/bin/cbalign",
        "train",
        "--config=configs/emoji.py",
    ]
    assert command[6:9] == ["--workdir=gs://b/x", "--config.data.dir=gs://b/tfds", "--config.seed=3"]
    log = pod.fake / "worker/cbalign/.launch/codis/log"
    deadline = time.monotonic() + 20
    while "step 50/100" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    status = pod.call("tpu.sh", "status", *POD)
    assert "codis in us-central2-b: READY" in status.stdout and "running, start 1 | step 50/100" in status.stdout
    again = pod.call("tpu.sh", "train", *POD, "--config=configs/emoji.py", "--workdir=gs://b/x")
    assert "already running" in again.stdout
    stop = pod.call("tpu.sh", "stop", *POD)
    assert stop.returncode == 0 and "stopped" in stop.stdout and "saved" in log.read_text()


def test_a_preempted_pod_is_recreated_and_the_run_resumes(pod):
    started = pod.call("tpu.sh", "train", *POD, "--config=configs/emoji.py", "--workdir=gs://b/x", "--config.seed=3")
    assert started.returncode == 0, started.stderr
    pod.call("tpu.sh", "stop", *POD)
    before = len(pod.calls())
    pod.rules(
        {"match": "describe", "out": "PREEMPTED\n", "once": True}, READY, ("setup train,emoji,report,tpu", 0, "", "")
    )
    done = pod.call("tpu.sh", "resume", *POD, TYPE)
    assert done.returncode == 0, done.stderr
    done_verbs = verbs(pod)[before:]
    assert [v for v in done_verbs if "describe" not in v] == [
        "tpu-vm delete",
        "tpu-vm create",
        "tpu-vm scp",
        "tpu-vm ssh",
        "tpu-vm ssh",
    ]
    assert "--config.seed=3" in pod.calls()[-1][-1]


def test_delete_asks(cloud):
    done = cloud.call("tpu.sh", "delete", *POD, stdin=None, input="")
    assert done.returncode == 2 and "--yes" in done.stderr and not cloud.calls()
    cloud.environment["ANSWER_FROM_STDIN"] = "1"
    assert cloud.call("tpu.sh", "delete", *POD, input="n\n").returncode == 1 and not cloud.calls()
    assert cloud.call("tpu.sh", "delete", *POD, input="y\n").returncode == 0
    assert cloud.calls()[0][3:6] == ["tpu-vm", "delete", "codis"]


@pytest.mark.parametrize(
    "action, extra",
    [
        ("create", [TYPE]),
        ("create", [TYPE, "--queued"]),
        ("setup", []),
        ("status", []),
        ("logs", []),
        ("stop", []),
        ("train", ["--config=configs/emoji.py", "--workdir=gs://b/x"]),
        ("delete", []),
        ("resume", [TYPE, "--config=configs/emoji.py", "--workdir=gs://b/x"]),
    ],
)
def test_a_dry_run_prints_and_does_nothing(cloud, action, extra):
    done = cloud.call("tpu.sh", action, *POD, *extra, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "gcloud compute tpus" in done.stdout and not cloud.calls()


def test_settings_come_from_a_file_and_flags_override_them(cloud):
    (cloud.tree / "tpu.env").write_text('# ours\nNAME=codis\nZONE="eu-w4"   # near\nTYPE=v4-8\nSPOT=yes\n')
    done = cloud.call("tpu.sh", "create", "--type=v4-16", "--dry-run")
    assert "create codis --zone=eu-w4 --accelerator-type=v4-16" in done.stdout and "--spot" in done.stdout
    (cloud.tree / "tpu.env").write_text("NAME=codis\nREGION=eu\n")
    done = cloud.call("tpu.sh", "create", "--dry-run")
    assert done.returncode == 2 and "tpu.env, line 2" in done.stderr


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["launch"], "unknown action 'launch'"),
        (["create", "--zone=z", TYPE], "--name=… is missing"),
        (["create", *POD], "--type=… is missing"),
        (["create", *POD, "--typ=v4-8"], "unknown argument --typ=v4-8"),
        (["create", "--name=Codis_1", "--zone=z", TYPE], "lowercase letters"),
        (["train", *POD, "--config=configs/none.py", "--workdir=gs://b/x"], "no config file configs/none.py"),
        (["train", *POD, "--config=none", "--workdir=gs://b/x"], "no config file none"),
        (["train", *POD, "--config=configs/emoji.py", "--workdir=runs/x"], "each worker's own disk"),
        (["resume", *POD], "nothing was started on codis"),
    ],
)
def test_mistakes_are_named_before_anything_is_asked(cloud, arguments, told):
    done = cloud.call("tpu.sh", *arguments)
    assert done.returncode == 2 and told in done.stderr, done.stderr
    assert not cloud.calls()
