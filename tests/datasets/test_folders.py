"""Users' folders and tables, in the layouts and forms in which they come."""

import warnings

import numpy as np
import pytest
from PIL import Image

from skxma.datasets._folders import load_image_folder, read_image_folder
from skxma.datasets._table import Columns


def plant(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def relative(root, data):
    return [path.removeprefix(f"{root}/") for path in data.paths]


def test_hidden_and_service_folders_are_no_images_of_a_class(tmp_path):
    plant(
        tmp_path, "bear/1.png", "fox/2.png", "bear/.ipynb_checkpoints/3.png", "bear/@eaDir/4.png", "__MACOSX/fox/5.png"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load_image_folder(tmp_path)
    assert relative(tmp_path, data) == ["bear/1.png", "fox/2.png"]
    assert data.n_skipped == 3
    assert data.skipped == "skipped 3 hidden or service files (a folder counts once)"
    assert data.notes == []


@pytest.mark.parametrize("val", ["val", "Valid", "validation"])
def test_train_is_taken_of_a_divided_folder_and_the_others_are_named(tmp_path, val):
    plant(tmp_path, *(f"{part}/{name}/{i}.jpg" for part in ("train", "test", val) for name in "ab" for i in range(2)))
    with pytest.warns(UserWarning, match="Took the classes") as said:
        data = load_image_folder(tmp_path)
    assert relative(tmp_path, data) == ["train/a/0.jpg", "train/a/1.jpg", "train/b/0.jpg", "train/b/1.jpg"]
    assert data.target.tolist() == ["a", "a", "b", "b"]
    (note,) = data.notes
    assert str(said[0].message) == note
    assert f"Took the classes of {tmp_path / 'train'}" in note
    assert "test (4 images)" in note
    assert f"{val} (4 images)" in note
    others = read_image_folder(tmp_path, part="test")
    assert {path.split("/")[-3] for path in others.paths} == {"test"}
    with pytest.raises(ValueError, match="part='all' must be one of"):
        load_image_folder(tmp_path, part="all")


def test_a_part_that_is_not_there_is_said(tmp_path):
    plant(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/b/1.jpg")
    with pytest.raises(ValueError, match="has train, val, but no folder of the test images"):
        load_image_folder(tmp_path, part="test")


def test_classes_are_sought_below_single_folders(tmp_path):
    plant(tmp_path, "deep/train/a/1.jpg", "deep/train/b/2.jpg", "annotations/a.xml")
    data = read_image_folder(tmp_path)
    assert data.target.tolist() == ["a", "b"]
    assert [note.split(".")[0] for note in data.notes] == [
        f"Took the classes of {tmp_path / 'deep'}",
        f"Took the classes of {tmp_path / 'deep' / 'train'}",
    ]
    assert "annotations (0 images)" in data.notes[0]
    plant(tmp_path, "deep/test/a/1.jpg")
    assert relative(tmp_path, read_image_folder(tmp_path)) == ["deep/train/a/1.jpg", "deep/train/b/2.jpg"]


def test_each_class_may_be_divided(tmp_path):
    plant(tmp_path, "a/train/1.jpg", "a/test/2.jpg", "b/train/3.jpg", "b/test/4.jpg", "b/test/5.jpg")
    data = read_image_folder(tmp_path)
    assert relative(tmp_path, data) == ["a/train/1.jpg", "b/train/3.jpg"]
    assert data.notes == ["Took the train images of each class, and left out 3 images of test."]
    plant(tmp_path, "b/6.jpg")
    assert len(read_image_folder(tmp_path).paths) == 6


def test_classes_may_be_called_train_and_test(tmp_path):
    plant(tmp_path, "train/1.jpg", "bus/2.jpg")
    assert read_image_folder(tmp_path).target.tolist() == ["bus", "train"]
    plant(tmp_path, "test/1.jpg")
    assert read_image_folder(tmp_path).target.tolist() == ["bus", "test", "train"]


def test_parts_without_classes_are_refused_and_a_table_beside_them_is_named(tmp_path):
    plant(tmp_path, "train/cat.1.jpg", "train/dog.1.jpg", "test/1.jpg", "train.csv")
    with pytest.raises(ValueError, match=r"train has no folder per class.*There is train.csv\.$"):
        load_image_folder(tmp_path)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (["owl/1.HEIC", "owl/2.HEIC"], "Left out the class owl: its folder has no images that are read, but 2 .heic."),
        (["owl/"], "Left out the class owl: its folder is empty."),
        (["owl/.hidden.jpg"], "Left out the class owl: its folder has only hidden or service files."),
        (["3.jpg"], "Left out 1 image in "),
        (["bear/4.heif"], "Files in .heif are not read; convert them to JPEG or PNG."),
    ],
)
def test_nothing_is_left_out_silently(tmp_path, files, reason):
    plant(tmp_path, "bear/1.png", "fox/2.png", *(name for name in files if not name.endswith("/")))
    for name in files:
        if name.endswith("/"):
            (tmp_path / name).mkdir()
    with pytest.warns(UserWarning, match=reason[:40]):
        data = load_image_folder(tmp_path)
    assert any(note.startswith(reason) for note in data.notes)
    assert data.target_names.tolist() == ["bear", "fox"]


def test_too_few_classes_are_named_with_what_was_left_out(tmp_path):
    plant(tmp_path, "bear/1.png", "owl/1.heic", "2.png")
    with pytest.raises(ValueError, match=r"1 class with images \(bear\).*Left out the class owl.*convert them"):
        load_image_folder(tmp_path)


def write(folder, text, encoding="utf-8", name="t.csv"):
    plant(folder, "a.jpg", "sub/b.jpg")
    (folder / name).write_bytes(text.encode(encoding))
    return folder / name


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na.jpg,cat\nsub/b.jpg,dog\n",
        "path;label\r\na.jpg;cat\r\nsub/b.jpg;dog\r\n",
        "label\tpath\ncat\ta.jpg\ndog\tsub/b.jpg",
        "filename,class\na.jpg,cat\nsub/b.jpg,dog\n",
        "Image, Label\na.jpg, cat\nsub/b.jpg, dog\n",
        "id;File;Category\n1,5;a.jpg;cat\n2,5;sub/b.jpg;dog\n",
        "sep=;\npath;label\na.jpg;cat\nsub/b.jpg;dog\n",
        "path,label\na.jpg,cat\n\nsub\\b.jpg,dog\n,\n , \n",
        'path,label,\n"a.jpg",cat,\n"sub/b.jpg",dog,\n',
        "File Name,target\na.jpg,cat\nsub/b.jpg,dog\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_are_read_as_spreadsheets_and_tools_write_them(tmp_path, text, encoding):
    data = read_image_folder(write(tmp_path, text, encoding))
    assert data.paths == [str(tmp_path / "a.jpg"), str(tmp_path / "sub/b.jpg")]
    assert data.target.tolist() == ["cat", "dog"]


def test_unusual_columns_are_named_by_the_caller_and_the_choice_of_usual_ones_is_told(tmp_path):
    table = write(tmp_path, "id,breed,label\na.jpg,cat,0\nsub/b.jpg,dog,1\n")
    with pytest.raises(ValueError, match=r"columns id, breed, label, none.*path_column=NAME"):
        load_image_folder(table)
    with pytest.raises(ValueError, match="no column dish; its columns are id, breed, label"):
        load_image_folder(table, path_column="id", label_column="dish")
    with pytest.raises(ValueError, match="--path-column NAME"):
        read_image_folder(table, columns=Columns(options=("--path-column ", "--label-column ")))
    with pytest.warns(UserWarning, match="paths from the column id, the labels from breed"):
        data = load_image_folder(table, path_column="id", label_column="Breed")
    assert data.target.tolist() == ["cat", "dog"]


def test_two_columns_of_one_name_are_refused_where_they_are_asked_for(tmp_path):
    table = write(tmp_path, "path,label,Label,note,note\na.jpg,cat,0,x,y\nsub/b.jpg,dog,1,x,y\n")
    with pytest.raises(ValueError, match=r"t\.csv: 2 columns are called label; .*path, label, Label, note, note"):
        load_image_folder(table)
    with pytest.raises(ValueError, match="2 columns are called note"):
        load_image_folder(table, label_column="note")
    with pytest.warns(UserWarning, match="labels from Label"):
        assert load_image_folder(table, label_column="Label").target.tolist() == ["0", "1"]


def test_a_table_in_the_encoding_of_excel_on_windows_is_read_and_said(tmp_path):
    table = write(tmp_path, "path;label\na.jpg;ours\nsub/b.jpg;b\xe9b\xe9 \x80\n".replace("\x80", "€"), "cp1252")
    with pytest.warns(UserWarning, match=r"Line 3 of .*t.csv is not in UTF-8.*Windows-1252.*CSV UTF-8"):
        assert load_image_folder(table).target.tolist() == ["ours", "bébé €"]
    table.write_bytes(b"path,label\na.jpg,\x81\x8d\n")
    with pytest.raises(ValueError, match="line 2 is neither in UTF-8 nor in Windows-1252"):
        load_image_folder(table)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("path,label\na.jpg,x\ngone.jpg,y\n", FileNotFoundError, "line 3: there is no image .*gone.jpg"),
        ("sep=,\npath,label\ngone.jpg,y\n", FileNotFoundError, "line 3: there is no image"),
        ("path,label\na.jpg,\n", ValueError, "line 2: a.jpg has no label"),
        ("path,label\n,cat\n", ValueError, "line 2 has no path for its label 'cat'"),
        ("path,label\na.jpg,cat,dog\n", ValueError, "line 2 has 3 cells, the first line 2"),
        ("path,label\na.jpg,x\n", ValueError, r"has 1 class with images \(x\)"),
        ("path,label\n", ValueError, "has 0 classes with images"),
        ("", ValueError, "has the columns none"),
        ("a.jpg,cat\nsub/b.jpg,dog\n", ValueError, "has the columns a.jpg, cat, none of which"),
    ],
)
def test_a_wrong_table_says_what_is_wrong(tmp_path, text, error, message):
    with pytest.raises(error, match=message):
        load_image_folder(write(tmp_path, text))


def test_paths_that_are_relative_to_the_working_directory_get_a_hint(tmp_path, monkeypatch):
    table = write(tmp_path, "path,label\nsub/b.jpg,x\n")
    table = table.rename(tmp_path / "sub" / "t.csv")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="Paths are relative to the folder of the table"):
        load_image_folder(table)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("sheet.xlsx", b"PK\x03\x04rest", "an archive or a spreadsheet, not a table"),
        ("set.tar.gz", b"\x1f\x8brest", "an archive, not a table"),
        ("model.bin", b"path\0label", "is no text"),
        ("bear.png", None, "is an image, not a table"),
    ],
)
def test_a_file_that_is_no_table_says_what_it_is(tmp_path, name, content, message):
    if content is None:
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_image_folder(tmp_path / name)
