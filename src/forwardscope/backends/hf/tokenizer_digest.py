"""The digest of all that decides which tokens a tokenizer reads a text as."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec

from forwardscope.backends.digests import digest_of, digest_of_bytes

__all__ = ["tokenizer_digest"]

#: Not applied to prompts; a call may reset them.
_WITHOUT_EFFECT = ("padding", "truncation")


def tokenizer_digest(tokenizer: Any) -> str:
    """Return the digest of a tokenizer's rules and vocabulary.

    Its padding, its truncation and the folder that it came from are left out. So are
    the roles of its tokens, such as which one is for padding: they change no token of
    a text where the rules are the same.
    """
    fast = getattr(tokenizer, "backend_tokenizer", None)
    rules = _slow_rules(tokenizer) if fast is None else _fast_rules(fast)
    return digest_of([rules, bool(getattr(tokenizer, "split_special_tokens", False))])


def _fast_rules(fast: Any) -> str:
    """Return the digest of a tokenizer of the library `tokenizers`."""
    rules = msgspec.json.decode(fast.to_str())  # `json` needs 0.25 s for 50,000 tokens
    for name in _WITHOUT_EFFECT:
        rules.pop(name, None)
    return digest_of_bytes([msgspec.json.encode(rules, order="deterministic")])


def _slow_rules(tokenizer: Any) -> dict[str, Any]:
    """Return the class, settings and vocabulary files of a tokenizer in Python."""
    with tempfile.TemporaryDirectory() as folder:
        saved = tokenizer.save_vocabulary(folder)
        files = [digest_of_bytes([Path(path).read_bytes()]) for path in saved or () if path]
    settings = {
        key: str(value)
        for key, value in tokenizer.init_kwargs.items()
        if not key.endswith(("_file", "_path"))
    }
    return {
        "class": type(tokenizer).__name__,
        "files": files,
        "settings": settings,
        "tokens": tokenizer.special_tokens_map,
        "vocabulary": tokenizer.get_vocab(),
    }
