from cbalign.evaluation.result_table import format_result

RECALLS = {"tr@1": 1.0, "tr@5": 22.25, "tr@10": 100.0, "ir@1": 0.061, "ir@5": 5.0, "ir@10": 10.0}
RESULT = {
    "data": "emoji",
    "split": "test_vendor",
    "images": 1649,
    "texts": 1700,
    "chance": RECALLS,
    "contrastive": RECALLS,
    "itm": None,
    "sum": RECALLS,
    "baselines": {"pixel_nearest_neighbour": {"tr@1": 44.5, "tr@5": 50.0, "tr@10": 60.0}, "bag_of_words": None},
    "notes": ["one thing", "another"],
}


def test_table():
    assert format_result(RESULT).splitlines() == [
        "emoji test_vendor: 1,649 images, 1,700 texts; recall in %",
        "                           TR@1    TR@5   TR@10    IR@1    IR@5   IR@10",
        "chance                     1.00   22.25  100.00    0.06    5.00   10.00",
        "pixel nearest neighbour   44.50   50.00   60.00       -       -       -",
        "bag of words                  -       -       -       -       -       -",
        "contrastive                1.00   22.25  100.00    0.06    5.00   10.00",
        "ITM re-ranking                -       -       -       -       -       -",
        "contrastive + ITM          1.00   22.25  100.00    0.06    5.00   10.00",
        "note: one thing",
        "note: another",
    ]


def test_parts_may_be_missing():
    result = {key: RESULT[key] for key in ("data", "split", "images", "texts", "contrastive")}
    table = format_result(result)
    assert len(table.splitlines()) == 8
    assert "note" not in table
