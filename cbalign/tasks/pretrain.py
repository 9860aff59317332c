"""Pretraining with CODIS: contrast with queues, the codebook, matching and masked tokens (method, sections 1-4)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from cbalign.losses.codes import code_losses
from cbalign.losses.contrast import contrastive_losses, key_targets
from cbalign.losses.masking import mask_tokens, mlm_losses
from cbalign.losses.matching import MATCHING_PRIOR, matching_loss, sample_negatives
from cbalign.losses.transport import cosine_cost, plan_health, row_normalise, transport_plan
from cbalign.models.alignment import AlignmentModel, teacher_subset
from cbalign.training import parallel
from cbalign.training.optimizer import alpha_ramp
from cbalign.training.queue import newest

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
        levels = {name: float(np.log(self.config.train.batch_size + self.config.queue.size)) for name in _CONTRAST_TERMS}
        codes = float(np.log(self.config.codebook.num_codes))
        return {
            **levels, "i2p": codes, "t2p": codes, "itm": MATCHING_PRIOR, "itm_accuracy": 2 / 3,
            "mlm_hard": float(np.log(self.tokens["vocab_size"])),
        }

    def loss(self, params, teacher, queue, batch, *, rng, step):
        """Steps 2 to 6 of the training step on one device's part of the batch.

        Args:
          params, teacher: parameter trees.
          queue: the momentum queues before this step.
          batch: {"image", "image_teacher": uint8 [b, S, S, 3], "text": int32 [b, L], "id": int32 [b], "index": int32
            [b], each pair's place in the global batch}; without "image_teacher" both see "image".
          rng: key of the step, equal on all devices.
          step: int32 scalar.

        Returns:
          (loss, {"metrics": {name: scalar}, "keys": what the queues take}); means over devices are meant.
        """
        weights, alpha = self.config.loss_weights, jnp.asarray(self.alpha(step), jnp.float32)
        # Dropout differs from device to device; negatives and masks are drawn by place in the global batch instead.
        draw, dropout = jax.random.split(rng)
        dropout = jax.random.fold_in(dropout, parallel.device_index())
        student = _Tower(self.model, params, jax.random.fold_in(dropout, 0))
        teacher_rng = jax.random.fold_in(dropout, 1) if self.config.teacher.dropout else None
        teacher = _Tower(self.model, jax.lax.stop_gradient(teacher), teacher_rng)

        # 2. Teacher features of the batch, gathered over devices.
        teacher_image = teacher.image(batch.get("image_teacher", batch["image"]))
        teacher_text = teacher.text(batch["text"])
        keys = {
            "image": parallel.gather(teacher_image["feature"]),
            "text": parallel.gather(teacher_text["feature"]),
            "ids": parallel.gather(batch["id"]),
        }

        # 3-4. Transport plans on the gathered features, student features, L_ica and L_code.
        image, text = student.image(batch["image"]), student.text(batch["text"])
        features = {"image": image["feature"], "text": text["feature"]}
        teacher_features = {"image": teacher_image["feature"], "text": teacher_text["feature"]}
        tau = self.model.apply({"params": params}, method="tau")
        metrics = self._contrast(features, teacher_features, keys, queue, batch, tau=tau, alpha=alpha)
        if weights.code:
            codes = self.model.apply({"params": params}, method="codes")
            metrics |= self._codes(features, keys, queue, batch, codes=codes, tau=tau)

        # 5. Hard negatives; fusion on one positive and two negative groups.
        if weights.itm:
            metrics |= self._matching(student, image, text, teacher_features, batch, tau=tau, rng=draw)

        # 6. Masked text through text and fusion layers.
        if weights.mlm:
            metrics |= self._masked_tokens(student, teacher, image, teacher_image, batch, alpha=alpha, rng=draw)

        loss = sum(weights[name] * metrics[name] for name in ("mlm", "itm", "ica", "code") if weights[name])
        metrics |= {"loss": loss, "temperature": tau, "alpha": alpha}
        return loss, {"metrics": jax.lax.stop_gradient(metrics), "keys": keys}

    def _contrast(self, features, teacher_features, keys, queue, batch, *, tau, alpha):
        """L_ica: queries of this device against the teacher's global batch followed by the queues."""
        options = self.config.contrast
        key_ids = jnp.concatenate([keys["ids"], queue.ids])
        # Slots that were never written hold random vectors; ALBEF uses them as negatives all the same.
        valid = jnp.concatenate([jnp.ones(keys["ids"].shape, bool), queue.ids >= 0]) if options.mask_empty else None
        terms = contrastive_losses(
            student_image=features["image"], student_text=features["text"],
            teacher_image=teacher_features["image"], teacher_text=teacher_features["text"],
            keys_image=jnp.concatenate([keys["image"], queue.image]),
            keys_text=jnp.concatenate([keys["text"], queue.text]),
            hard_targets=key_targets(batch["id"], key_ids, batch["index"], joint_positives=options.joint_positives),
            key_valid=valid, temperature=tau, alpha=alpha, terms=options.terms, soft_intra=options.soft_intra,
        )
        return {**terms, "ica": sum(terms.values()) / len(terms)}

    def _codes(self, features, keys, queue, batch, *, codes, tau):
        """L_code, with the plans on the teacher features of the global batch (and of recent batches, if asked for)."""
        options = self.config.codebook
        count, pool, mass = keys["ids"].shape[0], keys, None
        if options.queue_rows:
            recent = newest(queue, options.queue_rows)
            pool = {name: jnp.concatenate([keys[name], recent[name]]) for name in keys}
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
        losses = code_losses(
            student_image=features["image"], student_text=features["text"],
            teacher_image=keys["image"], teacher_text=keys["text"], codes=codes,
            plan_image=plans["image"], plan_text=plans["text"],
            targets_image=row_normalise(plans["image"])[batch["index"]],
            targets_text=row_normalise(plans["text"])[batch["index"]],
            temperature=options.temperature if options.temperature else tau,
        )
        health = jax.tree.map(lambda a, b: (a + b) / 2, plan_health(plans["image"]), plan_health(plans["text"]))
        return {**losses, "code": losses["ot"] + losses["i2p"] + losses["t2p"], **health}

    def _matching(self, student, image, text, teacher_features, batch, *, tau, rng):
        """L_itm on b true pairs, b pairs with a hard negative image and b with a hard negative text."""
        b, group = batch["id"].shape[0], min(self.config.itm.group_size, batch["id"].shape[0])
        negatives = sample_negatives(
            jax.random.fold_in(rng, 0),
            image["feature"] @ teacher_features["text"].T / tau,
            text["feature"] @ teacher_features["image"].T / tau,
            batch["id"],
            group_index_offset=parallel.device_index() * (b // group),
            group_size=group,
        )
        ids, tokens = batch["text"], text["tokens"]
        of_text, of_image = negatives["text"], negatives["image"]
        ids = jnp.concatenate([ids, ids, ids[of_text]])
        tokens = jnp.concatenate([tokens, tokens, tokens[of_text]])
        pictures = jnp.concatenate([image["tokens"], image["tokens"][of_image], image["tokens"]])
        logits = self.model.apply({"params": student.params}, student.fuse(tokens, ids, pictures), method="match")
        labels = jnp.concatenate([jnp.ones(b, jnp.int32), jnp.zeros(2 * b, jnp.int32)])
        return {**matching_loss(logits, labels), "itm_no_candidate": negatives["no_candidate"]}

    def _masked_tokens(self, student, teacher, image, teacher_image, batch, *, alpha, rng):
        """L_mlm: the head runs on the masked positions only."""
        tokens, options = self.tokens, self.config.mlm
        masked = mask_tokens(
            jax.random.fold_in(rng, 1), batch["text"], sample_index=batch["index"], mask_id=tokens["mask"],
            vocab_size=tokens["vocab_size"], special_ids=(tokens["pad"], tokens["cls"], tokens["sep"]),
            probability=options.probability, max_predictions=options.max_predictions,
        )

        def logits(tower, pictures):
            fused = tower.fuse(tower.text(masked["ids"])["tokens"], masked["ids"], pictures["tokens"])
            return self.model.apply({"params": tower.params}, fused, masked["positions"], method="predict_tokens")

        # The mean is over the masked tokens of the global batch, not over each device's own.
        total = parallel.total(jnp.sum(masked["weights"])) / parallel.device_count()
        return mlm_losses(
            logits(student, image), masked["labels"], masked["weights"],
            jax.lax.stop_gradient(logits(teacher, teacher_image)), alpha=alpha, total=total,
        )


class _Tower:
    """A model with parameters and a stream of dropout keys (none: no dropout)."""

    def __init__(self, model, params, rng):
        self.model, self.params, self.rng, self.calls = model, params, rng, 0

    def image(self, image):
        return self.model.apply({"params": self.params}, image, method="encode_image")

    def text(self, ids):
        return self._dropout("encode_text", ids)

    def fuse(self, tokens, ids, pictures):
        return self._dropout("fuse", tokens, ids, pictures)

    def _dropout(self, method, *inputs):
        apply = functools.partial(self.model.apply, {"params": self.params}, *inputs, method=method)
        if self.rng is None or not self.model.dropout:
            return apply(deterministic=True)
        self.calls += 1
        return apply(deterministic=False, rngs={"dropout": jax.random.fold_in(self.rng, self.calls)})
