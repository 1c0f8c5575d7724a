import io
import subprocess
import sys
from contextlib import nullcontext, suppress

import pytest

from skxma._runtime.progress import Progress, no_progress, progress_in_logs


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("skxma._runtime.progress.time.monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(("seconds_per_batch", "shown"), [(1.0, True), (0.001, False)])
def test_long_work_on_a_terminal_is_shown(monkeypatch, clock, seconds_per_batch, shown):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("encoding", total=100) as progress:
        for _ in range(10):
            clock[0] += seconds_per_batch
            progress.advance(10)
    assert ("encoding:" in terminal.getvalue()) is shown
    assert ("/100" in terminal.getvalue()) is shown


def on_screen(written):
    """Return the lines of a terminal after all that was written to it; a carriage return goes back to the margin."""
    lines = []
    for line in written.split("\n"):
        cells = ""
        for part in line.split("\r"):
            cells = part + cells[len(part) :]
        lines.append(cells.rstrip())
    return lines


@pytest.mark.parametrize("verbose", [0, 1])
def test_nothing_is_left_on_the_terminal(monkeypatch, clock, verbose):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with suppress(KeyboardInterrupt), Progress("encoding", total=100, verbose=verbose) as progress:
        for _ in range(5):
            clock[0] += 10
            progress.advance(10)
        assert "encoding" in on_screen(terminal.getvalue())[-1]
        raise KeyboardInterrupt
    assert on_screen(terminal.getvalue()) == [""]


def test_a_bar_counts_what_was_done_before_it_appeared(monkeypatch, clock):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("encoding", total=100) as progress:
        for _ in range(10):
            progress.advance(4)
        clock[0] += 100
        progress.advance(1)
        assert "41/100" in terminal.getvalue()
        assert "encoding:  41%" in terminal.getvalue()


def test_a_bar_leaves_the_process_as_it_was():
    script = """
import io, multiprocessing, sys, threading
from skxma._runtime.progress import Progress
class Terminal(io.StringIO):
    isatty = lambda self: True
sys.stderr = Terminal()
with Progress("encoding", 3, verbose=1) as progress:
    progress.advance(1)
    assert threading.active_count() == 1, threading.enumerate()
assert "encoding" in sys.stderr.getvalue()
multiprocessing.set_start_method("spawn")
print("done")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "done\n", done.stdout + done.stderr


def test_long_work_elsewhere_is_silent(capsys, clock):
    with Progress("encoding", total=100) as progress:
        for _ in range(10):
            clock[0] += 100
            progress.advance(10)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize(
    ("seconds", "numbers"), [(3.0, [10, 30, 50, 70, 90, 100]), (6.0, range(10, 101, 10)), (0.1, [])]
)
def test_long_work_in_a_log_is_a_plain_line_every_few_seconds(capsys, clock, seconds, numbers):
    with progress_in_logs(), Progress("encoding", total=100) as progress:
        for _ in range(10):
            clock[0] += seconds
            progress.advance(10)
    assert capsys.readouterr().err == "".join(f"encoding {n}/100\n" for n in numbers)


def test_a_standard_error_that_is_closed_or_full_does_not_stop_the_work(monkeypatch, clock):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    class FullTerminal(Full):
        def isatty(self):
            return True

    class ClosedOnTheWay(Terminal):
        def write(self, text):
            self.close()
            return super().write(text)

    closed = io.StringIO()
    closed.close()
    for stream in (None, closed, Full(), FullTerminal(), ClosedOnTheWay()):
        monkeypatch.setattr(sys, "stderr", stream)
        for verbose in (0, 1):
            with progress_in_logs(), Progress("encoding", total=100, verbose=verbose) as progress:
                for _ in range(10):
                    clock[0] += 10
                    progress.advance(10)
            assert progress._done == 100


def test_what_was_asked_for_is_shown_anywhere_but_on_standard_output(capsys):
    with Progress("encoding", total=30, verbose=1) as progress:
        progress.advance(10)
        progress.advance(20)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("encoding 30/30\n")


def test_no_work_shows_nothing(capsys):
    with Progress("encoding", total=0, verbose=1):
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("off", ["0", "off", "False"])
def test_the_environment_turns_it_off(monkeypatch, clock, off):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("SKXMA_PROGRESS", off)
    for verbose in (0, 1):
        with Progress("encoding", total=10, verbose=verbose) as progress:
            for _ in range(10):
                clock[0] += 100
                progress.advance(1)
    assert terminal.getvalue() == ""


@pytest.mark.parametrize(("seconds", "shown"), [(100, True), (0.01, False)])
def test_a_notebook_is_watched_too(monkeypatch, clock, seconds, shown):
    class OutStream(io.StringIO):
        """What Jupyter's kernel has in the place of standard error: no terminal."""

    OutStream.__module__ = "ipykernel.iostream"
    cell = OutStream()
    monkeypatch.setattr(sys, "stderr", cell)
    with Progress("encoding", total=10) as progress:
        for _ in range(10):
            clock[0] += seconds
            progress.advance(1)
    assert ("encoding:" in cell.getvalue()) is shown
    assert on_screen(cell.getvalue()) == [""]


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_whoever_wants_none_sees_none(monkeypatch, clock, stream):
    monkeypatch.setattr(sys, "stderr", stream())
    for quiet in (True, False):
        with progress_in_logs(), no_progress() if quiet else nullcontext(), Progress("encoding", 100) as progress:
            clock[0] += 60
            progress.advance(10)
            assert (sys.stderr.getvalue() == "") is quiet
