"""Scripts for shells that complete what the parsers know."""

import shutil
import subprocess

import pytest

from skxma.cli.main import build_parser, main


def complete(tmp_path, script, *words):
    """Offer what bash would after these words, the last of which is begun."""
    file = tmp_path / "completion"
    file.write_text(script)
    quoted = " ".join(f"'{word}'" for word in ("skxma", *words))
    shell = f'source {file}; COMP_WORDS=({quoted}); COMP_CWORD={len(words)}; _skxma; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-u", "-c", shell], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture
def script(capsys):
    assert main(["completion", "bash"]) == 0
    return capsys.readouterr().out


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["pre"], ["predict"]),
        (["pr"], ["predict", "prompts"]),
        (["fit", "--mo"], ["--model"]),
        (["fit", "birds/", "--no-"], ["--no-memory", "--no-paths"]),
        (["predict", "m.skxma", "--format", ""], ["table", "csv", "json"]),
        (["predict", "m.skxma", "--format", "c"], ["csv"]),
        (["cache", "c"], ["clear"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["fit", ""], []),
        (["fit", "--model", ""], []),
        (["nonsense", "--x"], []),
    ],
)
def test_bash_completes_commands_options_and_values(tmp_path, script, words, offered):
    assert complete(tmp_path, script, *words) == offered


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_all_commands(tmp_path, script):
    offered = complete(tmp_path, script, "")
    for command in offered:
        if not command.startswith("-"):
            with pytest.raises(SystemExit) as stop:
                build_parser().parse_args([command, "--help"])
            assert stop.value.code == 0
            assert "--help" in complete(tmp_path, script, command, "-")
    assert {"fit", "predict", "explain", "completion", "--version"} <= set(offered)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_whole_and_pass_their_shell(tmp_path, capsys, shell):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("predict", "format", "json", "unlabeled"):
        assert word in script
    if shutil.which(shell) is not None:
        (tmp_path / "script").write_text(script)
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


def test_an_unknown_shell_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["completion", "tcsh"])
    assert "bash" in capsys.readouterr().err
