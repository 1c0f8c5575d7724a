import numpy as np
import pytest

from skxma import load
from skxma.app._session import Session
from skxma.datasets import load_emoji
from skxma.errors import ImageError

EMOJI = load_emoji(as_paths=True)


def files(label, shots):
    return [EMOJI.images[i] for i in np.flatnonzero(EMOJI.target == label)[shots]]


@pytest.fixture
def session():
    made = Session("tiny")
    yield made
    made.close()


def fill(session, shots=slice(3), labels=("fox", "bear", "poodle")):
    for label in labels:
        column = session.add_column(label)
        for file in files(label, shots):
            session.add_picture(column.number, file.name, file.read_bytes())
    return session


def test_an_answer_comes_with_its_evidence(session):
    fitted = fill(session).fit()
    (query,) = files("fox", slice(4, 5))
    answer = session.ask(query.name, query.read_bytes())
    assert answer.scores[0].label == "fox"
    for of in ("final", "zero_shot"):
        assert sum(getattr(score, of) for score in answer.scores) == pytest.approx(1)
    finals = [score.final for score in answer.scores]
    assert finals == sorted(finals, reverse=True)
    np.testing.assert_allclose(sorted(finals), np.sort(fitted.classifier.predict_proba([query])[0]), atol=1e-6)
    assert [found.label for found in answer.retrieved[:3]] == ["fox"] * 3
    known = {picture.number: picture for picture in fitted.pictures}
    assert all(known[found.picture].name == found.name for found in answer.retrieved)
    assert answer.retrieved[0].image_affinity > answer.retrieved[-1].image_affinity
    assert not answer.unlike


def test_what_is_like_none_of_the_classes_is_said_to_be(session):
    fill(session).fit()
    (query,) = files("tornado", slice(4, 5))
    assert session.ask(query.name, query.read_bytes()).unlike


def test_the_saved_model_always_answers_a_class_and_the_same(session, tmp_path):
    clf = fill(session).fit().classifier
    (tmp_path / "m.skxma").write_bytes(session.model())
    loaded = load(tmp_path / "m.skxma")
    queries = EMOJI.images[::20]
    np.testing.assert_array_equal(loaded.predict_proba(queries), clf.predict_proba(queries))
    assert set(loaded.predict(queries)) <= {"fox", "bear", "poodle"}
    assert "" in clf.predict(queries)


def test_a_name_without_pictures_is_a_class_and_an_empty_column_none(session):
    fill(session, labels=("fox", "bear"))
    session.add_column("tornado")
    session.add_column()
    assert session.fit().classifier.classes_.tolist() == ["bear", "fox", "tornado"]


def test_a_picture_in_the_wrong_column_is_doubted(session):
    fill(session, slice(5), ("bicycle", "fox", "bear", "poodle", "snail", "wine glass"))
    wrong = session.columns[0].pictures.pop()
    session.columns[1].pictures.append(wrong)
    doubts = session.fit().doubts
    assert doubts[0].picture == wrong.number
    assert doubts[0].suggested == "bicycle"


def test_changes_after_a_fit_are_noticed_and_old_pictures_still_shown(session):
    fill(session)
    assert not session.stale
    session.fit()
    assert not session.stale
    session.add_column()
    assert not session.stale
    gone = session.columns[0].pictures[0].number
    session.remove_picture(gone)
    assert session.stale
    assert session.thumbnail(gone).startswith(b"\x89PNG")
    session.fit()
    assert not session.stale
    with pytest.raises(ValueError, match=f"no picture {gone} any more"):
        session.thumbnail(gone)


def test_renaming_and_removing_columns(session):
    fill(session)
    session.rename(session.columns[0].number, "  red fox ")
    session.remove_column(session.columns[1].number)
    assert session.fit().classifier.classes_.tolist() == ["poodle", "red fox"]
    with pytest.raises(ValueError, match="no class 99 any more"):
        session.rename(99, "x")


def test_a_file_that_is_no_picture_is_named_and_leaves_nothing(session):
    column = session.add_column("snail")
    for content, said in ((b"no picture", "not an image"), (b"", "empty")):
        with pytest.raises(ImageError, match=rf"holiday\.jpg: .*{said}"):
            session.add_picture(column.number, "holiday.jpg", content)
    assert column.pictures == []
    fill(session).fit()
    with pytest.raises(ImageError, match=r"holiday\.jpg"):
        session.ask("holiday.jpg", b"no picture")
    assert len(list(session.fitted.pictures[0].file.parent.iterdir())) == 9


@pytest.mark.parametrize("name", ["../../evil.png", "a\0b.png", "", "x" * 300 + ".png", "picture"])
def test_what_a_browser_calls_a_file_never_becomes_a_path(session, name):
    column = session.add_column("fox")
    picture = session.add_picture(column.number, name, files("fox", slice(1))[0].read_bytes())
    assert picture.file.name == str(picture.number)


def test_the_sample_fits(session):
    fill(session, labels=("snail",))
    session.use_sample()
    fitted = session.fit()
    assert (len(fitted.pictures), len(fitted.classifier.classes_)) == (12, 4)


def no_name(session):
    session.rename(session.columns[0].number, "")


def same_name(session):
    session.rename(session.columns[0].number, "bear")


def one_class(session):
    session.columns = session.columns[:1]


def no_pictures(session):
    for column in session.columns:
        column.pictures = []


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_name, "has no name. Name it"),
        (same_name, "Two columns are called 'bear'"),
        (one_class, "two classes"),
        (no_pictures, "no pictures yet"),
    ],
)
def test_what_is_missing_for_a_fit_is_said(session, spoil, said):
    spoil(fill(session, slice(1)))
    with pytest.raises(ValueError, match=said):
        session.fit()


def test_nothing_is_asked_or_saved_before_a_fit(session):
    fill(session, slice(1))
    with pytest.raises(ValueError, match="Fit first"):
        session.ask("a.png", b"")
    with pytest.raises(ValueError, match="Fit first"):
        session.model()


def test_the_pictures_go_with_the_session():
    session = fill(Session("tiny"), slice(1))
    file = session.columns[0].pictures[0].file
    assert file.is_file()
    session.close()
    assert not file.exists()
