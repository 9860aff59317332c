"""Retrieval with the weights of a run: galleries of images and texts, the evaluator's functions, protocols, results."""

from __future__ import annotations

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath, epy

from cbalign.errors import UserError
from cbalign.evaluation.baselines import bag_of_words, pixel_nearest_neighbour
from cbalign.evaluation.retrieval import Functions, evaluate_retrieval
from cbalign.distributed import devices

# Modules only: they bring tensorflow along.
with epy.lazy_imports():
    from cbalign.data import pipeline

# Strength of the bag-of-words baseline's ridge, relative to the mean variance of a pixel; of 0.1, 0.3 and 1 the best on
# the validation vendor of `emoji`.
_RIDGE = 0.3


@dataclasses.dataclass
class GallerySet:
    """Images and texts of a split to retrieve among.

    Attributes:
      records: the split.
      texts: the captions in the gallery.
      token_ids: int32 [n_t, L] of them.
      text_ids: int32 [n_t], the id of each text's image.
    """

    records: pipeline.Records
    texts: list
    token_ids: np.ndarray
    text_ids: np.ndarray

    @classmethod
    def of(cls, run, split: str, *, data: str = "") -> "GallerySet":
        """The first `eval.captions_per_image` captions of each image; equal texts of one id stand once."""
        records = run.records(split, data=data)
        limit = run.config.eval.captions_per_image or max(len(group) for group in records.captions)
        rows, seen = [], set()
        for i, group in enumerate(records.captions):
            for j, caption in enumerate(group[:limit]):
                if (key := (caption, int(records.ids[i]))) not in seen:
                    seen.add(key)
                    rows.append((i, int(records.caption_offsets[i]) + j, caption))
        return cls(
            records, [caption for _, _, caption in rows], records.token_ids[[row for _, row, _ in rows]],
            records.ids[[i for i, _, _ in rows]],
        )


@functools.lru_cache(maxsize=4)
def model_functions(model) -> dict:
    """The model's compiled methods {"image", "text", "match"} as `Functions` has them, the parameters first.

    Kept for the next call, so that evaluations in one process compile once.
    """

    def match(params, texts, rows, image_tokens):
        def one_pair(tokens, ids, image):
            tokens, image = tokens[None].astype(model.dtype), image[None].astype(model.dtype)
            fused = model.apply({"params": params}, tokens, ids[None], image, method="fuse")
            return model.apply({"params": params}, fused, method="match")[0]

        # Mapped over the texts alone, so that the keys and values of an image are made once for all of them.
        one_image = jax.vmap(one_pair, in_axes=(0, 0, None))
        return jax.vmap(one_image)(texts["tokens"][rows], texts["ids"][rows], image_tokens)

    return {
        "image": jax.jit(lambda params, x: model.apply({"params": params}, x, method="encode_image")),
        "text": jax.jit(lambda params, x: model.apply({"params": params}, x, method="encode_text")),
        "match": jax.jit(match),
    }


def bind(functions: dict, params) -> Functions:
    """The evaluator's functions with parameters: rows are spread over this process's devices, pairs over processes."""
    params = devices.copy_to_local(params)
    match = devices.spread_rows(functions["match"], whole=2)
    return Functions(
        encode_image=functools.partial(devices.spread_rows(functions["image"], whole=1), params),
        encode_text=functools.partial(devices.spread_rows(functions["text"], whole=1), params),
        hold=lambda tokens, ids: devices.copy_to_local({"tokens": tokens, "ids": ids}),
        match=functools.partial(match, params),
        temperature=float(params["temperature"]["value"]),
        process=(jax.process_index(), jax.process_count()),
        combine=devices.sum_over_processes,
    )


def retrieve(functions: dict, params, gallery: GallerySet, config, *, reranking: bool, progress=None) -> dict:
    """`evaluate_retrieval` of a gallery.

    Args:
      functions: from `model_functions`; images have the size of its model.
      params: of that model.
      gallery: images and texts.
      config: whose `data.image_size` and `eval` are used.
      reranking: whether the matching head is used.
      progress: see `evaluate_retrieval`.
    """
    size, batch = config.data.image_size, config.eval.batch_size
    return evaluate_retrieval(
        bind(functions, params), pipeline.eval_images(gallery.records, image_size=size, batch_size=batch),
        gallery.token_ids, image_ids=gallery.records.ids, text_ids=gallery.text_ids,
        top_k=config.eval.rerank_top_k, batch_size=batch, token_bytes=config.eval.token_megabytes << 20,
        reranking=reranking, progress=progress,
    )


def at_resolution(model, params, image_size: int):
    """(model, parameters) for images of another size: the position embeddings are interpolated as ALBEF does.

    Raises:
      UserError: the size is no multiple of the patches'.
    """
    if image_size == model.image_size:
        return model, params
    if image_size % model.patch_size:
        raise UserError(f"data.image_size={image_size} is not a multiple of the run's model.patch_size="
                        f"{model.patch_size}; use {max(1, round(image_size / model.patch_size)) * model.patch_size}")
    from cbalign.models.positions import resize_positions

    encoder = params["image_encoder"]
    table = np.asarray(encoder["position_embedding"].addressable_data(0))
    table = jnp.asarray(resize_positions(table, image_size // model.patch_size), jnp.float32)
    params = {**params, "image_encoder": {**encoder, "position_embedding": table}}
    return model.clone(image_size=image_size), params


def with_settings(run, settings):
    """The run with another config's way of evaluating: its image size, text length, `eval` and `protocol`.

    Raises:
      UserError: longer texts than the model has positions for.
    """
    config = type(run.config)(run.config.to_dict(), convert_dict=True).unlock()
    for name in ("image_size", "max_tokens", "dir"):
        config.data[name] = settings.data[name]
    for section in ("eval", "protocol"):
        config[section] = settings[section].copy_and_resolve_references()
    if config.data.max_tokens > config.model.max_positions:
        raise UserError(f"data.max_tokens={config.data.max_tokens} is more than the run's model.max_positions="
                        f"{config.model.max_positions}; use at most that")
    return dataclasses.replace(run, config=config.lock())


def evaluate(run, split: str, *, data: str = "", checkpoint: str = "best", settings=None, progress=None) -> dict:
    """Full retrieval evaluation of a split, with baselines; written to `metrics/` in the workdir.

    Args:
      run: from `open_run`.
      split: of the data set.
      data: another data set than the run's, by name or folder.
      checkpoint: see `Run.params`.
      settings: a config to evaluate by: its data set, image size, text length, `eval` and `protocol` take the place
        of the run's own.
      progress: see `evaluate_retrieval`.

    Returns:
      The result that `format_table` takes, with "file", where it was written.
    """
    trained, params = run.config, run.params(checkpoint=checkpoint)
    name = data or (settings or trained).data.name
    model = run.task.model
    if settings is not None:
        run = with_settings(run, settings)
        model, params = at_resolution(model, params, run.config.data.image_size)
    config = run.config
    gallery = GallerySet.of(run, split, data=name)
    result = retrieve(model_functions(model), params, gallery, config, reranking=True, progress=progress)
    own = name == trained.data.name
    result = {
        "data": name, "split": split, **result, "baselines": _baselines(run, gallery, own) if config.eval.baselines else {},
        "notes": result["notes"] + protocol_notes(config, trained, data=name),
        "weights": config.eval.weights, "image_size": config.data.image_size, "rerank_top_k": config.eval.rerank_top_k,
        "trained": {"task": trained.task, "data": trained.data.name, "image_size": trained.data.image_size},
        "protocol": config.protocol.to_dict() if config.protocol.name else None,
    }
    folder, parts = run.workdir / "metrics", [name, split] + ([config.protocol.name] if config.protocol.name else [])
    path = folder / f"retrieval_{'_'.join(map(file_name, parts))}.json"
    if jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + "\n")
    return {**result, "file": str(path)}


def protocol_notes(config, trained, *, data: str) -> list[str]:
    """What sets an evaluation apart from the protocol it names, a sentence each; none without a protocol.

    Args:
      config: by which it is evaluated.
      trained: config of the run whose weights are evaluated.
      data: the data set of the gallery.
    """
    wanted, notes = config.protocol, []
    if not wanted.name:
        return notes
    if (wanted.task, wanted.trained_on) != (trained.task, wanted.trained_on and trained.data.name):
        on = f" on {wanted.trained_on}" if wanted.trained_on else ""
        notes.append(f"{wanted.name} takes the weights of a {wanted.task} run{on}; these are of a {trained.task} run on "
                     f"{trained.data.name}")
    if wanted.data != data:
        notes.append(f"{wanted.name} is of {wanted.data}; this is {data}")
    if wanted.image_size != config.data.image_size:
        notes.append(f"{wanted.name} has images of {wanted.image_size} px; these have {config.data.image_size}")
    return notes


def file_name(name: str) -> str:
    """A data set's, split's or protocol's name as part of a file's."""
    name = epath.Path(name).name if epath.Path(name).is_dir() else name
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)


def all_images(records, image_size: int) -> np.ndarray:
    """All images of a split, resized: uint8 [n, S, S, 3]."""
    batches = pipeline.eval_images(records, image_size=image_size, batch_size=256)
    return np.concatenate([batch[:valid] for batch, valid in batches])


def _baselines(run, gallery: GallerySet, own_data: bool) -> dict:
    """What raw pixels and word counts reach on the same gallery, learned from the run's training split.

    Ids mean nothing from one data set to another, so that the nearest neighbour, which goes by them, is left out there.
    """
    size = run.config.data.image_size
    train, images = all_images(run.train_records, size), all_images(gallery.records, size)
    return {
        "pixel_nearest_neighbour": pixel_nearest_neighbour(
            train, run.train_records.ids, images, gallery.records.ids, gallery.text_ids) if own_data else None,
        "bag_of_words": bag_of_words(
            train, run.train_records.captions, images, gallery.texts, gallery.records.ids, gallery.text_ids,
            ridge=_RIDGE),
    }
