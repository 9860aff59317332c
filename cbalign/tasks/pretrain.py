"""Pretraining with CODIS: contrast with queues, the codebook, matching and masked tokens (method, sections 1-4).

The gradient is computed in two passes. The first carries no gradient and sees the whole batch: teacher features,
gathered over devices, transport plans, masks and the number of masked tokens. After it a row's loss depends on the
student at that row and at the rows of its group alone, so the second pass may take the rows a micro-batch at a time.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from cbalign.distributed import devices
from cbalign.errors import UserError
from cbalign.losses.codebook import code_losses
from cbalign.losses.contrastive import TERMS, contrastive_losses, key_targets
from cbalign.losses.masking import mask_tokens, mlm_losses
from cbalign.losses.matching import MATCHING_PRIOR, matching_loss, sample_negatives
from cbalign.losses.transport import cosine_cost, plan_health, row_normalise, transport_plan
from cbalign.models.alignment import before_mixture
from cbalign.tasks.alignment import AlignmentTask
from cbalign.tasks.transfer import Transfer
from cbalign.training.microbatch import by_parts, value_and_gradient
from cbalign.training.momentum_queue import newest

# Entries of a device's transport problem: three float32 matrices of them are held at a time, 12 GiB.
_TRANSPORT_ENTRIES = 1 << 30


class Pretrain(AlignmentTask):
    """CODIS pretraining: L = L_mlm + L_itm + L_ica + L_code."""

    name = "pretrain"
    starts_from = {
        # Several folders, as of DeiT and BERT, give a part each; what none gives stays as initialised.
        "pretrain": Transfer(fresh=(".*",)),
        "retrieval": Transfer(fresh=(".*",)),
    }

    @classmethod
    def check(cls, config, *, devices=1):
        """See `AlignmentTask.check`; masked tokens fit the text."""
        super().check(config, devices=devices)
        rows = (config.train.batch_size + config.codebook.queue_rows) // devices
        if config.loss_weights.code and rows * config.codebook.num_codes > _TRANSPORT_ENTRIES:
            most = devices * _TRANSPORT_ENTRIES // config.codebook.num_codes - config.train.batch_size
            fewer = f"codebook.queue_rows of at most {most}" if most >= 0 else "a smaller train.batch_size"
            raise UserError(
                f"config: the transport of {rows:,} rows of a device to codebook.num_codes={config.codebook.num_codes} "
                f"codes takes {12 * rows * config.codebook.num_codes / 2**30:,.0f} GiB; use {fewer}, more "
                "devices or fewer codes"
            )
        if config.loss_weights.mlm and config.mlm.max_predictions >= config.data.max_tokens:
            raise UserError(
                f"config: mlm.max_predictions={config.mlm.max_predictions} must be below data.max_tokens="
                f"{config.data.max_tokens}"
            )

    def chance_levels(self):
        """See `Task.chance_levels`."""
        keys = float(np.log(self.config.train.batch_size + self.config.queue.size))
        codes = float(np.log(self.config.codebook.num_codes))
        return {
            **dict.fromkeys(TERMS, keys),
            "i2p": codes,
            "t2p": codes,
            "itm": MATCHING_PRIOR,
            "itm_accuracy": 2 / 3,
            "mlm_hard": float(np.log(self.tokens["vocab_size"])),
        }

    def loss(self, params, teacher, queue, batch, *, rng, step):
        """See `Task.loss`; both passes on all rows of a device, see `value_and_grad` for the batch."""
        teacher = self._teacher_params(teacher, params)
        rows, shared = self._first_pass(params, teacher, queue, batch, rng=rng, step=step)
        return self._rows_loss(params, teacher, rows, shared)

    def value_and_grad(self, params, teacher, queue, batch, *, rng, step):
        """See `Task.value_and_grad`.

        The batch: "image", "image_teacher" uint8 [b, S, S, 3], "text" int32 [b, L], "id" int32 [b], "index" int32 [b],
        each pair's place in the global batch; without "image_teacher" both models see "image". Consecutive rows have
        consecutive places. Returned are means over this device's rows: their mean over devices is the loss.
        """
        teacher = self._teacher_params(teacher, params)
        rows, shared = self._first_pass(params, teacher, queue, batch, rng=rng, step=step)

        def loss(params, rows):
            return self._rows_loss(params, teacher, rows, shared)

        (value, metrics), gradient = value_and_gradient(loss, params, rows, microbatches=self.config.train.microbatches)
        return (value, {"metrics": metrics, "keys": shared["keys"]}), gradient

    def _teacher_params(self, teacher, params):
        """What the teacher encodes with, without gradient; where features are mixtures of codes, of the student's."""
        codes = {"codebook": params["codebook"]} if self.config.codebook.embed else {}
        return jax.lax.stop_gradient({**teacher, **codes})

    def _first_pass(self, params, teacher, queue, batch, *, rng, step):
        """What carries no gradient and needs the whole batch.

        Returns:
          (rows: arrays [b, ...], the batch with all that belongs to a pair;
           shared: what all rows need, {"keys", "queue", "health", "masked_total", "alpha", "draw", "dropout"}).
        """
        draw, dropout = jax.random.split(rng)
        shared = {"queue": queue, "alpha": jnp.asarray(self.alpha(step), jnp.float32), "draw": draw, "dropout": dropout}
        rows = {name: x for name, x in batch.items() if name != "image_teacher"}

        # 2. Teacher features of the batch, gathered over devices.
        def encode(rows):
            model = self.teacher(teacher, rows["index"], dropout, stream=1)
            image, text = model.image(rows.get("image_teacher", rows["image"])), model.text(rows["text"])
            return image, {name: x for name, x in text.items() if name != "tokens"}

        image, text = by_parts(encode, batch, microbatches=self.config.train.microbatches)
        rows |= {"teacher_image": image["feature"], "teacher_text": text["feature"]}
        shared["keys"] = {
            "image": devices.gather(image["feature"]),
            "text": devices.gather(text["feature"]),
            "ids": devices.gather(batch["id"]),
        }

        # 3. Transport plans of the global batch; each device solves for its own rows.
        if self.config.loss_weights.code:
            codes = jax.lax.stop_gradient(self.model.apply({"params": params}, method="codes"))
            projected = {"image": before_mixture(image), "text": before_mixture(text)}
            assigned = projected if self.config.codebook.teacher else self._own_projected(params, batch, dropout)
            plans, shared["health"] = self._plans(assigned, queue, codes)
            rows |= {f"assigned_{name}": x for name, x in assigned.items()}
            rows |= {f"plan_{name}": x for name, x in plans.items()}

        # The mean over masked tokens is that of the global batch: its count must be known before the first part.
        if self.config.loss_weights.mlm:
            rows |= {"masked": self.mask(batch, draw)}
            if self.config.contrast.alpha:
                rows["teacher_tokens"] = image["tokens"]
            shared["masked_total"] = devices.total(jnp.sum(rows["masked"]["weights"])) / devices.device_count()
        return rows, shared

    def _own_projected(self, params, batch, dropout):
        """What the transport assigns to codes without the teacher, {"image", "text"}: [b, d] of this device's rows."""

        def encode(rows):
            model = self.student(params, rows["index"], dropout)
            return {
                "image": before_mixture(model.image(rows["image"])),
                "text": before_mixture(model.text(rows["text"])),
            }

        return jax.lax.stop_gradient(by_parts(encode, batch, microbatches=self.config.train.microbatches))

    def _rows_loss(self, params, teacher, rows, shared):
        """(loss, metrics) of some of a device's rows: whole groups, see `_first_pass`; means over parts are meant."""
        weights = self.config.loss_weights
        student = self.student(params, rows["index"], shared["dropout"])

        # 4. Student features, L_ica and L_code.
        image, text = student.image(rows["image"]), student.text(rows["text"])
        features = {"image": image["feature"], "text": text["feature"]}
        tau = self.model.apply({"params": params}, method="tau")
        tau = tau if self.config.contrast.learn_temperature else jax.lax.stop_gradient(tau)
        metrics = self._contrast(features, rows, shared, tau=tau)
        if weights.code:
            codes = self.model.apply({"params": params}, method="codes")
            # L_code sees what comes before the mixture of codes, so that it is the paper's in any case.
            projected = {"image": before_mixture(image), "text": before_mixture(text)}
            metrics |= self._codes(projected, rows, shared, codes=codes, tau=tau)

        # 5. Hard negatives; fusion on one positive and two negative groups.
        context = student.image_context(image["tokens"]) if weights.itm or weights.mlm else None
        if weights.itm:
            metrics |= self._matching(student, image, text, context, rows, shared, tau=tau)

        # 6. Masked text through text and fusion layers.
        if weights.mlm:
            teacher = self.teacher(teacher, rows["index"], shared["dropout"], stream=2)
            metrics |= self._masked_tokens(student, teacher, context, rows, shared)

        loss = sum(weights[name] * metrics[name] for name in ("mlm", "itm", "ica", "code") if weights[name])
        extra = self.extra_losses(features, rows, shared)
        metrics |= extra
        loss = sum(extra.values(), loss)
        metrics |= {"loss": loss, "temperature": tau, "alpha": shared["alpha"]}
        return loss, jax.lax.stop_gradient(metrics)

    def extra_losses(self, features, rows, shared) -> dict:
        """Further losses of these rows, {metric: weighted float32 scalar}; what a variant of the method overrides.

        Args:
          features: {"image", "text": float32 [b, d]} of the student, unit length.
          rows, shared: see `_first_pass`; "teacher_image" and "teacher_text" of the rows are the teacher's features.
        """
        del features, rows, shared
        return {}

    def _contrast(self, features, rows, shared, *, tau):
        """L_ica: these rows' queries against the teacher's global batch followed by the queues."""
        options, keys, queue = self.config.contrast, shared["keys"], shared["queue"]
        key_ids = jnp.concatenate([keys["ids"], queue.ids])
        # Slots that were never written hold random vectors; ALBEF uses them as negatives all the same.
        valid = jnp.concatenate([jnp.ones(keys["ids"].shape, bool), queue.ids >= 0]) if options.mask_empty else None
        terms = contrastive_losses(
            student_image=features["image"],
            student_text=features["text"],
            teacher_image=rows["teacher_image"],
            teacher_text=rows["teacher_text"],
            keys_image=jnp.concatenate([keys["image"], queue.image]),
            keys_text=jnp.concatenate([keys["text"], queue.text]),
            hard_targets=key_targets(rows["id"], key_ids, rows["index"], joint_positives=options.joint_positives),
            key_valid=valid,
            temperature=tau,
            alpha=shared["alpha"],
            terms=options.terms,
            soft_intra=options.soft_intra,
        )
        return {**terms, "ica": sum(terms.values()) / len(terms)}

    def _plans(self, assigned, queue, codes):
        """The plans of this device's rows, with the other devices' and, if asked for, those of recent batches.

        The plan is that of the whole problem: the devices share the sums over a code's column, nothing else.

        Returns:
          ({modality: [b, K], rows of the global batch's plan of mass one}, `plan_health`, the mean of both modalities).
        """
        options, count = self.config.codebook, assigned["image"].shape[0]
        pool, mass = assigned, jnp.ones(count)
        if options.queue_rows:
            recent = newest(queue, options.queue_rows)
            # Slots that were never written are no features: they get no mass.
            recent["mass"] = (recent.pop("ids") >= 0).astype(jnp.float32)
            recent = devices.own_part(recent)
            pool = {name: jnp.concatenate([x, recent[name]]) for name, x in assigned.items()}
            mass = jnp.concatenate([mass, recent["mass"]])
        mass /= devices.total(jnp.sum(mass))

        def plan(features):
            own = transport_plan(
                cosine_cost(features, codes),
                row_marginal=mass,
                solver=options.solver,
                beta=options.beta,
                iterations=options.iterations,
                epsilon=options.epsilon,
                across=devices,
            )[:count]
            # Only the batch's own rows are used; scaled so that they are a plan of mass one again.
            return own / devices.total(jnp.sum(own)) if options.queue_rows else own

        plans = {name: plan(pool[name]) for name in ("image", "text")}
        rows = count * devices.device_count()
        health = [plan_health(x, rows=rows, across=devices) for x in plans.values()]
        return plans, jax.tree.map(lambda a, b: (a + b) / 2, *health)

    def _codes(self, projected, rows, shared, *, codes, tau):
        """L_code; its transport term is a sum over the global batch, here over some rows of it."""
        options, plans = self.config.codebook, {name: rows[f"plan_{name}"] for name in ("image", "text")}
        # The mean over parts and devices is meant.
        parts = self.config.train.microbatches * devices.device_count()
        losses = code_losses(
            student_image=projected["image"],
            student_text=projected["text"],
            teacher_image=rows["assigned_image"],
            teacher_text=rows["assigned_text"],
            codes=codes,
            plan_image=parts * plans["image"],
            plan_text=parts * plans["text"],
            targets_image=row_normalise(plans["image"]),
            targets_text=row_normalise(plans["text"]),
            temperature=options.temperature or tau,
        )
        return {**losses, "code": options.ot_weight * losses["ot"] + losses["i2p"] + losses["t2p"], **shared["health"]}

    def _matching(self, student, image, text, context, rows, shared, *, tau):
        """L_itm on c true pairs, c pairs with a hard negative image and c with a hard negative text.

        Negatives come from groups of `itm.group_size` consecutive pairs of the global batch; where a device has fewer,
        a group spans devices, which then share what its members need.
        """
        c, group = rows["id"].shape[0], self.config.itm.group_size
        span = self.group_devices(c)
        pool = devices.gather_within(
            {
                "image": image["feature"],
                "text": text["feature"],
                "teacher_image": rows["teacher_image"],
                "teacher_text": rows["teacher_text"],
                "id": rows["id"],
                "ids": rows["text"],
                "text_tokens": text["tokens"],
                # Tokens are a fraction of the keys and values they are projected to on the device that uses them.
                **({"image_tokens": image["tokens"]} if span > 1 else {}),
            },
            span,
        )

        def similarity(queries, keys):
            return jnp.matmul(queries, keys.T, precision=jax.lax.Precision.HIGHEST) / tau

        negatives = sample_negatives(
            jax.random.fold_in(shared["draw"], 0),
            similarity(pool["image"], pool["teacher_text"]),
            similarity(pool["text"], pool["teacher_image"]),
            pool["id"],
            group_index_offset=rows["index"][0] // group,
            group_size=group,
        )
        of_text, of_image, no_candidate = negatives["text"], negatives["image"], negatives["no_candidate"]
        if span > 1:
            own = devices.device_index() % span * c
            of_text, of_image = (jax.lax.dynamic_slice_in_dim(x, own, c) for x in (of_text, of_image))
        ids, tokens = rows["text"], text["tokens"]
        ids = jnp.concatenate([ids, ids, pool["ids"][of_text]])
        tokens = jnp.concatenate([tokens, tokens, pool["text_tokens"][of_text]])
        if span > 1:
            negative = student.image_context(pool["image_tokens"][of_image])
        else:
            negative = jax.tree.map(lambda x: x[of_image], context)
        contexts = jax.tree.map(lambda own, other: jnp.concatenate([own, other, own]), context, negative)
        logits = self.model.apply({"params": student.params}, student.fuse(tokens, ids, contexts, 1), method="match")
        labels = jnp.concatenate([jnp.ones(c, jnp.int32), jnp.zeros(2 * c, jnp.int32)])
        return {**matching_loss(logits, labels), "itm_no_candidate": no_candidate}

    def mask(self, batch, draw):
        """Masked texts and what was masked, see `mask_tokens`; `draw` is the step's key for all but dropout."""
        tokens, options = self.tokens, self.config.mlm
        return mask_tokens(
            jax.random.fold_in(draw, 1),
            batch["text"],
            sample_index=batch["index"],
            mask_id=tokens["mask"],
            vocab_size=tokens["vocab_size"],
            special_ids=(tokens["pad"], tokens["cls"], tokens["sep"]),
            probability=options.probability,
            max_predictions=options.max_predictions,
        )

    def _masked_tokens(self, student, teacher, context, rows, shared):
        """L_mlm: the last layer and the head run on the masked positions only."""
        masked = rows["masked"]

        def logits(model, image):
            fused = model.fuse(model.text(masked["ids"])["tokens"], masked["ids"], image, masked["positions"])
            return self.model.apply({"params": model.params}, fused, method="predict_tokens")

        # Without soft targets there is nothing to ask the teacher.
        soft = jax.lax.stop_gradient(logits(teacher, rows["teacher_tokens"])) if "teacher_tokens" in rows else None
        return mlm_losses(
            logits(student, context),
            masked["labels"],
            masked["weights"],
            soft,
            alpha=shared["alpha"],
            total=shared["masked_total"] / self.config.train.microbatches,
        )
