"""Progress where there is no terminal: a line now and then."""

import io

import pytest
from rich.console import Console
from rich.progress import DownloadColumn

from detector.utils import console


@pytest.fixture
def shown(monkeypatch):
    """shown(terminal) → what is printed; and a clock that a test sets, clock[0] in seconds."""
    clock = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])

    def begin(terminal: bool) -> io.StringIO:
        file = io.StringIO()
        monkeypatch.setattr(console, "console", Console(file=file, force_terminal=terminal, width=120))
        return file

    return begin, clock


def test_a_file_gets_a_line_every_half_minute(shown):
    begin, clock = shown
    file = begin(terminal=False)
    with console.progress_bar() as bar:
        task = bar.add_task("epoch 1/2", total=100)
        for second in range(1, 100):
            clock[0] = float(second)
            bar.update(task, completed=second, note="loss 0.5")
    lines = file.getvalue().splitlines()
    assert [line.split(", ")[:2] for line in lines] == [["epoch 1/2", f" {n}/100"] for n in (30, 60, 90)]
    assert all(line.endswith(" left, loss 0.5") for line in lines)


def test_each_way_of_counting_is_printed(shown):
    begin, clock = shown
    file = begin(terminal=False)
    with console.progress_bar(DownloadColumn()) as bar:
        task = bar.add_task("a.zip", total=4_000_000)
        clock[0] = 30.0
        bar.advance(task, 1_000_000)
    assert file.getvalue() == "a.zip, 1.0/4.0 MB\n"


def test_a_terminal_gets_a_bar(shown):
    file = shown[0](terminal=True)
    with console.progress_bar() as bar:
        bar.add_task("epoch 1/2", total=100, completed=50)
        bar.refresh()
        assert "epoch 1/2" in file.getvalue() and "50/100" in file.getvalue()
