"""Downloading and unpacking with progress bars. Both continue where an earlier run stopped."""

import shutil
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from rich.progress import DownloadColumn, TransferSpeedColumn

from detector.utils.console import progress_bar
from detector.utils.errors import InputError

CHUNK = 1 << 20  # bytes
PARTIAL_CONTENT = 206
RANGE_NOT_SATISFIABLE = 416  # the server's answer when the partial file is already complete


def need_space(folder: Path, size: int) -> None:
    """Raise InputError where less than `size` bytes are free."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise InputError(f"{folder} needs {size / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free")


def download(url: str, file: Path) -> None:
    """Download the URL to the file, continuing `<file>.part` of an earlier run where the server supports it.

    Raises InputError where the download fails.
    """
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            if answer.status != PARTIAL_CONTENT:  # the server sends the file from its beginning
                start = 0
            fetch(answer, part, start, file.name)
    except urllib.error.HTTPError as error:
        if error.code != RANGE_NOT_SATISFIABLE:
            raise InputError(f"cannot download {url}: {error}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot download {url}: {error}; run again to continue") from None
    part.replace(file)


def fetch(answer, part: Path, start: int, label: str) -> None:
    """Write the answer's bytes to the partial file, from byte `start` on. Raises OSError where some are missing."""
    rest = answer.headers.get("Content-Length")
    total = start + int(rest) if rest else None
    if rest:
        need_space(part.parent, int(rest))
    with open(part, "ab" if start else "wb") as stream, progress_bar(DownloadColumn(), TransferSpeedColumn()) as shown:
        task = shown.add_task(label, total=total, completed=start)
        while chunk := answer.read(CHUNK):
            stream.write(chunk)
            shown.advance(task, len(chunk))
    if total and part.stat().st_size != total:
        raise OSError(f"the connection ended after {part.stat().st_size} of {total} bytes")


def unzip(archive: Path, folder: Path, below: str = "") -> None:
    """Unpack the files whose names begin with `below`, except those already unpacked; zipfile checks their CRCs.

    Raises InputError where the archive is damaged.
    """
    try:
        with zipfile.ZipFile(archive) as content, progress_bar(DownloadColumn(), TransferSpeedColumn()) as shown:
            members = [
                item
                for item in content.infolist()
                if item.filename.startswith(below)
                and not item.is_dir()
                and not same_size(folder / item.filename, item.file_size)
            ]
            need_space(folder, sum(item.file_size for item in members))
            task = shown.add_task(f"unpack {archive.name}", total=sum(item.file_size for item in members))
            for item in members:
                content.extract(item, folder)
                shown.advance(task, item.file_size)
    except (zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{archive} is not a valid zip file ({error}): delete it and run again") from None


def same_size(file: Path, size: int) -> bool:
    """Whether the file exists and has `size` bytes."""
    return file.is_file() and file.stat().st_size == size
