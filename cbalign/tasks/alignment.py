"""What pretraining and retrieval share besides their losses: the model, retrieval evaluation, baselines, matching."""

from __future__ import annotations

import functools
import re

import jax
import numpy as np

from cbalign.errors import UserError
from cbalign.evaluation import encoders
from cbalign.evaluation.baselines import bag_of_words, pixel_nearest_neighbour
from cbalign.evaluation.calls import Call, batches
from cbalign.evaluation.gallery import Gallery, retrieve
from cbalign.evaluation.reranking import call_shape, most_pairs
from cbalign.models.alignment import AlignmentModel, teacher_subset
from cbalign.storage import remembered
from cbalign.tasks.base import Evaluation, Task, text_limits

# Strength of the bag-of-words baseline's ridge, relative to the mean variance of a pixel; the best of 0.1, 0.3 and 1 on
# the validation vendor of `emoji`.
_RIDGE = 0.3
# The baselines hold all images of both splits, resized; beyond that many bytes they are left out, with a note.
_BASELINE_BYTES = 4 << 30
# Stored baselines of another version are computed anew.
_BASELINE_VERSION = 1


class AlignmentTask(Task):
    """A task that aligns images and texts in one embedding space, with momentum queues and a matching head."""

    result_kind = "retrieval"
    uses_queue = True
    shares_embedding_space = True
    log_metrics = ("loss", "ica", "ot", "i2p", "t2p", "itm", "mlm", "temperature")

    def build_model(self, sizes):
        """See `Task.build_model`."""
        config = self.config
        return AlignmentModel(
            sizes,
            embed_dim=config.model.embed_dim,
            num_codes=config.codebook.num_codes,
            temperature_init=config.contrast.temperature,
            embed=config.codebook.embed,
            embed_temperature=config.codebook.embed_temperature,
        )

    def teacher_params(self, params):
        """See `Task.teacher_params`: both encoders, fusion layers, projections and the masked-token head."""
        return teacher_subset(params)

    @property
    def trains_matching(self):
        """See `Task.trains_matching`."""
        return bool(self.config.loss_weights.itm)

    @property
    def trains_codebook(self):
        """See `Task.trains_codebook`; as parts of the features, the contrastive terms train the codes too."""
        return bool(self.config.loss_weights.code or self.config.codebook.embed)

    def label_shapes(self):
        """See `Task.label_shapes`."""
        return {"id": ((), np.int32)}

    @property
    def second_view(self):
        """See `Task.second_view`."""
        return self.config.data.second_view

    @classmethod
    def check(cls, config, *, devices=1):
        """See `Task.check`; groups of negatives are whole, the batch divides the queues."""
        super().check(config, devices=devices)
        batch = config.train.batch_size
        if config.queue.size % batch:
            raise UserError(
                f"config: queue.size={config.queue.size} is not a multiple of train.batch_size={batch}; use "
                f"{max(1, round(config.queue.size / batch)) * batch}"
            )
        if not any(config.loss_weights.values()):
            raise UserError("config: all of loss_weights are 0; nothing would be learned")
        if config.codebook.queue_rows > config.queue.size:
            raise UserError(
                f"config: codebook.queue_rows={config.codebook.queue_rows} is more than queue.size={config.queue.size}"
            )
        if config.codebook.queue_rows and not config.codebook.teacher:
            raise UserError(
                "config: codebook.queue_rows are features of the teacher; set it to 0 where codebook.teacher is False"
            )
        if config.codebook.queue_rows and config.codebook.embed:
            raise UserError(
                "config: where codebook.embed is True the queues hold mixtures of codes, which the transport cannot "
                "take; set codebook.queue_rows to 0"
            )
        decays = [decay for pattern, _, decay in config.optimizer.groups if re.fullmatch(pattern, "temperature/value")]
        if not config.contrast.learn_temperature and decays and decays[0]:
            raise UserError(
                "config: contrast.learn_temperature is False, but optimizer.groups decays temperature/value"
            )
        if config.loss_weights.itm:
            cls.check_groups(config, devices=devices, least=2)

    @functools.cached_property
    def compiled(self) -> dict:
        """The model's compiled methods, see `encoders.compiled_methods`."""
        return encoders.compiled_methods(self.model)

    def evaluate(self, params, split, *, quick=False, progress=None):
        """See `Task.evaluate`: retrieval in both directions, by each score; quickly, by `eval.best_score` alone."""
        options, size = self.config.eval, self.config.data.image_size
        gallery = Gallery.of(split.records, split.columns, captions_per_image=options.captions_per_image)
        result = retrieve(
            encoders.bind(self.compiled, params),
            gallery,
            split.batches(image_size=size, batch_size=options.batch_size),
            top_k=options.rerank_top_k,
            batch_size=options.batch_size,
            token_bytes=options.token_megabytes << 20,
            reranking=not quick or options.best_score != "contrastive",
            progress=progress,
        )
        return Evaluation(result)

    def evaluation_calls(self, size, *, devices, quick=False):
        """See `Task.evaluation_calls`; every candidate of both directions counts once, though many are in both."""
        options, data, shape = self.config.eval, self.config.data, jax.ShapeDtypeStruct
        b, texts = options.batch_size, size.texts
        if options.captions_per_image:
            texts = min(texts, size.records * options.captions_per_image)
        params = jax.eval_shape(self.init_params, jax.random.key(0))
        images = shape((b, data.image_size, data.image_size, 3), np.uint8)
        ids = shape((b, text_limits(self.config)[0]), np.int32)
        calls = [
            Call("encode images", self.compiled["image"], (), (images,), batches(size.records, b)),
            Call("encode texts", self.compiled["text"], (), (ids,), batches(texts, b)),
        ]
        if quick and options.best_score == "contrastive":
            return calls
        encoded = [
            jax.eval_shape(self.compiled[name], params, x)["tokens"] for name, x in (("image", images), ("text", ids))
        ]

        def stored(tokens, count):
            """Shape and dtype of one item's tokens, as a gallery of `count` keeps them."""
            large = count * tokens.size // b * tokens.dtype.itemsize > options.token_megabytes << 20
            return tokens.shape[1:], np.dtype(jax.numpy.bfloat16) if large else tokens.dtype

        pairs = most_pairs(size.records, texts, options.rerank_top_k)
        count, width = call_shape(pairs, size.records, b, devices)
        (of_image, image_dtype), (of_text, text_dtype) = stored(encoded[0], size.records), stored(encoded[1], texts)
        fits = texts * np.prod(of_text) * text_dtype.itemsize <= options.token_megabytes << 20
        held = texts if fits else count * width
        known = {"tokens": shape((held, *of_text), text_dtype), "ids": shape((held, *ids.shape[1:]), np.int32)}
        rows = (shape((count, width), np.int32), shape((count, *of_image), image_dtype))
        units = batches(pairs, width) + size.records // 2  # on average half of an image's last unit is padding
        return [*calls, Call("match pairs", self.compiled["match"], (known,), rows, batches(units, count), shared=True)]

    def headline(self, result):
        """See `Task.headline`: recalls by `eval.best_score`."""
        return result[self.config.eval.best_score]

    def baselines(self, split, train, *, own_data):
        """What raw pixels and word counts reach on the same gallery, learned from the run's training split.

        Ids mean nothing from one data set to another, so the nearest neighbour, which goes by them, is left out there.
        """
        size, seen = self.config.data.image_size, train()
        needed = (len(seen) + len(split)) * size * size * 3
        if needed > _BASELINE_BYTES:
            return {}, [f"no baselines: they hold all images of both splits at once, {needed / 2**30:,.0f} GiB here"]
        captions = self.config.eval.captions_per_image

        def compute():
            gallery = Gallery.of(split.records, split.columns, captions_per_image=captions)
            trained, images = (all_images(one, size) for one in (seen, split))
            train_ids, ids = (one.columns.arrays["id"] for one in (seen, split))
            nearest = pixel_nearest_neighbour(trained, train_ids, images, ids, gallery.text_ids) if own_data else None
            words = bag_of_words(
                trained, seen.records.texts, images, gallery.texts, ids, gallery.text_ids, ridge=_RIDGE
            )
            return {"pixel_nearest_neighbour": nearest, "bag_of_words": words}

        # Records made in memory have no sources, and nothing that identifies them.
        data = [[source.index.fingerprint for source in one.records.sources] for one in (seen, split)]
        key = {
            "version": _BASELINE_VERSION,
            "data": data,
            "image_size": size,
            "plain_rgb": self.config.data.plain_rgb,
            "captions_per_image": captions,
            "own_data": own_data,
        }
        return remembered("baselines", key, compute) if all(data) else compute(), []

    def predict(self, params, images, ids, *, match=False):
        """See `Task.predict`: whether the text matches the image, by the matching head."""
        if not match or not self.trains_matching:
            return super().predict(params, images, ids, match=match)
        return ["no match", "match"], np.asarray(self._match_probabilities(params, images[0], ids))[0]

    @functools.cached_property
    def _match_probabilities(self):
        def probabilities(params, image, ids):
            apply = functools.partial(self.model.apply, {"params": params})
            text, encoded = apply(ids, method="encode_text"), apply(image, method="encode_image")
            fused = apply(text["tokens"], ids, encoded["tokens"], 1, method="fuse")
            return jax.nn.softmax(apply(fused, method="match"), axis=-1)

        return jax.jit(probabilities)


def all_images(split, image_size: int) -> np.ndarray:
    """All images of a split, resized: uint8 [n, S, S, 3]."""
    batches = split.batches(image_size=image_size, batch_size=256)
    return np.concatenate([batch["image"][:valid] for batch, valid in batches])
