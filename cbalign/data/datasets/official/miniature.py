"""Miniature data sets in the official formats: a few records each, in files with the official names and structure.

The tests of the builders and the rehearsal of the paper's suite share them.
"""

import io
import json
import pathlib
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from PIL import Image


def write_image(path: pathlib.Path, number: int, *, size=(48, 36), kind: str = "JPEG", mode: str = "RGB") -> bytes:
    """Writes an image that depends on the number, and returns its bytes."""
    pixels = np.random.default_rng(number).integers(0, 256, (3, 4, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert(mode).save(buffer, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    return buffer.getvalue()


def write_json(path: pathlib.Path, content) -> None:
    """Writes an annotation file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_lines(path: pathlib.Path, entries: Iterable[dict]) -> None:
    """Writes an annotation file of one JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")


COCO = [
    (9, "train", "train2014"),
    (25, "restval", "val2014"),
    (30, "train", "train2014"),
    (42, "val", "val2014"),
    (73, "test", "val2014"),
    (74, "test", "val2014"),
]
"""(number, split, folder) of each image."""


def coco_captions(number: int) -> list[str]:
    """Five captions of an image."""
    return [f"Image {number} as person {person} sees it." for person in range(5)]


def coco_name(number: int, folder: str) -> str:
    """An image's file name."""
    return f"COCO_{folder}_{number:012d}.jpg"


def coco_images(root: pathlib.Path, images=COCO, *, write: Callable[..., bytes] = write_image) -> dict[int, bytes]:
    """Writes `train2014` and `val2014`."""
    return {number: write(root / folder / coco_name(number, folder), number) for number, _, folder in images}


def karpathy_entry(index: int, split: str, filename: str, captions: list[str], first: int, **more) -> dict:
    """An image in one of Karpathy's files, with its captions."""
    sentences = [
        {"tokens": text.lower().strip(".").split(), "raw": text, "imgid": index, "sentid": first + place}
        for place, text in enumerate(captions)
    ]
    ids = [sentence["sentid"] for sentence in sentences]
    return more | {"sentids": ids, "imgid": index, "sentences": sentences, "split": split, "filename": filename}


def coco_karpathy(root: pathlib.Path, images=COCO, *, captions: Callable[[int], list[str]] = coco_captions) -> None:
    """Writes `dataset_coco.json`."""
    entries = [
        karpathy_entry(i, split, coco_name(number, folder), captions(number), 5 * i, filepath=folder, cocoid=number)
        for i, (number, split, folder) in enumerate(images)
    ]
    write_json(root / "dataset_coco.json", {"images": entries, "dataset": "coco"})


def coco_albef(root: pathlib.Path) -> None:
    """Writes ALBEF's lists: one caption a record to train on, all captions of an image to evaluate on."""
    lists = {"train": [], "val": [], "test": []}
    for number, split, folder in COCO:
        image, captions = f"{folder}/{coco_name(number, folder)}", coco_captions(number)
        if split in ("train", "restval"):
            lists["train"] += [{"caption": text, "image": image, "image_id": f"coco_{number}"} for text in captions]
        else:
            lists[split].append({"image": image, "caption": captions})
    for split, entries in lists.items():
        write_json(root / f"coco_karpathy_{split}.json", entries)


FLICKR = [(1000092795, "train"), (10002456, "train"), (7922678762, "val"), (1007129816, "test")]
"""(Flickr's number, split) of each image."""


def flickr30k(
    root: pathlib.Path,
    images=FLICKR,
    *,
    captions: Callable[[int], list[str]] = coco_captions,
    write: Callable[..., bytes] = write_image,
) -> dict[int, bytes]:
    """Writes `flickr30k-images` and `dataset_flickr30k.json`."""
    entries = [
        karpathy_entry(i, split, f"{number}.jpg", captions(number), 5 * i) for i, (number, split) in enumerate(images)
    ]
    write_json(root / "dataset_flickr30k.json", {"images": entries, "dataset": "flickr30k"})
    return {number: write(root / "flickr30k-images" / f"{number}.jpg", number % 1000) for number, _ in images}


GENOME = ((1, 9, 77), (2, 73, 78), (3, None, 1007129816), (4, None, None), (5, 30, None))
"""(number, COCO's, Flickr's) of each image; 2 and 3 are in Karpathy's test splits, 5 is in RefCOCO+'s."""


def vg_regions(image: int) -> list[tuple[str, int]]:
    """(phrase, width) of the regions of an image: a sentence repeated, two very short ones, a blank one, and twenty."""
    odd = [(f"A large region of {image}.", 90), ("a large  region of " + str(image), 50), ("the sky", 95), ("", 95)]
    return [*odd, (f"thing {image}", 95), *((f"small part {place} of image {image}", place) for place in range(1, 21))]


def visual_genome(
    root: pathlib.Path,
    images=GENOME,
    *,
    regions_of: Callable[[int], list[tuple[str, int]]] = vg_regions,
    write: Callable[..., bytes] = write_image,
) -> dict[int, bytes]:
    """Writes images in the two folders, odd ones in the first, `region_descriptions.json` and `image_data.json`."""
    regions = [
        {
            "id": image,
            "regions": [
                {
                    "region_id": 100 * image + place,
                    "width": width,
                    "height": 10,
                    "image_id": image,
                    "phrase": phrase,
                    "y": 3,
                    "x": 5,
                }
                for place, (phrase, width) in enumerate(regions_of(image))
            ],
        }
        for image, _, _ in images
    ]
    write_json(root / "region_descriptions.json", regions)
    data = [
        {
            "width": 40,
            "url": f"https://example.org/VG_100K/{image}.jpg",
            "height": 30,
            "image_id": image,
            "coco_id": coco,
            "flickr_id": flickr,
        }
        for image, coco, flickr in images
    ]
    write_json(root / "image_data.json", data)
    folders = ("VG_100K_2", "VG_100K")
    return {image: write(root / folders[image % 2] / f"{image}.jpg", image) for image, _, _ in images}


def pair_caption(number: int) -> str:
    """The caption of a web image."""
    return f"pair {number}"


def vg_albef(root: pathlib.Path) -> None:
    """Writes ALBEF's list, one caption an entry, with the paths of another machine."""
    entries = [
        {"image": f"/export/share/datasets/vision/visual-genome/image/{image}.jpg", "caption": text}
        for image, text in ((1, "the sky"), (4, "a part of 4"), (1, "two of 1"))
    ]
    write_json(root / "vg.json", entries)


def refcoco(root: pathlib.Path) -> None:
    """Writes ALBEF's lists of RefCOCO+'s evaluation sets: COCO's 30 is in `test`."""
    for split, number in (("val", 9999), ("test", 30)):
        entry = {
            "image": f"train2014/{coco_name(number, 'train2014')}",
            "text": ["left"],
            "bbox": [1, 2, 3, 4],
            "ref_id": 7,
        }
        write_json(root / f"refcoco+_{split}.json", [entry])


def pair_files(
    number: int,
    folder: pathlib.Path,
    *,
    caption: Callable[[int], str] = pair_caption,
    write: Callable[..., bytes] = write_image,
) -> dict[str, bytes]:
    """{file name: bytes} that img2dataset writes for one pair."""
    key = f"{number:09d}"
    meta = {
        "caption": caption(number),
        "url": "https://example.org/a.jpg",
        "key": key,
        "status": "success",
        "error_message": None,
        "width": 40,
        "height": 30,
        "original_width": 80,
        "original_height": 60,
        "exif": "{}",
    }
    return {
        f"{key}.jpg": write(folder / "scratch.jpg", number),
        f"{key}.txt": caption(number).encode(),
        f"{key}.json": json.dumps(meta, indent=4).encode(),
    }


def pair_folder(root: pathlib.Path, shard: str, numbers: Iterable[int], **options) -> None:
    """Writes img2dataset's output in its format `files`."""
    (root / shard).mkdir(parents=True)
    for number in numbers:
        for name, data in pair_files(number, root.parent, **options).items():
            (root / shard / name).write_bytes(data)


def pair_tar(root: pathlib.Path, shard: str, numbers: Iterable[int], **options) -> pathlib.Path:
    """Writes img2dataset's output in its format `webdataset`."""
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / f"{shard}.tar", "w") as archive:
        for number in numbers:
            for name, data in pair_files(number, root.parent, **options).items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return root / f"{shard}.tar"


ANSWERS = ["net"] * 4 + ["tennis net"] * 3 + ["fence", "Net", "net "]


def net_or_yes(number: int) -> dict:
    """What ten people answer to a question, and what they agree on."""
    return {
        "question_type": "what is",
        "answer_type": "other",
        "multiple_choice_answer": "net" if number % 2 else "yes",
        "answers": ANSWERS,
    }


def vqa_questions(questions: int) -> dict[str, list[tuple[int, int]]]:
    """{subset: (image, question) each}: `questions` of them in train, four in val, one in test."""
    counts = {"train2014": (9, questions), "val2014": (42, 4), "test2015": (1, 1)}
    return {
        subset: [(image, 1000 * image + place) for place in range(count)] for subset, (image, count) in counts.items()
    }


def vqa(
    root: pathlib.Path,
    *,
    questions: int = 12,
    listed: Mapping[str, Sequence[tuple[int, int]]] | None = None,
    ask: Callable[[int], str] = lambda number: f"What is {number}?",
    answer: Callable[[int], dict] = net_or_yes,
    write: Callable[..., bytes] = write_image,
) -> None:
    """Writes the official files of VQA v2; annotations are in another order than the questions, test has none."""
    for subset, asked in (listed or vqa_questions(questions)).items():
        for image in dict.fromkeys(image for image, _ in asked):
            write(root / subset / coco_name(image, subset), image)
        header = {
            "info": {"version": "2.0"},
            "license": {},
            "task_type": "Open-Ended",
            "data_type": "mscoco",
            "data_subtype": subset,
        }
        entries = [{"image_id": image, "question": ask(n), "question_id": n} for image, n in asked]
        write_json(root / f"v2_OpenEnded_mscoco_{subset}_questions.json", header | {"questions": entries})
        if subset != "test2015":
            entries = [_annotation(image, n, answer(n)) for image, n in reversed(asked)]
            write_json(root / f"v2_mscoco_{subset}_annotations.json", header | {"annotations": entries})


def _annotation(image: int, number: int, answered: dict) -> dict:
    people = [
        {"answer": text, "answer_confidence": "yes", "answer_id": place + 1}
        for place, text in enumerate(answered["answers"])
    ]
    return {"image_id": image, "question_id": number, **answered, "answers": people}


CLOCK = ((1, 986769, "What colour is the clock?", "Dark Green."),)
"""(image, number, question, answer) each."""


def vg_questions(root: pathlib.Path, asked=CLOCK, *, write: Callable[..., bytes] = write_image) -> None:
    """Writes Visual Genome's questions and their images."""
    images: dict[int, list[dict]] = {}
    for image, number, question, answer in asked:
        images.setdefault(image, []).append(
            {
                "a_objects": [],
                "question": question,
                "image_id": image,
                "qa_id": number,
                "answer": answer,
                "q_objects": [],
            }
        )
    write_json(root / "question_answers.json", [{"id": image, "qas": pairs} for image, pairs in images.items()])
    for image in images:
        write(root / "VG_100K" / f"{image}.jpg", image)


def nlvr2(
    root: pathlib.Path,
    *,
    pairs: Mapping[str, int] | None = None,
    say: Callable[[int, str], str] = lambda sentence, split: f"Sentence {sentence} of {split}.",
) -> None:
    """Writes NLVR2's files as in a clone of its repository, and images of which some are PNG by name only.

    Args:
      root: folder.
      pairs: {split: pairs of images}, each with a false and a true sentence; one each by default.
      say: (0 or 1, split) -> the sentence.
    """
    files = {"train": "train.json", "dev": "dev.json", "test1": "test1.json"}
    for place, (split, name) in enumerate(files.items()):
        entries = []
        for pair in range((pairs or {}).get(split, 1)):
            for sentence in (0, 1):
                entry = {
                    "validation": {"9": "True"},
                    "query": "dogs0",
                    "sentence": say(sentence, split),
                    "left_url": "https://example.org/l.png",
                    "right_url": "https://example.org/r.png",
                    "identifier": f"{split}-{10 + pair}-2-{sentence}",
                    "label": ["False", "True"][sentence],
                    "synset": "dog",
                }
                entries.append(entry | ({"directory": "17"} if split == "train" else {}))
            folder, number = root / ("images/train/17" if split == "train" else split), 2 * place + 6 * pair
            write_image(folder / f"{split}-{10 + pair}-2-img0.png", number, kind="PNG")
            write_image(folder / f"{split}-{10 + pair}-2-img1.png", number + 1, kind="JPEG")
        write_lines(root / "nlvr" / "nlvr2" / "data" / name, entries)
    # The first NLVR, in the same repository and in another format.
    write_lines(root / "nlvr" / "nlvr" / "train" / "train.json", [{"structured_rep": [], "sentence": "No."}])


def snli_ve(root: pathlib.Path, images: Mapping[str, Sequence[int]] | None = None, *, without: str = "") -> None:
    """Writes SNLI-VE's files about the images of `flickr30k`.

    Args:
      root: folder.
      images: {split: Flickr's numbers}.
      without: appended to the sentence of a further pair an image on whose label people did not agree; "" for none.
    """
    labels = ["entailment", "neutral", "contradiction", *(["-"] if without else [])]
    images = images or {"train": [FLICKR[0][0]], "dev": [FLICKR[2][0]], "test": [FLICKR[3][0]]}
    for split, numbers in images.items():
        entries = [
            {
                "Flickr30K_ID": str(image),
                "annotator_labels": [label],
                "captionID": f"{image}.jpg#0",
                "gold_label": label,
                "pairID": f"{image}.jpg#0r1{label[0]}",
                "sentence1": "A person.",
                "sentence1_parse": "(ROOT)",
                "sentence2": f"This is {label if label != '-' else without}.",
                "sentence2_parse": "(ROOT)",
            }
            for image in numbers
            for label in labels
        ]
        write_lines(root / f"snli_ve_{split}.jsonl", entries)
