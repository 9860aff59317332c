"""Pretraining with CODIS: contrast with queues, the codebook, matching and masked tokens (method, sections 1-4).

The gradient is made in two passes. The first knows no gradient and sees the whole batch: teacher features, gathered
over devices, transport plans, masks and how many tokens they mask. After it a row's loss depends on the student at
that row and at the rows of its group alone, so that the second pass may go through the rows a part at a time.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from cbalign.losses.codebook import code_losses
from cbalign.losses.contrastive import contrastive_losses, key_targets
from cbalign.losses.masking import mask_tokens, mlm_losses
from cbalign.losses.matching import MATCHING_PRIOR, matching_loss, sample_negatives
from cbalign.losses.transport import cosine_cost, plan_health, row_normalise, transport_plan
from cbalign.models.alignment import AlignmentModel, teacher_subset
from cbalign.distributed import devices
from cbalign.training.microbatch import by_parts, value_and_gradient
from cbalign.training.optimizer import alpha_ramp
from cbalign.training.momentum_queue import newest

# What a metric is at chance level stands beside it in the logs, so that a broken run shows.
_CONTRAST_TERMS = ("i2t", "t2i", "i2i", "t2t")


def build_model(config, *, vocab_size: int) -> AlignmentModel:
    """The model of a config: sizes from `config.model`, K from `config.codebook`, resolution from `config.data`."""
    sizes = config.model.to_dict()
    sizes["dtype"] = jnp.dtype(sizes["dtype"])
    return AlignmentModel(
        image_size=config.data.image_size,
        vocab_size=vocab_size,
        num_codes=config.codebook.num_codes,
        temperature_init=config.contrast.temperature,
        **sizes,
    )


class Pretrain:
    """What the loop needs of pretraining: parameters to start from, the loss, and the levels of chance.

    Attributes:
      config: the whole config.
      tokens: {"pad", "cls", "sep", "mask", "unk", "vocab_size"} of the tokenizer.
      model: the `AlignmentModel`.
    """

    def __init__(self, config, *, tokens: dict):
        self.config = config
        self.tokens = tokens
        self.model = build_model(config, vocab_size=tokens["vocab_size"])
        ramp = config.contrast.alpha_ramp_steps
        self.alpha = alpha_ramp(alpha=config.contrast.alpha, ramp_steps=ramp)

    def init_params(self, rng):
        """The student's parameters, float32."""
        size, length = self.config.data.image_size, self.config.data.max_tokens
        image, ids = np.zeros((1, size, size, 3), np.uint8), np.ones((1, length), np.int32)
        return jax.jit(self.model.init)(rng, image, ids)["params"]

    def teacher_params(self, params):
        """The part of the student the teacher follows."""
        return teacher_subset(params)

    def chance_levels(self) -> dict:
        """{metric: its value, in nats or as a share, for a model that knows nothing}."""
        keys = float(np.log(self.config.train.batch_size + self.config.queue.size))
        levels = {name: keys for name in _CONTRAST_TERMS}
        codes = float(np.log(self.config.codebook.num_codes))
        return {
            **levels, "i2p": codes, "t2p": codes, "itm": MATCHING_PRIOR, "itm_accuracy": 2 / 3,
            "mlm_hard": float(np.log(self.tokens["vocab_size"])),
        }

    def gradient(self, params, teacher, queue, batch, *, rng, step):
        """Steps 2 to 6 of the training step on one device's part of the batch, with the gradient.

        Args:
          params, teacher: parameter trees.
          queue: the momentum queues before this step.
          batch: {"image", "image_teacher": uint8 [b, S, S, 3], "text": int32 [b, L], "id": int32 [b], "index": int32
            [b], each pair's place in the global batch}; without "image_teacher" both see "image". Consecutive rows
            have consecutive places.
          rng: key of the step, equal on all devices.
          step: int32 scalar.

        Returns:
          ((loss, {"metrics": {name: scalar}, "keys": what the queues take}), gradient); means over devices are meant.
        """
        teacher = jax.lax.stop_gradient(teacher)
        rows, shared = self._first_pass(params, teacher, queue, batch, rng=rng, step=step)

        def loss(params, rows):
            return self._rows_loss(params, teacher, rows, shared)

        (value, metrics), gradient = value_and_gradient(
            loss, params, rows, microbatches=self.config.train.microbatches
        )
        return (value, {"metrics": metrics, "keys": shared["keys"]}), gradient

    def _first_pass(self, params, teacher, queue, batch, *, rng, step):
        """What carries no gradient and needs the whole batch.

        Returns:
          (rows: arrays [b, ...], the batch with all that belongs to a pair;
           shared: what all rows need, {"keys", "queue", "assigned", "plans", "masked_total", "alpha", "draw",
           "dropout"}).
        """
        draw, dropout = jax.random.split(rng)
        shared = {"queue": queue, "alpha": jnp.asarray(self.alpha(step), jnp.float32), "draw": draw, "dropout": dropout}
        rows = {name: x for name, x in batch.items() if name != "image_teacher"}

        # 2. Teacher features of the batch, gathered over devices.
        def encode(rows):
            tower = self._teacher(teacher, rows, dropout, stream=1)
            return tower.image(rows.get("image_teacher", rows["image"])), tower.text(rows["text"])["feature"]

        image, text = by_parts(encode, batch, microbatches=self.config.train.microbatches)
        rows |= {"teacher_image": image["feature"], "teacher_text": text}
        shared["keys"] = {
            "image": devices.gather(image["feature"]),
            "text": devices.gather(text),
            "ids": devices.gather(batch["id"]),
        }

        # 3. Transport plans on the gathered features.
        if self.config.loss_weights.code:
            codes = jax.lax.stop_gradient(self.model.apply({"params": params}, method="codes"))
            shared["assigned"] = self._assigned(params, batch, shared)
            shared["plans"] = self._plans(shared["assigned"], queue, codes)

        # The mean over masked tokens is that of the global batch: its count must be known before the first part.
        if self.config.loss_weights.mlm:
            rows |= {"masked": self._mask(batch, draw)}
            if self.config.contrast.alpha:
                rows["teacher_tokens"] = image["tokens"]
            shared["masked_total"] = devices.total(jnp.sum(rows["masked"]["weights"])) / devices.device_count()
        return rows, shared

    def _assigned(self, params, batch, shared):
        """What the transport assigns to codes, of the global batch, like `keys`: the teacher's features or, where
        `codebook.teacher` is False, the student's own."""
        if self.config.codebook.teacher:
            return shared["keys"]

        def encode(rows):
            tower = self._student(params, rows, shared["dropout"])
            return tower.image(rows["image"])["feature"], tower.text(rows["text"])["feature"]

        features = by_parts(encode, batch, microbatches=self.config.train.microbatches)
        image, text = (devices.gather(jax.lax.stop_gradient(x)) for x in features)
        return {**shared["keys"], "image": image, "text": text}

    def _rows_loss(self, params, teacher, rows, shared):
        """(loss, metrics) of some of a device's rows: whole groups, see `_first_pass`; means over parts are meant."""
        weights = self.config.loss_weights
        student = self._student(params, rows, shared["dropout"])

        # 4. Student features, L_ica and L_code.
        image, text = student.image(rows["image"]), student.text(rows["text"])
        features = {"image": image["feature"], "text": text["feature"]}
        tau = self.model.apply({"params": params}, method="tau")
        tau = tau if self.config.contrast.learn_temperature else jax.lax.stop_gradient(tau)
        metrics = self._contrast(features, rows, shared, tau=tau)
        if weights.code:
            codes = self.model.apply({"params": params}, method="codes")
            metrics |= self._codes(features, rows, shared, codes=codes, tau=tau)

        # 5. Hard negatives; fusion on one positive and two negative groups.
        if weights.itm:
            metrics |= self._matching(student, image, text, rows, shared, tau=tau)

        # 6. Masked text through text and fusion layers.
        if weights.mlm:
            teacher = self._teacher(teacher, rows, shared["dropout"], stream=2)
            metrics |= self._masked_tokens(student, teacher, image, rows, shared)

        loss = sum(weights[name] * metrics[name] for name in ("mlm", "itm", "ica", "code") if weights[name])
        metrics |= {"loss": loss, "temperature": tau, "alpha": shared["alpha"]}
        return loss, jax.lax.stop_gradient(metrics)

    def _student(self, params, rows, dropout):
        return _Tower(self.model, params, rows["index"], jax.random.fold_in(dropout, 0))

    def _teacher(self, params, rows, dropout, *, stream):
        rng = jax.random.fold_in(dropout, stream) if self.config.teacher.dropout else None
        return _Tower(self.model, params, rows["index"], rng)

    def _contrast(self, features, rows, shared, *, tau):
        """L_ica: these rows' queries against the teacher's global batch followed by the queues."""
        options, keys, queue = self.config.contrast, shared["keys"], shared["queue"]
        key_ids = jnp.concatenate([keys["ids"], queue.ids])
        # Slots that were never written hold random vectors; ALBEF uses them as negatives all the same.
        valid = jnp.concatenate([jnp.ones(keys["ids"].shape, bool), queue.ids >= 0]) if options.mask_empty else None
        terms = contrastive_losses(
            student_image=features["image"], student_text=features["text"],
            teacher_image=rows["teacher_image"], teacher_text=rows["teacher_text"],
            keys_image=jnp.concatenate([keys["image"], queue.image]),
            keys_text=jnp.concatenate([keys["text"], queue.text]),
            hard_targets=key_targets(rows["id"], key_ids, rows["index"], joint_positives=options.joint_positives),
            key_valid=valid, temperature=tau, alpha=shared["alpha"], terms=options.terms,
            soft_intra=options.soft_intra,
        )
        return {**terms, "ica": sum(terms.values()) / len(terms)}

    def _plans(self, assigned, queue, codes):
        """{modality: plan [N, K]} of the features of the global batch and, if asked for, of recent batches."""
        options = self.config.codebook
        count, pool, mass = assigned["ids"].shape[0], assigned, None
        if options.queue_rows:
            recent = newest(queue, options.queue_rows)
            pool = {name: jnp.concatenate([assigned[name], recent[name]]) for name in assigned}
            # Slots that were never written are no features: they get no mass.
            written = jnp.concatenate([jnp.ones(count), (recent["ids"] >= 0).astype(jnp.float32)])
            mass = written / jnp.sum(written)

        def plan(features):
            return transport_plan(
                cosine_cost(features, codes), row_marginal=mass, solver=options.solver, beta=options.beta,
                iterations=options.iterations, epsilon=options.epsilon,
            )[:count]

        plans = {name: plan(pool[name]) for name in ("image", "text")}
        if options.queue_rows:
            # Only the batch's own rows are used; scaled so that they are a plan of mass one again.
            plans = {name: x / jnp.sum(x) for name, x in plans.items()}
        return plans

    def _codes(self, features, rows, shared, *, codes, tau):
        """L_code; its transport term is over the global batch, the same for every part of the rows."""
        options, assigned, plans = self.config.codebook, shared["assigned"], shared["plans"]
        losses = code_losses(
            student_image=features["image"], student_text=features["text"],
            teacher_image=assigned["image"], teacher_text=assigned["text"], codes=codes,
            plan_image=plans["image"], plan_text=plans["text"],
            targets_image=row_normalise(plans["image"])[rows["index"]],
            targets_text=row_normalise(plans["text"])[rows["index"]],
            temperature=options.temperature if options.temperature else tau,
        )
        health = jax.tree.map(lambda a, b: (a + b) / 2, plan_health(plans["image"]), plan_health(plans["text"]))
        return {**losses, "code": options.ot_weight * losses["ot"] + losses["i2p"] + losses["t2p"], **health}

    def _matching(self, student, image, text, rows, shared, *, tau):
        """L_itm on c true pairs, c pairs with a hard negative image and c with a hard negative text."""
        options, c, parts = self.config.itm, rows["id"].shape[0], self.config.train.microbatches
        group = min(options.group_size, c * parts)

        def similarity(queries, keys):
            return jnp.matmul(queries, keys.T, precision=jax.lax.Precision.HIGHEST) / tau

        negatives = sample_negatives(
            jax.random.fold_in(shared["draw"], 0),
            similarity(image["feature"], rows["teacher_text"]),
            similarity(text["feature"], rows["teacher_image"]),
            rows["id"],
            group_index_offset=rows["index"][0] // group,
            group_size=group,
        )
        ids, tokens = rows["text"], text["tokens"]
        of_text, of_image = negatives["text"], negatives["image"]
        ids = jnp.concatenate([ids, ids, ids[of_text]])
        tokens = jnp.concatenate([tokens, tokens, tokens[of_text]])
        images = jnp.concatenate([image["tokens"], image["tokens"][of_image], image["tokens"]])
        logits = self.model.apply({"params": student.params}, student.fuse(tokens, ids, images), method="match")
        labels = jnp.concatenate([jnp.ones(c, jnp.int32), jnp.zeros(2 * c, jnp.int32)])
        return {**matching_loss(logits, labels), "itm_no_candidate": negatives["no_candidate"]}

    def _mask(self, batch, draw):
        """Masked texts and what was masked, see `mask_tokens`."""
        tokens, options = self.tokens, self.config.mlm
        return mask_tokens(
            jax.random.fold_in(draw, 1), batch["text"], sample_index=batch["index"], mask_id=tokens["mask"],
            vocab_size=tokens["vocab_size"], special_ids=(tokens["pad"], tokens["cls"], tokens["sep"]),
            probability=options.probability, max_predictions=options.max_predictions,
        )

    def _masked_tokens(self, student, teacher, image, rows, shared):
        """L_mlm: the head runs on the masked positions only."""
        masked = rows["masked"]

        def logits(tower, image_tokens):
            fused = tower.fuse(tower.text(masked["ids"])["tokens"], masked["ids"], image_tokens)
            return self.model.apply({"params": tower.params}, fused, masked["positions"], method="predict_tokens")

        # Without soft targets there is nothing to ask the teacher.
        soft = jax.lax.stop_gradient(logits(teacher, rows["teacher_tokens"])) if "teacher_tokens" in rows else None
        return mlm_losses(
            logits(student, image["tokens"]), masked["labels"], masked["weights"], soft, alpha=shared["alpha"],
            total=shared["masked_total"] / self.config.train.microbatches,
        )


class _Tower:
    """A model with parameters and the dropout of some rows.

    The noise of a row is drawn from its place in the global batch, whatever the number of devices and micro-batches.

    Attributes:
      rows: int32 [b], places in the global batch of the rows that are encoded.
      rng: key of the step's dropout, or None for none.
    """

    def __init__(self, model, params, rows, rng):
        self.model, self.params, self.rows, self.rng, self.calls = model, params, rows, rng, 0

    def image(self, image):
        return self.model.apply({"params": self.params}, image, method="encode_image")

    def text(self, ids):
        return self._dropout("encode_text", ids)

    def fuse(self, tokens, ids, images):
        """Inputs of several times as many rows are so many groups of the same rows."""
        return self._dropout("fuse", tokens, ids, images)

    def _dropout(self, method, *inputs):
        apply = functools.partial(self.model.apply, {"params": self.params}, method=method)
        if self.rng is None or not self.model.dropout:
            return apply(*inputs, deterministic=True)
        self.calls += 1
        rng = jax.random.fold_in(self.rng, self.calls)
        keys = jax.vmap(lambda group: jax.vmap(lambda row: jax.random.fold_in(jax.random.fold_in(rng, group), row))(
            self.rows))(jnp.arange(inputs[0].shape[0] // self.rows.shape[0])).reshape(-1)

        def one_row(key, *inputs):
            result = apply(*(x[None] for x in inputs), deterministic=False, rngs={"dropout": key})
            return jax.tree.map(lambda x: x[0], result)

        return jax.vmap(one_row)(keys, *inputs)
