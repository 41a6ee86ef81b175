"""torch, transformers and peft are an extra, and only `backends.hf` imports them."""

from __future__ import annotations

import importlib.util
import runpy
import subprocess
import sys

import pytest

from forwardscope.backends import hf
from forwardscope.errors import MissingExtraError


@pytest.mark.parametrize("package", ["torch", "transformers", "peft", "safetensors", "gguf"])
def test_missing_library_names_the_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The import fails with the pip command that installs the missing library."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else find(name)
    )
    with pytest.raises(MissingExtraError, match=rf"^{package} is not installed.*forwardscope\[hf"):
        runpy.run_path(hf.__file__)


def test_views_import_no_heavy_library() -> None:
    """The protocols, values and views import neither torch, transformers nor peft."""
    script = (
        "import sys, forwardscope.backends.views\n"
        "print(*{'torch', 'transformers', 'peft'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.strip() == b""
