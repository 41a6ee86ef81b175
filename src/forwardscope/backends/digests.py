"""SHA-256 digests of bytes and of plain values.

SHA-256 is in the standard library, and processors have instructions for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

__all__ = ["digest_of", "digest_of_bytes"]


def digest_of(value: Any) -> str:
    """Return the digest of a plain value; equal values have equal digests.

    Mappings and sets have no order. An object of another kind counts as its text.
    """
    return digest_of_bytes([json.dumps(value, sort_keys=True, default=_plain).encode()])


def digest_of_bytes(chunks: Iterable[bytes | memoryview]) -> str:
    """Return the digest of all chunks, as if they were one."""
    sha = hashlib.sha256()
    for chunk in chunks:
        sha.update(chunk)
    return sha.hexdigest()


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | frozenset) else str(value)
