"""Files are replaced on systems that refuse it while somebody reads them."""

from pathlib import Path

import pytest

from skxma._runtime import atomic


@pytest.fixture
def refusals(monkeypatch):
    """Numbers of times that the next replacements are refused, as Windows does while a file is open."""
    left = []
    replace = Path.replace

    def refuse(self, target):
        if left and left[0] > 0:
            left[0] -= 1
            raise PermissionError(13, "The process cannot access the file because it is being used")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(atomic, "PATIENCE", (0.0, 0.0))
    return left


def write(path, content):
    with atomic.atomic_write(path) as stream:
        stream.write(content)


def test_on_windows_a_file_in_use_is_tried_again(tmp_path, refusals, monkeypatch):
    monkeypatch.setattr("sys.platform", "win32")
    refusals.append(2)
    write(tmp_path / "model", b"new")
    assert (tmp_path / "model").read_bytes() == b"new"


@pytest.mark.parametrize(("platform", "n_refusals"), [("win32", 3), ("linux", 1)])
def test_a_file_that_stays_in_use_is_left_as_it_was(tmp_path, refusals, monkeypatch, platform, n_refusals):
    (tmp_path / "model").write_bytes(b"old")
    monkeypatch.setattr("sys.platform", platform)
    refusals.append(n_refusals)
    with pytest.raises(OSError, match="no file was changed"):
        write(tmp_path / "model", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model").read_bytes() == b"old"


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(PermissionError, match=r"cannot be written, so model cannot be saved there; .* Name another"):
        atomic.check_writable(tmp_path / "model")


def test_what_cannot_be_opened_is_named_even_if_it_cannot_be_removed(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "open", fail)
    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(OSError, match="Read-only file system; no file was changed") as caught:
        write(tmp_path / "model", b"new")
    assert caught.value.filename == str(tmp_path / "model")
