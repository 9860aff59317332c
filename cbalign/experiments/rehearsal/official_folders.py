"""Miniature folders of the paper's eight data sets: the official file formats, a few dozen images each.

What the real files are known for is in them: greyscale, CMYK and palette images, PNG under the name of a JPEG, captions
that are empty, repeated, far too long or in another alphabet, more than five captions an image, Flickr's numbers beyond
32 bits, images of other data sets' test splits, failed downloads and a truncated tar, answers in capitals, a test split
without answers, and pairs on whose label people did not agree.
"""

from __future__ import annotations

import pathlib

from cbalign.data.datasets.official import miniature

SETS = ("coco_karpathy", "flickr30k_karpathy", "visual_genome", "sbu", "cc3m", "vqa_v2", "nlvr2", "snli_ve")

_LONG = " ".join(f"word{i % 7}" for i in range(60))
_VAL2014, _TRAIN2014 = "val2014", "train2014"
_ANSWERS = ("yes", "no", "2", "red", "10:30")


def write_folders(root: pathlib.Path, *, scale: int = 1) -> dict[str, pathlib.Path]:
    """Writes all eight.

    Args:
      root: new folder.
      scale: how many times the training splits are as large as they need be for batches of 16.

    Returns:
      {data set: folder for `cbalign data build --manual-dir`}.
    """
    folders = {name: root / name for name in SETS}
    _coco(folders["coco_karpathy"], scale)
    _flickr(folders["flickr30k_karpathy"], scale)
    _visual_genome(folders["visual_genome"], scale)
    _web(folders["sbu"], first=0, scale=scale)
    _web(folders["cc3m"] / "training", first=10_000, scale=scale)
    miniature.pair_folder(folders["cc3m"] / "validation", "00000", range(20_000, 20_008), **_WEB)
    _vqa(folders["vqa_v2"], scale)
    pairs = {"train": 24 * scale, "dev": 8, "test1": 8}
    miniature.nlvr2(folders["nlvr2"], pairs=pairs, say=_statement)
    _drop_last(folders["nlvr2"] / "nlvr/nlvr2/data/test1.json", 1)
    _snli_ve(folders["snli_ve"], scale)
    return folders


def _write(path: pathlib.Path, number: int) -> bytes:
    """An image of one of the kinds that the real sets have."""
    size = (48 + number % 5 * 7, 36 + number % 3 * 11)
    kinds = {3: ("JPEG", "L"), 5: ("JPEG", "CMYK"), 7: ("PNG", "RGB"), 9: ("PNG", "P")}
    kind, mode = kinds.get(number % 11, ("JPEG", "RGB"))
    return miniature.write_image(path, number, size=size, kind=kind, mode=mode)


def captions(number: int) -> list[str]:
    """Captions of an image of COCO or Flickr30K, five or six."""
    own = [f"Image {number} as person {person} sees it." for person in range(5)]
    own[1] = f"A  {_ANSWERS[number % 4]} thing, number {number} - seen/heard \n"
    if number % 7 == 0:
        own[2] = f"{number} {_LONG}"
    if number % 7 == 1:
        own += [f"Über {number} ein Café 图"]
    if number % 7 == 2:
        own[3] = own[4]
    if number % 7 == 3:
        own[4] = " "
    return own


# Images of the evaluation splits.
COCO_VAL, COCO_TEST, FLICKR_VAL, FLICKR_TEST = 12, 24, 12, 20


def _coco_images(scale: int) -> list[tuple[int, str, str]]:
    """(number, Karpathy's split, folder) of each image; those of val2014 are in all four splits."""
    return [
        *((10_000 + i, "train", _TRAIN2014) for i in range(36 * scale)),
        *((20_000 + i, "restval", _VAL2014) for i in range(14 * scale)),
        *((30_000 + i, "val", _VAL2014) for i in range(COCO_VAL)),
        *((40_000 + i, "test", _VAL2014) for i in range(COCO_TEST)),
    ]


def _flickr_images(scale: int) -> list[tuple[int, str]]:
    """(number, split) of each image; some numbers do not fit 32 bits."""
    starts = (("train", 50 * scale, 36_979), ("val", FLICKR_VAL, 7_000_000_000), ("test", FLICKR_TEST, 1_000_092_795))
    return [(first + 1_000_000_007 * (i % 3) + i, split) for split, count, first in starts for i in range(count)]


def _flickr_captions(number: int) -> list[str]:
    return captions(number % 1000)


def _coco(root: pathlib.Path, scale: int) -> None:
    miniature.coco_images(root, _coco_images(scale), write=_write)
    miniature.coco_karpathy(root / "caption_datasets", _coco_images(scale), captions=captions)


def _flickr(root: pathlib.Path, scale: int) -> None:
    miniature.flickr30k(root, _flickr_images(scale), captions=_flickr_captions, write=_write)


def _visual_genome(root: pathlib.Path, scale: int) -> None:
    # Half of the images are COCO's or Flickr's; 3 and 4 are in their test splits.
    images: list[tuple[int, int | None, int | None]] = [(1, 10_000, 55), (2, None, None), (3, 40_000, None)]
    images += [(4, None, _flickr_images(scale)[-1][0])]
    images += [(i, 10_000 + i if i % 2 else None, None) for i in range(5, 5 + 40 * scale)]
    miniature.visual_genome(root, images, regions_of=_regions, write=_write)
    miniature.coco_karpathy(root / "caption_datasets", _coco_images(scale), captions=captions)
    miniature.flickr30k(root / "caption_datasets", _flickr_images(scale), captions=_flickr_captions)


def _regions(number: int) -> list[tuple[str, int]]:
    texts = [f"the region of {number} is {_ANSWERS[number % 4]}", "The sky is blue", "The sky is blue", "sky", ""]
    return [(text, 30) for text in texts]


def _web_caption(number: int) -> str:
    return f"pair {number} <person> #sunset {_ANSWERS[number % 4]}" + (f" {_LONG}" if number % 13 == 0 else "")


_WEB = {"caption": _web_caption, "write": _write}


def _web(root: pathlib.Path, *, first: int, scale: int) -> None:
    """Output of img2dataset: a folder, a tar with gaps where downloads failed, and a tar that was cut off."""
    miniature.pair_folder(root, "00000", range(first, first + 20 * scale), **_WEB)
    miniature.pair_tar(root, "00001", [first + 2000 + i for i in range(22 * scale) if i % 4], **_WEB)
    cut = miniature.pair_tar(root, "00002", range(first + 5000, first + 5010), **_WEB)
    cut.write_bytes(cut.read_bytes()[: -cut.stat().st_size // 4])


VQA_VAL, VQA_TEST = 20, 16


def _vqa(root: pathlib.Path, scale: int) -> None:
    def asked(image, count):
        return [(image + place % 12, 1000 * image + place) for place in range(count)]

    listed = {"train2014": asked(100, 48 * scale), "val2014": asked(300, VQA_VAL), "test2015": asked(500, VQA_TEST)}
    miniature.vqa(root, listed=listed, ask=_question, answer=_answered, write=_write)
    genome = [(1 + i % 6, 986_769 + i, f"What colour is clock {i}?", ("Dark Green.", "Red.")[i % 2]) for i in range(12)]
    miniature.vg_questions(root, genome, write=_write)


def _question(number: int) -> str:
    return f"What is {number % 50}?" if number % 9 else f"What is {number % 50}, {_LONG}?"


def _answered(number: int) -> dict:
    agreed = _ANSWERS[number % len(_ANSWERS)]
    people = [agreed] * 6 + [f"{agreed.capitalize()} "] * 2 + ["a fence, maybe", "net" if number % 2 else agreed]
    kinds = {"yes": "yes/no", "no": "yes/no", "2": "number", "10:30": "number"}
    return {
        "question_type": "what is",
        "answer_type": kinds.get(agreed, "other"),
        "multiple_choice_answer": agreed,
        "answers": people,
    }


def _statement(sentence: int, split: str) -> str:
    return f"Sentence {sentence} of {split} is {('false', 'true')[sentence]}." + (f" {_LONG}" if sentence else "")


def _snli_ve(root: pathlib.Path, scale: int) -> None:
    listed = _flickr_images(scale)
    miniature.flickr30k(root, listed, captions=_flickr_captions, write=_write)
    numbers = {split: [number for number, own in listed if own == split] for split in ("train", "val", "test")}
    images = {"train": numbers["train"][: 17 * scale], "dev": numbers["val"][:8], "test": numbers["test"][:9]}
    miniature.snli_ve(root, images, without="open to debate")
    _drop_last(root / "snli_ve_test.jsonl", 2)


def _drop_last(file: pathlib.Path, count: int) -> None:
    """Shortens a test split: its classes are no more as frequent as in validation, so that figures of both differ."""
    file.write_text("".join(file.read_text(encoding="utf-8").splitlines(keepends=True)[:-count]), encoding="utf-8")


# {(data set, split): what an evaluation must count}, from the counts above.
EVALUATED = {
    ("coco_karpathy", "val"): {"images": COCO_VAL},
    ("coco_karpathy", "test"): {"images": COCO_TEST},
    ("flickr30k_karpathy", "val"): {"images": FLICKR_VAL},
    ("flickr30k_karpathy", "test"): {"images": FLICKR_TEST},
    ("vqa_v2", "val"): {"questions": VQA_VAL},
    ("vqa_v2", "test"): {"questions": VQA_TEST},
    ("nlvr2", "val"): {"sentences": 16},
    ("nlvr2", "test"): {"sentences": 15},
    ("snli_ve", "val"): {"sentences": 24},
    ("snli_ve", "test"): {"sentences": 26},
}
