"""Lines that a full disk cuts off are completed later; incomplete lines are skipped when reading."""

import resource

import pytest

from detector.utils.json_lines import LineFile, read_json_lines


@pytest.fixture
def limit():
    """limit(size) sets the largest size of a file that this process may write, in bytes; None removes the limit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before[0] if size is None else size, before[1]))

    yield limit
    limit(None)


@pytest.mark.parametrize("length", [10, 20_000])
def test_bytes_that_a_full_disk_refused_are_written_later(tmp_path, limit, length):
    path = tmp_path / "metrics.jsonl"
    file = LineFile(path)
    lines = [f'{{"n": {n}, "text": "{"x" * length}"}}' for n in range(4)]
    file.write(lines[0])
    limit(len(lines[0]) + 8)
    for line in lines[1:3]:
        with pytest.raises(OSError):
            file.write(line)
    assert [record["n"] for record in read_json_lines(path)] == [0]
    limit(None)
    file.write(lines[3])
    file.close()
    assert [record["n"] for record in read_json_lines(path)] == [0, 1, 2, 3]
    assert path.read_text().splitlines() == lines


def test_incomplete_lines_are_skipped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"n": 1}\n{"n": 2, "te{"n": 3}\n7\n\xff\n{"n": 4}\n{"n"')
    assert [record["n"] for record in read_json_lines(path)] == [1, 4]
    assert read_json_lines(tmp_path / "none") == []
