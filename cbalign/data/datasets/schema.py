"""The features of each kind of record; real and generated data sets of a kind share them.

Images are stored as encoded JPEG or PNG, as in the source; texts are stored raw and cleaned when they are read.
"""

import dataclasses

import numpy as np
import tensorflow_datasets as tfds

# SNLI-VE's classes; labels are indices into this tuple (the order of ALBEF's `ve_dataset.py`).
ANSWER_LIST = "answer_list.json"
"""File of the answers that VQA is trained to give, beside a data set's records."""

ENTAILMENT_LABELS = ("contradiction", "neutral", "entailment")


def _image() -> tfds.features.Image:
    # No encoding format: a data set may contain both JPEG and PNG.
    return tfds.features.Image(shape=(None, None, 3))


def _texts() -> tfds.features.Sequence:
    return tfds.features.Sequence(tfds.features.Text())


def captions() -> dict:
    """Images with captions.

    image: the image.
    captions: one or more captions.
    id: records with equal ids are joint positives.
    name: unique within the data set, for display; usually the path of the image relative to its folder.
    """
    return {"image": _image(), "captions": _texts(), "id": np.int64, "name": tfds.features.Text()}


def questions() -> dict:
    """Visual question answering (VQA v2): one record per question.

    image: the image.
    image_id: id of the image in its source; negated for Visual Genome, to be distinct from COCO's.
    question_id: id of the question, unique within a data set; likewise negated for Visual Genome.
    question: the question.
    answers: the raw answers of the ten annotators, with repetitions; one answer in Visual Genome; empty where the
      answers are not public.
    question_type: the first words, as grouped by VQA v2 ("what color is the"); "" if unknown.
    answer_type: "yes/no", "number" or "other"; "" if unknown.
    """
    return {
        "image": _image(),
        "image_id": np.int64,
        "question_id": np.int64,
        "question": tfds.features.Text(),
        "answers": _texts(),
        "question_type": tfds.features.Text(),
        "answer_type": tfds.features.Text(),
    }


def image_pairs() -> dict:
    """Statements about two images (NLVR2): one record per statement.

    image_left, image_right: the images.
    sentence: the statement.
    label: 1 if the statement is true of the pair, else 0.
    identifier: unique within the data set.
    """
    return {
        "image_left": _image(),
        "image_right": _image(),
        "sentence": tfds.features.Text(),
        "label": np.int64,
        "identifier": tfds.features.Text(),
    }


def entailment() -> dict:
    """Visual entailment (SNLI-VE): one record per hypothesis.

    image: the premise.
    image_id: name of the image in its source, shared by all hypotheses about it.
    sentence: the hypothesis.
    label: index into `ENTAILMENT_LABELS`.
    pair_id: name of the pair in the source.
    """
    return {
        "image": _image(),
        "image_id": tfds.features.Text(),
        "sentence": tfds.features.Text(),
        "label": np.int64,
        "pair_id": tfds.features.Text(),
    }


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of record.

    Attributes:
      name: description used in messages.
      features: the features of its data sets, by name.
      images: names of the image features, one or two.
      text: name of the feature that is tokenized.
      identifier: name of the feature that identifies a record to the user.
    """

    name: str
    features: dict
    images: tuple[str, ...]
    text: str
    identifier: str

    @property
    def several_texts(self) -> bool:
        """Whether a record may have several texts, of which training samples one; otherwise it has exactly one."""
        return isinstance(self.features[self.text], tfds.features.Sequence)


KINDS = {
    "captions": Kind("images and captions", captions(), ("image",), "captions", "name"),
    "questions": Kind("questions", questions(), ("image",), "question", "question_id"),
    "image_pairs": Kind("image pairs", image_pairs(), ("image_left", "image_right"), "sentence", "identifier"),
    "entailment": Kind("entailment", entailment(), ("image",), "sentence", "pair_id"),
}
"""The kinds of records, by name."""
