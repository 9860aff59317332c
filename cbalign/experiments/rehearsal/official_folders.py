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


def write_folders(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Writes all eight.

    Args:
      root: new folder.

    Returns:
      {data set: folder for `cbalign data build --manual-dir`}.
    """
    folders = {name: root / name for name in SETS}
    _coco(folders["coco_karpathy"])
    _flickr(folders["flickr30k_karpathy"])
    _visual_genome(folders["visual_genome"])
    _web(folders["sbu"], first=0)
    _web(folders["cc3m"] / "training", first=1000)
    miniature.pair_folder(folders["cc3m"] / "validation", "00000", range(2000, 2008), **_WEB)
    _vqa(folders["vqa_v2"])
    pairs = {"train": 24, "dev": 8, "test1": 8}
    miniature.nlvr2(folders["nlvr2"], pairs=pairs, say=_statement)
    _snli_ve(folders["snli_ve"])
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


# (number, Karpathy's split, folder): images of val2014 are in all four splits.
COCO = (
    *((100 + i, "train", _TRAIN2014) for i in range(36)),
    *((200 + i, "restval", _VAL2014) for i in range(14)),
    *((300 + i, "val", _VAL2014) for i in range(12)),
    *((400 + i, "test", _VAL2014) for i in range(24)),
)
# Some of Flickr's numbers do not fit 32 bits.
FLICKR = tuple(
    (first + 1_000_000_007 * (i % 3) + i, split)
    for split, count, first in (("train", 50, 36_979), ("val", 12, 7_000_000_000), ("test", 20, 1_000_092_795))
    for i in range(count)
)


def _coco(root: pathlib.Path) -> None:
    miniature.coco_images(root, COCO, write=_write)
    miniature.coco_karpathy(root / "caption_datasets", COCO, captions=captions)


def _flickr(root: pathlib.Path) -> None:
    miniature.flickr30k(root, FLICKR, captions=lambda number: captions(number % 1000), write=_write)


def _visual_genome(root: pathlib.Path) -> None:
    # Half of the images are COCO's or Flickr's; 3 and 4 are in their test splits.
    images = [(1, 100, 55), (2, None, None), (3, 400, None), (4, None, FLICKR[-1][0])]
    images += [(i, 100 + i if i % 2 else None, None) for i in range(5, 45)]
    miniature.visual_genome(root, images, phrases=_phrases, write=_write)
    karpathy = root / "caption_datasets"
    miniature.coco_karpathy(karpathy, COCO, captions=captions)
    entries = [
        miniature.karpathy_entry(i, split, f"{number}.jpg", captions(number % 1000), 5 * i)
        for i, (number, split) in enumerate(FLICKR)
    ]
    miniature.write_json(karpathy / "dataset_flickr30k.json", {"images": entries, "dataset": "flickr30k"})


def _phrases(number: int) -> list[str]:
    return [f"the region of {number} is {_ANSWERS[number % 4]}", "The sky is blue", "The sky is blue", "sky", ""]


def _web_caption(number: int) -> str:
    return f"pair {number} <person> #sunset {_ANSWERS[number % 4]}" + (f" {_LONG}" if number % 13 == 0 else "")


_WEB = {"caption": _web_caption, "write": _write}


def _web(root: pathlib.Path, *, first: int) -> None:
    """Output of img2dataset: a folder, a tar with gaps where downloads failed, and a tar that was cut off."""
    miniature.pair_folder(root, "00000", range(first, first + 20), **_WEB)
    miniature.pair_tar(root, "00001", [first + 100 + i for i in range(22) if i % 4], **_WEB)
    cut = miniature.pair_tar(root, "00002", range(first + 200, first + 210), **_WEB)
    cut.write_bytes(cut.read_bytes()[: -cut.stat().st_size // 4])


def _vqa(root: pathlib.Path) -> None:
    def asked(image, count):
        return [(image + place % 12, 1000 * image + place) for place in range(count)]

    listed = {"train2014": asked(100, 48), "val2014": asked(300, 20), "test2015": asked(500, 16)}
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


def _snli_ve(root: pathlib.Path) -> None:
    miniature.flickr30k(root, FLICKR, captions=lambda number: captions(number % 1000), write=_write)
    numbers = {split: [number for number, own in FLICKR if own == split] for split in ("train", "val", "test")}
    images = {"train": numbers["train"][:17], "dev": numbers["val"][:8], "test": numbers["test"][:9]}
    miniature.snli_ve(root, images, without="open to debate")
