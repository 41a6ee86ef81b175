"""The commands `probes` and `schema`."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from typer.testing import Result

from forwardscope.probes import PROBES

Invoke = Callable[..., Result]
ErrorOf = Callable[..., str]


@pytest.mark.parametrize("form", ["terminal", "markdown", "json"])
def test_all_kinds_and_settings(invoke: Invoke, form: str) -> None:
    """Each kind is there with each of its settings."""
    shown = invoke("probes", "--format", form).stdout.replace("\\", "")
    for kind, model in PROBES.items():
        assert kind in shown
        assert [key for key in model.model_fields.keys() - {"kind"} if key not in shown] == []


def test_one_kind(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of 80 columns with type, default and description of each setting."""
    monkeypatch.setenv("COLUMNS", "80")
    lines = invoke("probes", "perplexity_shift").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [" ".join(line.split()) for line in lines]
    assert "texts list of text 32 texts Texts of other subjects (`kept`), or" in rows
    assert "expect kept or learned kept Whether the perplexity should not rise" in rows
    assert "min_fall number > 0, < 1 0.1 Fall to pass with `learned`, as a" in rows
    assert "runs" not in " ".join(rows)


def test_json(invoke: Invoke) -> None:
    """Plain data, with the defaults as a suite has them."""
    (kind,) = json.loads(invoke("probes", "prompt_collapse", "--format", "json").stdout)
    settings = {one.pop("name"): one for one in kind["settings"]}
    assert kind["description"] == "Decay of the adapter's influence with the context length."
    assert settings["context_lengths"]["default"] == [0, 256, 512, 1024]
    assert [key for key, one in settings.items() if one["required"]] == ["name"]


def test_an_unknown_kind(error_of: ErrorOf) -> None:
    """The nearest kind is named, or all of them."""
    assert error_of("probes", "delta_lk").endswith("'delta_lk'; did you mean delta_kl?")
    assert "known: null_adapter, delta_kl" in error_of("probes", "\x1b[1m")


def test_the_schema(invoke: Invoke) -> None:
    """JSON alone, for a file."""
    schema = json.loads(invoke("schema").stdout)
    assert schema["properties"]["probes"]["items"]["properties"]["kind"]["enum"] == [*PROBES]
