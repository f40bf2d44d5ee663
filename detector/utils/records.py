"""metrics.jsonl: a JSON object a line, written whole even where the disk is full for a while."""

from __future__ import annotations

import json
import os
from pathlib import Path


def read_records(path: Path) -> list[dict]:
    """The lines that are whole; what was cut short is passed over."""
    records = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


class LineFile:
    """A text file to add lines to. What a full disk does not take is kept, and written before the next line."""

    def __init__(self, path: Path):
        self._file = path.open("ab", buffering=0)
        self._left = b""

    def write(self, line: str) -> None:
        """Raises OSError while the disk is full; the line is not lost."""
        self._left += line.encode(errors="backslashreplace") + b"\n"
        self._write_left()

    @property
    def is_behind(self) -> bool:
        """Whether there are lines that could not be written yet."""
        return bool(self._left)

    def flush(self) -> None:
        """What was written, to the disk; from any thread."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        try:
            self._write_left()
        finally:
            self._file.close()

    def _write_left(self) -> None:
        while self._left:
            self._left = self._left[self._file.write(self._left) :]
