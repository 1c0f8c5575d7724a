import numpy as np
import pytest

from skxma.encoder._alignment import align


@pytest.fixture(scope="module")
def linear_world():
    """Class vectors of which the text embeddings are a linear image, with noise."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((200, 30)).astype(np.float32)
    mapping = rng.standard_normal((30, 8))
    texts = vectors @ mapping + 0.5 * rng.standard_normal((200, 8))
    return vectors, texts.astype(np.float32), mapping


def test_maps_unseen_vectors_near_their_texts(linear_world):
    vectors, texts, mapping = linear_world
    found = align(vectors, texts, 10)
    unseen = np.random.default_rng(1).standard_normal((50, 30))
    wanted, got = unseen @ mapping, unseen @ found.to_text
    cosines = (wanted * got).sum(axis=1) / np.linalg.norm(wanted, axis=1) / np.linalg.norm(got, axis=1)
    assert cosines.min() > 0.9


def test_directions_are_orthonormal_and_texts_unit(linear_world):
    vectors, texts, _ = linear_world
    found = align(vectors, texts, 10)
    np.testing.assert_allclose(found.directions.T @ found.directions, np.eye(10), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found.class_texts, axis=1), 1, atol=1e-5)


def test_the_scale_is_small_where_texts_are_noise(linear_world):
    vectors, texts, _ = linear_world
    noise = np.random.default_rng(2).standard_normal(texts.shape).astype(np.float32)
    assert align(vectors, noise, 10).scale < align(vectors, texts, 10).scale


def test_directions_have_a_sign_of_their_own(linear_world):
    vectors, texts, _ = linear_world
    directions = align(vectors, texts, 10).directions
    assert (directions[np.abs(directions).argmax(axis=0), np.arange(10)] > 0).all()
