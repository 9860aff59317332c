"""A miniature of the npm package @iconify/json, with the oddities of the real one."""

import hashlib
import json
import pathlib

SQUARE = '<path fill="currentColor" d="M0 0h24v24H0z"/>'
MIT = {"title": "MIT", "spdx": "MIT", "url": "https://example.org/mit"}
AUTHORS = ("anna", "bert", "cleo", "dora", "emil")
"""Sets of five authors, who are trained on; each draws `COMMON`."""
COMMON = (
    "cat",
    "dog",
    "tree",
    "umbrella stand",
    "rocking chair",
    "paper clip",
    "bird cage",
    "tea pot",
    "egg cup",
    "sun",
)


def drawing(*seed: str, color: str = "currentColor") -> str:
    """A body that no other seed gives: three rectangles at random places."""
    digest = hashlib.sha256("/".join(seed).encode()).digest()
    rectangles = []
    for i in range(3):
        x, y, width, height = (digest[4 * i + j] % 12 for j in range(4))
        rectangles.append(f'<rect x="{x}" y="{y}" width="{width + 1}" height="{height + 1}" fill="{color}"/>')
    return "".join(rectangles)


def icons(set_name: str, names, color: str = "currentColor") -> dict:
    """Icons of a set, drawn at random."""
    return {name.replace(" ", "-"): {"body": drawing(set_name, name, color=color)} for name in names}


def write_package(folder: pathlib.Path) -> pathlib.Path:
    """Writes the package into a folder, and returns the folder."""
    listed, files = {}, {}

    def add(name, entries, *, author=None, licence=None, category="UI 24px", info=None, **more):
        listed[name] = {
            "name": name.title(),
            "author": {"name": author or f"Author of {name}", "url": f"https://example.org/{name}"},
            "license": licence or MIT,
            "category": category,
            **(info or {}),
        }
        files[name] = {"prefix": name, "icons": entries, "width": 24, "height": 24, **more}

    for author in AUTHORS:
        add(f"{author}-set", icons(author, COMMON), author=author)
    anna = files["anna-set"]
    anna["icons"] |= {
        "house-outline": {"body": drawing("anna", "house")},
        "house-24-solid": {"body": drawing("anna", "house, solid")},
        "secret": {"body": drawing("anna", "secret"), "hidden": True},
        "black-square": {"body": SQUARE},
        "tall": {"body": SQUARE + '<path fill="#f00" d="M-9 0h9v24h-9z"/>', "width": 12},
        "moved": {"body": '<path fill="#00f" d="M-12 -12h24v24h-24z"/>', "left": -12, "top": -12},
        "empty": {"body": '<path fill="#fff" d="M0 0h24v24H0z"/>'},
        "broken": {"body": "<path"},
        "appearing": {
            "body": '<path fill="currentColor" opacity="0" d="M0 0h12v24H0z">'
            '<animate fill="freeze" attributeName="opacity" dur="1s" values="0;0.5;1"/></path>'
        },
        "1f600": {"body": drawing("anna", "code")},
        "a": {"body": drawing("anna", "letter")},
        "github": {"body": drawing("anna", "github")},
        "waving-hand-dark-skin-tone": {"body": drawing("anna", "hand")},
    }
    anna["suffixes"] = {"": "Regular", "outline": "Outline", "24-solid": "Solid"}
    anna["aliases"] = {
        "home": {"parent": "house-outline"},
        "dwelling-outline": {"parent": "home"},
        "old-house": {"parent": "house-outline", "hidden": True},
        "mirrored-house": {"parent": "house-outline", "hFlip": True},
        "lost": {"parent": "nothing"},
    }
    anna["categories"] = {"Buildings": ["house-outline"], "General": ["house-outline"], "Social Media": ["moved"]}
    files["bert-set"]["icons"] |= {"filled-box": {"body": SQUARE}, "paperclip": {"body": drawing("bert", "clip")}}
    # The same author's older set: one family with the first, and some of its drawings.
    add("anna-old", {"feline": dict(anna["icons"]["cat"]), **icons("old", ["lamp", "dogs"])}, author="anna")

    add("iconoir", icons("iconoir", (*COMMON, "unknown thing")) | {"dark-block": {"body": SQUARE}})
    add("flat-color-icons", icons("flat", COMMON, "#e02020"), author="Icons8")
    add("bi", icons("bi", ("cat", "dog", "sun", "tree")) | {"sun-two": dict(files["iconoir"]["icons"]["sun"])})
    add("marketeq", icons("marketeq", ("cat", "dogs", "sun"), "#2020e0"))

    add("cib", icons("cib", ("github", "cat")), author="brands one", category="Logos")
    add("bxl", icons("bxl", ("github", "sun")), author="brands two", category="Logos")
    add("devicon", icons("devicon", ("cat",)), category="Programming")
    add("retired", icons("retired", ("cat",)), info={"hidden": True})
    noncommercial = {"title": "CC BY-NC 4.0", "spdx": "CC-BY-NC-4.0"}
    add("greedy", icons("greedy", ("cat",)), licence=noncommercial)
    add("rigid", icons("rigid", ("cat",)), licence={"title": "CC BY-ND 4.0"})
    add("flag", icons("flag", ("fi-4x3", "fr-4x3"), "#e02020"), category="Flags / Maps")
    names = ("accordion", "penguin", "waving-hand-dark-skin-tone", "squeezebox")
    add("noto", icons("noto", names, "#20a020"), category="Emoji", chars={"1fa97": "squeezebox", "1f427": "penguin"})
    add("openmoji", icons("openmoji", ("accordion", "rock cairn"), "#20a020"), category="Emoji")
    for vendor in ("twemoji", "emojione", "emojione-v1"):
        add(vendor, icons(vendor, ("penguin",), "#20a020"), category="Emoji")
    files["unlisted"] = {"prefix": "unlisted", "icons": icons("unlisted", ("cat",))}

    (folder / "json").mkdir(parents=True)
    for name, content in files.items():
        (folder / "json" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "collections.json").write_text(json.dumps(listed), encoding="utf-8")
    (folder / "package.json").write_text(json.dumps({"version": "0.0.1"}), encoding="utf-8")
    return folder
