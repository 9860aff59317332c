import numpy as np
import pytest
import scipy.stats

from cbalign.evaluation import metrics
from cbalign.evaluation.metrics import chance, directed_recall, mean_recall, recall

IMAGE_IDS = [0, 1, 2, 3]
TEXT_IDS = [0, 0, 1, 1, 2, 2, 3, 3]

# Two captions per image.
SCORES = np.array(
    [
        [0.9, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7],
        [0.8, 0.6, 0.7, 0.1, 0.2, 0.3, 0.4, 0.5],
        [0.7, 0.8, 0.9, 0.2, 0.5, 0.1, 0.3, 0.4],
        [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.1, 0.45],
    ]
)


def by_hand(scores, queries, candidates, k):
    """Per cent of queries with a right candidate among the first k; among equals the wrong come first."""
    hits = 0
    for row, query in zip(scores, queries):
        order = sorted(range(len(candidates)), key=lambda j: (-row[j], candidates[j] == query))
        hits += any(candidates[j] == query for j in order[:k])
    return 100.0 * hits / len(queries)


def test_hand_computed_matrix():
    # TR ranks, counted from 0: 0, 1, 3, 4 (0.45 loses to 0.5, 0.6, 0.7, 0.8). IR ranks: 0, 3, 1, 3, 1, 3, 3, 2.
    found = recall(SCORES, IMAGE_IDS, TEXT_IDS, ks=(1, 2, 4, 5))
    assert found == {
        "tr@1": 25.0,
        "tr@2": 50.0,
        "tr@4": 75.0,
        "tr@5": 100.0,
        "ir@1": 12.5,
        "ir@2": 37.5,
        "ir@4": 100.0,
        "ir@5": 100.0,
    }


def test_best_of_several_captions_counts():
    scores = np.array([[0.1, 0.9, 0.5], [0.9, 0.1, 0.5]])
    found = recall(scores, [0, 1], [0, 0, 1], ks=(1, 2))
    assert found == pytest.approx({"tr@1": 50.0, "tr@2": 100.0, "ir@1": 100 / 3, "ir@2": 100.0})


def test_default_names():
    assert set(recall(SCORES, IMAGE_IDS, TEXT_IDS)) == {"tr@1", "tr@5", "tr@10", "ir@1", "ir@5", "ir@10"}


def test_ties_are_pessimistic():
    found = recall(np.zeros((20, 40)), np.arange(20), np.repeat(np.arange(20), 2))
    assert set(found.values()) == {0.0}
    assert directed_recall([[1.0, 1.0, 0.0]], [7], [7, 8, 9], prefix="tr", ks=(1, 2)) == {"tr@1": 0.0, "tr@2": 100.0}


def test_right_candidates_do_not_outrank_each_other():
    assert directed_recall([[1.0, 1.0, 0.0]], [7], [7, 7, 9], prefix="tr", ks=(1,)) == {"tr@1": 100.0}


def test_minus_infinity_is_last():
    scores = [[-np.inf, -np.inf, -200.0]]
    assert directed_recall(scores, [0], [0, 1, 2], prefix="tr", ks=(1, 2, 3)) == {
        "tr@1": 0.0,
        "tr@2": 0.0,
        "tr@3": 100.0,
    }


def test_query_without_right_candidate_is_a_miss():
    assert directed_recall([[1.0], [1.0]], [0, 5], [0], prefix="tr", ks=(1, 10)) == {"tr@1": 50.0, "tr@10": 50.0}
    assert directed_recall(np.zeros((2, 0)), [0, 5], [], prefix="tr", ks=(1,)) == {"tr@1": 0.0}


def test_two_matrices():
    found = recall(np.eye(3), [0, 1, 2], [0, 1, 2], ks=(1,), scores_ir=-np.eye(3))
    assert found == {"tr@1": 100.0, "ir@1": 0.0}


@pytest.mark.parametrize("chunk", [1, 37, 1 << 22])
@pytest.mark.parametrize("levels", [5, 1000])
def test_against_brute_force(monkeypatch, chunk, levels):
    monkeypatch.setattr(metrics, "_CHUNK_ELEMENTS", chunk)
    rng = np.random.default_rng(levels)
    image_ids, text_ids = rng.integers(0, 15, 23), rng.integers(0, 15, 41)
    scores = rng.integers(0, levels, (23, 41)).astype(np.float32)
    other = rng.integers(0, levels, (23, 41)).astype(np.float32)
    found = recall(scores, image_ids, text_ids, scores_ir=other)
    for k in (1, 5, 10):
        assert found[f"tr@{k}"] == pytest.approx(by_hand(scores, image_ids, text_ids, k))
        assert found[f"ir@{k}"] == pytest.approx(by_hand(other.T, text_ids, image_ids, k))


@pytest.mark.parametrize("direction", ["scores", "scores_ir"])
def test_nan_is_an_error(direction):
    scores = {"scores": np.eye(3), "scores_ir": np.eye(3)}
    scores[direction][2, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        recall(scores["scores"], [0, 1, 2], [0, 1, 2], scores_ir=scores["scores_ir"])


@pytest.mark.parametrize(
    "scores, image_ids, text_ids, ks",
    [
        (np.eye(3), [0, 1], [0, 1, 2], (1,)),
        (np.zeros((0, 3)), [], [0, 1, 2], (1,)),
        (np.zeros((3, 0)), [0, 1, 2], [], (1,)),
        (np.eye(3), [0, 1, 2], [0, 1, 2], (0, 1)),
        (np.eye(3), [0, 1, 2], [0, 1, 2], ()),
    ],
)
def test_unusable_arguments(scores, image_ids, text_ids, ks):
    with pytest.raises(ValueError):
        recall(scores, image_ids, text_ids, ks=ks)


def test_chance_is_hypergeometric():
    image_ids, text_ids = np.array([0, 1, 2, 9]), np.array([0, 0, 0, 1, 2, 2, 5])
    found = chance(image_ids, text_ids, (1, 3, 10))
    for k in (1, 3, 10):

        def expected(n, right):
            return 100 * np.mean([scipy.stats.hypergeom(n, m, min(k, n)).sf(0) for m in right])

        assert found[f"tr@{k}"] == pytest.approx(expected(7, [3, 1, 2, 0]))
        assert found[f"ir@{k}"] == pytest.approx(expected(4, [1, 1, 1, 1, 1, 1, 0]))


def test_chance_is_what_random_scores_get():
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(10), 3)
    mean = {}
    for _ in range(400):
        for name, value in recall(rng.random((10, 30)), np.arange(10), ids).items():
            mean[name] = mean.get(name, 0) + value / 400
    assert mean == pytest.approx(chance(np.arange(10), ids), abs=2.0)


def test_chance_of_one_among_many():
    found = chance(np.arange(25_000), np.arange(25_000))
    assert found["tr@10"] == pytest.approx(100 * 10 / 25_000)


def test_chance_of_string_ids_and_errors():
    assert chance(["a", "b"], ["b", "a"], (1,)) == {"tr@1": 50.0, "ir@1": 50.0}
    with pytest.raises(ValueError):
        chance([], [1])
    with pytest.raises(ValueError):
        chance([1], [1], (0,))


def test_mean_recall():
    assert mean_recall({"tr@1": 10.0, "ir@1": 30.0}) == 20.0
