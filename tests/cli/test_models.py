import csv
import io
import json
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from small_models import write_timm

from skxma import EmbeddingStore, load
from skxma._runtime.warning import text_outside_python
from skxma.cli._predict import SetOfClasses, write_predictions, write_sets
from skxma.cli._tables import WIDEST_NAME, print_columns, width_of
from skxma.cli.main import main, plain_warnings
from skxma.datasets import load_emoji


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four images each of three things in pics/, one each and a bad one in new/."""
    root = tmp_path_factory.mktemp("emoji")
    emoji = load_emoji(as_paths=True)
    for path, name, style in zip(emoji.images, emoji.target, emoji.sets, strict=True):
        if name in emoji.target_names[:3]:
            place = root / "new" if style == "noto" else root / "pics" / name.replace(" ", "_")
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{name}-{style}.png").write_bytes(Path(path).read_bytes())
    (root / "bad.png").write_bytes(b"no picture")
    assert main(["fit", str(root / "pics"), "--model", str(root / "m.skxma"), "--encoder", "tiny"]) == 0
    return root


def test_fit_saves_a_model_alone(folder, capsys):
    assert main(["fit", str(folder / "pics"), "--model", str(folder / "m.skxma"), "--encoder", "tiny", "--force"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "12 images of 3 classes" in captured.err
    assert sorted(p.name for p in folder.iterdir() if p.name.startswith((".", "m"))) == ["m.skxma"]


def test_images_without_labels_are_learned_from(folder, capsys):
    target = str(folder / "pooled.joblib")
    words = ["fit", str(folder / "pics"), "--model", target, "--encoder", "tiny", "--unlabeled", str(folder / "new")]
    assert main(words) == 0
    assert "of 3 images without labels" in capsys.readouterr().err
    assert main(["explain", target, str(next((folder / "new").iterdir())), "--support", str(folder / "pics")]) == 0
    assert main([*words[:-1], str(folder / "pics" / "nothing.txt")]) == 1
    capsys.readouterr()
    Path(target).unlink()


def test_a_huge_image_is_refused_with_a_remedy(folder, capsys, monkeypatch):
    Image.new("1", (100, 100)).save(huge := folder / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    assert main(["predict", str(folder / "m.skxma"), str(huge)]) == 1
    said = capsys.readouterr().err
    assert "(Image size (10000 pixels) exceeds limit of 8000 pixels); make it smaller, or" in said
    huge.unlink()


def test_pillows_warning_of_an_image_that_it_reads_is_not_shown():
    with plain_warnings():
        assert warnings.formatwarning("too many pixels", Image.DecompressionBombWarning, "a.py", 1) == ""
        assert warnings.formatwarning("few images", UserWarning, "a.py", 1) == "skxma: warning: few images\n"


def test_copies_of_labeled_images_are_not_learned_from_as_images_without_labels(folder, capsys):
    pool = folder / "camera"
    pool.mkdir()
    for path in [*sorted((folder / "pics").rglob("*.png"))[:5], *(folder / "new").iterdir()]:
        shutil.copy(path, pool / f"0-{path.name}")
    target = str(folder / "copies.skxma")
    words = ["fit", str(folder / "pics"), "--model", target, "--encoder", "tiny", "--unlabeled", str(pool)]
    with pytest.warns(UserWarning, match="5 of 8 images without labels are copies of labeled ones, left out"):
        assert main(words) == 0
    assert "learned from 3 of 8 images" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="17 of 20 images"):
        assert main([*words, str(folder / "pics"), "--force"]) == 0
    shutil.rmtree(pool)
    Path(target).unlink()


def test_a_folder_that_is_called_like_a_missing_label_is_told_in_the_words_of_the_command_line(folder, tmp_path):
    shutil.copytree(folder / "pics", tmp_path / "pics")
    first = min((tmp_path / "pics").iterdir())
    first.rename(first.with_name("None"))
    with pytest.warns(UserWarning, match="labels hold the text 'None'") as told:
        assert main(["fit", str(tmp_path / "pics"), "--model", str(tmp_path / "m.skxma"), "--encoder", "tiny"]) == 0
    (shown,) = [text_outside_python(one.message) for one in told if "'None'" in str(one.message)]
    assert not re.search(r"\by\b|class_names", shown)


def test_groups_of_a_table_are_left_out_together(folder, tmp_path, capsys):
    images = sorted((folder / "pics").glob("*/*.png"))
    lines = [f"{path},{path.parent.name},{i // 2 if i else ''}" for i, path in enumerate(images)]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,group", *lines]))
    model = tmp_path / "m.skxma"
    words = ["fit", str(tmp_path / "t.csv"), "--model", str(model), "--encoder", "tiny"]
    assert main([*words, "--unlabeled", str(folder / "new")]) == 0
    assert "names 6 groups, each left out as a whole" in capsys.readouterr().err
    assert load(model).groups_.tolist() == ["", *(str(i // 2) for i in range(1, len(images)))]


def test_sets_as_a_table_csv_and_json(folder, capsys):
    words = ["predict", str(folder / "m.skxma"), str(folder / "new"), "--set", "0.9"]
    assert main([*words, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [image["confidence_level"] for image in found] == [0.9] * 3
    assert all(1 <= len(image["set"]) <= 3 for image in found)
    for image in found:
        probabilities = [one["probability"] for one in image["set"]]
        assert probabilities == sorted(probabilities, reverse=True)
    assert main([*words, "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["path"], row["class"]) for row in rows] == [
        (image["path"], one["class"]) for image in found for one in image["set"]
    ]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[-1].strip() for line in lines] == [
        " or ".join(one["class"] for one in image["set"]) for image in found
    ]


def test_sets_under_class_frequencies(folder, capsys):
    names = sorted(path.name for path in (folder / "pics").iterdir())
    words = ["predict", str(folder / "m.skxma"), str(folder / "new"), "--set", "0.8", "--format", "json"]
    assert main([*words, "--class-prior", f"{names[0]}=0.5,{names[1]}=0.5,{names[2]}=0"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["class"] for image in found for one in image["set"]} <= set(names[:2])
    assert main([*words, "--class-prior", f"{names[0]}=1"]) == 1
    assert "no share of" in capsys.readouterr().err
    assert main(words) == 0
    without = capsys.readouterr().out
    assert main([*words, "--class-prior", "batch"]) == 0
    # the images are balanced, as those of the fit
    assert capsys.readouterr().out == without


@pytest.mark.bad_input
def test_sets_of_levels_that_the_images_cannot_give(folder, capsys):
    words = ["predict", str(folder / "m.skxma"), str(folder / "new"), "--set"]
    assert main([*words, "0.95"]) == 1
    assert "need 19 different labeled images or more, and this model has 12" in capsys.readouterr().err
    assert main([*words, "90"]) == 1
    assert "between 0 and 1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*words, "0.9", "--top", "2"])
    capsys.readouterr()


def test_class_frequencies_in_place_in_a_file_or_of_the_batch(folder, tmp_path, capsys):
    known = [json.loads(run_predict(folder, capsys))[0]["answers"][i]["class"] for i in range(3)]
    assert sorted(known) == sorted(path.name for path in (folder / "pics").iterdir())
    shares = dict.fromkeys(known, 0.0) | {known[2]: 1.0}
    (tmp_path / "shares.json").write_text(json.dumps(shares))
    for given in (",".join(f"{label}={share}" for label, share in shares.items()), str(tmp_path / "shares.json")):
        found = json.loads(run_predict(folder, capsys, "--class-prior", given))
        assert {image["answers"][0]["class"] for image in found} == {known[2]}
    assert run_predict(folder, capsys, "--class-prior", "batch") == run_predict(folder, capsys)
    assert main(["predict", str(folder / "m.skxma"), str(folder / "new"), "--class-prior", "owl=1"]) == 1
    assert "'owl', which the model does not know" in capsys.readouterr().err
    assert main(["predict", str(folder / "m.skxma"), str(folder / "new"), "--class-prior", "none.json"]) == 1
    assert "no file none.json with shares" in capsys.readouterr().err


def run_predict(folder, capsys, *more):
    words = ["predict", str(folder / "m.skxma"), str(folder / "new"), "--top", "3", "--format", "json", *more]
    assert main(words) == 0
    return capsys.readouterr().out


def test_predictions_as_table_csv_and_json_agree(folder, capsys):
    def run(form):
        assert main(["predict", str(folder / "m.skxma"), str(folder / "new"), "--top", "2", "--format", form]) == 0
        return capsys.readouterr().out

    rows = list(csv.DictReader(io.StringIO(run("csv"))))
    assert len(rows) == 6
    found = json.loads(run("json"))
    assert [a["class"] for one in found for a in one["answers"]] == [row["class"] for row in rows]
    table = run("table").splitlines()
    assert all(line.endswith(row["class"]) for line, row in zip(table, rows, strict=True))
    best = rows[::2]
    right = [row["class"].replace("_", " ") in row["path"] for row in best]
    assert np.mean(right) == 1
    assert all(float(a["probability"]) >= float(b["probability"]) for a, b in zip(best, rows[1::2], strict=True))


def test_a_bad_image_is_named_and_the_others_are_answered(folder, capsys):
    asked = [str(folder / "bad.png"), *map(str, sorted((folder / "new").iterdir())), str(folder / "absent.png")]
    assert main(["predict", str(folder / "m.skxma"), *asked]) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 3
    lines = captured.err.splitlines()
    assert len(lines) == 2
    assert any("bad.png" in line for line in lines)
    assert any("absent.png" in line for line in lines)


def test_images_from_a_pipe_and_into_a_closed_one(folder):
    names = "\n".join(str(path) for path in (folder / "new").iterdir())
    command = [sys.executable, "-m", "skxma", "predict", str(folder / "m.skxma"), "-"]
    done = subprocess.run(command, input=names, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 3
    shell = f"{' '.join(command[:-1])} {folder / 'new'} --top 3 | head -1"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


def test_an_answer_is_explained_by_named_images(folder, capsys):
    query = str(next((folder / "new").iterdir()))
    assert main(["explain", str(folder / "m.skxma"), query, "--support", str(folder / "pics"), "--top", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "zero-shot" in lines[0]
    assert sum(str(folder / "pics") in line for line in lines) == 4


def explained(capsys, *words):
    """Rows of the second table that `skxma explain` prints, by their affinities, and what it said."""
    assert main(["explain", *words]) == 0
    captured = capsys.readouterr()
    rows = captured.out.partition("\n\n")[2].splitlines()[1:]
    return [line.split("  ")[0] for line in rows], captured.err


@pytest.fixture
def moved(folder, tmp_path):
    """A copy of the images under other names in another folder, a model of it, and an image to ask about."""
    place = tmp_path / "pics"
    shutil.copytree(folder / "pics", place)
    model = str(tmp_path / "m.skxma")
    assert main(["fit", str(place), "--model", model, "--encoder", "tiny"]) == 0
    return place, model, str(next((folder / "new").iterdir()))


def test_explained_images_are_found_by_content_after_a_rename(moved, capsys):
    place, model, query = moved
    before, said = explained(capsys, model, query, "--support", str(place))
    assert said == ""
    assert all(name.startswith(str(place)) for name in before)
    first, second = Path(before[0]), Path(before[1])
    assert first.parent == second.parent
    # the others of the class move up by one, and one takes the name of another
    first.rename(first.with_name("zzz.png"))
    second.rename(first)
    after, _ = explained(capsys, model, query, "--support", str(place))
    assert after == [str(first.with_name("zzz.png")), str(first), *before[2:]]
    first.unlink()
    gone, said = explained(capsys, model, query, "--support", str(place))
    assert gone == [after[0], f"? {second}", *after[2:]]
    assert "does not hold 1 of the 5 images" in said


def test_explain_names_images_without_their_folder_unless_the_model_keeps_no_paths(moved, tmp_path, capsys):
    place, model, query = moved
    names, _ = explained(capsys, model, query)
    assert all(Path(name).is_file() for name in names)
    private = str(tmp_path / "private.skxma")
    assert main(["fit", str(place), "--model", private, "--encoder", "tiny", "--no-paths"]) == 0
    assert b".png" not in Path(private).read_bytes()
    capsys.readouterr()
    numbers, _ = explained(capsys, private, query)
    assert all(name.startswith("number ") for name in numbers)
    assert explained(capsys, private, query, "--support", str(place))[0] == names
    shutil.rmtree(place)
    place.mkdir()
    for name in "ab":
        (place / name).mkdir()
        shutil.copy(query, place / name)
    assert main(["explain", private, query, "--support", str(place)]) == 1
    assert "holds none of the 5 images" in capsys.readouterr().err


def test_a_model_of_an_earlier_release_is_explained_too(capsys, folder):
    model = Path(__file__).parents[1] / "fixtures" / "pictures-0.1.0.skxma"
    names, _ = explained(capsys, str(model), str(next((folder / "new").iterdir())))
    assert all(name.startswith("number ") for name in names)


def test_columns_stay_below_each_other_whatever_the_paths_are_called(capsys):
    paths = ["a.png", "a/very/long/path/" * 9 + "b.png", "新しい写真/\u9dfa.png", "cafe\u0301.png"]
    print_columns(("image", "n"), [(path, "1") for path in paths], n_words=1)
    write_predictions([(path, "heron", 0.5) for path in paths], "table")
    lines = capsys.readouterr().out.splitlines()
    assert len({width_of(line) for line in lines[: 1 + len(paths)]}) == 1
    assert len({width_of(line[: line.index("50.0")]) for line in lines[1 + len(paths) :]}) == 1


def test_a_long_name_is_shortened_for_a_terminal_alone(capsys, monkeypatch):
    long, wide, path = f"first{'-' * 200}last", "新" * 100, "a/very/long/path/" * 9 + "b.png"
    rows = [(path, long, "1"), ("b.png", wide, "2"), ("c.png", "heron", "3")]
    print_columns(("image", "class", long), rows, n_words=2, n_paths=1)
    written = capsys.readouterr().out
    assert long in written
    assert wide in written
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_columns(("image", "class", long), rows, n_words=2, n_paths=1)
    lines = capsys.readouterr().out.splitlines()
    assert {width_of(line) for line in lines} == {len(path) + 2 * (WIDEST_NAME + 2)}
    assert all(line.count("first---") == line.count("---last") for line in lines)
    assert sum(line.count("first---") for line in lines) == 2
    assert [line.split()[0] for line in lines] == ["image", path, "b.png", "c.png"]


def test_a_newline_or_a_terminals_command_in_a_name_breaks_no_table(capsys):
    # a stranger's model file may hold any name
    path, label = "a\nb.png", "\x1b[2Jheron"
    print_columns(("image", "class"), [(path, label)], n_words=2)
    write_predictions([(path, label, 0.5)], "table")
    write_sets([SetOfClasses(path, [(label, 0.5)])], "table", 0.9)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["image", "class"],
        [r"a\nb.png", r"\x1b[2Jheron"],
        [r"a\nb.png", "50.0", "%", r"\x1b[2Jheron"],
        [r"a\nb.png", r"\x1b[2Jheron"],
    ]


def test_prompts_show_names_as_words(folder, capsys):
    assert main(["prompts", str(folder / "pics"), "--templates", "bare"]) == 0
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert "_" in first
    assert second.strip() == first.replace("_", " ")


@pytest.fixture
def names(folder, tmp_path):
    first, second, third = sorted(path.name for path in (folder / "pics").iterdir())
    said = {first: ["erste", "a first small thing", "A first thing is drawn here."], second: None, "emu": "ein Emu"}
    file = tmp_path / "names.json"
    file.write_text(json.dumps(said), encoding="utf-8")
    return str(file), first, second, third


def test_names_and_templates_reach_the_model_and_are_shown(folder, names, tmp_path, capsys):
    file, first, second, third = names
    german = ["--templates", "ein Bild von {}", "--templates", "{}, gezeichnet"]
    assert main(["prompts", str(folder / "pics"), "--names", file, *german]) == 0
    shown = capsys.readouterr().out
    wanted = {
        first: [
            "ein Bild von erste",
            "erste, gezeichnet",
            "ein Bild von a first small thing",
            "a first small thing, gezeichnet",
            "A first thing is drawn here.",
        ],
        second: ["(nothing)"],
        third: [f"ein Bild von {third.replace('_', ' ')}", f"{third.replace('_', ' ')}, gezeichnet"],
        "emu": ["ein Bild von ein Emu", "ein Emu, gezeichnet"],
    }
    assert shown == "".join(f"{label}\n" + "".join(f"  {p}\n" for p in sent) for label, sent in wanted.items())
    model = str(tmp_path / "n.joblib")
    assert main(["fit", str(folder / "pics"), "--model", model, "--encoder", "tiny", "--names", file, *german]) == 0
    assert "known from their text alone, without images: emu" in capsys.readouterr().err
    assert main(["prompts", model]) == 0
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(shown.splitlines())


def test_a_table_is_data_too(folder, tmp_path, capsys):
    rows = [f"{path},{path.parent.name}" for path in sorted((folder / "pics").rglob("*.png"))]
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *rows]))
    model = str(tmp_path / "t.joblib")
    assert main(["fit", str(tmp_path / "t.csv"), "--model", model, "--encoder", "tiny"]) == 0
    assert "12 images of 3 classes" in capsys.readouterr().err
    assert main(["prompts", str(tmp_path / "t.csv"), "--templates", "bare"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1]", "no object of names"),
        ("{", "no JSON"),
        ('{"a": 3}', "'a' must be called"),
        ('{"a": ["b", null]}', "'a' must be called"),
        ('{"a": []}', "'a' must be called"),
        (None, "no file"),
    ],
)
def test_a_file_of_names_that_is_none_is_refused(folder, tmp_path, capsys, content, said):
    file = tmp_path / "names.json"
    if content is not None:
        file.write_text(content)
    assert main(["fit", str(folder / "pics"), "--names", str(file), "--model", str(tmp_path / "m.joblib")]) == 1
    captured = capsys.readouterr()
    assert said in captured.err
    assert str(file) in captured.err
    assert len(captured.err.splitlines()) == 1


def test_a_class_without_images_needs_a_name(folder, tmp_path, capsys):
    (tmp_path / "names.json").write_text('{"yak": null}')
    model = str(tmp_path / "m.skxma")
    assert main(["fit", str(folder / "pics"), "--names", str(tmp_path / "names.json"), "--model", model]) == 1
    said = capsys.readouterr().err
    assert said.startswith("skxma: --names says null for 'yak', which is none of the classes")
    assert len(said.splitlines()) == 1


def test_a_warning_is_a_line_without_advice_for_python(folder, tmp_path):
    shutil.copytree(folder / "pics", tmp_path / "pics")
    one = sorted((tmp_path / "pics").glob("*/*"))[0]
    with Image.open(one) as image:
        ImageEnhance.Brightness(image.convert("RGB")).enhance(1.05).save(one.with_name("brighter.png"))
    command = ["fit", str(tmp_path / "pics"), "--model", str(tmp_path / "m.skxma"), "--encoder", "tiny"]
    done = subprocess.run([sys.executable, "-m", "skxma", *command], capture_output=True, text=True, check=True)
    warned = [line for line in done.stderr.splitlines() if "near-duplicates" in line]
    assert len(warned) == 1
    assert warned[0].startswith("skxma: warning: 2 of ")
    assert warned[0].endswith("left out together when the model is judged.")
    assert "Warning" not in done.stderr


def test_nothing_is_printed_before_an_error(capsys):
    assert main(["prompts", "heron", "--templates", "imagnet"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Did you mean 'imagenet'" in captured.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["predict", "{}/absent.joblib", "x.png"], "There is no model"),
        (["predict", "{}/bad.png", "x.png"], "is no model file of skxma"),
        (["fit", "{}/absent", "--model", "{}/n.joblib"], "no folder or table"),
        (["fit", "{}/pics", "--model", "{}/absent/n.joblib"], "create it first"),
        (["explain", "{}/m.skxma", "{}/bad.png"], "/bad.png: not an image"),
        (["fit", "{}/pics", "--model", "{}/n.joblib", "--encoder", "tinny"], "did you mean 'tiny'?"),
    ],
)
def test_errors_are_a_line(folder, capsys, words, said):
    assert main([word.format(folder) for word in words]) == 1
    captured = capsys.readouterr()
    assert said in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""


def test_the_cache_is_shown_and_cleared(tmp_path, capsys):
    store = EmbeddingStore(tmp_path)
    store.put_many([b"a", b"b"], "space", np.ones((2, 3), dtype=np.float32))
    assert main(["cache", "info", "--path", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "embeddings  2" in printed
    assert "space" in printed
    assert main(["cache", "clear", "--path", str(tmp_path)]) == 0
    assert "removed 2 embeddings" in capsys.readouterr().out
    assert store.info()["n_embeddings"] == 0


def test_an_encoder_of_another_library_is_fitted_and_saved_by_its_name(folder, tmp_path, monkeypatch, capsys):
    encoder, target = f"timm:{write_timm(tmp_path / 'timm')}", str(tmp_path / "m.skxma")
    monkeypatch.chdir(tmp_path)
    assert main(["fit", str(folder / "pics"), "--model", target, "--encoder", "timm:./timm"]) == 0
    assert main(["info", target]) == 0
    assert f"{encoder} (clip-" in capsys.readouterr().out
    assert main(["fit", str(folder / "pics"), "--model", target, "--encoder", "timm:resnet5o", "--force"]) == 1
    assert "did you mean timm:resnet50" in capsys.readouterr().err
