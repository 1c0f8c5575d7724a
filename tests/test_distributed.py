import os
import signal
import threading
import time

import joblib
import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV

from skxma import CLIPEncoder, EmbeddingStore, XMAdapterClassifier
from skxma.datasets import load_emoji
from skxma.errors import ImageError

dask = pytest.importorskip("dask")
pytest.importorskip("distributed")
from skxma.distributed import dask_embeddings  # noqa: E402


@pytest.fixture(scope="module")
def emoji():
    return load_emoji(as_paths=True)


def test_sequences_bags_and_arrays_give_the_embeddings_of_the_encoder(emoji):
    import dask.array as da
    import dask.bag as db

    paths = [str(path) for path in emoji.images[:10]]
    encoder = CLIPEncoder("tiny")
    wanted = np.asarray(encoder.encode_image(paths))
    given = (paths, db.from_sequence(paths, npartitions=3), da.from_array(np.array(paths, dtype=object), chunks=4))
    for images in given:
        lazy = dask_embeddings(encoder, images, partition_size=4)
        np.testing.assert_allclose(lazy.compute(scheduler="synchronous"), wanted, atol=1e-6)
    assert lazy.shape == wanted.shape


def test_columns_of_pandas_and_of_dask_are_encoded(emoji):
    pandas = pytest.importorskip("pandas")
    frames = pytest.importorskip("dask.dataframe")
    paths = [str(path) for path in emoji.images[:5]]
    encoder = CLIPEncoder("tiny")
    wanted = np.asarray(encoder.encode_image(paths))
    column = pandas.Series(paths, index=range(7, 12))
    for images in (column, column.to_frame("path"), frames.from_pandas(column, npartitions=2)):
        lazy = dask_embeddings(encoder, images, partition_size=2)
        np.testing.assert_allclose(lazy.compute(scheduler="synchronous"), wanted, atol=1e-6)


@pytest.mark.bad_input
def test_wrong_inputs_are_named(emoji):
    import dask.array as da

    encoder = CLIPEncoder("tiny")
    for size in (0, 2.5, None):
        with pytest.raises(ValueError, match=f"partition_size={size} must be an integer"):
            dask_embeddings(encoder, emoji.images, partition_size=size)
    with pytest.raises(ValueError, match="no images"):
        dask_embeddings(encoder, [])
    with pytest.raises(ImageError, match=r"got a single str \('a\.png'\); wrap it"):
        dask_embeddings(encoder, "a.png")
    with pytest.raises(ImageError, match=r"got generator: pass list\(X\)"):
        dask_embeddings(encoder, (path for path in emoji.images))
    with pytest.raises(ValueError, match=r"Dask array of uint8 of shape \(2, 8, 8, 3\); expected one of paths"):
        dask_embeddings(encoder, da.zeros((2, 8, 8, 3), dtype=np.uint8))
    with pytest.raises(TypeError, match="encoder='tiny' has no encode_image with n_features; pass an encoder"):
        dask_embeddings("tiny", emoji.images)


@pytest.fixture(scope="module")
def client():
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.mark.posix
@pytest.mark.fault
@pytest.mark.slow
def test_a_killed_worker_costs_nothing_but_time(emoji, client, tmp_path):
    paths = [str(path) for path in emoji.images]
    wanted = np.asarray(CLIPEncoder("tiny").encode_image(paths))
    encoder = CLIPEncoder("tiny", memory=str(tmp_path / "store"), batch_size=4)
    future = client.compute(dask_embeddings(encoder, paths, partition_size=10))
    store = EmbeddingStore(tmp_path / "store")
    held = []

    def kill_one():
        while not held or not held[-1]:
            held.append(store.info()["n_embeddings"])
            time.sleep(0.02)
        os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    np.testing.assert_allclose(future.result(timeout=120), wanted, atol=1e-5)
    killer.join()
    assert 0 < held[-1] < len(paths)
    assert store.info()["n_embeddings"] == len(paths)


@pytest.mark.slow
def test_a_search_runs_on_the_cluster(emoji, client):
    X, y = CLIPEncoder("tiny").encode_image(emoji.images[:100]), emoji.target[:100]
    clf = XMAdapterClassifier("tiny", evidence="paper", n_epochs=0)
    search = GridSearchCV(clf, {"alpha": [1.0, 5.0], "beta": [2.0, 5.5]}, cv=2, n_jobs=2)
    here = search.fit(X, y).cv_results_["mean_test_score"]
    with joblib.parallel_config("dask"):
        there = search.fit(X, y).cv_results_["mean_test_score"]
    np.testing.assert_allclose(here, there)
