"""The page in a browser, as a person would use it. Set SKXMA_SCREENSHOTS to a folder to look at it."""

import base64
import os
import shutil
from pathlib import Path
from threading import Thread

import pytest
from test_app_session import files

from skxma import load
from skxma.app._session import Session

server = pytest.importorskip("skxma.app._server", reason="the page needs Flask")
playwright = pytest.importorskip("playwright.sync_api", reason="the page is tested with Playwright, which is not here")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next((path for name in BROWSERS if (path := shutil.which(name))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path"),
]
DROP = """([element, files]) => {
    const transfer = new DataTransfer();
    for (const [name, content] of files)
        transfer.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt())], name));
    for (const kind of ["dragover", "drop"])
        element.dispatchEvent(new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true}));
}"""


@pytest.fixture(scope="module")
def address():
    session = Session("tiny")
    session.add_column()
    session.add_column()
    listening = server.listen(server.make_app(session), 0)
    thread = Thread(target=listening.serve_forever)
    thread.start()
    yield f"http://{server.HOST}:{listening.port}/"
    listening.shutdown()
    thread.join()
    session.close()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        # a sandbox of the browser's own does not start as root, which is what containers are
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def look(page, name):
    folder = os.environ.get("SKXMA_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def drop(page, target, paths):
    contents = [(path.name, base64.b64encode(path.read_bytes()).decode()) for path in paths]
    page.evaluate(DROP, [page.locator(target).first.element_handle(), contents])


def test_pictures_fit_question_answer(address, browser, tmp_path):
    expect = playwright.expect
    expect.set_options(timeout=60_000)
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    asked, wrong = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(address)
    columns = page.locator(".column")
    expect(columns).to_have_count(2)
    page.click("#fit")
    expect(page.get_by_role("alert")).to_contain_text("two classes")

    columns.nth(0).get_by_label("Name of the class").fill("fox")
    columns.nth(0).locator("input[type=file]").set_input_files(files("fox", slice(4)))
    expect(columns.nth(0).locator("figure")).to_have_count(4)
    expect(page.get_by_role("alert")).to_be_hidden()
    columns.nth(1).get_by_label("Name of the class").fill("bear")
    drop(page, ".column:nth-child(2)", files("bear", slice(4)))
    expect(columns.nth(1).locator("figure")).to_have_count(4)
    page.get_by_role("button", name="Add a class").click()
    expect(columns.nth(2).get_by_label("Name of the class")).to_be_focused()
    page.keyboard.type("poodle")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    columns.nth(2).locator("input[type=file]").set_input_files([broken, *files("poodle", slice(4))])
    expect(columns.nth(2).locator("figure")).to_have_count(4)
    expect(page.get_by_role("alert")).to_contain_text("broken.jpg: not an image")
    page.get_by_role("button", name="Close the message").click()
    look(page, "columns")

    page.click("#fit")
    expect(page.get_by_role("status")).to_contain_text("12 pictures of 3 classes")
    drop(page, "#query", files("fox", slice(4, 5)))
    expect(page.locator("#answer .label")).to_contain_text("fox")
    expect(page.locator("#scores tbody tr")).to_have_count(3)
    expect(page.locator("#retrieved li")).to_have_count(5)
    expect(page.locator("#retrieved li").first).to_contain_text("fox")
    expect(page.locator("#answer .unlike")).to_be_hidden()
    look(page, "answer")
    page.locator("#query input").set_input_files(files("tornado", slice(4, 5)))
    expect(page.locator("#answer .unlike")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Save the model").click()
    download.value.save_as(tmp_path / "model.skxma")
    assert load(tmp_path / "model.skxma").classes_.tolist() == ["bear", "fox", "poodle"]

    columns.nth(2).get_by_role("button", name="Remove the class").click()
    expect(page.get_by_role("status")).to_contain_text("fit again")
    look(page, "changed")
    page.get_by_role("button", name="Use bundled pictures").click()
    expect(columns).to_have_count(4)
    page.click("#fit")
    expect(page.get_by_role("status")).to_contain_text("12 pictures of 4 classes")
    expect(page.locator("#scores tbody tr")).to_have_count(4)
    page.set_viewport_size({"width": 400, "height": 800})
    look(page, "narrow")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert wrong == []
    assert {url.split("/")[2] for url in asked if not url.startswith("data:")} == {address.split("/")[2]}
