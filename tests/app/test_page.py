"""The page in a browser, as a person would use it. Set SKXMA_SCREENSHOTS to a folder to look at it."""

import base64
import os
import re
import shutil
import time
from pathlib import Path
from threading import Event, Thread

import pytest
from uploads import LONG_NAME, files

from skxma import CLIPEncoder, load

server = pytest.importorskip("skxma.app._server", reason="the page needs Flask")
tabs_module = pytest.importorskip("skxma.app._tabs")
playwright = pytest.importorskip("playwright.sync_api", reason="the page is tested with Playwright, which is not here")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next((path for name in BROWSERS if (path := shutil.which(name))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path"),
]
# a sandbox of the browser's own does not start as root, which is what containers are
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TIMEOUT = 60_000
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
DROP = """([element, files]) => {
    const transfer = new DataTransfer();
    for (const [name, content] of files)
        transfer.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt())], name));
    for (const kind of ["dragover", "drop"])
        element.dispatchEvent(new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true}));
}"""
# what is visible and smaller than 24 pixels, in either direction, and can be clicked
SMALL = """() => [...document.querySelectorAll("button, a, input, summary, label.button, label.drop")]
    .filter((e) => e.checkVisibility() && !(e.type === "file"))
    .filter((e) => { const r = e.getBoundingClientRect(); return r.width < 24 || r.height < 24; })
    .map((e) => e.outerHTML)"""
# the contrast of each control's border with the ground beside it
PALE = """() => {
    const rgb = (color) => color.match(/[\\d.]+/g).map(Number);
    const light = (color) => {
        const [r, g, b] = rgb(color).map((v) => v / 255)
            .map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
        return .2126 * r + .7152 * g + .0722 * b;
    };
    const ground = (e) => {
        for (; e; e = e.parentElement) {
            const color = getComputedStyle(e).backgroundColor;
            if (rgb(color)[3] !== 0) return color;
        }
        return "rgb(255, 255, 255)";
    };
    const bordered = "button, .button, .column, .drop, .notice, .chip, input[type=text], #retrieved img, .numbered";
    return [...document.querySelectorAll(bordered)]
        .filter((e) => e.checkVisibility() && !e.disabled && parseFloat(getComputedStyle(e).borderTopWidth) > 0)
        .filter((e) => {
            const [a, b] = [light(getComputedStyle(e).borderTopColor), light(ground(e.parentElement))].sort();
            return (b + .05) / (a + .05) < 3;
        })
        .map((e) => e.outerHTML);
}"""
# the lines of an element's text
LINES = """(e) => {
    const range = document.createRange();
    range.selectNodeContents(e);
    return range.getClientRects().length;
}"""
NAMELESS = """() => [...document.querySelectorAll("input, button")]
    .filter((e) => e.checkVisibility({opacityProperty: false}))
    .filter((e) => !(e.getAttribute("aria-label") || e.textContent.trim()))
    .map((e) => e.outerHTML)"""


@pytest.fixture
def tabs():
    made = tabs_module.make_tabs("tiny")
    yield made
    made.close()


@pytest.fixture
def address(tabs):
    listening = server.listen(server.make_app(tabs), 0)
    thread = Thread(target=listening.serve_forever)
    thread.start()
    yield f"http://{server.HOST}:{listening.port}/"
    listening.shutdown()
    thread.join()


@pytest.fixture(scope="module")
def browser():
    playwright.expect.set_options(timeout=TIMEOUT)
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=2 * TIMEOUT)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, address):
    """Opens the page in a browser context of its own; no page may fail or ask anything of anybody else."""
    wrong, asked, contexts = [], [], []

    def watch(page):
        page.set_default_timeout(TIMEOUT)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if "Content Security" in message.text else None)

    def open_it(**options):
        context = browser.new_context(**{"viewport": WIDE, **options})
        contexts.append(context)
        context.on("page", watch)
        page = context.new_page()
        page.goto(address)
        expect(page.locator(".column")).to_have_count(2)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert wrong == []
    assert {url.split("/")[2] for url in asked if not url.startswith(("data:", "about:"))} <= {address.split("/")[2]}


def expect(locator):
    return playwright.expect(locator)


def look(page, name):
    """Check what every state of the page must keep, and have it looked at."""
    assert page.evaluate(SMALL) == []
    assert page.evaluate(PALE) == []
    assert page.evaluate(NAMELESS) == []
    folder = os.environ.get("SKXMA_SCREENSHOTS")
    before = page.viewport_size
    for size in (WIDE, NARROW):
        page.set_viewport_size(size)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (name, size)
        if folder:
            page.screenshot(path=Path(folder) / f"{name}-{size['width']}.png", full_page=True)
    page.set_viewport_size(before)


def drop(page, target, paths):
    contents = [(path.name, base64.b64encode(path.read_bytes()).decode()) for path in paths]
    page.evaluate(DROP, [page.locator(target).first.element_handle(), contents])


def fill(page, number, name, paths):
    column = page.locator(".column").nth(number)
    column.get_by_placeholder("class name").fill(name)
    column.get_by_placeholder("class name").blur()
    # the server knows the name
    expect(column.locator("input[type=file]")).to_have_attribute("aria-label", f"Images of the class {name.strip()}")
    column.locator("input[type=file]").set_input_files(paths)
    expect(column.locator("figure")).to_have_count(len(paths))
    return column


def fit(page, classes):
    page.click("#fit")
    expect(page.locator("#classes .chip")).to_have_count(len(classes))
    expect(page.locator("#status")).to_contain_text(f"of {len(classes)} classes, fitted in")
    assert [
        chip.split("  ")[0].rsplit(" ", 2)[0] for chip in page.locator("#classes .chip").all_inner_texts()
    ] == classes


def names_of(page):
    return [box.input_value() for box in page.get_by_placeholder("class name").all()]


def test_images_fit_question_answer(open_page, tmp_path):
    page = open_page()
    columns, alert = page.locator(".column"), page.get_by_role("alert")
    look(page, "empty")
    page.click("#fit")
    expect(alert).to_contain_text("two classes")

    fill(page, 0, "fox", files("fox", slice(4)))
    expect(alert).to_be_hidden()
    columns.nth(1).get_by_placeholder("class name").fill("bear")
    drop(page, ".column:nth-child(2)", files("bear", slice(4)))
    expect(columns.nth(1).locator("figure")).to_have_count(4)
    page.get_by_role("button", name="Add a class").click()
    expect(columns.nth(2).get_by_label("Name of class number 3")).to_be_focused()
    page.keyboard.type("poodle")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    columns.nth(2).locator("input[type=file]").set_input_files([broken, *files("poodle", slice(4))])
    expect(columns.nth(2).locator("figure")).to_have_count(4)
    expect(alert).to_contain_text("broken.jpg: not an image")
    page.get_by_role("button", name="Close the message").click()
    expect(columns.nth(2).locator("input[type=file]")).to_have_attribute("aria-label", "Images of the class poodle")
    labels = [box.get_attribute("aria-label") for box in page.locator("input[type=file]").all()]
    assert labels == [
        "Images of the class fox",
        "Images of the class bear",
        "Images of the class poodle",
        "Images without labels",
        "Model file to open",
        "Image to ask about",
    ]
    look(page, "filled")

    fit(page, ["bear", "fox", "poodle"])
    look(page, "fitted")
    drop(page, "#query", files("fox", slice(4, 5)))
    expect(page.locator("#answer .label")).to_contain_text("fox")
    expect(page.locator("#scores tbody tr")).to_have_count(3)
    expect(page.locator("#retrieved li")).to_have_count(5)
    expect(page.locator("#retrieved li").first).to_contain_text("fox")
    expect(page.locator("#answer .unknown")).to_be_hidden()
    page.get_by_text("What do these numbers mean?").click()
    look(page, "asked")
    page.locator("#query input").set_input_files(files("tornado", slice(4, 5)))
    expect(page.locator("#answer .label")).to_have_text("Like none of these")
    expect(page.locator("#answer .unknown")).to_contain_text("If it must be one of them")
    look(page, "like-none-of-these")
    page.locator("#query input").set_input_files(files("fox", slice(1)))
    expect(page.locator("#answer .note")).to_contain_text("one of those that the model was fitted on (fox)")
    with page.expect_download() as download:
        page.get_by_role("link", name="Save the model").click()
    download.value.save_as(tmp_path / "model.skxma")
    assert load(tmp_path / "model.skxma").classes_.tolist() == ["bear", "fox", "poodle"]

    columns.nth(2).get_by_role("button", name="Remove the class poodle").click()
    expect(page.locator("#status")).to_contain_text("The classes have changed since")
    expect(page.locator("#answer")).to_be_hidden()
    expect(page.locator("#query input")).to_be_disabled()
    look(page, "changed")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#answer")).to_be_visible()
    page.reload()
    expect(columns).to_have_count(3)
    expect(page.locator("#classes .chip")).to_have_count(3)


def test_the_images_to_label_next_are_labeled_by_a_click(open_page, tmp_path):
    page = open_page()
    pool = []
    for label in ("fox", "bear", "poodle"):
        for file in files(label, slice(5)):
            pool.append(Path(shutil.copy(file, tmp_path / f"{label}-{file.name}")))
    page.get_by_label("Images without labels").set_input_files(pool)
    strip = page.locator("#strip li")
    expect(strip).to_have_count(12)
    expect(page.locator("#strip .words")).to_have_text(
        "15 images without a label. Name the class of each, or the classes above."
    )
    # a class of its own takes the first place that is free
    expect(strip.first.get_by_role("button")).to_have_count(1)
    first = strip.first.locator("img").get_attribute("alt")
    found = first.partition("-")[0]
    strip.first.get_by_label("New class of").fill(found)
    # what is shown anew while somebody types leaves the field
    page.evaluate("showPool()")
    page.keyboard.press("Enter")
    expect(strip).to_have_count(11)
    expect(strip.first.get_by_label("New class of")).to_be_focused()
    expect(page.locator("#columns .column")).to_have_count(2)
    expect(page.get_by_alt_text(first)).to_be_visible()
    page.get_by_role("button", name="Add a class").click()
    expect(page.get_by_label("Name of class number 3")).to_be_focused()
    for i, label in enumerate(sorted({"fox", "bear", "poodle"} - {found}), start=1):
        page.get_by_placeholder("class name").nth(i).fill(label)
        page.keyboard.press("Tab")
    expect(strip.first.get_by_role("button")).to_have_count(5)
    look(page, "label-next")
    strip.first.get_by_role("button", name="none of these").focus()
    page.keyboard.press("Enter")
    expect(strip).to_have_count(10)
    expect(strip.first.get_by_role("button").first).to_be_focused()
    page.get_by_role("button", name="Undo").click()
    expect(strip).to_have_count(11)
    for n_labeled, lefts, n_next in ((6, range(10, 5, -1), 9), (12, range(8, 2, -1), 3)):
        for left in lefts:
            name = strip.first.locator("img").get_attribute("alt")
            strip.first.get_by_role("button", name=f"{name} is {name.partition('-')[0]}").click()
            expect(strip).to_have_count(left)
        page.click("#fit")
        expect(page.locator("#status")).to_contain_text(f"{n_labeled} images of 3 classes, fitted in")
        expect(page.locator("#status")).to_contain_text("% should be classified correctly")
        expect(strip).to_have_count(n_next)
    expect(page.locator("#strip .words")).to_have_text("3 images without a label.")
    look(page, "labeled")
    strip.first.get_by_role("button", name="none of these").click()
    expect(strip).to_have_count(2)
    page.get_by_role("button", name="Remove the images without labels").click()
    expect(page.locator("#strip")).to_be_hidden()
    page.get_by_role("button", name="Undo").click()
    expect(strip).to_have_count(2)


def test_buttons_of_many_classes_are_all_in_sight(open_page):
    page = open_page()
    page.get_by_label("Images without labels").set_input_files(files("fox", slice(2)))
    strip = page.locator("#strip li")
    expect(strip).to_have_count(2)
    for i in range(17):
        if i > 1:
            page.get_by_role("button", name="Add a class").click()
            expect(page.get_by_label(f"Name of class number {i + 1}")).to_be_focused()
        page.get_by_placeholder("class name").nth(i).fill(f"class {i}")
        page.keyboard.press("Tab")
    expect(strip.first.locator("div").get_by_role("button")).to_have_count(18)
    for size in (WIDE, NARROW):
        page.set_viewport_size(size)
        buttons = strip.first.locator("div")
        assert buttons.get_by_role("button").count() == 18
        assert buttons.evaluate("(e) => e.scrollHeight <= e.clientHeight && e.scrollWidth <= e.clientWidth")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    look(page, "many-classes")


def test_on_a_phone_the_images_of_a_class_lie_in_one_row_to_swipe(open_page):
    page = open_page(viewport=NARROW)
    column = fill(page, 0, "fox", [*files("fox", slice(5)), *files("bear", slice(4))])
    assert column.evaluate("(e) => e.offsetHeight") < 260
    row = column.locator(".images")
    assert row.evaluate("(e) => e.scrollWidth > e.clientWidth")
    # one that is out of sight comes into it, for those who use the keyboard too
    row.get_by_role("button").last.focus()
    assert row.evaluate("(e) => e.scrollLeft > 0")
    page.set_viewport_size(WIDE)
    assert row.evaluate("(e) => e.scrollWidth <= e.clientWidth")
    look(page, "many-images")


def test_a_folder_is_dropped_with_what_is_no_image_in_it(open_page, tmp_path):
    page = open_page()
    for number, file in enumerate(files("fox", slice(3))):
        folder = tmp_path / "camera" / ("" if number else "deeper")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder)
    for name in ("notes.txt", "labels.csv", ".DS_Store"):
        (tmp_path / "camera" / name).write_bytes(b"no image")
    box = page.locator("#pool .drop").bounding_box()
    mouse = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(tmp_path / "camera")], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        event = {"type": kind, "x": box["x"] + 9, "y": box["y"] + 9, "data": data}
        mouse.send("Input.dispatchDragEvent", event)
    expect(page.locator("#strip li")).to_have_count(3)
    expect(page.locator("#error p")).to_have_text(
        re.compile(r"^Left out, as no images: 2 files such as (notes\.txt|labels\.csv)\.$")
    )


def test_images_that_are_brought_are_counted_and_waited_for(open_page, tmp_path):
    page = open_page()
    copies = [
        shutil.copy(file, tmp_path / f"{label}-{file.name}")
        for label in ("fox", "bear")
        for file in files(label, slice(5))
    ]
    came = []
    # the fourth is held
    page.route("**/pool", lambda route: came.append(route) or (len(came) != 4 and route.continue_()))
    page.get_by_label("Images without labels").set_input_files(copies)
    expect(page.get_by_text("Adding image 4 of 10 …")).to_be_visible()
    expect(page.locator("#fit")).to_be_disabled()
    expect(page.locator("#strip .words")).to_have_text("3 images without a label.")
    came[3].continue_()
    expect(page.locator("#strip li")).to_have_count(10)
    expect(page.locator("#pool .drop")).to_contain_text("Drop images without labels here")
    expect(page.locator("#fit")).to_be_enabled()


def test_two_tabs_share_nothing(open_page):
    first = open_page()
    fill(first, 0, "church", files("snail", slice(3)))
    fill(first, 1, "wine", files("wine glass", slice(3)))
    second = first.context.new_page()
    second.goto(first.url)
    expect(second.locator(".column")).to_have_count(2)
    assert names_of(second) == ["", ""]
    second.get_by_role("button", name="Try an example").click()
    expect(second.locator(".column")).to_have_count(4)
    fit(second, ["bear", "cat face", "fox", "poodle"])

    first.reload()
    expect(first.locator(".column")).to_have_count(2)
    assert names_of(first) == ["church", "wine"]
    expect(first.locator("#classes")).to_be_hidden()
    expect(first.locator("#query input")).to_be_disabled()
    drop(first, "#query", files("poodle", slice(4, 5)))
    expect(first.get_by_role("alert")).to_contain_text("Fit first")
    expect(first.locator("#answer")).to_be_hidden()
    fit(first, ["church", "wine"])
    drop(first, "#query", files("fox", slice(4, 5)))
    expect(first.locator("#scores tbody tr")).to_have_count(2)
    assert set(first.locator("#scores tbody td:first-child").all_inner_texts()) == {"church", "wine"}
    drop(second, "#query", files("fox", slice(3, 4)))
    expect(second.locator("#answer .label")).to_contain_text("fox")
    expect(second.locator("#scores tbody tr")).to_have_count(4)
    evidence = [image.evaluate("i => i.naturalWidth") for image in second.locator("#retrieved img").all()]
    assert len(evidence) == 5
    assert min(evidence) > 0


def test_the_server_learns_that_a_tab_was_closed(open_page, tabs):
    page = open_page()
    page.reload()
    expect(page.locator(".column")).to_have_count(2)
    (tab,) = tabs._tabs.values()
    assert not tab.closed
    page.goto("about:blank")
    deadline = time.monotonic() + TIMEOUT / 1000
    while not tab.closed:
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)


def test_a_duplicated_tab_starts_anew(open_page):
    first = open_page()
    fill(first, 0, "fox", files("fox", slice(2)))
    token = first.evaluate("sessionStorage.getItem('tab')")
    copy = first.context.new_page()
    # a browser that duplicates a tab copies its sessionStorage
    copy.add_init_script(f"if (!sessionStorage.getItem('tab')) sessionStorage.setItem('tab', '{token}')")
    copy.goto(first.url)
    expect(copy.get_by_role("alert")).to_contain_text("This tab is a copy of another one")
    expect(copy.locator(".column")).to_have_count(2)
    assert names_of(copy) == ["", ""]
    expect(first.locator("figure")).to_have_count(2)


def test_a_tab_whose_session_is_gone_says_so_and_starts_anew(open_page, tabs):
    page = open_page()
    fill(page, 0, "fox", files("fox", slice(2)))
    for token in list(tabs._tabs):
        tabs._end(token, "it was not used for 12 hours")
    page.get_by_role("button", name="Add a class").click()
    expect(page.get_by_role("alert")).to_contain_text("are gone: it was not used for 12 hours. The page starts anew.")
    expect(page.locator("figure")).to_have_count(0)
    fill(page, 0, "fox", files("fox", slice(2)))


def test_whatever_is_removed_comes_back(open_page):
    page = open_page()
    columns, undo = page.locator(".column"), page.locator("#undo")
    fill(page, 0, "fox", files("fox", slice(3)))
    fill(page, 1, "bear", files("bear", slice(2)))
    expect(undo).to_be_hidden()
    sources = "figures => figures.map((f) => f.querySelector('img').src)"
    before = page.locator("figure").evaluate_all(sources)
    columns.nth(0).get_by_role("button", name="Remove fluent-emoji-flat.png").click()
    expect(undo).to_contain_text("fluent-emoji-flat.png was removed from “fox”.")
    columns.nth(0).get_by_role("button", name="Remove the class fox").click()
    expect(undo).to_contain_text("The class “fox” with 2 images was removed.")
    expect(columns).to_have_count(1)
    look(page, "undo")
    page.get_by_role("button", name="Try an example").click()
    expect(undo).to_contain_text("Your 1 class was replaced by the example.")
    expect(columns).to_have_count(4)
    for words in ("The class “fox”", "was removed from “fox”"):
        page.get_by_role("button", name="Undo").click()
        expect(undo).to_contain_text(words)
    page.get_by_role("button", name="Undo").click()
    expect(undo).to_be_hidden()
    assert names_of(page) == ["fox", "bear"]
    assert page.locator("figure").evaluate_all(sources) == before


def box_of(locator):
    """Place of an element on the page; a figure that is just drawn again has none for a moment."""
    for _ in range(100):
        if (box := locator.bounding_box()) is not None:
            return box
        locator.page.wait_for_timeout(50)
    raise AssertionError(f"{locator} is not to be seen")


def test_a_tap_on_an_image_removes_nothing_and_its_control_is_there_to_see(open_page):
    page = open_page(viewport=NARROW, has_touch=True, is_mobile=True)
    fill(page, 0, "fox", files("fox", slice(4)))
    figure = page.locator("figure").first
    box = box_of(figure.locator("img"))
    for x, y in ((0.95, 0.05), (0.5, 0.5), (0.95, 0.99)):
        page.touchscreen.tap(box["x"] + x * box["width"], box["y"] + y * box["height"])
    expect(page.locator("figure")).to_have_count(4)
    remove = figure.get_by_role("button", name="Remove")
    expect(remove).to_be_visible()
    # expect() waits: the page draws its figures again once their scores arrive, and a style that
    # is read from a figure just replaced is empty.
    expect(remove).to_have_css("opacity", "1")
    size = box_of(remove)
    assert min(size["width"], size["height"]) >= 40
    assert size["y"] >= box["y"] + box["height"]
    look(page, "touch")
    remove.tap()
    expect(page.locator("figure")).to_have_count(3)
    page.get_by_role("button", name="Undo").tap()
    expect(page.locator("figure")).to_have_count(4)


def test_a_word_of_a_class_name_is_not_broken_on_a_phone(open_page):
    page = open_page(viewport=NARROW)
    for number, name in enumerate(("mushroom", "pomegranate")):
        fill(page, number, name, files(("fox", "bear")[number], slice(2)))
    fit(page, ["mushroom", "pomegranate"])
    drop(page, "#query", files("fox", slice(4, 5)))
    names = page.locator("#scores td:first-child")
    expect(names).to_have_count(2)
    for name in names.all():
        assert name.evaluate(LINES) == 1


def test_warnings_are_shown_on_the_page(open_page):
    page = open_page()
    fill(page, 0, LONG_NAME, files("fox", slice(2)))
    fill(page, 1, "bear", [*files("bear", slice(2)), *files("fox", slice(1))])
    expect(page.locator("#repeats")).to_contain_text("An image of two classes confuses the fit")
    expect(page.locator("figure.marked")).to_have_count(2)
    expect(page.locator("#marks")).to_be_visible()
    with pytest.warns(UserWarning, match="longer than the 24 tokens"):
        fit(page, [f"{LONG_NAME[:39]}…", "bear"])
    expect(page.locator("#warnings")).to_contain_text("is longer than the 24 tokens")
    expect(page.locator("#warnings")).to_contain_text("Shorten it and fit again.")
    look(page, "warning")


def test_the_example_is_fitted_and_asked_about(open_page):
    page = open_page()
    page.get_by_role("button", name="Try an example").click()
    expect(page.locator("figure")).to_have_count(12)
    expect(page.locator("#examples")).to_be_hidden()
    fit(page, ["bear", "cat face", "fox", "poodle"])
    page.get_by_role("button", name="Ask about the bear of the example").click()
    expect(page.locator("#answer .label")).to_contain_text("bear")
    look(page, "example")
    page.get_by_role("button", name="Ask about the tornado of the example").click()
    expect(page.locator("#answer .label")).to_have_text("Like none of these")


def test_a_saved_model_is_opened_asked_and_closed(open_page, tmp_path):
    page = open_page()
    page.get_by_role("button", name="Try an example").click()
    fit(page, ["bear", "cat face", "fox", "poodle"])
    with page.expect_download() as download:
        page.get_by_role("link", name="Save the model").click()
    download.value.save_as(tmp_path / "animals.skxma")

    other = open_page()
    fill(other, 0, "snail", files("snail", slice(2)))
    (tmp_path / "photo.skxma").write_bytes(files("fox", slice(1))[0].read_bytes())
    chooser = other.get_by_label("Model file to open")
    chooser.set_input_files(tmp_path / "photo.skxma")
    expect(other.get_by_role("alert")).to_contain_text("photo.skxma is no model file of skxma")
    chooser.set_input_files(tmp_path / "animals.skxma")
    expect(other.locator("#opened")).to_contain_text("animals.skxma")
    expect(other.get_by_role("alert")).to_be_hidden()
    expect(other.locator("#classes .chip")).to_have_count(4)
    expect(other.locator(".column").first).to_be_hidden()
    drop(other, "#query", files("fox", slice(3, 4)))
    expect(other.locator("#answer .label")).to_contain_text("fox")
    expect(other.locator("#retrieved img")).to_have_count(0)
    # a model keeps the names of its images, not the images
    evidence = other.locator("#retrieved .numbered")
    expect(evidence).to_have_count(5)
    expect(evidence.filter(has_text=f"fox ({files('fox', slice(1))[0].stem}).png")).to_have_count(1)
    look(other, "opened")
    other.get_by_role("button", name="Close this model, back to your images").click()
    expect(other.locator("#answer")).to_be_hidden()
    expect(other.locator("figure")).to_have_count(2)


def test_long_work_shows_its_progress_and_is_stopped(open_page, monkeypatch):
    reached, opened = Event(), Event()
    encode = CLIPEncoder.encode_image
    seen = []

    def held(encoder, *args, **options):
        seen.append(args)
        if len(seen) == 3:
            reached.set()
            assert opened.wait(TIMEOUT / 1000)
        return encode(encoder, *args, **options)

    monkeypatch.setattr(CLIPEncoder, "encode_image", held)
    page = open_page()
    page.get_by_role("button", name="Try an example").click()
    page.click("#fit")
    assert reached.wait(TIMEOUT / 1000)
    expect(page.locator("#work")).to_contain_text("Encoding image 3 of 12")
    expect(page.locator("#fit")).to_be_disabled()
    look(page, "progress")
    # the page follows a fit that it finds running
    page.reload()
    expect(page.locator("#work")).to_contain_text("Encoding image 3 of 12")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("alert")).to_contain_text("Stopped.")
    expect(page.locator("#work")).to_be_hidden()
    expect(page.locator("#classes")).to_be_hidden()
    opened.set()
    fit(page, ["bear", "cat face", "fox", "poodle"])
