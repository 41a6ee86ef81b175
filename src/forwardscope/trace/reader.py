"""Reader of JSONL traces."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import IO, Final

import msgspec

from forwardscope.trace.record import TraceEvent

__all__ = ["MAX_LINE_BYTES", "TraceReader"]

#: A line of this size or more is skipped, without being held in memory.
MAX_LINE_BYTES: Final = 1 << 20
#: Bytes to read and decode at a time; at most `MAX_LINE_BYTES`.
_BLOCK_BYTES: Final = 1 << 16
#: First bytes of a record that forwardscope wrote.
_BEGIN: Final = b'{"ts": '


class TraceReader:
    """Streams the records of a trace file and counts skipped lines.

    Accepts files of other tools if each line has the eight fixed keys. A torn,
    foreign, implausible (see `TraceEvent.from_dict`) or oversized line is skipped and
    counted; complete forwardscope
    records after a torn one on the same line are returned. A blank line is ignored.

    Attributes:
        path: The trace file.
        skipped: Lines skipped so far, completely or in part.
        position: Bytes read so far.

    Raises:
        OSError: The file cannot be opened (on iteration).
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path: Final = Path(path)
        self.skipped = 0
        self.position = 0

    def __iter__(self) -> Iterator[TraceEvent]:
        self.skipped = self.position = 0
        with self.path.open("rb") as file:
            for lines in self._blocks(file):
                yield from self._records(lines)

    def _blocks(self, file: IO[bytes]) -> Iterator[bytes]:
        """Yield blocks of whole lines, without lines of `MAX_LINE_BYTES` or more."""
        begun, oversized = b"", False
        while block := file.read(_BLOCK_BYTES):
            self.position += len(block)
            cut = block.rfind(b"\n") + 1
            if not cut:
                begun = b"" if oversized else begun + block
            else:
                first = block.find(b"\n")
                oversized = oversized or len(begun) + first >= MAX_LINE_BYTES
                self.skipped += oversized
                yield block[first + 1 : cut] if oversized else begun + block[:cut]
                begun, oversized = block[cut:], False
            if len(begun) >= MAX_LINE_BYTES:  # keeps memory bounded until the line ends
                begun, oversized = b"", True
        self.skipped += oversized
        yield begun

    def _records(self, lines: bytes) -> Iterable[TraceEvent]:
        """Decode lines together, or one by one where a line is not exactly as we write it."""
        try:
            events = _decode(lines)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return self._one_by_one(lines)
        ended = lines.count(b"\n")
        return events if len(events) == ended else self._one_by_one(lines)

    def _one_by_one(self, lines: bytes) -> Iterator[TraceEvent]:
        """Decode lines one by one, and count lines with a part that is not a record."""
        for line in filter(None, map(bytes.strip, lines.split(b"\n"))):
            events = [_event(line)]
            if events[0] is None:
                events = [_event(part) for part in _parts(line)]
                self.skipped += None in events
            yield from filter(None, events)


def _event(line: bytes) -> TraceEvent | None:
    try:
        return TraceEvent.from_dict(json.loads(line))
    except (ValueError, RecursionError):
        return None


def _parts(line: bytes) -> list[bytes]:
    """Split a line wherever one of our records begins.

    A failed write can leave a torn record without a line end. Until its writer
    ends the line, other threads and processes can append complete records to it.
    """
    first, *others = line.split(_BEGIN)
    return [*filter(None, [first]), *(_BEGIN + other for other in others)]


_decode = msgspec.json.Decoder(TraceEvent).decode_lines
