"""`cbalign demo` as its visitors meet it: the real command, over HTTP and in Chromium."""

import base64
import http.client
import io
import json
import pathlib
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
import warnings

import flax
import jax
import numpy as np
import pytest
from PIL import Image

import cbalign
from cbalign.data.text import special_ids
from cbalign.inference import open_source
from cbalign.runs.workdir import task_class
from cbalign.weights import weights_folder
from tests.report.demo.conftest import (
    HOSTILE_CAPTION,
    HOSTILE_EXAMPLE,
    HOSTILE_NAME,
    SECRET,
    Tab,
    blotches,
    event_numbers,
    served,
)
from tests.tiny import tiny_config

pytestmark = pytest.mark.slow

TEXT = "a red circle and a blue square on white"


def get(address, path, method="GET", **headers):
    """(status, body) of a path, sent as it is written, without a body."""
    where = urllib.parse.urlsplit(address)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=60)
    try:
        connection.putrequest(method, f"/{path}", skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def post(address, path, body, kind="application/json"):
    """(status, body)."""
    request = urllib.request.Request(f"{address}{path}", data=body, headers={"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def upload(address, name, content):
    """(status, body) of an upload as a browser makes it."""
    head = f'--b\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    return post(address, "gradio_api/upload", head + content + b"\r\n--b--\r\n", "multipart/form-data; boundary=b")


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def expected(run, folder, query, top=24):
    """[(score, path within the folder)] by the Python API, links that lead outside left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hits = cbalign.load(run).search(folder, query, top=100)
    paths = [(hit.score, pathlib.Path(hit.path)) for hit in hits]
    inside = [(score, path) for score, path in paths if path.resolve().is_relative_to(folder.resolve())]
    return [(score, path.relative_to(folder).as_posix()) for score, path in inside][:top]


def label_of(name):
    return {"1.png": HOSTILE_CAPTION, "2.png": "a red circle", "3.png": HOSTILE_EXAMPLE, "sub/6.jpg": "漢字 😀"}.get(
        name, name
    )


def plain(text):
    """A text as the browser reports it, runs of spaces as one."""
    return " ".join(text.split())


def labels_of(found):
    return [plain(f"{score:.2f} · {label_of(name)}") for score, name in found]


def test_a_search_finds_what_the_python_api_finds(tab, tiny_run, folder):
    found = expected(tiny_run, folder, TEXT)
    tab.search(TEXT)
    tab.wait_for_status(f"{len(found)} of {len(found)} images, best first")
    assert [plain(label) for label in tab.labels()] == labels_of(found)
    tab.open(0)
    best = found[0]
    assert tab.page.locator("#details h3").inner_text().strip() == plain(best[1])
    assert tab.page.locator("#details dd").first.inner_text() == f"{best[0]:.3f}"
    words = tab.page.locator("#details figcaption").all_inner_texts()
    explanation = cbalign.load(tiny_run).explain(folder / best[1], TEXT, top=4)
    whole_text = ["whole text"] * bool(explanation.token_maps[0].any())
    assert words == whole_text + explanation.words * bool(explanation.word_maps.any())
    numbers = [int(text.split()[0]) for text in tab.page.locator("#details .cb-number").all_inner_texts()]
    assert numbers == [*explanation.image_codes.codes, *explanation.text_codes.codes]


def test_filters_and_the_empty_query(tab, tiny_run, folder):
    found = expected(tiny_run, folder, TEXT)
    tab.wait_for_status(f"{len(found)} of {len(found)} images; search in words")
    assert [plain(label) for label in tab.labels()] == [plain(label_of(name)) for name in sorted(n for _, n in found)]
    tab.search(TEXT)
    tab.wait_for_status("best first")
    middle = (found[2][0] + found[3][0]) / 2
    least = round(middle, 2)
    enough = sum(score >= least for score, _ in found)
    for value, field in ((least, "#least"), (2, "#count")):
        number = tab.page.locator(f"{field} input[type=number]")
        number.fill(str(value))
        number.press("Enter")
        number.blur()
    tab.wait_for_status(f"{min(2, enough)} of {len(found)} images, best first; {enough} score {least:.2f} or more")
    assert [plain(label) for label in tab.labels()] == labels_of(found[: min(2, enough)])


def test_a_dropped_image_is_a_query(tab, tiny_run, folder):
    for name, how in (("3.png", "drop"), ("5.png", "choose")):
        content = (folder / name).read_bytes()
        if how == "drop":
            transfer = tab.page.evaluate_handle(
                """data => { const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
                const transfer = new DataTransfer();
                transfer.items.add(new File([bytes], "dropped.png", {type: "image/png"})); return transfer; }""",
                base64.b64encode(content).decode(),
            )
            target = tab.page.locator(
                "#query-image button[aria-label*=rop], #query-image .upload-container button"
            ).first
            target.dispatch_event("drop", {"dataTransfer": transfer})
        else:
            tab.page.locator("#query-image button[aria-label*=lear], #query-image button[aria-label*=emove]").click()
            tab.wait_for_status("search in words")
            tab.page.locator("#query-image input[type=file]").set_input_files(folder / name)
        tab.wait_for_status("best first")
        found = expected(tiny_run, folder, folder / name)
        assert found[0][1] == name and found[0][0] == pytest.approx(1, abs=1e-4)
        tab.page.locator("#results .caption-label", has_text=f"1.00 · {label_of(name)}").wait_for()
        assert [plain(label) for label in tab.labels()] == labels_of(found)
    tab.open(0)
    assert tab.page.locator("#details figcaption").count() == 0  # no words
    assert tab.page.locator("#details .cb-number").count() == 8


def test_hostile_names_and_captions_are_text(tab):
    tab.search(TEXT)
    tab.wait_for_status("best first")
    for text in (HOSTILE_NAME, HOSTILE_CAPTION):
        place = next(i for i, label in enumerate(tab.labels()) if plain(text) in plain(label))
        tab.open(place)
        tab.page.locator("#details h3, #details .cb-caption", has_text=text[:20]).first.wait_for()
        assert plain(text) in plain(tab.page.locator("#details").inner_text())
    assert tab.page.locator("#details strong, #details script, #details a, #details code").count() == 0
    assert tab.page.locator("#examples", has_text=HOSTILE_EXAMPLE).count() == 1
    assert tab.page.locator("#examples b, #examples strong").count() == 0


@pytest.mark.parametrize(
    "words", ["<b>x</b>${1}{{y}}", "😀" * 50, "word " * 2000, "\u202e\x07 \t", "漢字", "x" * 10_000]
)
def test_nonsense_is_answered(tab, words):
    tab.search(words)
    tab.wait_for_status("best first" if words.strip("\u202e\x07 \t") else "images")
    tab.open(0)


def test_files_that_are_no_images_are_answered_in_words(tab, tmp_path):
    wrong = {
        "text.png": b"<script>window.hacked=9</script>",
        "cut.png": png(blotches(1))[:60],
        "bomb.png": png(Image.new("1", (9000, 9000))),
    }
    for name, content in wrong.items():
        (tmp_path / name).write_bytes(content)
        tab.page.locator("#query-image input[type=file]").first.set_input_files(tmp_path / name)
        reason = "too large, more than 64 megapixels" if name.startswith("bomb") else "broken"
        tab.wait_for_status(f"This file cannot be used as an image ({reason}); choose another one.")
        tab.page.reload()
        tab.page.locator("#results .thumbnail-item").first.wait_for()


def test_matching_by_a_chosen_image(tab, tiny_run, folder):
    tab.tab("Match")
    tab.page.locator("#match-choice .thumbnail-item").first.click()
    tab.page.locator("#match-image-0 img").wait_for()
    tab.page.fill("#match-text textarea, #match-text input", TEXT)
    tab.page.keyboard.press("Enter")
    tab.page.locator("#match-details .cb-pair").wait_for()
    probability = float(cbalign.load(tiny_run).match(folder / "0.png", TEXT)[0, 0])
    shown = plain(tab.page.locator("#match-verdict").inner_text())
    assert re.search(rf"\bmatch {100 * probability:.0f}%", shown), shown


@pytest.mark.parametrize("width", [390, 1280])
def test_images_to_choose_from_fill_their_grid(browser, page_of_folder, width):
    tab = Tab(browser, page_of_folder[0], viewport={"width": width, "height": 844})
    for name in ("match", "classes"):
        tab.tab(name.capitalize())
        grid = tab.page.locator(f"#{name}-choice")
        grid.locator(".thumbnail-item").last.wait_for()
        boxes = [one.bounding_box() for one in grid.locator(".thumbnail-item").all()]
        rows, around = sorted({round(box["y"]) for box in boxes}), grid.bounding_box()
        assert all(lower - upper < boxes[0]["height"] + 20 for upper, lower in zip(rows, rows[1:]))
        assert around["y"] + around["height"] - (rows[-1] + boxes[0]["height"]) < 30
        assert tab.page.get_by_text("or click one of these").locator("visible=true").count() == 1
    tab.assert_fine()
    tab.context.close()


def test_classes_typed_by_hand(tab):
    tab.tab("Classes")
    tab.page.locator("#classes-button").click()
    tab.page.locator("#classes-status", has_text="Choose an image, or drop one.").wait_for()
    tab.page.locator("#classes-choice .thumbnail-item").nth(2).click()
    tab.page.locator("#classes-image-0 img").wait_for()
    tab.page.fill("#classes-names textarea", "a red circle\na blue square, <b>bold</b>")
    tab.page.locator("#classes-button").click()
    tab.page.locator("#classes-answer", has_text="<b>bold</b>").wait_for()
    shown = plain(tab.page.locator("#classes-answer").inner_text())
    shares = [int(share) for share in re.findall(r"(\d+)%", shown)]
    assert len(shares) == 3 and abs(sum(shares) - 100) <= 2
    tab.page.fill("#classes-names textarea", "a red circle\n漢字")
    tab.page.locator("#classes-button").click()
    tab.page.locator("#classes-status", has_text="no word in the model's vocabulary").wait_for()
    tab.page.fill("#classes-names textarea", "a red circle\n" + "x" * 300)
    tab.page.locator("#classes-button").click()
    tab.page.locator("#classes-answer", has_text="x" * 300).first.wait_for()
    card = tab.page.locator("#classes-answer").bounding_box()
    for share in tab.page.locator("#classes-answer").get_by_text(re.compile(r"^\s*\d+%$")).all():
        box = share.bounding_box()
        assert box["x"] + box["width"] <= card["x"] + card["width"] and box["width"] > box["height"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone(browser, page_of_folder, scheme):
    phone = Tab(browser, page_of_folder[0], viewport={"width": 390, "height": 844}, color_scheme=scheme)
    phone.search(TEXT)
    phone.wait_for_status("best first")
    for place in range(3):
        phone.open(place)
        phone.assert_fine()
    for name in ("Match", "Classes"):
        phone.tab(name)
        phone.page.locator(f"#{name.lower()}-image-0").wait_for()
        phone.assert_fine()
    shade = phone.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", shade)[:3])) < 150) == (scheme == "dark")
    phone.context.close()


def test_no_file_outside_the_pages_own_is_served(page_of_folder, folder):
    address, said = page_of_folder
    assert any("2 images are links that lead outside the folder" in line for line in said)
    outside = (folder / "linked").resolve()
    private = [
        outside / "secret.txt",
        outside / "private.png",
        folder / "link.png",
        folder / "linked" / "secret.txt",
        folder / "linked" / "private.png",
        folder / ".." / ".." / outside.name / "secret.txt",
        folder / "captions.csv",
        "secret.txt",  # of the working folder
        "../secret.txt",
        "/etc/passwd",
        "/proc/self/environ",
        "file:///etc/passwd",
        "http://localhost/",
    ]
    for file in private:
        for written in (str(file), urllib.parse.quote(str(file)), urllib.parse.quote(str(file), safe="")):
            for route in ("gradio_api/file=", "gradio_api/file/", "file=", "static/", "assets/", "gradio_api/proxy="):
                code, body = get(address, route + written)
                assert code in (403, 404) and SECRET not in body and b"root:" not in body, (route, written)
    config = get(address, "config")[1].decode()
    assert str(folder) not in config and str(outside) not in config
    # An own file, from which `..` leads to the others.
    own = re.search(r"/gradio_api/file=([^\"\\]+/0\.jpg)", config)[1]
    assert get(address, f"gradio_api/file={own}")[0] == 200
    assert get(address, f"gradio_api/file={own}/../../../../../../../../../../../../etc/passwd")[0] == 403


def test_events_do_not_read_files_for_a_visitor(page_of_folder, folder):
    address, _ = page_of_folder
    events = event_numbers(address, get)
    (number,) = [i for i, inputs in enumerate(events.values()) if inputs == ["query-image", "least", "count"]]
    for path in ("/etc/passwd", str(folder / "0.png"), "http://localhost:1/x.png"):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        for data in ([file, -1, 24], [{"value": file}, -1, 24]):
            body = json.dumps({"data": data, "fn_index": number, "session_hash": "abc"}).encode()
            assert post(address, "gradio_api/queue/join", body)[0] == 403
    # The same event with a file that was uploaded is taken.
    code, body = upload(address, "a.png", png(blotches(1)))
    assert code == 200
    file = {"path": json.loads(body)[0], "meta": {"_type": "gradio.FileData"}}
    body = json.dumps({"data": [file, -1, 24], "fn_index": number, "session_hash": "abc"}).encode()
    assert post(address, "gradio_api/queue/join", body)[0] == 200


def test_requests_from_elsewhere_and_large_uploads_are_refused(page_of_folder):
    address, _ = page_of_folder
    assert get(address, "", Host="evil.example")[0] == 421
    assert get(address, "", Origin="http://evil.example")[0] == 403
    # Refused by what it announces, before any of it is sent.
    assert get(address, "gradio_api/upload", "POST", Content_Length=str(21 << 20))[0] == 413
    assert upload(address, "small.png", b"x" * (1 << 20))[0] == 200


def test_many_clicks_at_once(page_of_folder, browser, tiny_run, folder):
    address, _ = page_of_folder
    events = event_numbers(address, get)
    (number,) = [i for i, inputs in enumerate(events.values()) if inputs == ["query", "least", "count"]][:1]
    codes = []

    def click(visitor):
        data = {"data": [f"{TEXT} {visitor}", -1, 24], "fn_index": number, "session_hash": f"visitor{visitor}"}
        codes.append(post(address, "gradio_api/queue/join", json.dumps(data).encode())[0])

    threads = [threading.Thread(target=click, args=(visitor,)) for visitor in range(150)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(codes) == 150 and set(codes) <= {200, 503} and codes.count(200) >= 64
    tab = Tab(browser, address)
    found = expected(tiny_run, folder, TEXT)
    for _ in range(3):
        tab.search(TEXT)
        tab.page.locator("#results .thumbnail-item").nth(1).click(click_count=10, delay=5)
    tab.search(TEXT)
    tab.wait_for_status("best first")
    assert plain(tab.labels()[0]) == labels_of(found)[0]
    tab.assert_fine()
    tab.context.close()


def test_a_statement_about_two_images(browser, tiny_run, folder, tmp_path):
    """A model of nlvr2, at random, has no search, and answers as it does in Python."""
    opened = open_source(tiny_run)
    config = tiny_config(task="nlvr2")
    task = task_class(config)(config, tokens=special_ids(opened.tokenizer))
    params = flax.traverse_util.flatten_dict(task.init_params(jax.random.key(3)), sep="/")
    weights_folder.write_weights(
        tmp_path / "out",
        {f"params/{name}": np.asarray(x) for name, x in params.items()},
        {"source": "cbalign", "config": config.to_dict()},
        words=weights_folder.vocabulary_tokens(opened.tokenizer),
    )
    answers = cbalign.load(tmp_path / "out").predict([folder / "0.png", folder / "1.png"], TEXT)
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    with served(f"--weights={tmp_path / 'out'}", f"--images={folder}", cwd=cwd, cache=cwd / "cache") as (address, _):
        tab = Tab(browser, address)
        tab.page.get_by_role("tab", name="Ask").wait_for()
        assert [name.strip() for name in tab.page.get_by_role("tab").all_inner_texts()] == ["Ask"]
        tab.page.fill("#ask-text textarea, #ask-text input", TEXT)
        tab.page.keyboard.press("Enter")
        tab.page.locator("#ask-status", has_text="Choose 2 images.").wait_for()
        for place in range(2):
            tab.page.locator("#ask-choice .thumbnail-item").nth(place).click()
            tab.page.locator(f"#ask-image-{place} img").wait_for()
        tab.page.locator("#ask-text textarea, #ask-text input").press("Enter")
        tab.page.locator("#ask-answer", has_text="false").wait_for()
        shown = plain(tab.page.locator("#ask-answer").inner_text())
        for name, probability in answers:
            assert re.search(rf"\b{name} {100 * probability:.0f}%", shown), shown
        tab.assert_fine()
        tab.context.close()
