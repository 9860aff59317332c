"""The features of the records of each kind of data set; real and drawn ones of a kind have the same.

Images are encoded JPEG or PNG, as they were in the source; texts are raw, and cleaned when they are read.
"""

import dataclasses

import numpy as np
import tensorflow_datasets as tfds

# SNLI-VE's relations of a sentence to an image; labels are numbers of this order (ALBEF's `ve_dataset.py`).
ENTAILMENT_LABELS = ("contradiction", "neutral", "entailment")


def _image() -> tfds.features.Image:
    # No encoding format: a data set holds JPEG as well as PNG.
    return tfds.features.Image(shape=(None, None, 3))


def _texts() -> tfds.features.Sequence:
    return tfds.features.Sequence(tfds.features.Text())


def captions() -> dict:
    """Images with captions.

    image: the image.
    captions: one caption or more.
    id: records that share it are joint positives.
    name: unique within the data set, for people; usually the path of the image below its folder.
    """
    return {"image": _image(), "captions": _texts(), "id": np.int64, "name": tfds.features.Text()}


def questions() -> dict:
    """Visual question answering (VQA v2): one record a question.

    image: the image.
    image_id: number of the image in its source; negative for Visual Genome's, so that COCO's are apart.
    question_id: number of the question, unique within a data set; negative likewise.
    question: the question.
    answers: the raw answers of ten people, repeated as given; one answer in Visual Genome; none where they are secret.
    question_type: the first words, as VQA v2 groups them ("what color is the"); "" if unknown.
    answer_type: "yes/no", "number" or "other"; "" if unknown.
    """
    return {
        "image": _image(), "image_id": np.int64, "question_id": np.int64, "question": tfds.features.Text(),
        "answers": _texts(), "question_type": tfds.features.Text(), "answer_type": tfds.features.Text(),
    }


def image_pairs() -> dict:
    """Statements about two images (NLVR2): one record a statement.

    image_left, image_right: the images.
    sentence: the statement.
    label: 1 if it is true of the pair, else 0.
    identifier: unique within the data set.
    """
    return {
        "image_left": _image(), "image_right": _image(), "sentence": tfds.features.Text(), "label": np.int64,
        "identifier": tfds.features.Text(),
    }


def entailment() -> dict:
    """Visual entailment (SNLI-VE): one record a sentence.

    image: the image, which is the premise.
    image_id: name of the image in its source, shared by the sentences about it.
    sentence: the hypothesis.
    label: a number of `ENTAILMENT_LABELS`.
    pair_id: the pair's name in the source.
    """
    return {
        "image": _image(), "image_id": tfds.features.Text(), "sentence": tfds.features.Text(), "label": np.int64,
        "pair_id": tfds.features.Text(),
    }


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of record.

    Attributes:
      name: in words, as messages say it.
      features: of its data sets, by name.
      images: names of the features that are images, one or two.
      text: name of the feature that is encoded as tokens.
      identifier: name of the feature by which people tell records apart.
    """

    name: str
    features: dict
    images: tuple[str, ...]
    text: str
    identifier: str

    @property
    def several_texts(self) -> bool:
        """Whether a record has any number of texts, of which training draws one; else it has exactly one."""
        return isinstance(self.features[self.text], tfds.features.Sequence)


KINDS = {
    "captions": Kind("images and captions", captions(), ("image",), "captions", "name"),
    "questions": Kind("questions", questions(), ("image",), "question", "question_id"),
    "image_pairs": Kind("image pairs", image_pairs(), ("image_left", "image_right"), "sentence", "identifier"),
    "entailment": Kind("entailment", entailment(), ("image",), "sentence", "pair_id"),
}
"""Kinds of records by name."""
