"""Backend for a model that a server holds: vLLM, or another with its extensions of OpenAI's API.

`server.py` has what a server says of itself, `scorer.py` sends it prompts, `client.py` carries the
requests. Requires the extra `serve`.
"""

import importlib.util

from forwardscope.errors import MissingExtraError

if importlib.util.find_spec("httpx") is None:
    raise MissingExtraError("httpx", "serve")

from forwardscope.backends.openai.backend import ServedBackend
from forwardscope.backends.openai.loading import load_backend
from forwardscope.backends.openai.source import ServedSource

__all__ = ["ServedBackend", "ServedSource", "load_backend"]
