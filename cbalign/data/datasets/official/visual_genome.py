"""TFDS builder of `visual_genome`: images with descriptions of their regions as captions, as ALBEF chose them."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from cbalign.data.datasets import schema
from cbalign.data.datasets.official.annotation_files import checking_fields, read_json
from cbalign.data.datasets.official.official_builder import Contents, OfficialBuilder, SplitRows
from cbalign.data.datasets.official.official_files import OfficialFiles
from cbalign.data.text import clean_caption

ALBEF_LIST = "vg.json"
IN_OTHER_TESTS = "in the evaluation splits of COCO, RefCOCO+ or Flickr30K"
NONE_LEFT = "no description is left"

LISTED_IMAGES, PUBLISHED_CAPTIONS = 108_077, 769_000
"""Images of version 1.4, and captions of ALBEF's list."""
MIN_WORDS = 4
"""Words of the shortest description that is kept; ours, as the number in ALBEF's filter is not known to us."""

_TESTED = ("val", "test")
_MAX_AREA = 2**40
_REFCOCO = ("refcoco+_val.json", "refcoco+_test.json")
_KARPATHY = ("dataset_coco.json", "dataset_flickr30k.json")


class VisualGenome(OfficialBuilder):
    """Visual Genome: the captions of an image are descriptions of its regions.

    They are those of ALBEF's list where it is given; else the descriptions are filtered as its author describes
    (github.com/salesforce/ALBEF, issue 2): no image of the evaluation sets of COCO or RefCOCO+, no sentence twice for
    an image, no sentence about a small region, none that is very short. Of the two limits, `MIN_WORDS` is ours, and the
    least area is chosen such that as many captions per image listed remain as in ALBEF's list.
    """

    name = "visual_genome"
    VERSION = tfds.core.Version("2.0.0")
    SCHEMA = schema.captions
    # How many images remain depends on the files of evaluation sets and on the filters.
    EXPECTED = {}
    EXPECTED_TEXTS = {"train": PUBLISHED_CAPTIONS}
    INSTRUCTIONS = """
    VG_100K/*.jpg, VG_100K_2/*.jpg
        images.zip and images2.zip from https://homes.cs.washington.edu/~ranjay/visualgenome/api.html, unpacked
    vg.json
        from json_pretrain.zip, named in the README of https://github.com/salesforce/ALBEF; its captions are taken as
        they are, and the files below are not read
    or region_descriptions.json
        from the page of the images, unpacked; its descriptions are filtered to about as many
    with image_data.json from the same page, and dataset_coco.json and dataset_flickr30k.json from
    https://cs.stanford.edu/people/karpathy/deepimagesent/ (caption_datasets.zip), and refcoco+_val.json and
    refcoco+_test.json from ALBEF's data.tar.gz
        to skip images of the evaluation sets of COCO, Flickr30K and RefCOCO+; each may be missing, with a note
    """

    def read(self, files: OfficialFiles) -> Contents:
        """See `OfficialBuilder.read`."""
        if path := files.find(ALBEF_LIST):
            return _read_list(path, files)
        if path := files.find("region_descriptions.json"):
            return _read_regions(path, files)
        return Contents()


def _read_list(path: pathlib.Path, files: OfficialFiles) -> Contents:
    """The captions of ALBEF's list, which names an image once for each."""
    captions: dict[str, list[str]] = {}
    with checking_fields(path):
        for entry in read_json(path, list):
            caption = entry["caption"]
            captions.setdefault(entry["image"], []).extend([caption] if isinstance(caption, str) else caption)
        rows = SplitRows()
        for image, texts in captions.items():
            name = pathlib.PurePosixPath(image).name
            rows.add_captions(name, files.image(image), texts, int(pathlib.PurePosixPath(image).stem))
    count = sum(map(len, captions.values()))
    return Contents({"train": rows}, [f"{path.name}: {count:,} captions of {len(captions):,} images"])


class _Sentence(NamedTuple):
    """A description with the area in pixels of the largest of an image's regions that have it."""

    text: str
    area: int


def _read_regions(path: pathlib.Path, files: OfficialFiles) -> Contents:
    """The region descriptions that the filters leave."""
    contents, rows = Contents(), SplitRows()
    tested, counts = _tested_elsewhere(files, contents), _Counts()
    found: dict[int, list[_Sentence]] = {}
    with checking_fields(path):
        for entry in read_json(path, list, _condense):
            number = entry["id"] if "id" in entry else entry["regions"][0][0]
            counts.listed += len(entry["regions"])
            if number in tested:
                counts.tested += len(entry["regions"])
                rows.skipped[IN_OTHER_TESTS].append(f"{number}.jpg")
                continue
            found[number] = counts.filtered(entry["regions"])
    least = _least_area(found.values(), images=rows.listed + len(found))
    for number, sentences in found.items():
        kept = [sentence.text for sentence in sentences if sentence.area >= least]
        counts.small += len(sentences) - len(kept)
        counts.kept += len(kept)
        name = f"{number}.jpg"
        if kept:
            rows.add_captions(name, files.image(name), kept, number)
        else:
            rows.skipped[NONE_LEFT].append(name)
    contents.splits["train"] = rows
    contents.notes.append(counts.line(path.name, least))
    return contents


class _Counts:
    """How many region descriptions each filter takes out."""

    def __init__(self):
        self.listed = self.tested = self.blank = self.repeated = self.short = self.small = self.kept = 0

    def filtered(self, regions: Iterable[tuple[int, str, int]]) -> list[_Sentence]:
        """The different sentences of an image's regions (number of the image, phrase, area) that are long enough."""
        largest: dict[str, _Sentence] = {}
        for _, phrase, area in regions:
            cleaned = clean_caption(phrase, max_words=1000)
            if not cleaned:
                self.blank += 1
            elif cleaned in largest:
                self.repeated += 1
                largest[cleaned] = largest[cleaned]._replace(area=max(area, largest[cleaned].area))
            else:
                largest[cleaned] = _Sentence(phrase.strip(), area)
        long = [sentence for cleaned, sentence in largest.items() if len(cleaned.split()) >= MIN_WORDS]
        self.short += len(largest) - len(long)
        return long

    def line(self, name: str, least: int) -> str:
        """All of them, for the user."""
        return (
            f"{name}: {self.listed:,} descriptions; left out: {self.tested:,} of images in evaluation sets, "
            f"{self.blank:,} blank, {self.repeated:,} repeated for an image, {self.short:,} of fewer than {MIN_WORDS} "
            f"words, {self.small:,} of regions smaller than {least:,} pixels; {self.kept:,} remain"
        )


def _least_area(sentences: Iterable[list[_Sentence]], *, images: int) -> int:
    """The area in pixels from which on so many sentences remain as ALBEF's list has for so many images."""
    areas = np.sort(np.array([min(one.area, _MAX_AREA) for group in sentences for one in group], np.int64))
    wanted = round(PUBLISHED_CAPTIONS / LISTED_IMAGES * images)
    return int(areas[-wanted]) if 0 < wanted < len(areas) else 0


def _condense(entry: dict):
    """Keeps only phrase and area of the five million regions, whose other fields would take ten gigabytes."""
    if "phrase" not in entry:
        return entry
    # Text times a number would be a very long text.
    return entry["image_id"], entry["phrase"], int(entry["width"]) * int(entry["height"])


def _tested_elsewhere(files: OfficialFiles, contents: Contents) -> set[int]:
    """Numbers of the images in the evaluation sets of COCO, RefCOCO+ or Flickr30K, as far as files list them."""
    data = files.find("image_data.json")
    found = {name: files.find(name) for name in (*_KARPATHY, *_REFCOCO)}
    missing = [name for name, path in {"image_data.json": data, **found}.items() if path is None]
    if missing:
        contents.notes.append(f"no {', '.join(missing)}: images of {_unchecked(missing)} may be included")
    if data is None:
        return set()
    coco, flickr = (_tested(found[name]) if found[name] else set() for name in _KARPATHY)
    for name in _REFCOCO:
        coco = coco | (_referred(found[name]) if found[name] else set())
    with checking_fields(data):
        return {
            entry["image_id"]
            for entry in read_json(data, list)
            if entry["coco_id"] in coco or entry["flickr_id"] in flickr
        }


def _unchecked(missing: list[str]) -> str:
    """The evaluation sets that are not excluded completely where files are missing, in words."""
    needs = {"COCO": _KARPATHY[:1], "Flickr30K": _KARPATHY[1:], "RefCOCO+": _REFCOCO}
    sets = [name for name, of in needs.items() if "image_data.json" in missing or set(of) & set(missing)]
    return f"the evaluation sets of {', '.join(sets[:-1])}{' and ' if sets[1:] else ''}{sets[-1]}"


def _tested(path: pathlib.Path) -> set[int]:
    """COCO's or Flickr's numbers of the images in Karpathy's `val` and `test`."""
    with checking_fields(path):
        return {
            entry["cocoid"] if "cocoid" in entry else int(pathlib.Path(entry["filename"]).stem)
            for entry in read_json(path, dict)["images"]
            if entry["split"] in _TESTED
        }


def _referred(path: pathlib.Path) -> set[int]:
    """COCO's numbers of the images in one of ALBEF's lists of RefCOCO+."""
    with checking_fields(path):
        return {int(pathlib.PurePosixPath(entry["image"]).stem.rpartition("_")[2]) for entry in read_json(path, list)}
