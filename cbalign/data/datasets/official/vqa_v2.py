"""TFDS builder of `vqa_v2`: questions about COCO images, each answered by ten people."""

from __future__ import annotations

import collections
import json
import pathlib
from collections.abc import Mapping

import tensorflow_datasets as tfds

from cbalign.data.datasets import schema
from cbalign.data.datasets.official.annotation_files import checking_fields, read_json
from cbalign.data.datasets.official.coco_karpathy import coco_image
from cbalign.data.datasets.official.official_builder import Contents, OfficialBuilder, SplitRows
from cbalign.data.datasets.official.official_files import OfficialFiles
from cbalign.data.datasets.schema import ANSWER_LIST
from cbalign.errors import UserError

MIN_ANSWER_COUNT = 9
"""Questions that must agree on an answer for it to be listed (Teney et al., CVPR 2018, and most later work)."""

_SUBSETS = {"train": "train2014", "val": "val2014", "test": "test2015"}


class VqaV2(OfficialBuilder):
    """Questions about COCO images, each answered by ten people; the answers of `test` are not public.

    Visual Genome's questions, where present, form the split `vg`: one answer each, in lower case and without a full
    stop. Half of its images are in COCO's `train` and `val`, so do not select checkpoints on `val` when training on
    `vg`. The answers to choose from are in `answer_list.json` beside the records.
    """

    name = "vqa_v2"
    VERSION = tfds.core.Version("1.0.0")
    SCHEMA = schema.questions
    EXPECTED = {"train": 443_757, "val": 214_354, "test": 447_793}
    INSTRUCTIONS = """
    train2014/COCO_train2014_*.jpg, val2014/COCO_val2014_*.jpg, test2015/COCO_test2015_*.jpg
        train2014.zip, val2014.zip and test2015.zip from https://cocodataset.org/#download, unpacked
    v2_OpenEnded_mscoco_{train2014,val2014,test2015}_questions.json, v2_mscoco_{train2014,val2014}_annotations.json
        from https://visualqa.org/download.html, unpacked
    question_answers.json, VG_100K/*.jpg, VG_100K_2/*.jpg (optional)
        Visual Genome's questions, from https://homes.cs.washington.edu/~ranjay/visualgenome/api.html, unpacked
    answer_list.json (optional)
        a list of strings, such as ALBEF's 3,128 answers; by default, the answers that are the agreed answer of at least
        9 questions of train and val
    """

    def read(self, files: OfficialFiles) -> Contents:
        """See `OfficialBuilder.read`."""
        contents, agreed = Contents(), collections.Counter()
        for split, subset in _SUBSETS.items():
            _read_split(files, split, subset, contents, agreed)
        _read_visual_genome(files, contents)
        if contents.splits:
            contents.side_files[ANSWER_LIST] = json.dumps(_answer_list(files, agreed, contents), indent=0)
        return contents


def frequent_answers(counts: Mapping[str, int], minimum: int = MIN_ANSWER_COUNT) -> list[str]:
    """The agreed answers of at least `minimum` questions, most frequent first."""
    kept = [answer for answer, count in counts.items() if count >= minimum]
    return sorted(kept, key=lambda answer: (-counts[answer], answer))


def _read_split(files: OfficialFiles, split: str, subset: str, contents: Contents, agreed: collections.Counter) -> None:
    """Reads the questions of a split and, except for `test`, their answers; adds to the counts of agreed answers."""
    questions = files.find(f"v2_OpenEnded_mscoco_{subset}_questions.json")
    names = [f"v2_mscoco_{subset}_annotations.json"] if split != "test" else []
    annotations = files.find(*names)
    if questions is None or (names and annotations is None):
        missing = names[0] if questions else f"v2_OpenEnded_mscoco_{subset}_questions.json"
        contents.notes.append(f"no {missing}: the split {split} is not built")
        return
    answers = _annotations(annotations) if annotations else {}
    rows = contents.splits[split] = SplitRows()
    with checking_fields(questions):
        for entry in read_json(questions, dict)["questions"]:
            number, image, question = entry["question_id"], entry["image_id"], entry["question"]
            if answers and number not in answers:
                rows.skipped["no answers"].append(str(number))
                continue
            given, question_type, answer_type, agreed_answer = answers.get(number, ([], "", "", None))
            if len(texts := [answer for answer in given if isinstance(answer, str)]) < len(given):
                rows.left_out["answer is no text"].append(str(number))
                given = texts
            if isinstance(agreed_answer, str):
                agreed[agreed_answer.lower().strip()] += 1
            file = coco_image(files, f"{subset}/COCO_{subset}_{image:012d}.jpg")
            values = (image, number, question, given, question_type, answer_type)
            rows.add(str(number), [file], [question], values)


def _annotations(path: pathlib.Path) -> dict[int, tuple]:
    """{number of the question: (ten answers, question type, answer type, agreed answer)}."""
    with checking_fields(path):
        return {
            entry["question_id"]: (
                entry["answers"],
                entry["question_type"],
                entry["answer_type"],
                entry["multiple_choice_answer"],
            )
            for entry in read_json(path, dict, _condense)["annotations"]
        }


def _condense(entry: dict):
    """Keeps only the texts of the six million answers, whose objects would take several gigabytes."""
    return entry["answer"] if "answer_id" in entry else entry


def _read_visual_genome(files: OfficialFiles, contents: Contents) -> None:
    path = files.find("question_answers.json")
    if path is None:
        contents.notes.append("no question_answers.json: the split vg, Visual Genome's questions, is not built")
        return
    rows = contents.splits["vg"] = SplitRows()
    with checking_fields(path):
        for entry in read_json(path, list):
            for pair in entry["qas"]:
                image, number = pair["image_id"], pair["qa_id"]
                answer = pair["answer"].strip().removesuffix(".").lower()
                values = (-image, -number, pair["question"], [answer], "", "")
                rows.add(str(number), [files.image(f"{image}.jpg")], [pair["question"]], values)


def _answer_list(files: OfficialFiles, agreed: collections.Counter, contents: Contents) -> list[str]:
    """The list in the folder, else the frequent answers of those of `train` and `val` that are present."""
    path = files.find(ANSWER_LIST)
    if path is None:
        answers = frequent_answers(agreed)
        source = " and ".join(split for split in ("train", "val") if split in contents.splits) or "no split"
        contents.notes.append(f"no {ANSWER_LIST}: {len(answers):,} answers are listed, taken from {source}")
        return answers
    answers = read_json(path, list)
    if not answers or not all(isinstance(answer, str) for answer in answers):
        raise UserError(f'{path} is not a list of strings such as ["yes", "no", ...]')
    return answers
