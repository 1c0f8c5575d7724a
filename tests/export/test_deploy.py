"""The examples of deployment: a program without torch, and a page in a browser, against the classifier itself."""

import base64
import functools
import http.server
import importlib.util
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skxma import XMAdapterClassifier
from skxma.datasets import load_emoji
from skxma.encoder._preprocessing import make_geometry
from skxma.export import to_onnx
from skxma.images._reading import load_image

DEPLOY = Path(__file__).parents[2] / "examples" / "deploy"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next((path for name in BROWSERS if (path := shutil.which(name))), None)
# the command line, as it is where neither torch nor skxma is installed
ALONE = (
    "import runpy, sys; sys.modules.update(dict.fromkeys(['torch', 'torchvision', 'skxma', 'sklearn'])); "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)
# each mode of open_clip, for square and other sizes
GEOMETRIES = [
    (mode, size, interpolation, fill)
    for mode in ("squash", "shortest", "longest")
    for size in ((32, 32), (24, 40))
    for interpolation, fill in (("bicubic", 0), ("bilinear", 114))
]

pytestmark = pytest.mark.skipif(not DEPLOY.is_dir(), reason="the examples are not beside the tests")


@pytest.fixture(scope="module")
def predict():
    pytest.importorskip("onnxruntime")
    spec = importlib.util.spec_from_file_location("deployed_predict", DEPLOY / "predict.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder with both parts of a model, and the classifier."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    emoji = load_emoji()
    shots = (emoji.sets == "noto") & np.isin(emoji.target, emoji.target_names[:8])
    clf = XMAdapterClassifier("tiny", precision="fp32", false_rejection_rate=0.2)
    clf.fit(emoji.images[shots], emoji.target[shots])
    folder = tmp_path_factory.mktemp("deploy")
    to_onnx(clf, folder / "model.onnx")
    to_onnx(clf, folder / "head.onnx", "head")
    return folder, clf


def geometry_of(mode, size, interpolation, fill):
    from open_clip.transform import PreprocessCfg, image_transform_v2

    settings = PreprocessCfg(size=size, resize_mode=mode, interpolation=interpolation, fill_color=fill)
    return make_geometry(image_transform_v2(settings, is_train=False), exact=True)


@pytest.mark.parametrize(("mode", "size", "interpolation", "fill"), GEOMETRIES)
def test_images_are_resized_to_the_digit(predict, mode, size, interpolation, fill):
    geometry, rng = geometry_of(mode, size, interpolation, fill), np.random.default_rng(0)
    for shape in ((32, 32), (50, 33), (33, 50), (7, 5), (24, 40), (4, 100), (100, 4), (64, 63)):
        image = Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
        ours = predict.fit_to_size(image, size, mode, predict.FILTERS[interpolation], fill)
        np.testing.assert_array_equal(np.asarray(ours), geometry(image), str(shape))


def test_images_of_all_modes_are_read_as_skxma_does(predict, mode_files):
    for name, path in mode_files.items():
        with Image.open(path) as image:
            np.testing.assert_array_equal(predict.to_rgb(image), load_image(path), name)


@pytest.mark.slow
def test_the_program_answers_without_torch(exported, tmp_path):
    folder, clf = exported
    paths = load_emoji(as_paths=True).images[:40:3]
    (tmp_path / "broken.png").write_bytes(b"nothing")
    command = [sys.executable, "-c", ALONE, DEPLOY / "predict.py", folder / "model.onnx", *paths]
    run = subprocess.run([*command, tmp_path / "broken.png", "--json"], capture_output=True, text=True)
    assert (run.returncode, run.stderr.count("\n")) == (1, 1), run.stderr
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    assert [answer["label"] for answer in answers] == clf.predict(paths).tolist()
    best = [answer["classes"][0] for answer in answers]
    probabilities = clf.predict_proba(paths)
    assert [label for label, _ in best] == clf.classes_[probabilities.argmax(1)].tolist()
    np.testing.assert_allclose([p for _, p in best], probabilities.max(1), atol=1e-4)


def test_a_file_of_another_program_is_refused(predict, tmp_path):
    onnx = pytest.importorskip("onnx")
    one = onnx.helper.make_tensor_value_info("x", 1, [1])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [one], [onnx.helper.make_tensor_value_info("y", 1, [1])]
    )
    path = tmp_path / "other.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), path)
    with pytest.raises(ValueError, match="was not written by `skxma export`"):
        predict.Predictor(str(path))


@pytest.fixture
def page(exported):
    """The page in a browser, served from a folder."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium on the path")
    if not (DEPLOY / "browser" / "node_modules" / "onnxruntime-web").is_dir():
        pytest.skip("onnxruntime-web is not there; `npm install` in examples/deploy/browser brings it")
    handler = functools.partial(QuietHandler, directory=DEPLOY / "browser")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
            tab = browser.new_page()
            tab.goto(f"http://127.0.0.1:{server.server_port}/index.html")
            yield tab
            browser.close()
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.mark.slow
def test_the_page_answers_for_images_and_embeddings(exported, page, tmp_path):
    folder, clf = exported
    paths = load_emoji(as_paths=True).images[:30:4]
    page.set_input_files("#model", folder / "model.onnx")
    page.wait_for_function("document.getElementById('status').textContent.includes('Choose images')")
    page.set_input_files("#items", paths)
    page.wait_for_selector("tbody tr")
    cells = page.locator("tbody td").all_text_contents()
    assert cells[0::3] == [Path(path).name for path in paths]
    assert cells[1::3] == clf.predict(paths).tolist()
    page.set_input_files("#model", folder / "head.onnx")
    page.wait_for_function("document.getElementById('status').textContent.includes('Choose embeddings')")
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps(clf.encode(paths).tolist()))
    page.set_input_files("#items", rows)
    page.wait_for_function("document.querySelector('tbody td').textContent == 'row 0'")
    assert page.locator("tbody td").all_text_contents()[1::3] == clf.predict(paths).tolist()
    page.set_input_files("#model", rows)
    page.wait_for_function("document.getElementById('status').textContent.includes('not written by')")


@pytest.mark.slow
def test_the_page_computes_what_the_classifier_does(exported, page):
    folder, clf = exported
    paths = load_emoji(as_paths=True).images[:30:4]
    page.set_input_files("#model", folder / "model.onnx")
    found = page.evaluate(
        """async ([model, images]) => {
            const {Classifier, decode} = await import("./classifier.mjs");
            const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt());
            const classifier = await Classifier.load(bytes(model));
            const decoded = await Promise.all(images.map((image) => decode(new Blob([bytes(image)]))));
            return (await classifier.predictImages(decoded)).map((answer) => answer.probabilities);
        }""",
        [as_text(folder / "model.onnx"), [as_text(Path(path)) for path in paths]],
    )
    np.testing.assert_allclose(found, clf.predict_proba(paths), atol=1e-5)


@pytest.mark.slow
def test_the_page_resizes_to_the_digit(page):
    rng = np.random.default_rng(0)
    for mode, size, interpolation, fill in GEOMETRIES:
        geometry = geometry_of(mode, size, interpolation, fill)
        about = {"image_size": size, "resize_mode": mode, "interpolation": interpolation, "fill_color": fill}
        for shape in ((50, 33), (33, 50), (7, 5), (4, 100), (100, 30)):
            image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
            opaque = np.concatenate([image, np.full((*shape, 1), 255, dtype=np.uint8)], axis=2)
            found = page.evaluate(
                """async ([data, width, height, about]) => {
                    const {toPixels} = await import("./classifier.mjs");
                    return Array.from(toPixels({data, width, height}, about));
                }""",
                [opaque.ravel().tolist(), shape[1], shape[0], about],
            )
            np.testing.assert_array_equal(found, geometry(Image.fromarray(image)).ravel(), f"{about} {shape}")


def as_text(path):
    return base64.b64encode(path.read_bytes()).decode()
