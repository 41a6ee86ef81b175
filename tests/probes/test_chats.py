"""Prompts that are chats."""

from __future__ import annotations

import pytest

from forwardscope.backends import Backend
from forwardscope.core.keys import RenderedChat
from forwardscope.errors import PromptError
from forwardscope.probes import (
    AdapterAblation,
    CompletionPreference,
    DeltaKL,
    NullAdapter,
    PerplexityShift,
    Probe,
    ProbeContext,
    PromptCollapse,
)
from forwardscope.testing import ScriptedBackend

CHAT = [{"role": "user", "content": "hello"}]
RENDERED = "user: hello\nassistant: "
PROBES = [
    DeltaKL(name="one", prompts=["hello"]),
    AdapterAblation(name="one", prompts=["hello"]),
    PromptCollapse(name="one", prompts=["hello"], context_lengths=[0, 2]),
    CompletionPreference(name="one", pairs=[{"prompt": "hello", "wanted": "a", "unwanted": "b"}]),
]


def asked(probe: Probe, *, chat: bool, later: tuple[Probe, ...] = ()) -> list[str]:
    """Return the prompts that a probe has computed, without repeats."""
    backend = ScriptedBackend()
    probe.run(ProbeContext(backend, chat=chat, later=later))
    return list(dict.fromkeys(prompt for _, batch in backend.forward_batches for prompt in batch))


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.kind)
def test_texts_of_a_chat_suite_are_rendered(probe: Probe) -> None:
    """Each prompt is a message of the user, whatever precedes or follows it."""
    prompts = asked(probe, chat=True)
    assert all(isinstance(prompt, RenderedChat) and RENDERED in prompt for prompt in prompts)
    assert not any(isinstance(prompt, RenderedChat) for prompt in asked(probe, chat=False))


def test_messages_are_rendered_in_any_suite() -> None:
    """A chat and a text can be prompts of one probe."""
    assert asked(DeltaKL(name="one", prompts=[CHAT, "hello"]), chat=False) == [
        RenderedChat(RENDERED),
        "hello",
    ]


def test_random_adapters_are_asked_for_chats() -> None:
    """The sentinels of a chat suite are messages of the user too."""
    null = NullAdapter(name="null", runs=1, sentinel_prompts=["hello"])
    assert asked(null, chat=True, later=(PROBES[0],)) == [RenderedChat(RENDERED)]


def test_texts_of_perplexity_are_no_chats() -> None:
    """A text is scored as it is."""
    assert asked(PerplexityShift(name="one", texts=["hello"]), chat=True) == ["hello"]


def test_a_backend_without_chats(plain_backend: Backend) -> None:
    """The error says so; plain text is still scored."""
    probe = DeltaKL(name="one", prompts=[CHAT])
    with pytest.raises(PromptError, match="renders no chats"):
        probe.run(ProbeContext(plain_backend))
    PROBES[0].run(ProbeContext(plain_backend))
