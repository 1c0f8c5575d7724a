"""A user without a home folder, as containers and schedulers have it."""

import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
from small_clip import make_pixels

from skxma import XMAdapterClassifier
from skxma.cli.main import main
from skxma.store import EmbeddingStore, _resolve, default_folder
from skxma.store._resolve import resolve_store

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a home folder is found in another way"),
]


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """No HOME and no entry in passwd; returns the folder of temporary files."""

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("HOME", "SKXMA_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr(Path, "expanduser", lambda self: no_home() if str(self).startswith("~") else self)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(_resolve, "_temporary", [])
    return tmp_path


def test_embeddings_are_kept_among_the_temporary_files_and_a_warning_says_where(homeless):
    with pytest.warns(RuntimeWarning, match="no home folder.*set SKXMA_CACHE") as caught:
        folder = default_folder()
    assert folder == homeless / f"skxma-{os.getuid()}"
    assert str(folder) in str(caught[0].message)
    assert folder.stat().st_mode & 0o777 == 0o700
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert default_folder() == folder


def test_a_fit_with_memory_on_disk_and_the_command_line_go_on(homeless, capsys):
    X = [make_pixels(seed) for seed in range(4)]
    clf = XMAdapterClassifier("tiny", memory=True, vocabulary=None)
    with pytest.warns(RuntimeWarning, match="no home folder") as caught:
        clf.fit(X, list("aabb"))
    assert {Path(one.filename).name for one in caught} == {Path(__file__).name}
    store = resolve_store(True)
    assert isinstance(store, EmbeddingStore)
    assert store.info()["n_embeddings"] >= 4
    assert main(["cache", "info"]) == 0
    assert f"skxma-{os.getuid()}" in capsys.readouterr().out


def test_the_remedy_works(homeless, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.setenv("SKXMA_CACHE", str(homeless / "mine"))
        assert default_folder() == homeless / "mine"
    monkeypatch.setenv("SKXMA_CACHE", "~/mine")
    with pytest.warns(RuntimeWarning, match="no home folder"):
        assert default_folder().parent == homeless


@pytest.mark.parametrize("trap", ["open to all", "a link", "a file"])
def test_a_folder_that_somebody_else_could_fill_is_not_used(homeless, trap):
    place = homeless / f"skxma-{os.getuid()}"
    if trap == "open to all":
        place.mkdir()
        place.chmod(0o777)
    elif trap == "a link":
        (homeless / "theirs").mkdir()
        place.symlink_to("theirs")
    else:
        place.write_text("in the way")
    with pytest.warns(RuntimeWarning, match="no home folder"):
        folder = default_folder()
    assert folder != place
    assert folder.parent == homeless
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("setpriv") is None or os.geteuid() != 0, reason="needs root and setpriv")
def test_a_user_without_an_entry_in_passwd(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "SKXMA_CACHE")}
    uid = 54321
    script = "import sys; from skxma.cli.main import main; sys.exit(main(['cache', 'info']))"
    command = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", sys.executable, "-c", script]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        environment["TMPDIR"] = folder
        run = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True)
    if "Permission denied" in run.stderr or "No module" in run.stderr:
        pytest.skip("that user may not read the package")
    assert run.returncode == 0, run.stderr
    assert f"skxma-{uid}" in run.stdout
    assert "no home folder" in run.stderr
