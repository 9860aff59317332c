"""TFDS builder of `visual_genome`: images with their region descriptions as captions."""

from __future__ import annotations

import pathlib

import tensorflow_datasets as tfds

from cbalign.data.datasets import schema
from cbalign.data.datasets.official.annotation_files import checking_fields, read_json
from cbalign.data.datasets.official.official_builder import Contents, OfficialBuilder, SplitRows
from cbalign.data.datasets.official.official_files import OfficialFiles

_TESTED = ("val", "test")
IN_OTHER_TESTS = "in the evaluation splits of COCO or Flickr30K"


class VisualGenome(OfficialBuilder):
    """Visual Genome: the captions of an image are the descriptions of its regions, without duplicates.

    Half of the images are from COCO. As in UNITER and later work, images in the evaluation splits of Karpathy's COCO or
    Flickr30K are skipped where the optional files that identify them are present.
    """

    name = "visual_genome"
    VERSION = tfds.core.Version("1.0.0")
    SCHEMA = schema.captions
    # Version 1.4, all images; how many remain without the evaluation images depends on the optional files.
    EXPECTED = {"train": 108_077}
    INSTRUCTIONS = """
    VG_100K/*.jpg, VG_100K_2/*.jpg
        images.zip and images2.zip from https://homes.cs.washington.edu/~ranjay/visualgenome/api.html, unpacked
    region_descriptions.json
        from the same page, unpacked
    image_data.json; dataset_coco.json and dataset_flickr30k.json (optional, all or some)
        from the same page and from https://cs.stanford.edu/people/karpathy/deepimagesent/ (caption_datasets.zip); with
        these, images in the evaluation splits of COCO and Flickr30K are skipped
    """

    def read(self, files: OfficialFiles) -> Contents:
        """See `OfficialBuilder.read`."""
        contents = Contents()
        path = files.find("region_descriptions.json")
        if path is None:
            return contents
        tested = _tested_elsewhere(files, contents)
        rows = contents.splits["train"] = SplitRows()
        with checking_fields(path):
            for entry in read_json(path, list, _condense):
                number = entry["id"] if "id" in entry else entry["regions"][0][0]
                name = f"{number}.jpg"
                if number in tested:
                    rows.skipped[IN_OTHER_TESTS].append(name)
                    continue
                phrases = [phrase for _, phrase in entry["regions"]]
                rows.add_captions(name, files.image(name), phrases, number)
        return contents


def _condense(entry: dict):
    """Keeps only the phrases of the five million regions, whose other fields would take ten gigabytes."""
    return (entry["image_id"], entry["phrase"]) if "phrase" in entry else entry


def _tested_elsewhere(files: OfficialFiles, contents: Contents) -> set[int]:
    """Numbers of the images in `val` or `test` of Karpathy's COCO or Flickr30K, if the optional files list them."""
    data = files.find("image_data.json")
    lists = {name: files.find(name) for name in ("dataset_coco.json", "dataset_flickr30k.json")}
    missing = [name for name, path in {"image_data.json": data, **lists}.items() if path is None]
    if missing:
        contents.notes.append(
            f"no {', '.join(missing)}: images of the evaluation splits of {_unchecked(missing)} may be included"
        )
    if data is None:
        return set()
    coco, flickr = (_tested(path) if path else set() for path in lists.values())
    with checking_fields(data):
        return {
            entry["image_id"]
            for entry in read_json(data, list)
            if entry["coco_id"] in coco or entry["flickr_id"] in flickr
        }


def _unchecked(missing: list[str]) -> str:
    if "image_data.json" in missing or len(missing) == 2:
        return "COCO and Flickr30K"
    return "COCO" if missing == ["dataset_coco.json"] else "Flickr30K"


def _tested(path: pathlib.Path) -> set[int]:
    """COCO's or Flickr's numbers of the images in `val` and `test`."""
    with checking_fields(path):
        return {
            entry["cocoid"] if "cocoid" in entry else int(pathlib.Path(entry["filename"]).stem)
            for entry in read_json(path, dict)["images"]
            if entry["split"] in _TESTED
        }
