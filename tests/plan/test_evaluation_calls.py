"""What a task says its evaluation calls, against the calls that its real evaluation makes; the models are stubs."""

import types

import jax
import numpy as np
import pytest

from cbalign.evaluation import reranking
from cbalign.evaluation.calls import SplitSize
from cbalign.runs.train import task_without_data
from tests.tiny import tiny_config

N, B, L = 10, 4, 12
GROUPS = ((".*/(bias|scale)", 1.0, 0.0), (".*", 1.0, 1.0))


class Recorder:
    """Stands for a compiled function: notes the shapes it is called with, and returns ones of the right shapes."""

    def __init__(self, function):
        self.function, self.calls = function, []

    def __call__(self, *arguments):
        self.calls.append([np.shape(x) for x in jax.tree.leaves(arguments[1:])])
        shapes = jax.eval_shape(self.function, *arguments)
        return jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes)


def task_and_params(task, **changes):
    built = task_without_data(
        tiny_config(
            task=task,
            eval__batch_size=B,
            eval__captions_per_image=0,
            optimizer__groups=GROUPS,
            vqa__rank_top_k=6,
            vqa__answer_tokens=5,
            **({"loss_weights__mlm": 0.0} if task == "retrieval" else {}),
            **changes,
        )
    )
    shapes = jax.eval_shape(built.init_params, jax.random.key(0))
    return built, jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes)


def split(**columns):
    """N records of one image and two texts, or of one text where the task has no captions."""

    def batches(*, image_size, batch_size):
        for start in range(0, N, batch_size):
            image = np.zeros((batch_size, image_size, image_size, 3), np.uint8)
            batch = {"image": image, "image_second": image, "text": np.ones((batch_size, L), np.int32)}
            yield {**batch, "id": np.arange(batch_size, dtype=np.int32)}, min(batch_size, N - start)

    class Split:
        records = types.SimpleNamespace(
            texts=[[f"a {i}", f"b {i}"] for i in range(N)], image_count=N, columns={"answers": [[]] * N}
        )

        def __len__(self):
            return N

    made = Split()
    made.batches = batches
    made.columns = types.SimpleNamespace(
        arrays={"id": np.arange(N, dtype=np.int32), **columns},
        text_offsets=np.arange(0, 2 * N + 1, 2),
        text=np.ones((2 * N, L), np.int32),
    )
    return made


def shapes_of(call):
    """What the compiled function gets: rows are padded to a multiple of the devices they are spread over."""
    devices = jax.local_device_count() if call.spread else 1
    rows = [(-(-x.shape[0] // devices) * devices, *x.shape[1:]) if x.shape else () for x in jax.tree.leaves(call.rows)]
    return [x.shape for x in jax.tree.leaves(call.whole)] + rows


def made_calls(built, recorders, size, *, quick=False, devices=1):
    """What the task says it calls; asking it leaves no trace in the recorders."""
    calls = built.evaluation_calls(size, devices=devices, quick=quick)
    for recorder in recorders:
        recorder.calls.clear()
    return calls


def compare(recorders, calls, *, exact=True):
    by_function = {id(recorder): recorder for recorder in recorders}
    assert len(calls) == len(recorders)
    for call in calls:
        recorder = by_function[id(call.function)]
        assert recorder.calls and all(shapes == shapes_of(call) for shapes in recorder.calls), call.name
        if exact or not call.shared:
            assert len(recorder.calls) == call.count, call.name
        else:
            assert len(recorder.calls) <= call.count <= len(recorder.calls) + N, call.name


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("task", ["pretrain", "retrieval"])
def test_retrieval(task, quick):
    built, params = task_and_params(task, eval__rerank_top_k=32)  # all pairs
    recorders = {name: Recorder(function) for name, function in built.compiled.items()}
    built.__dict__["compiled"] = recorders
    calls = made_calls(built, recorders.values(), SplitSize(N, 2 * N), quick=quick)
    built.evaluate(params, split(), quick=quick)
    compare(list(recorders.values())[: 2 if quick else 3], calls, exact=False)


def test_pairs_are_no_more_than_planned():
    rng = np.random.default_rng(0)
    similarity = rng.normal(size=(30, 70)).astype(np.float32)
    seen = []

    def match(pairs):
        seen.append(len(pairs))
        return rng.normal(size=(len(pairs), 2)).astype(np.float32)

    reranking.rerank(match, similarity, np.arange(30), np.arange(70) % 30, 5, 0.07)
    assert seen[0] <= reranking.most_pairs(30, 70, 5) == 5 * 100 + 60
    assert reranking.most_pairs(3, 4, 5) == 12


def test_every_device_gets_images_of_its_own():
    assert reranking.call_shape(7_000_000, 5_000, 64) == (1, 64)
    assert reranking.call_shape(7_000_000, 5_000, 64, 4) == (4, 64)


def test_questions():
    built, params = task_and_params("vqa")
    recorders = {name: Recorder(function) for name, function in built._functions.items()}
    built.__dict__["_functions"] = recorders
    built.answers, built._answer_ids = tuple("abcdefghi"), np.ones((9, 5), np.int32)
    calls = made_calls(built, recorders.values(), SplitSize(N, N))
    built.evaluate(params, split())
    compare(list(recorders.values()), calls)


@pytest.mark.parametrize("task", ["snli_ve", "nlvr2"])
def test_classes(task, monkeypatch):
    built, params = task_and_params(task)
    built.__dict__["probabilities"] = recorder = Recorder(built.probabilities)
    monkeypatch.setattr(built, "scores", lambda split, found: {})
    calls = made_calls(built, [recorder], SplitSize(N, N))
    built.evaluate(params, split())
    compare([recorder], calls)


def test_text_assignment():
    built, params = task_and_params("nlvr2_pretrain")
    recorder = Recorder(built._drawn_probabilities)
    built.__dict__["_drawn_probabilities"] = recorder
    calls = made_calls(built, [recorder], SplitSize(N, N), devices=4)
    built.evaluate(jax.tree.map(jax.numpy.asarray, params), split())
    compare([recorder], calls)
