"""Sizes of the paper's data sets against what their builders expect."""

import pytest

from cbalign.errors import UserError
from cbalign.evaluation.calls import SplitSize
from cbalign.plan.data_sizes import SIZES, need_samples, samples_per_epoch, split_size
from tests.tiny import tiny_config

# As many as ALBEF has of these (table 1 of its paper): some images are gone, some captions are left out.
FEWER = {"visual_genome", "sbu", "cc3m"}


def test_records_are_those_of_the_official_files():
    catalogue = pytest.importorskip("cbalign.data.datasets.catalogue")
    for name, splits in SIZES.items():
        expected = catalogue._builder_class(name).EXPECTED
        for split, size in splits.items():
            if split in expected and name in FEWER:
                assert size.records <= expected[split]
            elif split in expected:
                assert size.records == expected[split], (name, split)


def test_an_epoch_of_the_papers_data():
    data = "coco_karpathy+visual_genome+sbu+cc3m"
    assert split_size(data, "train") == SplitSize(4_023_287, 5_145_747)
    # Visual Genome and SBU have no validation split.
    assert split_size(data, "val") == SplitSize(5_000 + 15_840, 25_010 + 15_840)
    assert split_size("vqa_v2", "train+val") == SplitSize(658_111, 658_111)
    assert split_size("my_data", "train") is None and split_size("coco_karpathy", "dev") is None
    config = tiny_config(data__name="coco_karpathy+cc3m*0.5", train__steps=0, train__epochs=1)
    assert samples_per_epoch(config) == 113_287 + 1_475_000


def test_data_of_unknown_size_need_a_number():
    config = tiny_config(data__name="my_data", train__steps=0, train__epochs=1)
    with pytest.raises(UserError, match="give the samples in one with --pairs"):
        need_samples(config, "mine")
    assert need_samples(tiny_config(data__name="my_data"), "mine") == 0
