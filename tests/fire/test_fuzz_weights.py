"""Weights and the files of a run, with any content: used, passed over with a note, or refused with one line."""

import io
import json
import shutil

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.numpy import save

from cbalign.errors import UserError
from cbalign.evaluation.result_table import format_result
from cbalign.experiments.run_status import read_run
from cbalign.report.history import read_history
from cbalign.report.result_tables import latest_views, result_view
from cbalign.runs.workdir import open_run
from cbalign.training.checkpoints import Checkpoints
from cbalign.weights import weights_folder
from cbalign.weights.checkpoint_files import read_checkpoint
from cbalign.weights.weights_folder import read_weights
from tests.fire.fuzzing import check_refusal, examples, files_below, json_text, mutated, mutated_json, run

pytestmark = pytest.mark.slow

TENSORS = {"params.a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(3, np.float16), "c": np.int32([1])}
SAFE = save(TENSORS, metadata={"format": "np"})


def safetensors(header):
    """A file with a header of any text."""
    head = header.encode(errors="replace")
    return len(head).to_bytes(8, "little") + head + bytes(64)


HEADER = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {"format": "np"}}


def pytorch():
    """A .pth file of each of both formats."""
    torch = pytest.importorskip("torch")
    found = []
    for zipped in (True, False):
        buffer = io.BytesIO()
        value = {"model": {"a": torch.zeros(2, 3), "b": torch.ones(2)}, "epoch": 3}
        torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
        found.append(buffer.getvalue())
    return found


@examples(200)
@given(st.one_of(mutated(SAFE), mutated_json(HEADER).map(safetensors)))
@example(safetensors(json.dumps({"a": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}})))
@example(safetensors(json.dumps({"a": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}})))
@example(b"")
def test_safetensors(tmp_path, data):
    (tmp_path / "model.safetensors").write_bytes(data)
    (tmp_path / "weights.json").write_text('{"format": 1}')
    for read, path in ((read_checkpoint, tmp_path / "model.safetensors"), (read_weights, tmp_path)):
        try:
            read(path)
        except UserError as error:
            check_refusal(error)


@examples(100)
@given(st.data())
def test_pytorch(tmp_path, data):
    (tmp_path / "model.pth").write_bytes(data.draw(mutated(pytorch())))
    try:
        found = read_checkpoint(tmp_path / "model.pth").tensors
    except UserError as error:
        check_refusal(error)
    else:
        assert all(isinstance(array, np.ndarray) for array in found.values())


def test_pytorch_values_that_are_no_arrays(tmp_path):
    torch = pytest.importorskip("torch")
    for value in (
        {1: torch.zeros(2)},
        {"a": torch.zeros(2, 2).to_sparse()},
        {"a": torch.zeros(2, device="meta")},
        {"model": {"a": torch.zeros(1)}, "cbalign": {"b": 1, 2: torch.zeros(1)}},
        {"a": torch.zeros(2, requires_grad=True), "b": torch.zeros(2, dtype=torch.complex64)},
        [torch.zeros(1)],
        {},
    ):
        torch.save(value, tmp_path / "a.pth")
        try:
            assert read_checkpoint(tmp_path / "a.pth").tensors
        except UserError as error:
            check_refusal(error)


INFO = {
    "format": weights_folder.FORMAT,
    "source": "deit",
    "vocabulary": {"size": 3, "sha256": "x"},
    "config": {"task": "pretrain", "data": {"image_size": 32}},
    "report": {},
}


@examples(60)
@given(st.one_of(mutated_json(INFO), mutated(json.dumps(INFO).encode()).map(lambda x: x.decode(errors="replace"))))
@example(json.dumps(INFO | {"config": None}))
@example(json.dumps(INFO | {"config": []}))
@example(json_text(INFO | {"config": "RAW-DEEPER"}))
@example(json_text({"format": "RAW-DEEP"}))
def test_weights_json(tmp_path, text):
    (tmp_path / "weights.json").write_bytes(text.encode(errors="replace"))
    (tmp_path / "params.safetensors").write_bytes(SAFE)
    (tmp_path / "vocab.txt").write_bytes(b"[PAD]\n[UNK]\n")
    for read in (read_weights, open_run):
        try:
            read(tmp_path)
        except UserError as error:
            check_refusal(error)


@examples(40)
@given(mutated(json.dumps({"weight_map": {"a": "model.safetensors"}}).encode()), mutated("[PAD]\nä\n".encode()))
@example(b'{"weight_map": {"a": "/etc/passwd"}}', b"")
@example(b"[]", b"\xff")
def test_folders_of_transformers(tmp_path, index, vocabulary):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(SAFE)
    (tmp_path / "model.safetensors.index.json").write_bytes(index)
    (tmp_path / "vocab.txt").write_bytes(vocabulary)
    try:
        assert all(str(tmp_path) in file for file in read_checkpoint(tmp_path).files)
    except UserError as error:
        check_refusal(error)


LINE = {"step": 2, "time": 1.5, "train/loss": 1.25, "val/contrastive/tr@1": 3.0}
STARTS = {"starts": [{"time": "t", "command": "c", "commit": "0123", "modified": True}], "end": {"status": "finished"}}
BEST = {"best_step": 2, "evaluations": {"2": 1.5, "4": None}}
RECALLS = dict.fromkeys(("tr@1", "tr@5", "tr@10", "ir@1", "ir@5", "ir@10"), 1.5)
RESULTS = (
    {"data": "d", "split": "test", "images": 3, "texts": 3, "chance": RECALLS, "contrastive": RECALLS, "itm": None}
    | {"baselines": {"bag_of_words": RECALLS}, "notes": ["n"], "protocol": {"name": "p"}},
    {
        "task": "nlvr2",
        "data": "d",
        "split": "test",
        "sentences": 3,
        "accuracy": {"overall": 1.0, "true": 2.0, "false": 3.0},
    }
    | {"confusion": [[1, 2], [3, 4]], "chance": {"overall": 50.0}, "question_types": {"what": 1.0}},
)


@examples(100)
@given(
    st.lists(mutated_json(LINE), max_size=3),
    mutated_json(STARTS),
    mutated_json(BEST),
    st.one_of(*map(mutated_json, RESULTS)),
    mutated_json({"task": "pretrain", "train": {"steps": 4}, "data": {"name": "d"}}),
)
@example(["RAW"], json.dumps({"starts": [1]}), json.dumps({"evaluations": {"x": []}}), json.dumps(RESULTS[0]), "{}")
@example(
    [json_text(LINE | {"step": "RAW-BIG"}), '{"step": NaN}'], "[]", "[]", json.dumps(RESULTS[1] | {"notes": 1}), "{}"
)
@example(
    [json.dumps(LINE | {"step": 10**400}), json.dumps(LINE | {"time": 10**400})],
    json.dumps({"starts": [{"commit": None}], "end": 1}),
    json.dumps({"evaluations": []}),
    json.dumps(RESULTS[1] | {"confusion": [[1]]}),
    json.dumps({"train": [], "data": 1}),
)
def test_files_of_a_run(tmp_path, lines, starts, best, result, config):
    (tmp_path / "metrics").mkdir(exist_ok=True)
    for name, text in {
        "metrics.jsonl": "\n".join(lines),
        "run.json": starts,
        "best.json": best,
        "metrics/a.json": result,
        "config.json": config,
    }.items():
        (tmp_path / name).write_bytes(text.encode(errors="replace"))
    history = read_history(tmp_path)
    assert history.last_step >= 0 or lines
    latest_views(history.latest_evaluation())
    for found in history.results:
        result_view(found)
        format_result(found)
    read_run(tmp_path)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.best_step() is None


@examples(2, full=40)
@given(
    st.lists(mutated_json(LINE), max_size=3),
    mutated_json(STARTS),
    mutated_json(BEST),
    st.one_of(*map(mutated_json, RESULTS)),
)
def test_report(tiny_run, tmp_path_factory, capsys, lines, starts, best, result):
    folder = tmp_path_factory.mktemp("report") / "run"
    shutil.copytree(tiny_run, folder)
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write("\n".join(lines).encode(errors="replace"))
    (folder / "run.json").write_bytes(starts.encode(errors="replace"))
    (folder / "best.json").write_bytes(best.encode(errors="replace"))
    (folder / "metrics").mkdir(exist_ok=True)
    (folder / "metrics" / "a.json").write_bytes(result.encode(errors="replace"))
    outside = files_below(folder.parent)
    run(capsys, "report", f"--workdir={folder}")
    new = {path.relative_to(folder).parts[0] for path in files_below(folder.parent).keys() - outside.keys()}
    assert new <= {"report.html", "report", "search"}


@examples(40)
@given(st.data())
def test_stored_config_and_vocabulary(tiny_run, tmp_path, data):
    for name in ("config.json", "vocab.txt"):
        shutil.copy(tiny_run / name, tmp_path / name)
    text = (tiny_run / "config.json").read_text()
    if data.draw(st.booleans()):
        changed = data.draw(mutated_json(json.loads(text))).encode(errors="replace")
        (tmp_path / "config.json").write_bytes(changed)
    else:
        (tmp_path / "vocab.txt").write_bytes(data.draw(mutated((tiny_run / "vocab.txt").read_bytes())))
    try:
        open_run(tmp_path)
    except UserError as error:
        check_refusal(error)
