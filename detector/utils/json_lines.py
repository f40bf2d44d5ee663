"""Files of one JSON object a line, such as metrics.jsonl: reading what is complete, adding lines on a full disk."""

from __future__ import annotations

import json
import os
from pathlib import Path


def read_json_lines(path: Path) -> list[dict]:
    """The objects in a file, in order. Incomplete lines are skipped; a missing file has none."""
    objects = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            objects.append(value)
    return objects


class LineFile:
    """A text file to append lines to. Bytes that a full disk refuses are kept and written before the next line."""

    def __init__(self, path: Path):
        self._file = path.open("ab", buffering=0)
        self._unwritten = b""

    def write(self, line: str) -> None:
        """Append a line, without its line break. Raises OSError while the disk is full; the line is kept."""
        self._unwritten += line.encode(errors="backslashreplace") + b"\n"
        self._write_rest()

    @property
    def is_behind(self) -> bool:
        """Whether some lines are not written yet."""
        return bool(self._unwritten)

    def flush(self) -> None:
        """Flush what was written to the disk. Any thread may call this. Raises OSError."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write the lines that are left and close the file. Raises OSError if they cannot be written."""
        try:
            self._write_rest()
        finally:
            self._file.close()

    def _write_rest(self) -> None:
        while self._unwritten:
            self._unwritten = self._unwritten[self._file.write(self._unwritten) :]
