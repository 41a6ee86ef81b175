"""Chats, rendered by the template of a model's tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from forwardscope.core.keys import RenderedChat
from forwardscope.errors import AdapterError, PromptError

__all__ = ["read_template", "render_chat"]

_TEMPLATE: Final = "chat_template.jinja"
#: Maximum characters of a template; the longest of known models has 20,000.
_MAX_LENGTH: Final = 1 << 20


def render_chat(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> RenderedChat:
    """Return a chat as the tokenizer's template renders it, up to where an answer begins.

    A last message of the assistant is the beginning of its answer. transformers runs
    templates in Jinja's sandbox.

    Raises:
        PromptError: There is no template, or it refuses these messages.
    """
    if not tokenizer.chat_template:
        raise PromptError(
            "the tokenizer has no chat template; write the prompts as plain text, or put "
            f"{_TEMPLATE} into the folder of model or adapter"
        )
    begun = messages[-1]["role"] == "assistant"
    try:
        rendered = tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tokenize=False,
            add_generation_prompt=not begun,
            continue_final_message=begun,
        )
        rendered.encode()  # a lone surrogate has no tokens
    except Exception as error:  # a template is foreign code
        roles = ", ".join(message["role"] for message in messages)
        raise PromptError(
            f"the chat template refuses messages of the roles {roles} ({type(error).__name__})"
        ) from error
    return RenderedChat(rendered)


def read_template(folder: Path, tokenizer: Any) -> None:
    """Give a tokenizer the chat template of a folder that has no tokenizer of its own.

    Raises:
        AdapterError: The template cannot be read.
    """
    file = folder / _TEMPLATE
    try:
        with file.open(encoding="utf-8") as opened:
            template = opened.read(_MAX_LENGTH + 1)
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        raise AdapterError(f"{file} cannot be read: {type(error).__name__}") from error
    if len(template) > _MAX_LENGTH:
        raise AdapterError(f"{file} has more than {_MAX_LENGTH} characters; is it a template?")
    tokenizer.chat_template = template
