"""Retrieval baselines without a network, from raw pixels and word counts, to compare a model against."""

from collections import Counter

import numpy as np

from cbalign.evaluation.code_usage import words_of
from cbalign.evaluation.metrics import KS, directed_recall, recall

MAX_WORDS = 2000
MAX_ROWS = 20_000
MAX_SIDE = 32

# Number of values per block of images that is converted to floating point.
_BLOCK_ELEMENTS = 1 << 22


def pixel_nearest_neighbour(train_images, train_ids, images, image_ids, text_ids):
    """Text recall of a nearest-neighbor classifier on pixels, in percent.

    For each image x, concepts (ids) are ranked by

        min over training images t of the concept of |x - t|^2,

    over all pixels and channels. Candidates are the concepts of the gallery, each counted once regardless of its number
    of texts; concepts without a training image cannot be retrieved. Distances are exact.

    Args:
      train_images: uint8 [n, S, S, 3].
      train_ids: [n] concept ids.
      images: uint8 [n_images, S, S, 3].
      image_ids: [n_images] concept ids.
      text_ids: [n_texts] concept ids of the gallery.

    Returns:
      {"tr@1", "tr@5", "tr@10"} in percent of all images, or None if no image's concept has a training image.

    Raises:
      ValueError: images of different sizes, or a number of ids that differs from the number of images.
    """
    train_images, images = np.asarray(train_images), np.asarray(images)
    train_ids, image_ids = np.asarray(train_ids), np.asarray(image_ids)
    _check_images(train_images, train_ids, "training")
    _check_images(images, image_ids, "evaluation")
    if train_images.shape[1:] != images.shape[1:]:
        raise ValueError(f"training images are {train_images.shape[1:]}, evaluation images {images.shape[1:]}")
    if not np.isin(image_ids, train_ids).any():
        return None
    concepts = np.intersect1d(train_ids, text_ids)
    known = np.flatnonzero(np.isin(train_ids, concepts))
    order = known[np.argsort(train_ids[known], kind="stable")]
    nearest = _nearest_of_concept(
        train_images, order, np.searchsorted(concepts, train_ids[order]), len(concepts), images
    )
    return directed_recall(-nearest, image_ids, concepts, prefix="tr", ks=KS)


def bag_of_words(train_images, train_captions, images, captions, image_ids, text_ids, *, ridge):
    """Recall in both directions of ridge regression from pixels to TF-IDF vectors, in percent.

    A caption's vector has one entry for each of the `MAX_WORDS` most frequent words of the training captions: count
    times idf = ln((1 + N) / (1 + captions with the word)) + 1, normalized to unit length. A training image's target y
    is the mean over its captions. With x the pixels (0..1, larger images averaged down to sides of `MAX_SIDE`) minus
    their training mean,

        W = argmin |X W - Y|^2 + l |W|^2 = (X^T X + l I)^-1 X^T Y,    l = ridge * trace(X^T X) / columns of X,

    and captions and images are ranked by the cosine between x W and the caption's vector. There is no intercept: x W
    models how an image's words deviate from the average, which would otherwise be close to every image. At most
    `MAX_ROWS` evenly spaced training images are used. A caption without a known word has cosine 0 with every image.

    Args:
      train_images: uint8 [n, S, S, 3].
      train_captions: n non-empty lists of captions.
      images: uint8 [n_images, S, S, 3].
      captions: n_texts strings.
      image_ids: [n_images] ids.
      text_ids: [n_texts] ids.
      ridge: regularization strength relative to the mean diagonal entry of X^T X, above 0; 0.1 to 1 suit small images.

    Returns:
      As `metrics.recall`.

    Raises:
      ValueError: ridge is not positive, images differ in size, the number of captions or ids does not match, or a
        training image has no caption.
    """
    train_images, images = np.asarray(train_images), np.asarray(images)
    _check_images(train_images, train_captions, "training")
    _check_images(images, image_ids, "evaluation")
    if train_images.shape[1:] != images.shape[1:]:
        raise ValueError(f"training images are {train_images.shape[1:]}, evaluation images {images.shape[1:]}")
    if not ridge > 0:
        raise ValueError(f"ridge must be above 0, got {ridge}")
    if not all(train_captions):
        raise ValueError("every training image needs a caption")
    rows = _thinned(len(train_images))
    train_captions = [train_captions[row] for row in rows]
    words = _vocabulary(train_captions)
    x = _pixels(train_images[rows])
    mean = x.mean(axis=0)
    x -= mean
    weights = _ridge(x, _targets(train_captions, words), ridge)
    predicted = _unit((_pixels(images) - mean) @ weights)
    return recall(predicted @ _vectors(captions, words).T, image_ids, text_ids)


def _check_images(images, labels, what):
    """Raises ValueError unless images are uint8 [n, H, W, C] with n labels and n > 0."""
    if images.ndim != 4 or images.dtype != np.uint8:
        raise ValueError(f"{what} images must be uint8 [n, S, S, 3], got {images.dtype} {images.shape}")
    if len(images) == 0 or len(images) != len(labels):
        raise ValueError(f"{len(images)} {what} images with {len(labels)} labels")


def _nearest_of_concept(train_images, order, concept_of, n_concepts, images):
    """Squared distance from each image to the nearest training image of each concept.

    Args:
      train_images: uint8 [n, ...].
      order: [m] indices into train_images, sorted by concept.
      concept_of: [m] the concept (0..n_concepts - 1) of each of these, ascending; every concept occurs.
      n_concepts: number of concepts.
      images: uint8 [n_images, ...].

    Returns:
      float64 [n_images, n_concepts].
    """
    nearest = np.full((len(images), n_concepts), np.inf)
    block = max(1, _BLOCK_ELEMENTS // images[0].size)
    for start in range(0, len(order), block):
        train = _flat(train_images[order[start : start + block]])
        columns, firsts = np.unique(concept_of[start : start + block], return_index=True)
        for row in range(0, len(images), block):
            distance = _squared_distances(_flat(images[row : row + block]), train)
            best = np.minimum.reduceat(distance, firsts, axis=1)
            nearest[row : row + block, columns] = np.minimum(nearest[row : row + block, columns], best)
    return nearest


def _flat(images):
    """uint8 [n, ...] -> float64 [n, values per image]."""
    # Sums of products of bytes are exact in float64; in float32 only up to 2^24, which 260 bright values exceed.
    return images.reshape(len(images), -1).astype(np.float64)


def _squared_distances(a, b):
    """float64 [n, d], [m, d] -> [n, m]: |a|^2 - 2 a b + |b|^2."""
    return np.sum(a * a, axis=1)[:, None] - 2.0 * (a @ b.T) + np.sum(b * b, axis=1)[None, :]


def _thinned(n):
    """Indices of at most `MAX_ROWS` evenly spaced rows out of n: int64."""
    return np.arange(n) if n <= MAX_ROWS else np.linspace(0, n - 1, MAX_ROWS).astype(np.int64)


def _pixels(images):
    """uint8 [n, H, W, C] -> float32 [n, columns] in 0..1; sides above `MAX_SIDE` are averaged down to it."""
    for axis in (1, 2):
        side = images.shape[axis]
        if side > MAX_SIDE:
            # Cells differ by one pixel in width if the side is not a multiple of MAX_SIDE.
            edges = np.linspace(0, side, MAX_SIDE + 1).astype(np.int64)
            shape = [1] * images.ndim
            shape[axis] = MAX_SIDE
            total = np.add.reduceat(images, edges[:-1], axis=axis, dtype=np.float32)
            images = total / np.diff(edges).astype(np.float32).reshape(shape)
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)


def _vocabulary(caption_lists):
    """{word: (column, idf)} for the `MAX_WORDS` words that occur in most captions; ties in alphabetical order."""
    captions = [caption for several in caption_lists for caption in several]
    counts = Counter(word for caption in captions for word in set(words_of(caption)))
    common = sorted(counts, key=lambda word: (-counts[word], word))[:MAX_WORDS]
    return {word: (column, np.log((1 + len(captions)) / (1 + counts[word])) + 1) for column, word in enumerate(common)}


def _vectors(captions, words):
    """Unit-length TF-IDF vectors: float32 [n, len(words)]; zeros for a caption without a known word."""
    vectors = np.zeros((len(captions), len(words)), np.float32)
    for row, caption in enumerate(captions):
        for word in words_of(caption):
            if word in words:
                column, idf = words[word]
                vectors[row, column] += idf
    return _unit(vectors)


def _targets(caption_lists, words):
    """Mean vector of the captions of each image: float32 [n, len(words)]."""
    vectors = _vectors([caption for several in caption_lists for caption in several], words)
    counts = np.array([len(several) for several in caption_lists])
    firsts = np.cumsum(counts) - counts
    return np.add.reduceat(vectors, firsts, axis=0) / counts[:, None].astype(np.float32)


def _unit(vectors):
    """Normalizes rows to unit length; rows of zeros stay zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))


def _ridge(x, y, ridge):
    """(X^T X + l I)^-1 X^T Y in closed form: float32 [d, v], l as in `bag_of_words`.

    x: float32 [n, d]; y: float32 [n, v]. With fewer rows than columns, the equal
    X^T (X X^T + l I)^-1 Y is computed instead.
    """
    n, d = x.shape
    # Solved in float64: neighboring pixels are nearly equal, which makes the matrix nearly singular in float32.
    gram = (x.T @ x if n >= d else x @ x.T).astype(np.float64)
    # Identical images have no variance; any positive strength then gives W = 0.
    strength = ridge * np.trace(gram) / d or 1.0
    gram[np.diag_indices_from(gram)] += strength
    if n >= d:
        return np.linalg.solve(gram, (x.T @ y).astype(np.float64)).astype(np.float32)
    return x.T @ np.linalg.solve(gram, y.astype(np.float64)).astype(np.float32)
