"""What breaks on the way: nothing finished is lost, nothing is left half written, the next run goes on."""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from problems import make_problem
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

import skxma
from skxma import CLIPEncoder, EmbeddingStore, XMAdapterClassifier, XMAdapterSearchCV
from skxma._runtime.atomic import atomic_write
from skxma._runtime.device import explain_out_of_memory
from skxma.caches import ImageCache
from skxma.cli.main import main
from skxma.datasets import load_emoji
from skxma.errors import OutOfMemoryError

pytestmark = pytest.mark.fault


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four images each of five things, a folder a thing."""
    root = tmp_path_factory.mktemp("pictures")
    emoji = load_emoji(as_paths=True)
    for path, name, style in zip(emoji.images, emoji.target, emoji.sets, strict=True):
        if name in emoji.target_names[:5] and style != "noto":
            (root / name).mkdir(exist_ok=True)
            (root / name / f"{style}.png").write_bytes(Path(path).read_bytes())
    return root


@pytest.fixture(scope="module")
def models():
    """Two fitted models that answer differently, and queries."""
    problem = make_problem(n_classes=3, shots=2, dim=8)
    first = XMAdapterClassifier("precomputed", text_features=problem.text).fit(problem.X, problem.y)
    second = XMAdapterClassifier("precomputed", text_features=problem.text).fit(problem.X, problem.y[::-1])
    return first, second, problem.X_test


def start(code, *arguments, **options):
    # tests in the background of a shell ignore interrupts, and pass that on
    heed = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    command = [sys.executable, "-c", heed + textwrap.dedent(code), *map(str, arguments)]
    options.update(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(command, **options)


def kill_after_line(process):
    """Kill -9 as soon as the process has said something."""
    try:
        said = process.stdout.readline().strip()
        process.send_signal(signal.SIGKILL)
        assert said, process.stderr.read()
    finally:
        process.kill()
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    return said


# Says "here" at a chosen moment of a save, and waits there to be killed.
STOP_AT = """
    import os, sys, time
    def stop(*args, **kwargs):
        print("here", flush=True)
        time.sleep(600)
    moment = sys.argv[1]
    if moment == "halfway":
        import builtins, pathlib
        class Half:
            def __init__(self, stream): self.stream = stream
            def __enter__(self): return self
            def __exit__(self, *args): self.stream.close()
            def write(self, content):
                self.stream.write(bytes(content)[: len(content) // 2]); self.stream.flush(); stop()
        plain = pathlib.Path.open
        pathlib.Path.open = lambda self, mode="r", *a, **k: (
            Half(plain(self, mode, *a, **k)) if mode == "xb" else plain(self, mode, *a, **k))
    elif moment == "before the move":
        os.fsync = stop
    elif moment == "after the move":
        import skxma._runtime.atomic
        skxma._runtime.atomic._sync_folder = stop
"""


@pytest.mark.posix
@pytest.mark.parametrize(
    ("form", "moment"),
    [("skxma", "halfway"), ("skxma", "before the move"), ("skxma", "after the move"), ("joblib", "halfway")],
)
def test_a_save_that_is_killed_leaves_the_old_file_or_the_new_one(models, tmp_path, form, moment):
    old, new, X = models
    joblib.dump(new, tmp_path / "new.joblib")
    target = tmp_path / f"model.{form}"
    load = skxma.load if form == "skxma" else joblib.load
    from skxma.cli._model_files import save

    save(old, target)
    code = textwrap.dedent(STOP_AT) + (
        "import joblib, pathlib; from skxma.cli._model_files import save\n"
        "save(joblib.load(sys.argv[2]), pathlib.Path(sys.argv[3]))"
    )
    kill_after_line(start(code, moment, tmp_path / "new.joblib", target))
    expected = new if moment == "after the move" else old
    np.testing.assert_array_equal(load(target).predict_proba(X), expected.predict_proba(X))
    # the next save goes on as if nothing had been
    save(new, target)
    np.testing.assert_array_equal(load(target).predict_proba(X), new.predict_proba(X))


@pytest.mark.posix
@pytest.mark.slow
def test_saves_killed_at_any_moment_leave_a_whole_file(models, tmp_path):
    *both, X = models
    wanted = [clf.predict_proba(X) for clf in both]
    joblib.dump(both, tmp_path / "both.joblib")
    target = tmp_path / "model.skxma"
    both[0].save(target)
    code = """
        import sys, joblib
        both = joblib.load(sys.argv[1])
        print("go", flush=True)
        while True:
            for clf in both:
                clf.save(sys.argv[2])
    """
    process = start(code, tmp_path / "both.joblib", target)
    assert process.stdout.readline() == "go\n"
    seen = set()
    for _ in range(40):
        answers = skxma.load(target).predict_proba(X)
        seen |= {i for i in range(2) if np.array_equal(answers, wanted[i])}
        assert any(np.array_equal(answers, one) for one in wanted)
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=60)
    answers = skxma.load(target).predict_proba(X)
    assert any(np.array_equal(answers, one) for one in wanted)
    assert seen == {0, 1}


ENCODE_SLOWLY = """
    import sys, time
    from skxma import CLIPEncoder, cli
    forward = CLIPEncoder._forward_images
    batches = [0]
    def slow(self, batch):
        batches[0] += 1
        if batches[0] == 4:
            print("here", flush=True)
            time.sleep(600)
        return forward(self, batch)
    CLIPEncoder._forward_images = slow
    CLIPEncoder._batch_size = lambda self, loaded: 3
    cli.main(["fit", sys.argv[1], "--model", sys.argv[2], "--encoder", "tiny", "--memory", sys.argv[3]])
"""


@pytest.mark.posix
@pytest.mark.slow
def test_a_fit_that_is_killed_while_it_encodes_keeps_what_it_encoded(folder, tmp_path, monkeypatch, capsys):
    model, store = tmp_path / "model.skxma", EmbeddingStore(tmp_path / "store")
    kill_after_line(start(ENCODE_SLOWLY, folder, model, store.path))
    assert not model.exists()
    passed = count_forwarded(monkeypatch)
    arguments = ["fit", str(folder), "--model", str(model), "--encoder", "tiny"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main([*arguments, "--memory", str(store.path)]) == 0
    assert sum(passed) == 20 - 9
    interrupted = skxma.load(model)
    assert main([*arguments[:3], str(tmp_path / "whole.skxma"), *arguments[4:]]) == 0
    whole = skxma.load(tmp_path / "whole.skxma")
    X = whole.image_cache_.keys
    np.testing.assert_allclose(interrupted.predict_proba(X), whole.predict_proba(X), atol=1e-5)


def count_forwarded(monkeypatch):
    passed = []
    forward = CLIPEncoder._forward_images

    def counting(self, batch):
        passed.append(len(batch))
        return forward(self, batch)

    monkeypatch.setattr(CLIPEncoder, "_forward_images", counting)
    return passed


@pytest.mark.posix
@pytest.mark.slow
def test_a_command_that_is_interrupted_says_so_and_keeps_what_it_encoded(folder, tmp_path, monkeypatch):
    process = start(ENCODE_SLOWLY, folder, tmp_path / "m.skxma", tmp_path / "store")
    assert process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert said.splitlines()[-1] == "skxma: interrupted"
    assert not (tmp_path / "m.skxma").exists()
    passed = count_forwarded(monkeypatch)
    assert (
        main(
            [
                "fit",
                str(folder),
                "--model",
                str(tmp_path / "m.skxma"),
                "--encoder",
                "tiny",
                "--memory",
                str(tmp_path / "store"),
            ]
        )
        == 0
    )
    assert sum(passed) == 20 - 9


BOTH_ENCODE = """
    import sys, warnings
    warnings.simplefilter("error")
    from skxma import CLIPEncoder
    encoder = CLIPEncoder("tiny", memory=sys.argv[1], batch_size=2, precision="fp32", device="cpu")
    encoder.n_features
    print("ready", flush=True)
    sys.stdin.readline()
    encoder.encode_image(sys.argv[2:])
"""


@pytest.mark.posix
@pytest.mark.slow
def test_two_processes_that_encode_into_one_store_leave_what_one_would(folder, tmp_path, monkeypatch):
    files = sorted(map(str, folder.rglob("*.png")))
    pair = [start(BOTH_ENCODE, tmp_path / "store", *files, stdin=subprocess.PIPE) for _ in range(2)]
    for process in pair:
        assert process.stdout.readline() == "ready\n"
    for process in pair:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in pair:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert EmbeddingStore(tmp_path / "store").info()["n_embeddings"] == 20
    expected = CLIPEncoder("tiny", memory=False, precision="fp32", device="cpu").encode_image(files)
    passed = count_forwarded(monkeypatch)
    shared = CLIPEncoder("tiny", memory=tmp_path / "store", precision="fp32", device="cpu").encode_image(files)
    assert passed == []
    np.testing.assert_allclose(shared, expected, atol=1e-5)


FULL_DISK = """
    import resource, signal, sys, joblib
    clf = joblib.load(sys.argv[1])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    try:
        clf.save(sys.argv[2])
    except OSError as error:
        print(error)
"""


@pytest.mark.posix
def test_a_disk_that_fills_up_during_a_save_leaves_the_old_file(models, tmp_path):
    old, new, X = models
    joblib.dump(new, tmp_path / "new.joblib")
    target = tmp_path / "model.skxma"
    old.save(target)
    said, errors = start(FULL_DISK, tmp_path / "new.joblib", target).communicate(timeout=60)
    assert "no file was changed" in said, errors
    assert str(target) in said
    np.testing.assert_array_equal(skxma.load(target).predict_proba(X), old.predict_proba(X))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.skxma", "new.joblib"]


@pytest.fixture
def tiny_disk(tmp_path):
    """A disk of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    made = subprocess.run(mount, capture_output=True, check=False)
    if made.returncode:
        pytest.skip("no right to mount a small disk here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_really_full_costs_nothing_but_the_store(folder, tiny_disk, capsys):
    arguments = ["--encoder", "tiny", "--memory", str(tiny_disk / "store")]
    (tiny_disk / "ballast").write_bytes(bytes(1_036_000))
    with pytest.warns(RuntimeWarning, match="disk is full.*encoded again"):
        assert main(["fit", str(folder), "--model", str(tiny_disk / "m.skxma"), *arguments]) == 1
    assert "No space left on device; no file was changed" in capsys.readouterr().err
    assert not (tiny_disk / "m.skxma").exists()
    (tiny_disk / "ballast").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["fit", str(folder), "--model", str(tiny_disk / "m.skxma"), "--encoder", "tiny"]) == 0
    skxma.load(tiny_disk / "m.skxma")


@pytest.fixture
def open_folder():
    """A folder outside pytest's own, which another user could not even enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


AS_NOBODY = """
    import os, sys, warnings, joblib, numpy as np
    import skxma
    from skxma import EmbeddingStore
    import skxma.store
    clf = joblib.load(sys.argv[1])
    # whatever is imported on first use: another user may not be allowed to read it
    clf.save(sys.argv[1] + ".skxma")
    EmbeddingStore(sys.argv[1] + ".sqlite").put_many([b"a"], "space", np.ones((1, 4), dtype=np.float32))
    import concurrent.futures.thread
    if os.geteuid() == 0:
        os.seteuid(65534)
    try:
        clf.save(sys.argv[2] + "/model.skxma")
    except OSError as error:
        print(type(error).__name__, error)
    store = EmbeddingStore(sys.argv[2])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = store.get_many([b"a", b"b"], "space")
        store.put_many([b"c"], "space", np.ones((1, 4), dtype=np.float32))
    print(len(found), len(store.get_many([b"c"], "space")))
    for warning in caught:
        print(warning.message)
"""


@pytest.mark.posix
def test_a_folder_that_may_not_be_written_is_named_and_its_store_still_read(models, tmp_path, open_folder):
    old, new, X = models
    joblib.dump(new, tmp_path / "new.joblib")
    old.save(open_folder / "model.skxma")
    EmbeddingStore(open_folder).put_many([b"a", b"b"], "space", np.ones((2, 4), dtype=np.float32))
    for path in (*open_folder.iterdir(), open_folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    process = start(AS_NOBODY, tmp_path / "new.joblib", open_folder)
    said, errors = process.communicate(timeout=60)
    open_folder.chmod(0o755)
    assert process.returncode == 0, errors
    lines = said.splitlines()
    assert lines[0].startswith("PermissionError")
    assert "no file was changed" in lines[0]
    assert lines[1] == "2 0"
    assert len(lines) == 3
    assert "can't be written" in lines[2]
    np.testing.assert_array_equal(skxma.load(open_folder / "model.skxma").predict_proba(X), old.predict_proba(X))


def test_whatever_fails_while_a_file_is_written_leaves_none_behind(tmp_path):
    (tmp_path / "file").write_bytes(b"old")

    def write(error):
        with atomic_write(tmp_path / "file") as stream:
            stream.write(b"new")
            raise error

    for error in (KeyboardInterrupt, MemoryError, ValueError):
        with pytest.raises(error):
            write(error)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def an_image(folder):
    """Path of an image that is there, as images are looked for before the model."""
    Image.new("RGB", (8, 8)).save(folder / "x.png")
    return str(folder / "x.png")


@pytest.mark.parametrize("form", ["skxma", "joblib"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "damaged"),
        (lambda path: path.write_bytes(b"\x80\x04" + os.urandom(3000)), "is no model"),
        (lambda path: path.write_bytes(b""), "empty|damaged"),
        (lambda path: path.write_text("<html>not found</html>"), "is no model"),
        (lambda path: joblib.dump({"a": 1}, path), "holds a dict|a pickle"),
        (lambda path: joblib.dump(LogisticRegression().fit([[0], [1]], [0, 1]), path), "LogisticRegression|a pickle"),
    ],
)
def test_predict_says_what_is_wrong_with_a_model(models, tmp_path, capsys, form, damage, said):
    from skxma.cli._model_files import save

    path = tmp_path / f"model.{form}"
    save(models[0], path)
    damage(path)
    assert main(["predict", str(path), an_image(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert str(path) in captured.err
    assert any(words in captured.err for words in said.split("|"))


def test_predict_says_that_a_model_knows_no_encoder(models, tmp_path, capsys):
    models[0].save(tmp_path / "m.skxma")
    assert main(["predict", str(tmp_path / "m.skxma"), an_image(tmp_path)]) == 1
    assert "fitted on embeddings and knows no encoder" in capsys.readouterr().err


def test_a_model_of_a_machine_with_a_gpu_loads_on_one_without(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    data = sorted(map(str, folder.rglob("*.png")))
    clf = XMAdapterClassifier("tiny", vocabulary=None).fit(data, [Path(path).parent.name for path in data])
    wanted = clf.predict_proba(data[:3])
    clf.set_params(device="cuda", encoder=CLIPEncoder("tiny", device="cuda")).save(tmp_path / "m.skxma")
    loaded = skxma.load(tmp_path / "m.skxma")
    with pytest.raises(ValueError, match="no CUDA device; pass device='auto' or 'cpu'"):
        loaded.predict_proba(data[:3])
    loaded.set_params(encoder="tiny")
    with pytest.warns(UserWarning, match="goes on with the CPU"):
        np.testing.assert_allclose(loaded.predict_proba(data[:3]), wanted, atol=1e-6)


def test_a_hub_that_cannot_be_reached_is_told_with_the_way_out(folder, tmp_path, monkeypatch, capsys):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def unreachable(*args, **kwargs):
        raise LocalEntryNotFoundError("not in the cache") from OSError("Temporary failure in name resolution")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url: None)
    assert main(["fit", str(folder), "--model", str(tmp_path / "m.skxma")]) == 1
    said = capsys.readouterr().err
    assert "the hub can't be reached: Temporary failure in name resolution" in said
    assert "run 'hf download" in said
    assert "local-dir:" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("search", [GridSearchCV, XMAdapterSearchCV])
def test_a_search_that_is_interrupted_goes_on_where_it_was(folder, tmp_path, monkeypatch, search):
    files = sorted(map(str, folder.rglob("*.png")))
    labels = [Path(path).parent.name for path in files]
    store = EmbeddingStore(tmp_path / "store")
    grid = {"alpha": [0.5, 1.0], "beta": [2.0, 5.0]}
    clf = XMAdapterClassifier(CLIPEncoder("tiny", memory=store, batch_size=2), vocabulary=None, n_epochs=0)
    passed = count_forwarded(monkeypatch)
    counting = CLIPEncoder._forward_images

    def interrupt(self, batch):
        if len(passed) == 4:
            raise KeyboardInterrupt
        return counting(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(CLIPEncoder, "_forward_images", interrupt)
        with pytest.raises(KeyboardInterrupt):
            search(clf, grid, cv=2).fit(files, labels)
    assert sum(passed) == 8
    found = search(clf, grid, cv=2).fit(files, labels)
    assert sum(passed) == 20
    again = search(clf.set_params(encoder="tiny"), grid, cv=2).fit(files, labels)
    np.testing.assert_allclose(found.cv_results_["mean_test_score"], again.cv_results_["mean_test_score"])


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize(
    "change",
    [
        lambda clf, problem: clf.partial_fit(problem.X_test[:3], ["a", "b", "c"]),
        lambda clf, problem: clf.partial_fit(problem.X_test[:1], ["a new class"]),
        lambda clf, problem: clf.drop("a"),
        lambda clf, problem: clf.fit(problem.X[:, :4], problem.y),
    ],
)
def test_a_fit_that_fails_or_is_interrupted_changes_nothing(monkeypatch, change, error):
    problem = make_problem(n_classes=3, shots=2, dim=8)
    labels = np.array(["a", "b", "c"])[problem.y]
    clf = XMAdapterClassifier("precomputed", vocabulary=None).fit(problem.X, labels)
    before = dict(vars(clf))

    def fail(*arguments):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(ImageCache, "class_order", fail)
        with pytest.raises(error):
            change(clf, problem)
    assert vars(clf).keys() == before.keys()
    assert all(vars(clf)[name] is value for name, value in before.items())
    change(clf, problem)
    unfitted = XMAdapterClassifier("precomputed", vocabulary=None)
    change(unfitted.fit(problem.X, labels), problem)
    X = problem.X_test[:, : clf.n_features_in_]
    np.testing.assert_array_equal(clf.predict_proba(X), unfitted.predict_proba(X))


def test_a_device_too_small_for_a_fit_or_a_model_is_told_and_changes_nothing(monkeypatch):
    problem = make_problem(n_classes=3, shots=2, dim=8)
    clf = XMAdapterClassifier("precomputed", vocabulary=None).fit(problem.X, problem.y)
    before = clf.predict_proba(problem.X_test)

    def run_out(*arguments):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with monkeypatch.context() as patch:
        patch.setattr(ImageCache, "class_order", run_out)
        with pytest.raises(OutOfMemoryError, match=r"Fitting 7 images of 4 classes ran out.*on cpu") as caught:
            clf.partial_fit(problem.X_test[:1], [7])
        assert isinstance(caught.value.__cause__, torch.cuda.OutOfMemoryError)
        patch.setattr(type(clf.model_), "scorer", run_out)
        with pytest.raises(OutOfMemoryError, match="Predicting with 6 keys of 3 classes ran out of memory on cpu"):
            clf.predict(problem.X_test)
    np.testing.assert_array_equal(clf.predict_proba(problem.X_test), before)
    said = r"on cuda:1; pass device='cpu', with a CLIPEncoder\(device='cuda'\)"
    with pytest.raises(OutOfMemoryError, match=said), explain_out_of_memory("Fitting", torch.device("cuda:1")):
        run_out()
    with pytest.raises(RuntimeError, match="illegal") as caught, explain_out_of_memory("Fitting", torch.device("cpu")):
        raise RuntimeError("an illegal instruction")
    assert not isinstance(caught.value, OutOfMemoryError)


def test_a_first_fit_that_is_interrupted_leaves_an_unfitted_estimator(monkeypatch):
    problem = make_problem(n_classes=3, shots=2, dim=8)

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(ImageCache, "class_order", interrupt)
    clf = XMAdapterClassifier("precomputed")
    with pytest.raises(KeyboardInterrupt):
        clf.fit(problem.X, problem.y)
    assert not [name for name in vars(clf) if name.endswith("_")]
