"""Which parts an identity of a served view is made of.

No weights are read here, so the user says by `revision` what the server's names stand for. An
identity also has what the server tells of itself. Views of equal identity have equal values, up
to what the server's own batches change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from forwardscope.backends.digests import digest_of
from forwardscope.backends.openai.server import Facts
from forwardscope.backends.openai.source import ServedSource
from forwardscope.backends.views import BASE, FINETUNED
from forwardscope.core.keys import view_family

__all__ = ["Parts", "identity_of", "view_parts"]

#: Parts of an identity by name. A value is a digest or a short text.
Parts = Mapping[str, str]
#: Version of how values are requested and read. Raise it with each change of a value.
NUMERICS: Final = 1


def identity_of(parts: Parts) -> str:
    """Return the identity of a view with these parts: 64 hex digits."""
    return digest_of(dict(parts))


def view_parts(view_id: str, source: ServedSource, facts: Facts, files: Parts) -> Parts:
    """Return the parts of a view's identity.

    Args:
        view_id: Id of the view; any other than those of `ServedBackend` has no parts.
        source: What was requested; its revision is a part.
        facts: What the server says of itself.
        files: Parts of the adapter's files; empty where they are not known.
    """
    base = {
        "served model": facts.base.id,
        "served from": facts.base.root or "",
        "revision": source.revision or "",
        "server": f"vLLM {facts.version}" if facts.version else "",
        "vocabulary": str(facts.vocab_size),
        "tokenizer": facts.tokenizer.identity if facts.tokenizer else "",
        "numerics version": f"served {NUMERICS}",
    }
    tuned = {name: value for name, value in files.items() if name != "random factors"}
    served = {"served adapter": facts.adapter.id, "adapter served from": facts.adapter.root or ""}
    parameter = {"view parameter": view_id.partition("_")[2]}
    parts = {
        BASE: base,
        FINETUNED: {**base, **served, **tuned},
        "scaled": {**base, **served, **tuned, **parameter},
        "null": {**base, **_of_null(files), **parameter},
    }.get(view_family(view_id), {})
    return {name: value for name, value in parts.items() if value}


def _of_null(files: Parts) -> Parts:
    """Return what a null view takes from the adapter: no trained value."""
    return {name: value for name, value in files.items() if name != "adapter files"}
