"""Whose image it is: a missing file is missing, and whatever is guessed is told."""

import unicodedata

import pytest
from PIL import Image

from cbalign.data.datasets.folder import import_folder
from cbalign.data.datasets.image_finder import AMBIGUOUS, MISSING, ImageFinder
from cbalign.errors import UserError


def tree(folder, *paths):
    for number, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / path)
    return ImageFinder(folder)


def found(finder, written):
    path, how = finder.locate(written)
    return how if path is None else path.relative_to(finder.folder).as_posix()


@pytest.mark.parametrize(
    "written",
    [
        "dogs/007.jpg",
        "./dogs/007.jpg",
        "dogs\\007.jpg",
        "/home/someone/data/dogs/007.jpg",
        "D:\\data\\dogs\\007.jpg",
        "data/dogs/007.jpg",
        "DOGS/007.jpg",
        "dogs%2F007.jpg",
        "file:///data/dogs/007.jpg",
    ],
)
def test_a_missing_file_is_not_taken_from_another_folder(tmp_path, written):
    finder = tree(tmp_path, "dogs/001.jpg", "cats/007.jpg")
    assert found(finder, written) == MISSING


def test_nor_from_a_folder_of_the_same_name_elsewhere(tmp_path):
    finder = tree(tmp_path, "train/dogs/001.jpg", "test/dogs/007.jpg", "dogs/002.jpg", "old/dogs/009.jpg")
    assert found(finder, "train/dogs/007.jpg") == MISSING
    assert found(finder, "/x/train/dogs/007.jpg") == MISSING
    assert found(finder, "train/dogs/002.jpg") == MISSING
    assert found(finder, "dogs/009.jpg") == MISSING
    assert found(finder, "val/dogs/007.jpg") == MISSING  # dogs/ is there, without it


def test_a_name_alone_counts_where_no_row_names_a_folder(tmp_path):
    finder = tree(tmp_path, "dogs/001.jpg", "cats/007.jpg")
    finder.learn(["001.jpg", "007.jpg"])
    assert found(finder, "007.jpg") == "cats/007.jpg"
    assert "1 images named without their folder" in finder.notes()[0]
    finder = ImageFinder(tmp_path)
    finder.learn(["dogs/001.jpg", "007.jpg", "/x/birds/007.jpg"])
    assert found(finder, "007.jpg") == found(finder, "/x/birds/007.jpg") == MISSING
    finder = ImageFinder(tmp_path)
    finder.learn(["/x/birds/007.jpg"])
    assert found(finder, "/x/birds/007.jpg") == "cats/007.jpg"
    assert finder.notes() == [
        "1 images found by their names alone, in other folders than written, such as '/x/birds/007.jpg'"
    ]


def test_several_of_a_name(tmp_path):
    finder = tree(tmp_path, "dogs/007.jpg", "cats/007.jpg", "both/a.jpg", "both/a.png", "x/A.jpg", "y/a.JPG")
    assert found(finder, "007.jpg") == found(finder, "both/a") == AMBIGUOUS
    assert found(finder, "both/a.jpg") == "both/a.jpg"


def test_other_forms_of_a_name(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "Müßig/ä.jpg") for form in ("NFC", "NFD"))
    finder = tree(tmp_path, decomposed, "Caps/B.JPG", "a b/c d.png", "both/k.jpg", "both/K.jpg")
    assert found(finder, composed) == decomposed
    assert found(finder, "caps/b.jpg") == "Caps/B.JPG"
    assert found(finder, "a%20b/c%20d.png") == "a b/c d.png"
    assert found(finder, "both/K.jpg") == "both/K.jpg" and found(finder, "both/K.JPG") == AMBIGUOUS
    assert [note.partition(", such")[0] for note in finder.notes()] == [
        "1 images found in another Unicode form (NFC, NFD) than written",
        "1 images found in other upper and lower case than written",
        "1 images found with %-codes decoded",
    ]


def test_a_text_beside_the_image_is_not_the_image(tmp_path):
    finder = tree(tmp_path, "a/7.jpg")
    (tmp_path / "a" / "7.txt").write_text("x")
    assert found(finder, "7") == found(finder, "a/7") == "a/7.jpg"


def test_linked_folders_are_searched_and_loops_end(tmp_path):
    tree(tmp_path / "elsewhere", "deep/a.jpg")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "lost.jpg").symlink_to(tmp_path / "nothing")
    finder = ImageFinder(tmp_path / "photos")
    assert found(finder, "a.jpg") == "linked/deep/a.jpg"
    (note,) = finder.leftovers([tmp_path / "photos" / "linked" / "deep" / "a.jpg"])
    assert "1 link to nothing" in note and "1 linked folder that is searched already" in note


def test_import_tells_what_it_guessed_and_what_is_left(tmp_path):
    tree(tmp_path / "photos", "dogs/1.jpg", "dogs/2.jpg", "cats/3.jpg", "cats/4.jpg")
    for name in ("x.heic", "y.tar.gz"):
        (tmp_path / "photos" / name).write_bytes(b"x")
    file = tmp_path / "c.csv"
    file.write_text("image,caption\ndogs/1.jpg,one\nDogs/2.JPG,two\ndogs/3.jpg,three\n")
    with pytest.raises(UserError, match="1 of 3 rows .*1 missing; for example 'dogs/3.jpg'"):
        import_folder(tmp_path / "photos", file, tmp_path / "out")
    report = import_folder(tmp_path / "photos", file, tmp_path / "out", max_bad=0.5, test=0)
    assert report["images"] == 2 and report["skipped"]["missing"]["files"] == ["dogs/3.jpg"]
    assert "1 images found in other upper and lower case than written, such as 'Dogs/2.JPG'" in report["notes"]
    assert any(note.startswith("2 images in") and "no caption, such as cats/3.jpg" in note for note in report["notes"])
    assert any("1 .heic file (no decoder installed), 1 .tar.gz file" in note for note in report["notes"])
