import dataclasses

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from cbalign.evaluation.metrics import chance, recall
from cbalign.evaluation.retrieval import Functions, evaluate_retrieval

SIZE, LENGTH, WIDTH = 2, 3, 4


class Fake:
    """A model whose scores are tables: row and column are written into the images and the token ids."""

    def __init__(self, similarity, logits=None, temperature=0.5, token_dtype=np.float32):
        self.similarity, self.logits = np.asarray(similarity, np.float32), logits
        self.token_dtype = token_dtype
        self.pairs, self.batch_sizes = [], set()
        self.held = []
        self.functions = Functions(self.encode_image, self.encode_text, self.hold, self.match, temperature)

    def encode_image(self, images):
        assert images.dtype == np.uint8
        self.batch_sizes.add(("images", len(images)))
        rows = images[:, 0, 0, 0].astype(int)
        tokens = np.repeat(rows[:, None, None], WIDTH, axis=2).astype(self.token_dtype)
        feature = np.concatenate([self.similarity[rows], self.rest()[rows, None]], axis=1)
        return {"tokens": tokens, "feature": feature}

    def rest(self):
        """What is missing to a common length, so that cosines stay proportional to the table."""
        squares = np.sum(self.similarity**2, axis=1)
        return np.sqrt(squares.max() + 1 - squares)

    def encode_text(self, ids):
        assert ids.dtype == np.int32
        self.batch_sizes.add(("texts", len(ids)))
        feature = np.zeros((len(ids), self.similarity.shape[1] + 1), np.float32)
        feature[np.arange(len(ids)), ids[:, 0]] = 2.0
        return {"tokens": np.asarray(ids[:, :, None], self.token_dtype), "feature": feature}

    def hold(self, tokens, ids):
        assert np.array_equal(np.asarray(tokens[:, :, 0], np.int32), ids)
        self.held.append(len(tokens))
        return tokens, ids

    def match(self, texts, rows, image_tokens):
        tokens, ids = texts
        assert tokens.dtype == image_tokens.dtype == self.token_dtype
        assert rows.dtype == np.int32 and len(rows) == len(image_tokens)
        self.batch_sizes.add(("pairs", rows.size))
        images, texts = np.asarray(image_tokens[:, 0, 0], int)[:, None], ids[rows][:, :, 0]
        self.pairs.extend(np.stack(np.broadcast_arrays(images, texts), axis=-1).reshape(-1, 2).tolist())
        return self.logits[images, texts]

    def cosine(self):
        return self.similarity / np.sqrt(np.sum(self.similarity**2, axis=1).max() + 1)


def batches(n, size):
    """Images whose first byte is their number, the last batch padded with number 0."""
    for start in range(0, n, size):
        valid = min(size, n - start)
        batch = np.zeros((size, SIZE, SIZE, 3), np.uint8)
        batch[:valid] = np.arange(start, start + valid)[:, None, None, None]
        yield batch, valid


def texts(n):
    return np.repeat(np.arange(n, dtype=np.int32)[:, None], LENGTH, axis=1)


def evaluate(fake, image_ids, text_ids, *, image_batch=4, **options):
    options = {"top_k": 3, "batch_size": 5, **options}
    return evaluate_retrieval(
        fake.functions,
        batches(len(image_ids), image_batch),
        texts(len(text_ids)),
        image_ids=np.asarray(image_ids),
        text_ids=np.asarray(text_ids),
        **options,
    )


def random_fake(seed, n_images, n_texts, **options):
    rng = np.random.default_rng(seed)
    return Fake(
        rng.normal(size=(n_images, n_texts)), rng.normal(size=(n_images, n_texts, 2)).astype(np.float32), **options
    )


def oracle(image_ids, text_ids):
    """Logits that accept exactly the right pairs."""
    right = np.asarray(image_ids)[:, None] == np.asarray(text_ids)[None, :]
    return np.stack([np.where(right, -4.0, 4.0), np.where(right, 4.0, -4.0)], axis=-1).astype(np.float32)


def test_contrastive_ranking_is_the_cosine():
    fake = random_fake(0, 11, 22)
    image_ids, text_ids = np.arange(11), np.repeat(np.arange(11), 2)
    result = evaluate(fake, image_ids, text_ids)
    assert result["contrastive"] == recall(fake.similarity, image_ids, text_ids)
    assert result["chance"] == chance(image_ids, text_ids)
    assert (result["images"], result["texts"]) == (11, 22)


def test_oracle_mends_the_contrastive_order():
    n = 6
    # The right partner comes second, behind the next one's.
    similarity = np.eye(n) * 0.8 + np.roll(np.eye(n), 1, axis=1) * 0.9
    ids = np.arange(n)
    result = evaluate(Fake(similarity, oracle(ids, ids)), ids, ids, top_k=2)
    assert result["contrastive"]["tr@1"] == result["contrastive"]["ir@1"] == 0.0
    for score in ("itm", "sum"):
        assert result[score]["tr@1"] == result[score]["ir@1"] == 100.0
    assert result["itm_accuracy"] == 1.0
    assert not any("contrastive" in note for note in result["notes"])


def test_each_direction_ranks_its_own_candidates_only():
    # Text 1 is scored with image 0 because of text 1's own list; image 0's list holds text 0 only.
    similarity = np.array([[1.0, 0.9], [0.5, 0.1]])
    logits = np.zeros((2, 2, 2), np.float32)
    logits[0, 1, 1] = 5.0
    result = evaluate(Fake(similarity, logits), [0, 1], [0, 1], top_k=1)
    assert result["itm"]["tr@1"] == 50.0
    assert result["itm"]["ir@1"] == 50.0


def test_unscored_never_beats_scored():
    # The scored right pairs have logits far below any fill value that could be thought of.
    n = 5
    ids = np.arange(n)
    logits = np.full((n, n, 2), 0.0, np.float32)
    logits[ids, ids] = [[1e6, -1e6]] * n
    result = evaluate(Fake(np.eye(n), logits), ids, ids, top_k=1)
    assert result["itm"]["tr@1"] == result["itm"]["ir@1"] == 100.0
    assert result["sum"]["tr@1"] == result["sum"]["ir@1"] == 100.0


def test_all_candidates_are_the_full_ranking():
    fake = random_fake(1, 9, 14, temperature=0.25)
    rng = np.random.default_rng(2)
    image_ids, text_ids = np.arange(9), rng.integers(0, 9, 14)
    result = evaluate(fake, image_ids, text_ids, top_k=1000)
    logits = fake.logits
    assert result["itm"] == recall(logits[..., 1], image_ids, text_ids)
    both = fake.cosine() / 0.25 + logits[..., 1] - logits[..., 0]
    assert result["sum"] == recall(both, image_ids, text_ids)
    assert len(set(map(tuple, fake.pairs))) == 9 * 14


def test_re_ranking_against_brute_force():
    fake = random_fake(3, 12, 20)
    image_ids, text_ids = np.arange(12), np.random.default_rng(4).integers(0, 12, 20)
    result = evaluate(fake, image_ids, text_ids, top_k=4)
    tr, ir = np.full((12, 20), -np.inf), np.full((12, 20), -np.inf)
    for i in range(12):
        best = np.argsort(-fake.similarity[i])[:4]
        tr[i, best] = fake.logits[i, best, 1]
    for j in range(20):
        best = np.argsort(-fake.similarity[:, j])[:4]
        ir[best, j] = fake.logits[best, j, 1]
    assert result["itm"] == recall(tr, image_ids, text_ids, scores_ir=ir)


def test_no_pair_is_scored_twice():
    fake = random_fake(5, 10, 15)
    image_ids = np.arange(10)
    text_ids = np.arange(15)
    evaluate(fake, image_ids, text_ids, top_k=3, batch_size=1)
    wanted = {(i, int(j)) for i in range(10) for j in np.argsort(-fake.similarity[i])[:3]}
    wanted |= {(int(i), j) for j in range(15) for i in np.argsort(-fake.similarity[:, j])[:3]}
    pairs = set(map(tuple, fake.pairs))
    assert len(fake.pairs) == len(pairs)
    # Beside the candidates: each image's own text and one other.
    assert wanted <= pairs
    assert len(pairs - wanted) <= 2 * 10
    assert {(i, i) for i in range(10)} <= pairs


@pytest.mark.parametrize("batch_size, image_batch", [(1, 1), (7, 3), (64, 64)])
def test_batches_do_not_matter(batch_size, image_batch):
    image_ids, text_ids = np.arange(10), np.repeat(np.arange(10), 2)
    whole = evaluate(random_fake(6, 10, 20), image_ids, text_ids, batch_size=1000, image_batch=10)
    fake = random_fake(6, 10, 20)
    parts = evaluate(fake, image_ids, text_ids, batch_size=batch_size, image_batch=image_batch)
    assert parts == whole
    sizes = dict(fake.batch_sizes)
    assert sizes["images"] == image_batch and sizes["texts"] == batch_size and len(fake.batch_sizes) == 3
    assert batch_size // 2 < sizes["pairs"] <= batch_size


def test_constant_head_is_noted():
    ids = np.arange(8)
    fake = Fake(np.eye(8), np.tile(np.float32([0.7, -0.7]), (8, 8, 1)))
    result = evaluate(fake, ids, ids)
    assert result["itm_accuracy"] == 0.5
    assert result["itm"]["tr@1"] == 0.0
    assert result["sum"] == result["contrastive"]
    assert any("same logits" in note and "contrastive" in note for note in result["notes"])


def test_head_at_its_prior_is_noted():
    ids = np.arange(8)
    logits = np.tile(np.float32([0.7, -0.7]), (8, 8, 1))
    logits[:, :, 0] += np.random.default_rng(0).random((8, 8)) * 0.1
    notes = evaluate(Fake(np.eye(8), logits), ids, ids, top_k=10)["notes"]
    assert notes == ["ITM is at chance level (balanced accuracy 0.50): rank by the contrastive score"]


def test_accuracy_is_balanced_over_right_and_wrong_pairs():
    n = 6
    ids = np.arange(n)
    logits = oracle(ids, ids)
    # Two of six right pairs rejected, no wrong pair accepted.
    logits[[0, 3], [0, 3]] = [4.0, -4.0]
    assert evaluate(Fake(np.eye(n), logits), ids, ids)["itm_accuracy"] == pytest.approx((4 / 6 + 1) / 2)


def test_random_others_have_other_ids():
    image_ids = np.array([0] * 10 + [1, 2])
    text_ids = np.array([0] * 10 + [1, 2])
    fake = Fake(np.random.default_rng(0).normal(size=(12, 12)), oracle(image_ids, text_ids))
    assert evaluate(fake, image_ids, text_ids)["itm_accuracy"] == 1.0


def test_no_accuracy_without_wrong_pairs():
    assert evaluate(random_fake(0, 4, 4), [7] * 4, [7] * 4)["itm_accuracy"] is None
    assert evaluate(random_fake(0, 4, 4), [1, 2, 3, 4], [7] * 4)["itm_accuracy"] is None


def test_few_candidates_are_noted():
    ids = np.arange(12)
    fake = Fake(np.eye(12), oracle(ids, ids))
    assert any("top 3" in note for note in evaluate(fake, ids, ids, top_k=3)["notes"])
    assert evaluate(fake, ids, ids, top_k=10)["notes"] == []
    assert evaluate(Fake(np.eye(4), oracle(ids[:4], ids[:4])), ids[:4], ids[:4], top_k=4)["notes"] == []


def test_without_re_ranking():
    fake = random_fake(0, 6, 6)
    result = evaluate(fake, np.arange(6), np.arange(6), reranking=False)
    assert (result["itm"], result["sum"], result["itm_accuracy"], result["notes"]) == (None, None, None, [])
    assert not fake.pairs


def test_tokens_keep_their_dtype():
    fake = random_fake(7, 6, 6, token_dtype=ml_dtypes.bfloat16)
    assert evaluate(fake, np.arange(6), np.arange(6))["itm"] is not None


def test_progress():
    seen = []
    evaluate(random_fake(0, 6, 7), np.arange(6), np.arange(7), progress=lambda *event: seen.append(event))
    assert [event for event in seen if event[0] == "images"] == [("images", 4, 6), ("images", 6, 6)]
    assert [event for event in seen if event[0] == "texts"] == [("texts", 5, 7), ("texts", 7, 7)]
    assert seen[-1][0] == "pairs" and seen[-1][1] == seen[-1][2]


def test_each_function_is_compiled_once():
    traced = []

    def counted(name, function):
        def inner(*args):
            traced.append(name)
            return function(*args)

        return jax.jit(inner)

    functions = Functions(
        encode_image=counted("image", lambda x: {"tokens": x.reshape(len(x), 4, 3) / 255, "feature": x[:, 0, 0] / 255}),
        encode_text=counted("text", lambda t: {"tokens": jnp.sin(t)[:, :, None], "feature": jnp.cos(t)}),
        hold=lambda tokens, ids: (jnp.asarray(tokens), jnp.asarray(ids)),
        match=counted(
            "match",
            lambda texts, rows, v: jnp.stack(
                jnp.broadcast_arrays(texts[0].sum((1, 2))[rows] * texts[1][rows, 0], v.sum((1, 2))[:, None]), axis=-1
            ),
        ),
        temperature=0.07,
    )
    result = evaluate_retrieval(
        functions, batches(10, 4), texts(13), image_ids=np.arange(10), text_ids=np.arange(13), top_k=5, batch_size=4
    )
    assert sorted(traced) == ["image", "match", "text"]
    assert result["itm"] is not None


@pytest.mark.parametrize("name", ["similarity", "logits"])
def test_nan_is_an_error(name):
    fake = random_fake(0, 6, 6)
    getattr(fake, name)[2, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        evaluate(fake, np.arange(6), np.arange(6), top_k=6)


def test_unusable_arguments():
    fake = random_fake(0, 6, 6)
    ids = np.arange(6)
    for options in ({"top_k": 0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            evaluate(fake, ids, ids, **options)
    for wrong in (batches(5, 4), [*batches(6, 3), *batches(1, 3)]):
        with pytest.raises(ValueError, match="expected 6 images"):
            evaluate_retrieval(fake.functions, wrong, texts(6), image_ids=ids, text_ids=ids, top_k=2, batch_size=4)
    with pytest.raises(ValueError, match="6 text ids"):
        evaluate_retrieval(fake.functions, batches(6, 4), texts(5), image_ids=ids, text_ids=ids, top_k=2, batch_size=4)
    with pytest.raises(ValueError, match="at least one"):
        evaluate(fake, [], ids)
    cold = dataclasses.replace(fake.functions, temperature=0.0)
    with pytest.raises(ValueError, match="temperature"):
        evaluate_retrieval(cold, batches(6, 4), texts(6), image_ids=ids, text_ids=ids, top_k=2, batch_size=4)
