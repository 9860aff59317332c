"""What the tests of the report share: results as commands write them, and a reader of pages."""

import html.parser

RECALLS = {f"{way}@{k}": 1.0 * k for way in ("tr", "ir") for k in (1, 5, 10)}

STABILITY = {
    "pairs": 512,
    "steps": [100, 200, 300],
    "codes": {"changed": [0.5, 0.3], "moved": [0.25, 0.125], "decorrelated": [0.4, 0.2]},
    "instances": {"changed": [0.75, 0.5], "moved": [0.0625, 0.03125], "decorrelated": [0.9, 0.7]},
    "loss": {"deviation": 0.5, "relative": 0.05},
    "gradient_norm": {"deviation": 1.5, "relative": 0.25},
}
VQA_RESULT = {
    "task": "vqa",
    "data": "scenes_vqa/tiny",
    "split": "test",
    "images": 60,
    "questions": 128,
    "answer_list": 4,
    "chance": {"overall": 25.0},
    "accuracy": {"overall": 41.25, "yes/no": 55.5, "number": None},
    "question_types": {"what <is>": 12.5, "how many": 37.25},
    "baselines": {
        "blind_guess": {"overall": 39.0, "yes/no": 60.75},
        "blind_guess_by_question_type": {"what <is>": 11.0, "how many": 38.0},
    },
    "notes": ["a note"],
    "weights": "student",
}
VE_RESULT = {
    "task": "snli_ve",
    "data": "scenes_ve/tiny",
    "split": "val",
    "images": 50,
    "sentences": 6,
    "chance": {"overall": 33.3},
    "accuracy": {"overall": 50.0, "contradiction": 100.0, "neutral": 25.0, "entailment": None},
    "confusion": [[1, 0, 0], [2, 1, 1], [0, 0, 1234]],
    "baselines": {},
    "notes": [],
    "weights": "student",
}


def result(split, **changes):
    """What `cbalign evaluate` writes."""
    return {
        "data": "scenes/tiny",
        "split": split,
        "images": 64,
        "texts": 64,
        "chance": RECALLS,
        "contrastive": {name: 3 * value for name, value in RECALLS.items()},
        "itm": None,
        "sum": None,
        "itm_accuracy": None,
        "notes": ["ITM <is> at its prior"],
        "weights": "student",
        "baselines": {
            "pixel_nearest_neighbour": {name: 2.5 * value for name, value in RECALLS.items()},
            "bag_of_words": {**RECALLS, "tr@1": 77.77},
        },
        **changes,
    }


class Page(html.parser.HTMLParser):
    """The addresses a page refers to, whether its tags are closed, its text as a browser shows it, images' titles."""

    VOID = {"meta", "img", "br", "link"}
    SAFE = ("data:image/webp;base64,", "data:,", "#")

    def __init__(self, text):
        super().__init__()
        self.addresses, self.open, self.tags, self.titles, self.text = [], [], [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        self.titles += [value for name, value in attrs if name in ("alt", "aria-label")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
