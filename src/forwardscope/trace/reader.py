"""Reading a trace back, line by line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import IO, Final

import msgspec

from forwardscope.trace.record import TraceEvent

__all__ = ["MAX_LINE_BYTES", "TraceReader"]

#: A longer line is no record of ours; it is skipped without being held in memory.
MAX_LINE_BYTES: Final = 1 << 20
#: What is read and decoded at a time; no more than the longest line.
_BLOCK_BYTES: Final = 1 << 16
#: How a record of ours begins.
_BEGIN: Final = b'{"ts": '


class TraceReader:
    """Streams the records of a trace file and says how many lines it skipped.

    Takes files written by other tools too, as long as a line has the eight
    fixed keys. A torn, foreign or oversized line is skipped and counted, but for
    records of ours that stand whole behind what is torn; a blank one is passed over.

    Attributes:
        path: The file.
        skipped: Lines that the iteration skipped so far, whole or in part.
        position: Bytes read by it so far.

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
        """Yield whole lines, many at once, but for those longer than `MAX_LINE_BYTES`."""
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
            if len(begun) >= MAX_LINE_BYTES:  # not held, but its end is looked for
                begun, oversized = b"", True
        self.skipped += oversized
        yield begun

    def _records(self, lines: bytes) -> Iterable[TraceEvent]:
        """Decode lines all at once, or, where one is not just as we write it, one by one."""
        try:
            events = _decode(lines)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return self._one_by_one(lines)
        ended = lines.count(b"\n")
        return events if len(events) == ended else self._one_by_one(lines)

    def _one_by_one(self, lines: bytes) -> Iterator[TraceEvent]:
        """Read lines of which not all are just as we write them."""
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
    """Cut a line wherever one of our records begins: behind one that is torn there may be others.

    A thread or a process that shares the file appended them before whoever left it torn
    could end the line.
    """
    first, *others = line.split(_BEGIN)
    return [*filter(None, [first]), *(_BEGIN + other for other in others)]


_decode = msgspec.json.Decoder(TraceEvent).decode_lines
