import re
import shlex
import subprocess
import sys

import pytest
from PIL import Image

from skxma import __version__, load
from skxma.cli import _demo as demo
from skxma.cli._retrieval_sheet import SheetImage, SheetRow, retrieval_sheet
from skxma.cli.main import build_parser, main


def test_the_demo_does_the_whole_job(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "DEMO_SHOTS", (2,))
    assert main(["demo", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "it predicts the same" in printed
    (line,) = [line for line in printed.splitlines() if line.strip().startswith("2 ")]
    zero_shot, adapted = (float(word.rstrip("%")) for word in line.split()[1:3])
    assert adapted > zero_shot + 20
    assert load(tmp_path / "out" / "emoji.skxma").predict(demo.load_emoji().images[:1]).shape == (1,)
    with Image.open(tmp_path / "out" / "retrieval.png") as sheet:
        assert sheet.width > 500
        assert len(sheet.getcolors(10**6)) > 100


def test_an_error_is_one_line_on_stderr(tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert main(["demo", "--out", str(blocked)]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("skxma: ")
    assert str(blocked) in captured.err
    assert "Traceback" not in captured.err


def test_help_and_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert __version__ in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2


def test_import_is_light():
    script = (
        "import sys, skxma; print([m for m in ('torch', 'open_clip', 'sklearn', 'matplotlib') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_every_public_name_is_there():
    import skxma

    for name in skxma.__all__:
        assert getattr(skxma, name) is not None
    assert set(skxma.__all__) <= set(dir(skxma))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = skxma.Nothing


def test_long_labels_stay_in_their_column():
    picture = Image.new("RGB", (10, 30), "red")
    long = SheetImage(picture, "a very long label that would run into the next column", 0.5, 0.1)
    short = SheetImage(picture, "short", 0.5, 0.1)
    wide, narrow = (
        retrieval_sheet([SheetRow(picture, "query", "query", 0.9, [found])], "title") for found in (long, short)
    )
    assert wide.size == narrow.size
    right_margin = wide.crop((wide.width - 8, 0, wide.width, wide.height))
    assert right_margin.getcolors() == [(8 * wide.height, (255, 255, 255))]


@pytest.mark.parametrize(
    "command",
    [
        [],
        *([name] for name in ("demo", "fit", "predict", "explain", "evaluate", "info", "prompts")),
        *([name] for name in ("app", "cache", "benchmark", "completion")),
    ],
)
def test_help_has_examples_that_can_be_copied(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    _, _, examples = capsys.readouterr().out.rpartition("example")
    lines = examples.splitlines()[1:]
    assert lines
    for line in lines:
        assert re.search(r"^  (.* \| )?skxma \S", line), line
        if "COMMAND" not in line:
            words = shlex.split(line.rpartition("| ")[2].partition(" > ")[0])[1:]
            assert build_parser().parse_args(words).command == (command or words)[0]


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("encoders", "said"),
    [
        (["nonsense"], "unknown"),
        (["tiny", "local-dir:none"], "no such folder"),
        (["tiny", "tiny"], "twice"),
    ],
)
def test_app_refuses_an_encoder_before_it_serves(encoders, said, monkeypatch, capsys):
    served = []
    module = pytest.importorskip("skxma.app._server")
    monkeypatch.setattr(module, "listen", lambda *given: served.append(given))
    assert main(["app", "--port", "0", *(word for name in encoders for word in ("--encoder", name))]) == 1
    assert said in capsys.readouterr().err
    assert not served


@pytest.mark.bad_input
def test_app_refuses_a_device_before_it_serves(monkeypatch, capsys):
    served = []
    module = pytest.importorskip("skxma.app._server")
    monkeypatch.setattr(module, "listen", lambda *given: served.append(given))
    assert main(["app", "--port", "0", "--encoder", "tiny", "--device", "foo"]) == 1
    assert "'foo' is not a device" in capsys.readouterr().err
    assert not served


def test_app_says_what_it_needs(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "flask", None)
    monkeypatch.delitem(sys.modules, "skxma.app._server", raising=False)
    assert main(["app", "--port", "0"]) == 1
    assert "pip install 'skxma[app]'" in capsys.readouterr().err
