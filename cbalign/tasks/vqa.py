"""Visual question answering: a decoder generates answers, evaluation ranks a fixed list of them."""

from __future__ import annotations

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np

from cbalign.distributed import devices
from cbalign.errors import UserError
from cbalign.evaluation.calls import Call, batches
from cbalign.evaluation.classification import blind_guess
from cbalign.evaluation.vqa import AnswerFunctions, answer_accuracy, answers_per_call, rank_answers, write_results
from cbalign.losses.answers import answer_losses
from cbalign.models.vqa import AnswerModel
from cbalign.tasks.base import PRETRAINING_HEADS, Evaluation, Task, no_progress, text_limits
from cbalign.tasks.classification import first_texts
from cbalign.tasks.transfer import Transfer

ANSWERS = "answers.json"
_SECRET = "the answers of this split are not public: only the results file for the evaluation server was written"


class Vqa(Task):
    """VQA as ALBEF trains it (`models/model_vqa.py`).

    The decoder starts from the fusion layers, its embeddings from the text encoder's, its head from that of masked
    tokens.
    """

    name = "vqa"
    record_kind = "questions"
    result_kind = "vqa"
    log_metrics = ("loss", "vqa_hard", "vqa_soft", "token_accuracy")
    prediction_input = "a question about the image"
    asset_files = (ANSWERS,)
    text_cleaning = "question"
    starts_from = {
        "pretrain": Transfer(
            renames=(
                (r"answer_embeddings/(.*)", r"text_encoder/embeddings/\1"),
                (r"answer_layers/(.*)", r"fusion_encoder/\1"),
                (r"answer_head/(.*)", r"masked_token_head/\1"),
            ),
            unused=(*PRETRAINING_HEADS, "image_projection/.*"),
        ),
        "vqa": Transfer(),
    }

    answers: tuple[str, ...] = ()

    def build_model(self, sizes):
        """See `Task.build_model`."""
        return AnswerModel(sizes)

    @classmethod
    def check(cls, config, *, devices=1):
        """See `Task.check`; answers fit the decoder's positions."""
        super().check(config, devices=devices)
        if config.vqa.answer_tokens > config.model.max_positions:
            raise UserError(
                f"config: vqa.answer_tokens={config.vqa.answer_tokens} is more than model.max_positions="
                f"{config.model.max_positions}"
            )

    def assets(self, records):
        """See `Task.assets`: the answers to choose from."""
        return {ANSWERS: records.answer_list()}

    def use_assets(self, assets, tokenizer):
        """See `Task.use_assets`."""
        from cbalign.data.columns import encode_answers

        self.answers = tuple(assets[ANSWERS])
        self._answer_ids = encode_answers(tokenizer, self.answers, max_length=self.config.vqa.answer_tokens)

    def share_assets(self, other):
        """See `Task.share_assets`."""
        self.answers, self._answer_ids = other.answers, other._answer_ids

    def encode(self, records, tokenizer, *, training=False):
        """See `Task.encode`; with the weighted answers where the records have some."""
        from cbalign.data.columns import answer_columns

        columns = super().encode(records, tokenizer, training=training)
        if all(records.columns["answers"]):
            columns.arrays |= answer_columns(
                records, tokenizer, slots=self.config.vqa.answers_per_question, max_length=self.config.vqa.answer_tokens
            )
        return columns

    def loss(self, params, teacher, queue, batch, *, rng, step):
        """See `Task.loss`.

        The batch: "image", "text", "answers" int32 [b, A, T], "answer_weights" float32 [b, A], "index".
        """
        del queue
        alpha = jnp.asarray(self.alpha(step), jnp.float32)
        logits = self._logits(self.student(params, batch["index"], rng), batch)
        soft = self._logits(self.teacher(teacher, batch["index"], rng), batch) if teacher else None
        metrics = answer_losses(logits, batch["answers"], batch["answer_weights"], soft, alpha=alpha)
        metrics |= {"loss": metrics["vqa"], "alpha": alpha}
        return metrics["loss"], jax.lax.stop_gradient(metrics)

    def label_shapes(self):
        """See `Task.label_shapes`."""
        slots, length = self.config.vqa.answers_per_question, self.config.vqa.answer_tokens
        return {"answers": ((slots, length), np.int32), "answer_weights": ((slots,), np.float32)}

    def _logits(self, model, batch):
        """float32 [b, A, T - 1, V] for all answers of all questions."""
        b, slots, length = batch["answers"].shape
        states = model.apply_with_dropout("question_states", batch["image"], batch["text"])
        # One group of rows for each slot, as the per-row dropout wants them.
        states, questions = (jnp.concatenate([x] * slots) for x in (states, batch["text"]))
        before = jnp.swapaxes(batch["answers"], 0, 1).reshape(slots * b, length)[:, :-1]
        logits = model.apply_with_dropout("answer_logits", states, questions, before)
        return jnp.swapaxes(logits.reshape(slots, b, length - 1, -1), 0, 1)

    def chance_levels(self):
        """See `Task.chance_levels`; of the loss, that of one token of one answer."""
        return {"vqa_hard_per_token": float(np.log(self.tokens["vocab_size"]))}

    @functools.cached_property
    def _functions(self) -> dict:
        """{"states", "next_token", "likelihood"} as `AnswerFunctions` has them, compiled, the parameters first."""

        def apply(params, *inputs, method):
            return self.model.apply({"params": params}, *inputs, method=method)

        def log_probs(params, states, question_ids, answer_ids):
            return jax.nn.log_softmax(apply(params, states, question_ids, answer_ids, method="answer_logits"), axis=-1)

        def likelihood(params, states, question_ids, answer_ids):
            labels = answer_ids[:, 1:]
            found = log_probs(params, states, question_ids, answer_ids[:, :-1])
            picked = jnp.take_along_axis(found, labels[..., None], axis=-1)[..., 0]
            return jnp.sum(picked * (labels != self.tokens["pad"]), axis=-1)

        return {
            "states": jax.jit(functools.partial(apply, method="question_states")),
            "next_token": jax.jit(lambda params, *inputs: log_probs(params, *inputs)[:, -1]),
            "likelihood": jax.jit(likelihood),
        }

    def _rank(self, params, images, ids):
        """See `rank_answers`; rows are spread over this process's devices."""
        functions = {
            name: functools.partial(devices.spread_rows(function, whole=1), params)
            for name, function in self._functions.items()
        }
        options = self.config.vqa
        return rank_answers(
            AnswerFunctions(**functions),
            images,
            ids,
            self._answer_ids,
            top_k=options.rank_top_k,
            first_token_twice=options.first_token_twice,
        )

    def evaluate(self, params, split, *, quick=False, progress=None):
        """See `Task.evaluate`: the challenge's accuracy, overall and by types; None where the answers are secret."""
        del quick
        progress, found, params = progress or no_progress, [], devices.copy_to_local(params)
        size, batch_size = self.config.data.image_size, self.config.eval.batch_size
        for batch, valid in split.batches(image_size=size, batch_size=batch_size):
            best, _ = self._rank(params, batch["image"], batch["text"])
            found += [self.answers[i] for i in best[:valid, 0]]
            progress("questions", len(found), len(split))
        result = {
            "images": split.records.image_count,
            "questions": len(split),
            "answer_list": len(self.answers),
            "chance": {"overall": 100 / len(self.answers)},
        }
        return Evaluation(result | self._scores(split, found), found)

    def evaluation_calls(self, size, *, devices, quick=False):
        """See `Task.evaluation_calls`; for a list of at least `vqa.rank_top_k` answers."""
        del devices, quick
        options, data, shape = self.config.vqa, self.config.data, jax.ShapeDtypeStruct
        b, k = self.config.eval.batch_size, options.rank_top_k
        params = jax.eval_shape(self.init_params, jax.random.key(0))
        images = shape((b, data.image_size, data.image_size, 3), np.uint8)
        ids, per_call = shape((b, text_limits(self.config)[0]), np.int32), answers_per_call(b, k)
        states = jax.eval_shape(self._functions["states"], params, images, ids)

        def times(x, count):
            return shape((count * x.shape[0], *x.shape[1:]), x.dtype)

        answers = shape((b * per_call, options.answer_tokens), np.int32)
        repeated = (times(states, per_call), times(ids, per_call), answers)
        first, count = shape((b, 1), np.int32), batches(size.records, b)
        return [
            Call("encode questions", self._functions["states"], (), (images, ids), count),
            Call("first tokens", self._functions["next_token"], (), (states, ids, first), count),
            Call("score answers", self._functions["likelihood"], (), repeated, count * batches(k, per_call)),
        ]

    @staticmethod
    def _scores(split, found) -> dict:
        columns = split.records.columns
        if not all(columns["answers"]):
            return {"accuracy": None, "notes": [_SECRET]}
        parts = answer_accuracy(
            found, columns["answers"], question_types=columns["question_type"], answer_types=columns["answer_type"]
        )
        return {
            "accuracy": {"overall": parts["overall"], **parts["answer_types"]},
            "question_types": parts["question_types"],
        }

    def baselines(self, split, train, *, own_data):
        """The most frequent answer to each question in training: what the text gives away without the image."""
        del own_data
        if not all(split.records.columns["answers"]):
            return {"blind_guess": None}, []
        seen = train()
        likeliest = [collections.Counter(people).most_common(1)[0][0] for people in seen.records.columns["answers"]]
        guesses = blind_guess(first_texts(seen), likeliest, first_texts(split))
        scores = self._scores(split, guesses)
        return {"blind_guess": scores["accuracy"], "blind_guess_by_question_type": scores["question_types"]}, []

    def truths(self, split, row):
        """See `Task.truths`: what people answered."""
        return tuple(answer for answer, _ in collections.Counter(split.records.columns["answers"][row]).most_common())

    def write_predictions(self, path, split, predictions):
        """Writes `..._answers.json`, which the evaluation server takes."""
        identifiers = split.records.columns["question_id"]
        write_results(path.parent / f"{path.stem}_answers.json", identifiers, predictions, expected_ids=identifiers)

    def predict(self, params, images, ids, *, match=False):
        """See `Task.predict`: probabilities over the answers that were scored in full (`vqa.rank_top_k`)."""
        if match:
            return super().predict(params, images, ids, match=match)
        best, scores = self._rank(params, np.asarray(images[0]), ids)
        likelihood = np.exp(scores[0] - scores[0].max())
        return [self.answers[i] for i in best[0]], likelihood / likelihood.sum()
