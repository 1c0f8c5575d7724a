import threading
import time
import warnings
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from small_models import write_timm
from uploads import EMOJI, LONG_NAME, files

import skxma.app._gallery as gallery_module
from skxma import CLIPEncoder, XMAdapterClassifier, load
from skxma.app._encoding import Encoders, bytes_fetched
from skxma.app._gallery import MAX_UNDO
from skxma.app._session import Session
from skxma.errors import ImageError, ModelFileError, WeightsError


@pytest.fixture
def session():
    made = Session("tiny")
    yield made
    made.close()


def fill(session, shots=slice(3), labels=("fox", "bear", "poodle")):
    for label in labels:
        column = session.gallery.add_column(label)
        for file in files(label, shots):
            session.gallery.add_image(column.number, file.name, file.read_bytes())
    return session


def fit(session):
    job = session.fit().wait(60)
    assert job.state == "finished", job.error
    return session.fitted


def ask(session, label="fox", **options):
    (query,) = files(label, slice(4, 5))
    job = session.ask(query.name, query.read_bytes(), **options).wait(60)
    assert job.state == "finished", job.error
    return job.result


def contents(session):
    return [(column.name, [image.number for image in column.images]) for column in session.gallery.columns]


def test_an_answer_comes_with_the_classes_that_hold_the_right_one(session):
    model = fit(fill(session))
    (query,) = files("fox", slice(4, 5))
    held = model.classifier.predict_set([query], 0.9)[0]
    certain = ask(session).answer.certain
    assert set(certain) == set(model.classifier.classes_[held])
    assert certain[0] == "fox"


def test_too_few_images_for_a_set(session):
    fit(fill(session, slice(2)))
    assert ask(session).answer.certain is None


def test_an_answer_comes_with_its_evidence(session):
    fitted = fit(fill(session))
    (query,) = files("fox", slice(4, 5))
    asked = ask(session)
    answer = asked.answer
    assert answer.scores[0].label == "fox"
    for of in ("final", "zero_shot"):
        assert sum(getattr(score, of) for score in answer.scores) == pytest.approx(1)
    finals = [score.final for score in answer.scores]
    assert finals == sorted(finals, reverse=True)
    np.testing.assert_allclose(sorted(finals), np.sort(fitted.classifier.predict_proba([query])[0]), atol=1e-6)
    assert [found.label for found in answer.retrieved[:3]] == ["fox"] * 3
    assert {fitted.images[found.sample - 1].number for found in answer.retrieved[:3]} == set(contents(session)[0][1])
    assert answer.retrieved[0].image_affinity > answer.retrieved[-1].image_affinity
    assert answer.is_unknown is False
    assert asked.known_as is None


def test_an_encoder_of_images_alone_serves_the_page(tmp_path):
    session = fill(Session(f"timm:{write_timm(tmp_path)}"))
    try:
        fitted = fit(session)
        assert fitted.classifier.model_.text_cache is None
        assert {score.label for score in ask(session).answer.scores} == {"fox", "bear", "poodle"}
        (tmp_path / "saved.skxma").write_bytes(session.saved_model())
        assert session.open_model("saved.skxma", tmp_path / "saved.skxma").classifier.encoder == f"timm:{tmp_path}"
    finally:
        session.close()


def test_several_encoders_serve_the_page_and_the_model_that_it_saves(tmp_path):
    encoders = ["tiny", f"timm:{write_timm(tmp_path)}"]
    session, other = fill(Session(encoders)), Session("tiny")
    try:
        for file in files("poodle", slice(3, 5)):
            session.gallery.add_to_pool(file.name, file.read_bytes())
        for n_left in (2, 1):
            assert len(session.suggest().wait(60).result) == n_left
            session.gallery.label(session.suggested[0].number, session.gallery.columns[2].number)
            fitted = fit(session)
        assert len(fitted.classifier.image_cache_.blocks) == 2
        expected = ask(session).answer
        (tmp_path / "saved.skxma").write_bytes(session.saved_model())
        assert load(tmp_path / "saved.skxma").encoder == encoders
        other.open_model("saved.skxma", tmp_path / "saved.skxma")
        assert ask(other).answer == expected
    finally:
        session.close()
        other.close()


def test_near_duplicates_are_called_as_their_files_were(session):
    fill(session)
    (column, *_), (file,) = session.gallery.columns, files("fox", slice(1))
    nearly = Image.open(file).convert("RGBA")
    nearly.putpixel((0, 0), (9, 9, 9, 255))
    content = BytesIO()
    nearly.save(content, "PNG")
    session.gallery.add_image(column.number, "again.png", content.getvalue())
    (warning,) = fit(session).warnings
    assert f"such as {file.name} and again.png. They" in warning


def test_an_image_like_none_of_the_classes_is_recognized(session):
    fit(fill(session))
    assert ask(session, "tornado").answer.is_unknown


def test_a_query_that_is_in_the_support_set_is_recognized(session):
    fit(fill(session))
    (query,) = files("bear", slice(1))
    assert session.ask("other name.png", query.read_bytes()).wait(60).result.known_as == "bear"


def test_the_fit_is_that_of_the_classifier_by_itself(session):
    clf = fit(fill(session)).classifier
    images = [image.file for image in session.fitted.images]
    labels = [column.name for column in session.gallery.columns for _ in column.images]
    alone = type(clf)(**{**clf.get_params(deep=False), "encoder": "tiny"}).fit(images, labels)
    queries = EMOJI.images[::20]
    np.testing.assert_allclose(clf.predict_proba(queries), alone.predict_proba(queries), atol=1e-6)


def test_the_saved_model_always_answers_a_class_and_the_same(session, tmp_path):
    clf = fit(fill(session)).classifier
    (tmp_path / "m.skxma").write_bytes(session.saved_model())
    loaded = load(tmp_path / "m.skxma")
    assert loaded.encoder == "tiny"
    queries = EMOJI.images[::20]
    np.testing.assert_array_equal(loaded.predict_proba(queries), clf.predict_proba(queries))
    assert set(loaded.predict(queries)) <= {"fox", "bear", "poodle"}
    assert "" in clf.predict(queries)


def test_a_name_without_images_is_a_class_and_an_empty_column_none(session):
    fill(session, labels=("fox", "bear"))
    session.gallery.add_column("tornado")
    session.gallery.add_column()
    assert fit(session).classifier.classes_.tolist() == ["bear", "fox", "tornado"]


def test_an_image_in_the_wrong_column_is_doubted(session):
    fill(session, slice(5), ("bicycle", "fox", "bear", "poodle", "snail", "wine glass"))
    wrong = session.gallery.columns[0].images.pop()
    session.gallery.columns[1].images.append(wrong)
    doubts = fit(session).doubts
    assert doubts[0].image == wrong.number
    assert doubts[0].suggested == "bicycle"


def test_changes_after_a_fit_are_noticed(session):
    fill(session)
    assert session.change is None
    fit(session)
    assert session.change is None
    session.gallery.add_column()
    assert session.change is None
    session.gallery.remove_image(session.gallery.columns[0].images[0].number)
    assert session.change == "images"
    session.gallery.undo()
    assert session.change is None
    session.gallery.rename(session.gallery.columns[-1].number, "wolf")
    assert session.change == "classes"


def test_only_the_model_whose_classes_are_shown_answers(session):
    first = fit(fill(session))
    assert ask(session, model=first.number).model is first
    session.gallery.rename(session.gallery.columns[0].number, "wolf")
    with pytest.raises(ValueError, match=r"classes have changed since the fit\. Fit again"):
        ask(session)
    fit(session)
    with pytest.raises(ValueError, match="no longer the one that the page shows"):
        ask(session, model=first.number)
    assert ask(session).answer.scores[0].label == "wolf"


@pytest.mark.parametrize("index", [0, 1, 2])
def test_an_image_that_was_removed_comes_back_to_its_place(session, index):
    fill(session)
    before = contents(session)
    session.gallery.remove_image(session.gallery.columns[1].images[index].number)
    assert "was removed from “bear”" in session.gallery.undoable
    assert contents(session) != before
    session.gallery.undo()
    assert contents(session) == before
    assert session.gallery.undoable is None
    with pytest.raises(ValueError, match="nothing to undo"):
        session.gallery.undo()


def test_removals_are_undone_one_by_one_and_what_was_added_since_stays(session):
    fill(session)
    before = contents(session)
    session.gallery.remove_image(session.gallery.columns[1].images[0].number)
    session.gallery.remove_column(session.gallery.columns[1].number)
    assert session.gallery.undoable == "The class “bear” with 2 images was removed."
    session.gallery.remove_column(session.gallery.columns[0].number)
    later = session.gallery.add_column("snail")
    for _ in range(3):
        session.gallery.undo()
    assert contents(session) == [*before, ("snail", [])]
    assert session.gallery.columns[-1] is later
    assert fit(session).classifier.classes_.tolist() == ["bear", "fox", "poodle", "snail"]


def test_the_example_in_the_place_of_the_classes_is_undone(session):
    session.gallery.add_column()
    session.gallery.use_example()
    assert session.gallery.undoable is None
    session.gallery.columns.clear()
    fill(session, labels=("snail", "fox"))
    before = contents(session)
    session.gallery.use_example()
    assert [name for name, _ in contents(session)] == ["bear", "cat face", "fox", "poodle"]
    assert session.gallery.undoable == "Your 2 classes were replaced by the example."
    file = files("wine glass", slice(1))[0]
    session.gallery.add_image(session.gallery.columns[0].number, file.name, file.read_bytes())
    kept = session.gallery.columns[0]
    session.gallery.undo()
    assert contents(session)[:2] == before
    assert session.gallery.columns[2:] == [kept]


def test_files_of_images_that_can_not_come_back_are_deleted(session):
    fill(session, slice(1))
    gone = session.gallery.columns[0].images[0]
    fit(session)
    session.gallery.remove_image(gone.number)
    assert session.gallery.thumbnail(gone.number).startswith(b"\x89PNG")
    for _ in range(MAX_UNDO):
        session.gallery.remove_column(session.gallery.add_column().number)
    assert gone.file.is_file()  # the model shows it among its evidence
    fit(session)
    session.gallery.remove_column(session.gallery.add_column().number)
    assert not gone.file.exists()
    with pytest.raises(ValueError, match=f"no image {gone.number} any more"):
        session.gallery.thumbnail(gone.number)


def test_renaming_and_removing_columns(session):
    fill(session)
    session.gallery.rename(session.gallery.columns[0].number, "  red   fox ")
    session.gallery.remove_column(session.gallery.columns[1].number)
    assert fit(session).classifier.classes_.tolist() == ["poodle", "red fox"]
    with pytest.raises(ValueError, match="no class 99 any more"):
        session.gallery.rename(99, "x")
    with pytest.raises(ValueError, match="no image 99 any more"):
        session.gallery.remove_image(99)


def test_one_name_in_two_normal_forms_is_one_name(session):
    fill(session, labels=("fox", "bear"))
    for column, name in zip(
        session.gallery.columns, ("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\u0301"), strict=True
    ):
        session.gallery.rename(column.number, name)
    with pytest.raises(ValueError, match="Two classes are called"):
        session.fit()
    with pytest.raises(ValueError, match="no text"):
        session.gallery.rename(session.gallery.columns[0].number, "\ud800")


def test_a_file_that_is_no_image_is_named_and_leaves_nothing(session):
    column = session.gallery.add_column("snail")
    for content, words in ((b"no image", "not an image"), (b"", "empty")):
        with pytest.raises(ImageError, match=rf"holiday\.jpg: .*{words}"):
            session.gallery.add_image(column.number, "holiday.jpg", content)
    assert column.images == []
    fit(fill(session))
    with pytest.raises(ImageError, match=r"holiday\.jpg"):
        session.ask("holiday.jpg", b"no image")
    ask(session)
    assert len(list(session.fitted.images[0].file.parent.iterdir())) == 9


def test_images_are_checked_before_the_encoder_is_looked_at(session, monkeypatch):
    def refuse(*args):
        raise AssertionError("the encoder was looked at")

    fit(fill(session))
    monkeypatch.setattr(CLIPEncoder, "fingerprint", property(refuse))
    monkeypatch.setattr(CLIPEncoder, "encode_image", refuse)
    cut = files("fox", slice(1))[0].read_bytes()[:-200]
    for content in (b"no image", cut):
        with pytest.raises(ImageError, match=r"a\.png"):
            session.gallery.add_image(session.gallery.columns[0].number, "a.png", content)
        with pytest.raises(ImageError, match=r"a\.png"):
            session.ask("a.png", content)
    assert session.job.kind == "fit"


@pytest.mark.parametrize("name", ["../../evil.png", "a\0b.png", "", "x" * 300 + ".png", "image"])
def test_the_name_of_an_uploaded_file_never_becomes_a_path(session, name):
    column = session.gallery.add_column("fox")
    image, _ = session.gallery.add_image(column.number, name, files("fox", slice(1))[0].read_bytes())
    assert image.file.name == str(image.number)


def test_the_same_image_twice_is_noticed_in_whatever_format(session):
    fill(session, slice(2), ("fox", "bear"))
    assert session.gallery.repeats == []
    fox, bear = session.gallery.columns
    again = BytesIO()
    Image.open(files("fox", slice(1))[0]).save(again, "BMP")
    second, _ = session.gallery.add_image(fox.number, "again.bmp", again.getvalue())
    (repeat,) = session.gallery.repeats
    assert repeat.images == (fox.images[0].number, second.number)
    assert repeat.words.endswith("are the same image, in fox. It counts 2 times as much as others: leave one.")
    session.gallery.remove_image(second.number)
    assert session.gallery.repeats == []
    session.gallery.add_image(bear.number, "again.bmp", again.getvalue())
    assert "in fox and in bear. An image of two classes confuses the fit" in session.gallery.repeats[0].words


def test_warnings_of_a_fit_are_kept_in_words_each_time(session):
    fill(session, labels=("fox", "bear"))
    session.gallery.rename(session.gallery.columns[0].number, LONG_NAME)
    with pytest.warns(UserWarning, match="longer than the 24 tokens"):
        first = fit(session).warnings
    assert len(first) == 1
    assert "a fox that sits" in first[0]
    assert "longer than the 24 tokens" in first[0]
    assert first[0].endswith("Shorten it and fit again.")
    with pytest.warns(UserWarning, match="longer than the 24 tokens"):
        assert fit(session).warnings == first
    session.gallery.rename(session.gallery.columns[0].number, "fox")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit(session).warnings == ()


def test_warnings_of_an_upload_are_kept(session, monkeypatch):
    read = gallery_module.load_image

    def warn(file):
        warnings.warn(
            "It uses a small part of its range. Pass rescale_16bit='range' to CLIPEncoder(...).", stacklevel=2
        )
        return read(file)

    monkeypatch.setattr(gallery_module, "load_image", warn)
    column = session.gallery.add_column("fox")
    with pytest.warns(UserWarning, match="small part"):
        _, words = session.gallery.add_image(column.number, "a.png", files("fox", slice(1))[0].read_bytes())
    assert words == ["a.png: It uses a small part of its range."]


def test_the_example_fits_and_its_queries_are_answered(session):
    session.gallery.use_example()
    fitted = fit(session)
    assert (len(fitted.images), len(fitted.classifier.classes_)) == (12, 4)
    answers = [session.ask(*session.gallery.example_query(i)).wait(60).result.answer for i in range(3)]
    assert [answer.scores[0].label for answer in answers[:2]] == list(session.gallery.example_queries[:2])
    assert [answer.is_unknown for answer in answers] == [False, False, True]


def no_name(session):
    session.gallery.rename(session.gallery.columns[0].number, "")


def same_name(session):
    session.gallery.rename(session.gallery.columns[0].number, "bear")


def one_class(session):
    session.gallery.columns = session.gallery.columns[:1]


def no_images(session):
    for column in session.gallery.columns:
        column.images = []


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (no_name, "The class number 1 has images and no name. Name it"),
        (same_name, "Two classes are called “bear”"),
        (one_class, "two classes"),
        (no_images, "no images yet"),
    ],
)
def test_a_fit_says_what_is_missing(session, spoil, words):
    spoil(fill(session, slice(1)))
    with pytest.raises(ValueError, match=words):
        session.fit()


def test_nothing_is_asked_or_saved_before_a_fit(session):
    fill(session, slice(1))
    with pytest.raises(ValueError, match="Fit first"):
        session.ask("a.png", b"")
    with pytest.raises(ValueError, match="Fit first"):
        session.saved_model()


def saved(session, tmp_path, **changes):
    clf = fit(fill(session)).classifier
    clf.set_params(**changes).save(tmp_path / "m.skxma")
    session.fitted = None
    return tmp_path / "m.skxma"


def test_an_opened_model_answers_until_it_is_closed(session, tmp_path):
    opened = session.open_model("animals.skxma", saved(session, tmp_path))
    assert (opened.file, session.model, session.change) == ("animals.skxma", opened, None)
    answer = ask(session, "bear", model=opened.number).answer
    assert answer.scores[0].label == "bear"
    assert [found.sample for found in answer.retrieved[:3]] != [0, 0, 0]
    assert {found.label for found in answer.retrieved[:3]} == {"bear"}
    assert ask(session, "tornado").answer.is_unknown
    columns = contents(session)
    session.close_model()
    assert contents(session) == columns
    with pytest.raises(ValueError, match="Fit first"):
        ask(session)


def test_a_model_without_a_threshold_does_not_say_that_an_image_is_unknown(session, tmp_path):
    clf = saved_without_threshold(tmp_path)
    session.open_model("m.skxma", clf)
    assert ask(session, "tornado").answer.is_unknown is None


def saved_without_threshold(tmp_path):
    images = files("fox", slice(3)) + files("bear", slice(3))
    clf = XMAdapterClassifier("tiny").fit(images, ["fox"] * 3 + ["bear"] * 3)
    clf.save(tmp_path / "plain.skxma")
    return tmp_path / "plain.skxma"


def test_a_rival_that_retrieves_nothing_answers_too(session, tmp_path):
    from skxma.baselines import TipAdapterClassifier

    images = files("fox", slice(3)) + files("bear", slice(3))
    clf = TipAdapterClassifier("tiny").fit(images, ["fox"] * 3 + ["bear"] * 3)
    clf.save(tmp_path / "tip.skxma")
    session.open_model("tip.skxma", tmp_path / "tip.skxma")
    answer = ask(session).answer
    assert [answer.scores[0].label] == clf.predict(files("fox", slice(4, 5)))
    assert (answer.retrieved, answer.is_unknown) == ([], None)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "animals.skxma is empty"),
        (b"\x80\x04pickle", "is no model file of skxma but a pickle"),
        (b"\x89PNG", "animals.skxma is no model file"),
    ],
)
def test_a_file_that_is_no_model_is_named(session, tmp_path, content, words):
    (tmp_path / "upload-1").write_bytes(content)
    with pytest.raises(ModelFileError, match=words) as raised:
        session.open_model("animals.skxma", tmp_path / "upload-1")
    assert str(tmp_path) not in str(raised.value)
    assert session.opened is None


def test_a_model_with_an_encoder_for_another_machine_answers_here(session, tmp_path):
    images = files("fox", slice(3)) + files("bear", slice(3))
    clf = XMAdapterClassifier(CLIPEncoder("tiny")).fit(images, ["fox"] * 3 + ["bear"] * 3)
    clf.set_params(encoder__device="cuda:99").save(tmp_path / "m.skxma")
    session.open_model("m.skxma", tmp_path / "m.skxma")
    assert ask(session).answer.scores[0].label == "fox"


def test_a_model_of_an_encoder_of_its_own_is_refused(session, tmp_path):
    class Own:
        def __init__(self):
            self.encode_image, self.encode_text = CLIPEncoder("tiny").encode_image, CLIPEncoder("tiny").encode_text

    images = files("fox", slice(2)) + files("bear", slice(2))
    XMAdapterClassifier(Own()).fit(images, ["fox"] * 2 + ["bear"] * 2).save(tmp_path / "m.skxma")
    with pytest.raises(ModelFileError, match="an encoder of its own"):
        session.open_model("m.skxma", tmp_path / "m.skxma")


def test_a_model_of_embeddings_is_refused(session, tmp_path):
    X = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
    XMAdapterClassifier("precomputed").fit(X, list("aabbccdd")).save(tmp_path / "m.skxma")
    with pytest.raises(ModelFileError, match="was fitted on embeddings"):
        session.open_model("m.skxma", tmp_path / "m.skxma")


class Gate:
    """Holds an encoder at a step until it is opened."""

    def __init__(self, monkeypatch, name, hold_at=1):
        self.reached, self.opened = threading.Event(), threading.Event()
        self.n_calls = 0
        method = getattr(CLIPEncoder, name)
        is_property = isinstance(method, property)

        def held(encoder, *args, **options):
            self.n_calls += 1
            if self.n_calls == hold_at:
                self.reached.set()
                assert self.opened.wait(60)
            return method.fget(encoder) if is_property else method(encoder, *args, **options)

        monkeypatch.setattr(CLIPEncoder, name, property(held) if is_property else held)


def test_a_fit_is_stopped_between_two_images(session, monkeypatch):
    before = fit(fill(session))
    gate = Gate(monkeypatch, "encode_image", hold_at=3)
    job = session.fit()
    assert gate.reached.wait(60)
    assert (job.words, job.done, job.total) == ("Encoding image 3 of 9", 2, 9)
    with pytest.raises(ValueError, match="stop it or wait"):
        session.fit()
    session.stop()
    assert job.wait(0).state == "stopped"
    assert not session.is_busy
    gate.opened.set()
    # the next fit takes its turn once the thread of the first has ended
    assert fit(session) is not before
    assert gate.n_calls == 3 + 9
    assert job.state == "stopped"


def test_nobody_waits_for_weights_after_a_stop(session, monkeypatch):
    gate = Gate(monkeypatch, "fingerprint")
    fill(session)
    job = session.fit()
    assert gate.reached.wait(60)
    session.stop()
    assert job.wait(0).state == "stopped"
    again = session.fit()
    gate.opened.set()
    assert again.wait(60).state == "finished"


def test_tabs_take_turns(monkeypatch):
    encoders = Encoders()
    first, second = (fill(Session("tiny", encoders=encoders)) for _ in range(2))
    gate = Gate(monkeypatch, "encode_image", hold_at=2)
    held = first.fit()
    assert gate.reached.wait(60)
    waiting = second.fit()
    deadline = time.monotonic() + 60
    while waiting.words != "Waiting for other work to end":
        assert time.monotonic() < deadline, waiting.words
        time.sleep(0.05)
    with pytest.raises(TimeoutError, match="The fit has not ended"):
        waiting.wait(0.1)
    gate.opened.set()
    assert [job.wait(60).state for job in (held, waiting)] == ["finished", "finished"]
    for session in (first, second):
        session.close()


def test_weights_that_can_not_be_had_fail_the_job_in_words(session, monkeypatch):
    def fail(self):
        raise WeightsError("Could not get the weights of 'x': the hub can't be reached.\npass model='local-dir:DIR'")

    monkeypatch.setattr(CLIPEncoder, "fingerprint", property(fail))
    job = fill(session).fit().wait(60)
    assert job.state == "failed"
    assert job.error.startswith("Could not get the weights of 'x': the hub can't be reached.")
    assert "`skxma app --encoder tiny`" in job.error
    assert "model=" not in job.error


def test_bytes_of_a_download_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert bytes_fetched(0) == 0
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "x.incomplete").write_bytes(bytes(1000))
    (blobs / "y").write_bytes(bytes(500))
    assert bytes_fetched(0) == 1000
    assert bytes_fetched((blobs / "x.incomplete").stat().st_mtime + 1) == 0


def test_the_images_go_with_the_session():
    session = fill(Session("tiny"), slice(1))
    file = session.gallery.columns[0].images[0].file
    assert file.is_file()
    session.close()
    assert not file.exists()
