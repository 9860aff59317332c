"""What a training that lost its folder leaves in its place."""

import pytest
from etils import epath

from cbalign.runs.lock import held


def lose_folder(workdir, moved, others):
    """A training whose folder is moved away while it saves, and where somebody puts other files."""
    with held(workdir):
        workdir.rename(moved)
        (workdir / "checkpoints" / "3.partial").mkdir(parents=True)
        for name in ("best.json", *others):
            (workdir / name).write_text("")
        raise KeyboardInterrupt


@pytest.mark.parametrize("others", [[], ["notes.txt"]])
def test_a_removed_folder_stays_removed_but_for_what_others_put_there(tmp_path, others):
    workdir = epath.Path(tmp_path / "run")
    workdir.mkdir()
    (workdir / "config.json").write_text("{}")
    with pytest.raises(KeyboardInterrupt):
        lose_folder(workdir, tmp_path / "moved", others)
    assert ([path.name for path in workdir.iterdir()] if workdir.exists() else []) == others
    assert workdir.exists() == bool(others)


def test_a_failed_run_keeps_its_checkpoints(tmp_path):
    workdir = epath.Path(tmp_path / "run")
    (workdir / "checkpoints" / "3").mkdir(parents=True)

    def fail():
        with held(workdir):
            raise KeyboardInterrupt

    # A config that somebody deleted meanwhile is no sign that the folder was removed.
    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (workdir / "checkpoints" / "3").exists()
