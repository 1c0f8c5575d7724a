"""Exported classifiers answer as the classifiers do, or are refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from problems import make_problem
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

from skxma import CLIPEncoder, XMAdapterClassifier, baselines
from skxma import functional as F
from skxma._runtime.optional import import_module
from skxma.cli.main import main
from skxma.datasets import load_emoji
from skxma.errors import EncoderMismatchError, ExportError, MissingDependencyError
from skxma.export import _onnx, to_module, to_onnx

PROBLEM = make_problem(n_classes=4, shots=3, dim=12)
UNLABELED = -1
needs_torch_export = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 9), reason="skxma[onnx] needs torch 2.9"
)
# they predict with scikit-learn, or by distances that torch computes in another way for many images than for few
NOT_IN_A_GRAPH = {"SelfTrainingProbe", "LabelSpreadingProbe", "TransCLIPClassifier"}


@pytest.fixture(scope="module")
def ort():
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnx")
    return pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def emoji_classifier():
    emoji = load_emoji()
    shots = emoji.sets == "noto"
    return XMAdapterClassifier("tiny", precision="fp32", false_rejection_rate=0.1).fit(
        emoji.images[shots], emoji.target[shots]
    )


def fitted(**parameters):
    if parameters.get("evidence") == "paper":
        parameters.setdefault("n_epochs", 2)
    return XMAdapterClassifier("precomputed", **parameters)


def with_text(**parameters):
    return fitted(text_features=PROBLEM.text, **parameters).fit(PROBLEM.X, PROBLEM.y)


def absent_class(evidence):
    text = dict(enumerate(PROBLEM.text))
    return fitted(text_features=text, evidence=evidence).fit(PROBLEM.X[3:], PROBLEM.y[3:])


def unequal_shots(evidence):
    return fitted(text_features=PROBLEM.text, evidence=evidence).fit(PROBLEM.X[2:], PROBLEM.y[2:])


def pooled():
    X = np.concatenate([PROBLEM.X, PROBLEM.X_test])
    y = np.concatenate([PROBLEM.y, np.full(len(PROBLEM.X_test), UNLABELED)])
    clf = fitted(text_features=PROBLEM.text, unlabeled_label=UNLABELED).fit(X, y)
    assert hasattr(clf.model_, "statistics")
    return clf


KINDS = {
    "calibrated": with_text,
    "paper": lambda: with_text(evidence="paper"),
    "calibrated without text": lambda: fitted().fit(PROBLEM.X, PROBLEM.y),
    "paper without text": lambda: fitted(evidence="paper").fit(PROBLEM.X, PROBLEM.y),
    "calibrated, a class without images": lambda: absent_class("calibrated"),
    "paper, a class without images": lambda: absent_class("paper"),
    "calibrated, unequal shots": lambda: unequal_shots("calibrated"),
    "paper, unequal shots": lambda: unequal_shots("paper"),
    "one shot": lambda: fitted(text_features=PROBLEM.text).fit(PROBLEM.X[::3], PROBLEM.y[::3]),
    "pool": pooled,
    "refusing": lambda: with_text(false_rejection_rate=0.3),
}


def assert_same_answers(clf, outputs, X, tolerance=1e-5):
    probabilities, scores, answers = (np.asarray(output) for output in outputs)
    np.testing.assert_allclose(probabilities, clf.predict_proba(X), atol=tolerance)
    np.testing.assert_allclose(scores, clf.open_set_score(X), rtol=1e-4, atol=1e-4)
    labels = clf.predict(X)
    np.testing.assert_array_equal(np.where(answers < 0, -1, clf.classes_[answers]), labels)


@pytest.mark.parametrize("kind", KINDS)
def test_the_module_answers_as_the_classifier(kind):
    clf = KINDS[kind]()
    assert_same_answers(clf, to_module(clf, "head")(torch.from_numpy(PROBLEM.X_test)), PROBLEM.X_test)


@needs_torch_export
@pytest.mark.parametrize("kind", ["calibrated, a class without images", "paper"])
def test_torch_exports_the_module_for_any_number_of_images(kind):
    clf = KINDS[kind]()
    X = torch.from_numpy(PROBLEM.X_test)
    n = torch.export.Dim("n", min=1)
    program = torch.export.export(to_module(clf, "head"), (X[:2],), dynamic_shapes=({0: n},)).module()
    for size in (1, 7, len(X)):
        assert_same_answers(clf, program(X[:size]), PROBLEM.X_test[:size])


@needs_torch_export
@pytest.mark.slow
def test_clustered_keys_are_read_in_full(monkeypatch):
    from skxma._evidence.index import clusters

    problem = make_problem(n_classes=4, shots=60, dim=12)
    clf = fitted(text_features=problem.text).fit(problem.X, problem.y)
    monkeypatch.setattr("skxma._evidence.calibrated.model.can_be_clustered", lambda *_: True)
    bounded = clf.model_.with_index(torch.empty(0))
    assert isinstance(bounded.key_clusters, clusters.KeyClusters)
    clf.model_ = bounded
    X = torch.from_numpy(problem.X_test)
    n = torch.export.Dim("n", min=1)
    program = torch.export.export(to_module(clf, "head"), (X[:2],), dynamic_shapes=({0: n},), strict=False).module()
    assert_same_answers(clf, program(X), problem.X_test, tolerance=1e-3)


def test_a_module_moves_and_stays_as_it_was_fitted():
    clf = with_text()
    before = clf.predict_proba(PROBLEM.X_test)
    head = to_module(clf, "head").double()
    clf.fit(PROBLEM.X, PROBLEM.y[::-1])
    probabilities, *_ = head(torch.from_numpy(PROBLEM.X_test).double())
    assert probabilities.dtype == torch.float64
    np.testing.assert_allclose(probabilities, before, atol=1e-6)


def test_embeddings_of_any_length_are_taken():
    clf = with_text()
    head = to_module(clf, "head")
    X = torch.from_numpy(PROBLEM.X_test)
    for length in (7, 1e-30, 1e30):
        torch.testing.assert_close(head(length * X)[0], head(X)[0])


@needs_torch_export
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(baselines.__all__) - NOT_IN_A_GRAPH))
def test_rivals_give_probabilities_and_answers(name):
    clf = getattr(baselines, name)("precomputed", text_features=PROBLEM.text)
    if "n_epochs" in clf.get_params():
        clf.set_params(n_epochs=1)
    clf.fit(PROBLEM.X, PROBLEM.y)
    X = torch.from_numpy(PROBLEM.X_test)
    n = torch.export.Dim("n", min=1)
    program = torch.export.export(to_module(clf, "head"), (X[:2],), dynamic_shapes=({0: n},), strict=False).module()
    probabilities, answers = program(X)
    np.testing.assert_allclose(probabilities, clf.predict_proba(PROBLEM.X_test), atol=1e-5)
    np.testing.assert_array_equal(clf.classes_[answers], clf.predict(PROBLEM.X_test))


def test_pixels_become_the_answers_of_the_images(emoji_classifier):
    images = load_emoji().images[:9]
    loaded = CLIPEncoder("tiny", precision="fp32", device="cpu")._load()
    pixels = np.stack([loaded.geometry(image) for image in images_as_pillow(images)])
    probabilities, _, _ = to_module(emoji_classifier)(torch.from_numpy(pixels))
    np.testing.assert_allclose(probabilities.detach(), emoji_classifier.predict_proba(images), atol=1e-5)


def images_as_pillow(images):
    from skxma.images._reading import load_image

    return [load_image(image) for image in images]


def test_the_head_as_a_file(ort, tmp_path):
    clf = absent_class("paper").set_params(unknown_label="other")
    path = tmp_path / "head.onnx"
    assert to_onnx(clf, path, "head") < 1e-5
    session = ort.InferenceSession(path)
    assert [(i.name, i.shape[1:]) for i in session.get_inputs()] == [("embeddings", [12])]
    for rows in (PROBLEM.X_test[:1], PROBLEM.X_test):
        outputs = session.run(["probabilities", "open_set_scores", "answers"], {"embeddings": rows})
        assert_same_answers(clf, outputs, rows)
    about = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert about["classes"] == [0, 1, 2, 3]
    assert about["part"] == "head"
    assert about["thresholds"] == {"open_set_score": None, "set_probability": {}}
    assert about["unknown_label"] == "other"
    for private in (b".py", str(Path(__file__).parents[2]).encode()):
        assert private not in path.read_bytes()


def test_a_program_gives_the_prediction_sets_of_the_classifier(ort, tmp_path):
    clf = XMAdapterClassifier("precomputed", text_features=PROBLEM.text).fit(PROBLEM.X, PROBLEM.y)
    to_onnx(clf, tmp_path / "head.onnx", "head")
    session = ort.InferenceSession(tmp_path / "head.onnx")
    about = json.loads(session.get_modelmeta().custom_metadata_map["thresholds"])
    assert "0.99" not in about["set_probability"]
    (probabilities,) = session.run(["probabilities"], {"embeddings": PROBLEM.X_test})
    for level, least in about["set_probability"].items():
        sets = probabilities >= least
        sets[np.arange(len(sets)), probabilities.argmax(1)] = True
        np.testing.assert_array_equal(sets, clf.predict_set(PROBLEM.X_test, float(level)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_as_a_file(ort, kind, tmp_path):
    assert to_onnx(KINDS[kind](), tmp_path / "head.onnx", "head") < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("half", [False, True])
def test_the_whole_model_as_a_file(ort, emoji_classifier, half, tmp_path):
    emoji = load_emoji()
    path = tmp_path / "emoji.onnx"
    difference = to_onnx(emoji_classifier, path, half=half, images=emoji.images)
    assert difference < (2e-2 if half else 1e-5)
    assert path.stat().st_size < (1.6e6 if half else 2.6e6)
    session = ort.InferenceSession(path)
    about = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert about["classes"] == emoji_classifier.classes_.tolist()
    assert about["encoder_fingerprint"] == emoji_classifier.encoder_fingerprint_
    assert about["thresholds"]["open_set_score"] == pytest.approx(emoji_classifier.reject_threshold_)
    assert (about["image_size"], about["resize_mode"], about["interpolation"]) == ([64, 64], "squash", "bicubic")


@pytest.mark.slow
def test_other_encoders(ort, random_model, image_files, tmp_path):
    clf = XMAdapterClassifier(random_model, class_names=["a", "b"]).fit(image_files, [0, 1] * 6)
    assert to_onnx(clf, tmp_path / "m.onnx") < 1e-4


@pytest.mark.slow
def test_the_command(ort, emoji_classifier, tmp_path, capsys):
    model, out = str(tmp_path / "m.skxma"), str(tmp_path / "m.onnx")
    emoji_classifier.save(model)
    assert main(["export", model, out, "--part", "head"]) == 0
    assert "differ from the model's by" in capsys.readouterr().out
    assert main(["export", model, out, "--part", "head"]) == 1
    assert "--force" in capsys.readouterr().err


@pytest.mark.bad_input
def test_the_command_advises_its_own_options(emoji_classifier, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(_onnx, "LARGEST_FILE", 0)
    model = str(tmp_path / "m.skxma")
    emoji_classifier.save(model)
    for options, advice in (([], "--half or --part head"), (["--half"], "--part head")):
        assert main(["export", model, str(tmp_path / "m.onnx"), *options]) == 1
        assert f"pass {advice}." in capsys.readouterr().err


@pytest.mark.slow
def test_evidence_below_its_floor(ort, tmp_path):
    """Sharp affinities to few keys: most evidence is less than the 1e-8 that optimizers of graphs take for nothing."""
    problem = make_problem(n_classes=40, shots=2, dim=32)
    clf = fitted(text_features=problem.text, beta=40.0).fit(problem.X, problem.y)
    stack = clf.model_.scorer(torch.empty(0)).stacks[0]
    queries = F.normalize(stack.metrics[0](torch.from_numpy(problem.X_test)))
    assert stack.indices[0].evidence(queries, 40.0).median() < 1e-8
    assert to_onnx(clf, tmp_path / "head.onnx", "head") < 1e-5


def test_no_cast_waits_for_a_type_at_run_time(ort, tmp_path):
    # onnxruntime prints a warning for each when it loads the file
    import onnx

    to_onnx(with_text(), tmp_path / "head.onnx", "head")
    assert "CastLike" not in {node.op_type for node in onnx.load(tmp_path / "head.onnx").graph.node}


@pytest.mark.bad_input
def test_operators_that_are_written_in_another_version_are_refused(ort, monkeypatch, tmp_path):
    import onnx

    # what an exporter falls back to without an error
    newest = onnx.defs.onnx_opset_version()
    monkeypatch.setattr(onnx.defs, "onnx_opset_version", lambda: newest + 1)
    with pytest.raises(ExportError, match=rf"write version \d+ of the operators in the place of opset={newest + 1}"):
        to_onnx(with_text(), tmp_path / "head.onnx", "head", opset=newest + 1)
    assert not any(tmp_path.iterdir())


@pytest.mark.fault
def test_a_graph_that_answers_otherwise_is_refused(ort, monkeypatch, tmp_path):
    clf, path = fitted(evidence="paper").fit(PROBLEM.X, PROBLEM.y), tmp_path / "head.onnx"
    path.write_bytes(b"before")
    graph = _onnx._graph(to_module(clf, "head"), torch.from_numpy(PROBLEM.X[:2]), "embeddings", "", 20, False)
    monkeypatch.setattr(_onnx, "_graph", lambda *_: graph)
    other = fitted(evidence="paper", beta=1.0).fit(PROBLEM.X, PROBLEM.y)
    with pytest.raises(ExportError, match=r"differ from the classifier's by .* nothing was written"):
        to_onnx(other, path, "head")
    with pytest.raises(ExportError, match="another answer than the classifier for"):
        to_onnx(fitted(evidence="paper").fit(PROBLEM.X, (PROBLEM.y + 1) % 4), path, "head", tolerance=1)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.bad_input
def test_what_cannot_be_exported_is_refused_before_work_begins(emoji_classifier, other_model, tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(_onnx, "_graph", lambda *_: pytest.fail("traced"))
    path = tmp_path / "m.onnx"
    clf = with_text()
    with pytest.raises(ValueError, match="part='head', which takes embeddings"):
        to_onnx(clf, path)
    with pytest.raises(ValueError, match="part='whole' must be"):
        to_onnx(clf, path, "whole")
    with pytest.raises(NotFittedError):
        to_module(XMAdapterClassifier("tiny"))
    with pytest.raises(TypeError, match=r"got GridSearchCV.* best_estimator_"):
        to_module(GridSearchCV(clf, {}))
    with pytest.raises(ValueError, match="opset=17 must be"):
        to_onnx(clf, path, "head", opset=17)
    with pytest.raises(ValueError, match=r"opset=99 is newer than the installed onnx, which knows versions up to \d+"):
        to_onnx(clf, path, "head", opset=99)
    with pytest.raises(FileNotFoundError):
        to_onnx(clf, tmp_path / "missing" / "m.onnx", "head")
    changed = XMAdapterClassifier(other_model)
    changed.__dict__.update({**vars(emoji_classifier), "encoder": other_model})
    with pytest.raises(EncoderMismatchError, match=r"set_params\(encoder=\.\.\.\)"):
        to_module(changed)


@pytest.mark.bad_input
@pytest.mark.parametrize("name", sorted(NOT_IN_A_GRAPH))
def test_a_rival_that_no_graph_holds_is_named(ort, name, tmp_path):
    X = np.concatenate([PROBLEM.X, PROBLEM.X_test[:20]])
    y = np.concatenate([PROBLEM.y, np.full(20, UNLABELED)])
    clf = getattr(baselines, name)("precomputed", text_features=PROBLEM.text, unlabeled_label=UNLABELED).fit(X, y)
    with pytest.raises(ExportError, match=f"cannot put a {name}"):
        to_onnx(clf, tmp_path / "m.onnx", "head")


@pytest.mark.bad_input
def test_missing_onnx_is_named(monkeypatch, tmp_path):
    def absent(name):
        if name.startswith("onnx"):
            raise ImportError(f"No module named {name!r}")
        return import_module(name)

    monkeypatch.setattr("skxma._runtime.optional.import_module", absent)
    with pytest.raises(MissingDependencyError, match=r"pip install 'skxma\[onnx\]'"):
        to_onnx(with_text(), tmp_path / "m.onnx", "head")


def test_onnx_is_imported_on_demand():
    code = "import sys, skxma.cli.main; assert not {'onnx', 'onnxscript', 'onnxruntime'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@needs_torch_export
def test_absent_classes_are_filled_the_same_in_a_traced_graph():
    class Fill(torch.nn.Module):
        def forward(self, scores, present):
            return F.fill_absent(scores, present)

    scores = torch.randn(3, 4, 5)
    for present in (torch.tensor([True] * 5), torch.tensor([True, False, True, True, False])):
        program = torch.export.export(Fill(), (scores, present)).module()
        torch.testing.assert_close(program(scores, present), F.fill_absent(scores, present), rtol=0, atol=0)


def test_a_head_of_several_encoders_takes_plain_rows_as_the_classifier_does():
    problem = make_problem(n_classes=3, shots=3, dim=12)
    rng = np.random.default_rng(0)
    scale = np.array([3.0] * 12 + [0.1] * 8)
    X, queries = (
        scale * np.concatenate([some, rng.standard_normal((len(some), 8))], axis=1)
        for some in (problem.X, problem.X_test)
    )
    clf = XMAdapterClassifier("precomputed", text_features=problem.text, blocks=[12, 8], unlabeled_label=-1)
    clf.fit(np.concatenate([X, queries]), [*problem.y, *[-1] * len(queries)])
    module = to_module(clf, "head")
    probabilities = module(torch.as_tensor(queries, dtype=torch.float32))[0]
    np.testing.assert_allclose(probabilities.detach().numpy(), clf.predict_proba(queries), atol=1e-5)
