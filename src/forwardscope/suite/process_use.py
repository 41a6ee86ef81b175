"""CPU time and memory of this process."""

from __future__ import annotations

import sys
import time

__all__ = ["cpu_seconds", "peak_memory_bytes"]

#: Bytes in the unit of `ru_maxrss`.
_UNIT = 1 if sys.platform == "darwin" else 1024


def cpu_seconds() -> float:
    """Return the CPU time of this process so far, of all its threads."""
    return time.process_time()


def peak_memory_bytes() -> float | None:
    """Return the largest resident memory of this process so far, or None if it is unknown."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return None
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT)
