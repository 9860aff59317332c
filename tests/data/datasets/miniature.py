"""Miniature data sets in the official formats: a few records each, in files with the official names and structure."""

import io
import json
import pathlib
import tarfile

import numpy as np
from PIL import Image


def write_image(path: pathlib.Path, number: int, *, size=(48, 36), kind: str = "JPEG") -> bytes:
    """Writes an image that depends on the number, and returns its bytes."""
    pixels = np.random.default_rng(number).integers(0, 256, (3, 4, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(buffer, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    return buffer.getvalue()


def write_json(path: pathlib.Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_lines(path: pathlib.Path, entries: list[dict]) -> None:
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
    return [f"Image {number} as person {person} sees it." for person in range(5)]


def coco_name(number: int, folder: str) -> str:
    return f"COCO_{folder}_{number:012d}.jpg"


def coco_images(root: pathlib.Path) -> dict[int, bytes]:
    """Writes `train2014` and `val2014`."""
    return {number: write_image(root / folder / coco_name(number, folder), number) for number, _, folder in COCO}


def karpathy_entry(index: int, split: str, filename: str, captions: list[str], first: int, **more) -> dict:
    sentences = [
        {"tokens": text.lower().strip(".").split(), "raw": text, "imgid": index, "sentid": first + place}
        for place, text in enumerate(captions)
    ]
    ids = [sentence["sentid"] for sentence in sentences]
    return more | {"sentids": ids, "imgid": index, "sentences": sentences, "split": split, "filename": filename}


def coco_karpathy(root: pathlib.Path) -> None:
    """Writes `dataset_coco.json`."""
    images = [
        karpathy_entry(
            i, split, coco_name(number, folder), coco_captions(number), 5 * i, filepath=folder, cocoid=number
        )
        for i, (number, split, folder) in enumerate(COCO)
    ]
    write_json(root / "dataset_coco.json", {"images": images, "dataset": "coco"})


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


def flickr30k(root: pathlib.Path) -> dict[int, bytes]:
    """Writes `flickr30k-images` and `dataset_flickr30k.json`."""
    images = [
        karpathy_entry(i, split, f"{number}.jpg", coco_captions(number), 5 * i)
        for i, (number, split) in enumerate(FLICKR)
    ]
    write_json(root / "dataset_flickr30k.json", {"images": images, "dataset": "flickr30k"})
    return {number: write_image(root / "flickr30k-images" / f"{number}.jpg", number % 1000) for number, _ in FLICKR}


def vg_regions(image: int) -> list[tuple[str, int]]:
    """(phrase, width) of the regions of an image: a sentence repeated, two very short ones, a blank one, and twenty."""
    odd = [(f"A large region of {image}.", 90), ("a large  region of " + str(image), 50), ("the sky", 95), ("", 95)]
    return [*odd, (f"thing {image}", 95), *((f"small part {place} of image {image}", place) for place in range(1, 21))]


def visual_genome(root: pathlib.Path) -> dict[int, bytes]:
    """Writes images 1 to 5 in the two folders, `region_descriptions.json` and `image_data.json`.

    Image 2 is COCO's 73 and image 3 is Flickr's 1007129816; both are in Karpathy's test splits. Image 5 is COCO's 30.
    """
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
                for place, (phrase, width) in enumerate(vg_regions(image))
            ],
        }
        for image in (1, 2, 3, 4, 5)
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
        for image, coco, flickr in ((1, 9, 77), (2, 73, 78), (3, None, 1007129816), (4, None, None), (5, 30, None))
    ]
    write_json(root / "image_data.json", data)
    folders = {1: "VG_100K", 2: "VG_100K_2", 3: "VG_100K", 4: "VG_100K_2", 5: "VG_100K"}
    return {image: write_image(root / folder / f"{image}.jpg", image) for image, folder in folders.items()}


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


def pair_files(number: int, folder: pathlib.Path) -> dict[str, bytes]:
    """{file name: bytes} that img2dataset writes for one pair."""
    key = f"{number:09d}"
    meta = {
        "caption": f"pair {number}",
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
        f"{key}.jpg": write_image(folder / "scratch.jpg", number),
        f"{key}.txt": f"pair {number}".encode(),
        f"{key}.json": json.dumps(meta, indent=4).encode(),
    }


def pair_folder(root: pathlib.Path, shard: str, numbers) -> None:
    """Writes img2dataset's output in its format `files`."""
    (root / shard).mkdir(parents=True)
    for number in numbers:
        for name, data in pair_files(number, root.parent).items():
            (root / shard / name).write_bytes(data)


def pair_tar(root: pathlib.Path, shard: str, numbers) -> pathlib.Path:
    """Writes img2dataset's output in its format `webdataset`."""
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / f"{shard}.tar", "w") as archive:
        for number in numbers:
            for name, data in pair_files(number, root.parent).items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return root / f"{shard}.tar"


ANSWERS = ["net"] * 4 + ["tennis net"] * 3 + ["fence", "Net", "net "]


def vqa(root: pathlib.Path, *, questions: int = 12) -> None:
    """Writes the official files of VQA v2, `questions` of them in train, four in val, one in test."""
    parts = {"train2014": (9, questions), "val2014": (42, 4), "test2015": (1, 1)}
    for subset, (image, count) in parts.items():
        write_image(root / subset / coco_name(image, subset), image)
        numbers = [1000 * image + place for place in range(count)]
        header = {
            "info": {"version": "2.0"},
            "license": {},
            "task_type": "Open-Ended",
            "data_type": "mscoco",
            "data_subtype": subset,
        }
        entries = [{"image_id": image, "question": f"What is {n}?", "question_id": n} for n in numbers]
        write_json(root / f"v2_OpenEnded_mscoco_{subset}_questions.json", header | {"questions": entries})
        if subset != "test2015":
            entries = [
                {
                    "question_type": "what is",
                    "multiple_choice_answer": "net" if n % 2 else "yes",
                    "image_id": image,
                    "answers": [
                        {"answer": text, "answer_confidence": "yes", "answer_id": place + 1}
                        for place, text in enumerate(ANSWERS)
                    ],
                    "answer_type": "other",
                    "question_id": n,
                }
                for n in reversed(numbers)
            ]
            write_json(root / f"v2_mscoco_{subset}_annotations.json", header | {"annotations": entries})


def vg_questions(root: pathlib.Path) -> None:
    """Writes Visual Genome's questions about image 1."""
    pairs = [
        {
            "a_objects": [],
            "question": "What colour is the clock?",
            "image_id": 1,
            "qa_id": 986769,
            "answer": "Dark Green.",
            "q_objects": [],
        }
    ]
    write_json(root / "question_answers.json", [{"id": 1, "qas": pairs}])
    write_image(root / "VG_100K" / "1.jpg", 1)


def nlvr2(root: pathlib.Path) -> None:
    """Writes NLVR2's files as in a clone of its repository, and images of which some are PNG by name only."""
    files = {"train": "train.json", "dev": "dev.json", "test1": "test1.json"}
    for place, (split, name) in enumerate(files.items()):
        entries = []
        for sentence in (0, 1):
            entry = {
                "validation": {"9": "True"},
                "query": "dogs0",
                "sentence": f"Sentence {sentence} of {split}.",
                "left_url": "https://example.org/l.png",
                "right_url": "https://example.org/r.png",
                "identifier": f"{split}-10-2-{sentence}",
                "label": ["False", "True"][sentence],
                "synset": "dog",
            }
            entries.append(entry | ({"directory": "17"} if split == "train" else {}))
        write_lines(root / "nlvr" / "nlvr2" / "data" / name, entries)
        folder = root / ("images/train/17" if split == "train" else split)
        write_image(folder / f"{split}-10-2-img0.png", 2 * place, kind="PNG")
        write_image(folder / f"{split}-10-2-img1.png", 2 * place + 1, kind="JPEG")
    # The first NLVR, in the same repository and in another format.
    write_lines(root / "nlvr" / "nlvr" / "train" / "train.json", [{"structured_rep": [], "sentence": "No."}])


def snli_ve(root: pathlib.Path) -> None:
    """Writes SNLI-VE's files about the images of `flickr30k`."""
    labels = ["entailment", "neutral", "contradiction"]
    for split, (image, _) in zip(("train", "dev", "test"), (FLICKR[0], FLICKR[2], FLICKR[3])):
        entries = [
            {
                "Flickr30K_ID": str(image),
                "annotator_labels": [label],
                "captionID": f"{image}.jpg#0",
                "gold_label": label,
                "pairID": f"{image}.jpg#0r1{label[0]}",
                "sentence1": "A person.",
                "sentence1_parse": "(ROOT)",
                "sentence2": f"This is {label}.",
                "sentence2_parse": "(ROOT)",
            }
            for label in labels
        ]
        write_lines(root / f"snli_ve_{split}.jsonl", entries)
