"""One rule for which files of a folder are images."""

import os
import sys

import pytest

from skxma.datasets._listing import list_images


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_images_come_in_the_order_of_their_paths_at_any_depth(tmp_path):
    touch(tmp_path, "b.jpg", "a/2.PNG", "a/1.jpeg", "a/deep/3.webp", "a.gif")
    found = list_images(tmp_path)
    assert [path.removeprefix(f"{tmp_path}{os.sep}") for path in found.paths] == [
        "a/1.jpeg",
        "a/2.PNG",
        "a/deep/3.webp",
        "a.gif",
        "b.jpg",
    ]
    assert found.paths == [str(path) for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    assert found.describe_skipped() is None


def test_hidden_and_service_files_and_other_types_are_skipped_and_counted(tmp_path):
    touch(tmp_path, "1.jpg", "._1.jpg", ".2.jpg", "Thumbs.db", "Desktop.ini", ".DS_Store")
    touch(tmp_path, ".ipynb_checkpoints/3.jpg", "@eaDir/4.jpg", "__MACOSX/5.jpg", "deep/.git/6.jpg")
    touch(tmp_path, "$RECYCLE.BIN/7.jpg", "System Volume Information/8.jpg", "lost+found/9.jpg", "#recycle/1.jpg")
    touch(tmp_path, "notes.txt", "IMG_1.HEIC", "IMG_2.heic", "README")
    found = list_images(tmp_path)
    assert found.paths == [str(tmp_path / "1.jpg")]
    assert found.n_hidden == 13
    assert found.other_types == {".heic": 2, ".txt": 1, "": 1}
    said = found.describe_skipped()
    assert said == (
        "skipped 13 hidden or service files (a folder counts once) and 4 files of other types "
        "(2 .heic, 1 without ending, 1 .txt)"
    )


def test_a_folder_that_is_named_like_an_image_is_a_folder(tmp_path):
    touch(tmp_path, "a.jpg/1.png")
    assert list_images(tmp_path).paths == [str(tmp_path / "a.jpg" / "1.png")]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links_to_images_are_images_and_links_to_folders_are_not_followed(tmp_path):
    touch(tmp_path, "elsewhere/1.png", "data/2.png")
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "data" / "round").symlink_to(tmp_path / "data")
    found = list_images(tmp_path / "data")
    assert [os.path.basename(path) for path in found.paths] == ["2.png", "link.png"]  # noqa: PTH119
    assert "1 link to folders" in found.describe_skipped()
    (tmp_path / "whole").symlink_to(tmp_path / "elsewhere")
    assert list_images(tmp_path / "whole").paths == [str(tmp_path / "whole" / "1.png")]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep names as text")
def test_a_name_in_bytes_that_are_no_text_is_listed(tmp_path):
    name = os.fsdecode(b"ren\xe9.png")
    touch(tmp_path, name)
    assert list_images(tmp_path).paths == [str(tmp_path / name)]
