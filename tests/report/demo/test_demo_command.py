"""The flags of `cbalign demo`, the images it renders, and the address it listens on."""

import csv
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cbalign.__main__ import main
from cbalign.data.datasets.generated.scene_captions import scene_captions
from cbalign.data.datasets.generated.scene_world import sample_scene
from cbalign.errors import UserError
from cbalign.report.demo import sets
from cbalign.report.demo.serve import PORT, bind, is_loopback
from tests.report.demo.conftest import ROOT


def test_scenes_are_rendered_once_with_their_captions(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sets, "SCENES", 5)
    folder, what = sets.rendered_set("scenes/tiny")
    assert folder.is_relative_to(tmp_path) and "scenes" in what
    with (folder / "captions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["image"] for row in rows}) == 5 == len(list(folder.glob("*.png")))
    rng = np.random.default_rng((2026, 11, 0))
    scene = sample_scene(rng)
    with Image.open(folder / "scene_000.png") as image:
        assert image.size == (128, 128)
        first = scene.objects[0]
        seen = np.asarray(image.convert("RGB"))[int(first.y * 128), int(first.x * 128)]
    if first.kind != "ring":
        from cbalign.data.datasets.generated.scene_world import COLOURS

        assert np.abs(seen.astype(int) - COLOURS[first.colour]).max() <= 12
    assert len(scene_captions(scene, rng)) >= len([row for row in rows if row["image"] == "scene_000.png"]) > 0
    state = (folder / "scene_000.png").stat()
    assert sets.rendered_set("scenes") == (folder, what) and (folder / "scene_000.png").stat() == state
    (folder / "captions.csv").unlink()  # an interruption
    assert sets.rendered_set("scenes")[0] == folder and (folder / "captions.csv").is_file()


def test_a_set_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot be written .* name a folder with --images"):
        sets.rendered_set("scenes")


def test_rendering_scenes_needs_no_tensorflow():
    script = (
        "import sys; sys.modules['tensorflow'] = sys.modules['tensorflow_datasets'] = None\n"
        "from cbalign.report.demo import sets\nsets.SCENES = 1\nprint(len(list(sets._scenes())))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.stdout == "1\n", done.stderr


def test_ports_and_addresses():
    with bind("127.0.0.1", 0) as first:
        host, port = first.getsockname()
        assert host == "127.0.0.1" and port > 0 and is_loopback(host)
        first.listen()
        with pytest.raises(UserError, match=f"port {port} is taken; name another one with --port"):
            bind("127.0.0.1", port)
    with bind("127.0.0.1", None) as any_port:
        assert PORT <= any_port.getsockname()[1] < PORT + 100
    for host in ("nowhere.invalid", "a b", ""):
        with pytest.raises(UserError, match="is no address of this machine|cannot be listened on"):
            bind(host, 0)
    for port in (70_000, -1):
        with pytest.raises(UserError, match=f"--port={port} is no port"):
            bind("127.0.0.1", port)
    assert not is_loopback("0.0.0.0") and is_loopback("::1") and not is_loopback("::")


def test_mistakes_end_in_one_line(tmp_path, capsys):
    pytest.importorskip("gradio")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["demo", "--workdir=nothing", f"--port={port}"]) == 2
    assert f"cbalign: port {port} is taken" in capsys.readouterr().err
    assert main(["demo", f"--workdir={tmp_path}", "--port=0"]) == 2
    said = capsys.readouterr().err.strip()
    assert "is not the folder of a run" in said and "\n" not in said
    with pytest.raises(SystemExit, match="2"):
        main(["demo", "--workdir=a", "--weights=b"])


def test_a_missing_extra_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo", f"--workdir={tmp_path}"]) == 2
    assert (
        capsys.readouterr().err == "cbalign: demo needs gradio, which is not installed; pip install 'cbalign[demo]'\n"
    )
