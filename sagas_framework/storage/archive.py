"""Files of what has gone from the database: JSON lines under gzip, one object for each saga or operation.

What is deleted together is written together: a *member*, which is complete on disk before the deletion is
committed. Members follow each other in a *segment*; ``zcat`` reads it whole. While a process adds to one
it is named ``*.part`` and locked. When it is large or old enough it is closed: a *manifest* (its checksum,
and what is in it) is put beside it, and it gets its name.

A process that dies leaves its part behind. The next writer takes it up: only the last member can be of a
deletion that never came about. If its rows are still there it is cut off, so that nothing stands in the
archive twice, and nothing is lost.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any, Final
from uuid import uuid4

SUFFIX: Final = ".jsonl.gz"
PART: Final = ".part"
MANIFEST: Final = ".json"

LARGEST: Final = 64 * 1024 * 1024
"""Bytes after which a segment is closed."""
LONGEST: Final = timedelta(hours=1)
"""How long a segment is added to."""
_CHUNK: Final = 1 << 16
_WHOLE: Final = 36
"""Letters of an id."""

Row = Mapping[str, Any]
StillThere = Callable[[Collection[str]], AbstractContextManager[bool]]
"""Whether some of the rows with these ids are in the database; they stay as they are during the block."""
_Kind = tuple[bytes, Callable[[dict[str, Any]], bool]]
"""What stands in the line of each row of a kind, and whether a row is one."""


@dataclass(frozen=True)
class Segment:
    """What a manifest says of a file.

    Args:
        first, last: the least and the greatest of the ids in it.
        sha256: of the file, as ``sha256sum`` prints it.
    """

    file: str
    rows: int
    bytes: int
    first: str
    last: str
    sha256: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class ArchiveWriter:
    """Adds to the archive. One process, one writer; any number may write into one folder.

    Args:
        name: of whose rows; segments begin with it.
        still_there: asked about what a dead process wrote last.

    Raises:
        OSError: (from any method) the folder cannot be written; nothing may be deleted then.
    """

    def __init__(self, folder: Path, name: str, still_there: StillThere, *, largest: int = LARGEST) -> None:
        self._folder = folder
        self._name = name
        self._still_there = still_there
        self._largest = largest
        self._open: _Part | None = None

    def prepare(self) -> None:
        """To be called before a transaction that deletes: taking up what the dead have left needs its own."""
        if self._open is None:
            self.adopt()

    def add(self, rows: Sequence[Row], now: datetime) -> None:
        """Write rows, each with its ``id``, as one member; it is on disk when this returns.

        Whoever deletes them and cannot tell whether that was committed calls `doubt`.
        """
        if self._open is None:
            self._open = _Part.begin(self._folder, self._name, now)
        self._open.add(rows)

    def settle(self, now: datetime) -> None:
        """The deletion of what was added is committed: close the segment if it is large or old."""
        part = self._open
        if part is not None and (part.size >= self._largest or now - part.begun_at >= LONGEST):
            self.close()

    def doubt(self) -> None:
        """Whether the deletion came about is not known: the part is left, and the next `adopt` finds out."""
        part, self._open = self._open, None
        if part is not None:
            part.file.close()

    def close(self) -> None:
        """Close the segment, if one is open."""
        part, self._open = self._open, None
        if part is not None:
            part.finish()

    def adopt(self) -> None:
        """Close what dead processes have left, without what was never deleted."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._folder.glob(f"{self._name}-*{SUFFIX}{PART}")):
            with suppress(FileNotFoundError), path.open("r+b") as file:  # another writer may be faster
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue  # somebody adds to it
                if path.exists():
                    self._take_up(path, file)

    def _take_up(self, path: Path, file: IO[bytes]) -> None:
        members = [(begin, end, _ids(content)) for begin, end, content in _members(file)]
        end = members[-1][1] if members else 0
        if members:
            begin, _, ids = members[-1]
            with self._still_there(ids) as there:
                if there:
                    end = begin
                    members.pop()
                _cut(file, end)
        else:
            _cut(file, 0)
        if not members:
            path.unlink()
            return
        part = _Part(path, file, datetime.min)  # noqa: DTZ901 (closed at once)
        part.read_again(ids for _, _, ids in members)
        part.finish()


@dataclass
class _Part:
    """A segment that is being written."""

    path: Path
    file: IO[bytes]
    begun_at: datetime
    rows: int = 0
    size: int = 0
    first: str = ""
    last: str = ""
    digest: Any = field(default_factory=hashlib.sha256)

    @classmethod
    def begin(cls, folder: Path, name: str, now: datetime) -> _Part:
        while True:
            path = folder / f"{name}-{now:%Y%m%dT%H%M%S}-{uuid4().hex[:8]}{SUFFIX}{PART}"
            file = path.open("xb")
            # Until it is locked another writer may take it for one that was left, and delete it as empty.
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.exists():
                    _sync_folder(folder)
                    return cls(path, file, now)
            file.close()

    def add(self, rows: Sequence[Row]) -> None:
        text = "".join(f"{json.dumps(row, ensure_ascii=False, separators=(',', ':'))}\n" for row in rows)
        member = gzip.compress(text.encode(), mtime=0)
        self.file.write(member)
        self.file.flush()
        os.fsync(self.file.fileno())
        self.digest.update(member)
        self.size += len(member)
        self._note([row["id"] for row in rows])

    def read_again(self, members: Iterator[Sequence[str]]) -> None:
        """What `add` would have noted, from the file."""
        for ids in members:
            self._note(ids)
        self.file.seek(0)
        while chunk := self.file.read(_CHUNK):
            self.digest.update(chunk)
            self.size += len(chunk)

    def finish(self) -> None:
        name = self.path.name.removesuffix(PART)
        closed = Segment(name, self.rows, self.size, self.first, self.last, self.digest.hexdigest())
        manifest = self.path.with_name(name + MANIFEST)
        draft = manifest.with_name(manifest.name + PART)
        with draft.open("w") as file:
            json.dump(closed.to_json(), file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        draft.rename(manifest)
        os.fsync(self.file.fileno())
        self.path.rename(self.path.with_name(name))
        _sync_folder(self.path.parent)
        self.file.close()

    def _note(self, ids: Sequence[str]) -> None:
        self.rows += len(ids)
        self.first = min([*ids, *filter(None, [self.first])])
        self.last = max([*ids, self.last])


def _cut(file: IO[bytes], end: int) -> None:
    file.truncate(end)
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """So that a name survives a crash of the machine, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ---- reading --------------------------------------------------------------------------------------


class Archive:
    """The archive as it is read: by people, while others write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self) -> list[Path]:
        """Its segments, also those that are still written, oldest first."""
        found = (path for path in self.folder.iterdir() if path.name.removesuffix(PART).endswith(SUFFIX))
        return sorted(found, key=lambda path: path.name)

    def segment(self, path: Path) -> Segment | None:
        """What the file's manifest says; None for one that is still written, or whose manifest is gone."""
        try:
            said = json.loads(path.with_name(path.name + MANIFEST).read_text())
        except FileNotFoundError:
            return None
        return Segment(**said)

    def find(self, named: str, *, most: int = 10) -> list[dict[str, Any]]:
        """Sagas by their id, else by their business key, else by the beginning of the id; the newest first.

        One that stands in the archive twice is given once, as it was written last.
        """
        wanted, prefix = named.lower(), _dashed(named)
        key = json.dumps(named, ensure_ascii=False).encode()
        kinds: list[_Kind] = [
            (wanted.encode(), lambda row: _is_saga(row) and row["id"] == wanted),
            (key, lambda row: _is_saga(row) and row["key"] == named),
        ]
        if prefix is not None:
            kinds.append((prefix.encode(), lambda row: _is_saga(row) and row["id"].startswith(prefix)))
            if len(prefix) == _WHOLE and (found := self._rows(kinds[2:], most, whole=prefix)):
                return found  # else it is a business key that looks like an id
        return self._rows(kinds, most)

    def operation(self, its_id: str) -> dict[str, Any] | None:
        """The inbox row of an operation, by its whole id, as it was written last; None if there is none."""
        whole = _dashed(its_id) or its_id
        kind: _Kind = (whole.encode(), lambda row: not _is_saga(row) and row["id"] == whole)
        return next(iter(self._rows([kind], 1, whole=whole)), None)

    def _rows(self, kinds: Sequence[_Kind], most: int, *, whole: str | None = None) -> list[dict[str, Any]]:
        """The newest rows of the first kind of which there are any.

        Args:
            whole: the id, if it is known as a whole: segments that cannot have it are not read.
        """
        found: list[dict[str, dict[str, Any]]] = [{} for _ in kinds]
        for path in self.files():
            segment = self.segment(path) if whole is not None else None
            if whole is not None and segment is not None and not segment.first <= whole <= segment.last:
                continue
            for line in _lines(path):
                if not any(part in line for part, _ in kinds):
                    continue
                row = json.loads(line)
                for rows, (_, fits) in zip(found, kinds, strict=True):
                    if fits(row):
                        rows[row["id"]] = row
                        if len(rows) > most:  # the beginning of an id may be that of all
                            del rows[min(rows)]
        newest = next((rows for rows in found if rows), {})
        return [newest[its_id] for its_id in sorted(newest, reverse=True)]

    def check(self) -> Iterator[Checked]:
        """Read every segment and hold it against its manifest."""
        seen: set[bytes] = set()
        for path in self.files():
            segment, digest, rows, twice = self.segment(path), hashlib.sha256(), 0, 0
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
            for line in _lines(path):
                mark = hashlib.blake2b(json.loads(line)["id"].encode(), digest_size=16).digest()
                rows, twice = rows + 1, twice + (mark in seen)
                seen.add(mark)
            trouble = None
            if path.name.endswith(PART):
                pass
            elif segment is None:
                trouble = "its manifest is gone"
            elif segment.sha256 != digest.hexdigest() or segment.rows != rows:
                trouble = f"it is not as it was closed: {rows} rows of {segment.rows} can be read"
            yield Checked(path.name, rows, path.stat().st_size, twice, path.name.endswith(PART), trouble)


@dataclass(frozen=True)
class Checked:
    """What was found of a segment.

    Args:
        twice: rows that stand in an earlier place of the archive as well; the last one counts.
        open: it is still written, or was left by a process that died.
        trouble: None if it is sound.
    """

    file: str
    rows: int
    bytes: int
    twice: int
    open: bool
    trouble: str | None


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a segment, as far as it can be read."""
    try:
        file = path.open("rb")
    except FileNotFoundError:  # it has got its name meanwhile
        file = path.with_name(path.name.removesuffix(PART)).open("rb")
    with file:
        for _, _, content in _members(file):
            yield from content.splitlines()


def _members(file: IO[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """`(begin, end, content)` of each whole member; what follows the last one is left out."""
    begin, rest = 0, b""
    while True:
        unpack, parts, read = zlib.decompressobj(wbits=31), [], 0
        while not unpack.eof:
            chunk = rest or file.read(_CHUNK)
            if not chunk:
                return
            rest = b""
            read += len(chunk)
            try:
                parts.append(unpack.decompress(chunk))
            except zlib.error:
                return
        rest = unpack.unused_data
        end = begin + read - len(rest)
        yield begin, end, b"".join(parts)
        begin = end


def _is_saga(row: Row) -> bool:
    """Whether it is a saga's: inboxes may have the same folder, and have the id of an operation for a key."""
    return "history" in row


def _ids(content: bytes) -> list[str]:
    return [json.loads(line)["id"] for line in content.splitlines()]


def _dashed(named: str) -> str | None:
    """As the beginning of an id; None if it cannot be one."""
    digits = named.replace("-", "").lower()
    if not 4 <= len(digits) <= 32 or not set(digits) <= set("0123456789abcdef"):
        return None
    parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return "-".join(part for part in parts if part)
