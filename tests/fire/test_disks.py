"""Disks that are full or read-only, and folders that vanish: one line, and what was there before remains whole."""

import json
import shutil
import subprocess

import pytest

from cbalign.data.datasets.official import miniature
from tests.fire import harness

FULL = "No space left on device"


@pytest.mark.slow
@pytest.mark.parametrize(
    "leave",
    [
        pytest.param(0, id="to_the_last_byte", marks=pytest.mark.long),
        pytest.param(300_000, id="too_little_for_a_checkpoint"),
    ],
)
def test_the_disk_fills_while_training(whole, config_file, tmp_path, leave):
    with harness.small_disk(tmp_path / "disk", "size=64m") as disk:
        workdir = disk / "run"
        words = ("train", f"--config={config_file}", f"--workdir={workdir}")
        process = harness.start(*words)
        harness.wait_for_row(process, workdir, 5)  # step 3 is saved before 4 is
        ballast = harness.fill(disk, leave=leave)
        code, _, error = harness.finish(process)
        harness.assert_one_line(code, error, FULL, str(workdir))
        harness.assert_whole(workdir)
        assert harness.complete_steps(workdir)[-1] >= 3
        ballast.unlink()
        harness.run(*words)
        harness.assert_same_run(workdir, whole[0])


def pictures(folder, count):
    """(folder of images, file of their captions)."""
    for number in range(count):
        miniature.write_image(folder / f"{number}.png", number, kind="PNG")
    captions = folder.parent / "captions.csv"
    captions.write_text("image,caption\n" + "".join(f"{n}.png,picture number {n}\n" for n in range(count)))
    return folder, captions


@pytest.mark.slow
@pytest.mark.parametrize("what", ["import", "sbu", "scenes/tiny"])
def test_data_for_which_the_disk_is_too_small(tmp_path, what):
    with harness.small_disk(tmp_path / "disk", "size=64m") as disk:
        if what == "import":
            images, captions = pictures(tmp_path / "images", 200)
            words = ("data", "import", f"--images={images}", f"--captions={captions}", f"--out={disk / 'out'}")
        elif what == "sbu":
            miniature.pair_folder(tmp_path / "manual", "00000", range(100))
            words = ("data", "build", "sbu", f"--manual-dir={tmp_path / 'manual'}", f"--data-dir={disk}")
        else:
            words = ("data", "build", what, f"--data-dir={disk}")
        ballast = harness.fill(disk, leave=80_000)
        code, _, error = harness.finish(harness.start(*words))
        harness.assert_one_line(code, error, str(disk))
        ballast.unlink()
        left = [path for path in disk.iterdir() if path.name.startswith(".out")]
        assert not left
        harness.run(*words)
        assert list(disk.rglob("dataset_info.json"))


@pytest.mark.slow
def test_report_and_search_on_a_full_disk(whole, tmp_path):
    images, _ = pictures(tmp_path / "images", 20)
    with harness.small_disk(tmp_path / "disk", "size=64m") as disk:
        workdir = shutil.copytree(whole[0], disk / "run")
        (workdir / "report.html").write_text("before")
        search = ("search", f"--workdir={workdir}", f"--images={images}", "--json", "a red circle")
        harness.fill(disk, leave=0)
        code, _, error = harness.finish(harness.start("report", f"--workdir={workdir}"))
        harness.assert_one_line(code, error, FULL, str(workdir))
        assert (workdir / "report.html").read_text() == "before"
        # A search needs no place for its index: it says so, and answers.
        code, out, error = harness.finish(harness.start(*search))
        assert code == 0 and FULL in error and len(error.splitlines()) == 1, error
        assert len(json.loads(out)["results"]) == 10
        assert not list((workdir / "search").glob("*")) if (workdir / "search").exists() else True


@pytest.mark.slow
def test_a_read_only_workdir(whole, config_file, tmp_path):
    with harness.small_disk(tmp_path / "disk", "size=64m") as disk:
        workdir = shutil.copytree(whole[0], disk / "run")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        before = harness.files(workdir)
        for folder in (workdir, disk / "new"):
            code, _, error = harness.finish(harness.start("train", f"--config={config_file}", f"--workdir={folder}"))
            harness.assert_one_line(code, error, "Read-only file system", str(folder))
        assert harness.files(workdir) == before


@pytest.mark.slow
def test_a_workdir_removed_while_it_trains(whole, config_file, tmp_path):
    workdir = tmp_path / "run"
    words = ("train", f"--config={config_file}", f"--workdir={workdir}")
    process = harness.start(*words)
    harness.wait_for_row(process, workdir, 2)
    workdir.rename(tmp_path / "gone")  # at one blow, as no removal is
    code, _, error = harness.finish(process)
    harness.assert_one_line(code, error, str(workdir))
    # What the failing run left there does not keep the same command from starting afresh.
    harness.run(*words)
    harness.assert_same_run(workdir, whole[0])
