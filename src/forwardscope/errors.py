"""Every error that forwardscope raises on purpose, in one tree.

Two branches matter to a caller. A `UserError` is a mistake that the user can
correct; the command line prints its one sentence and exits with 2. A
`ScoringError` is an input that the model cannot score; inside a suite it gives
that probe the verdict ERROR and the suite continues.
"""

from __future__ import annotations

__all__ = [
    "AdapterError",
    "DivergenceError",
    "ForwardscopeError",
    "MissingExtraError",
    "ModelError",
    "NonFiniteError",
    "OutputError",
    "ProbeError",
    "PromptError",
    "ScoringError",
    "ServerError",
    "SpecError",
    "StoreError",
    "UnsupportedError",
    "UnsupportedViewError",
    "UserError",
    "ViewError",
    "install_command",
]


def install_command(extra: str) -> str:
    """Return how to install an extra, from a checkout or from a release."""
    return f"pip install '.[{extra}]' in a checkout, or 'forwardscope[{extra}]'"


class ForwardscopeError(Exception):
    """Base of all errors that forwardscope raises on purpose."""


class UserError(ForwardscopeError):
    """A mistake that the user can correct; the message says how, in one sentence."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """The message; of several mistakes a sentence each."""
        return (str(self),)


class SpecError(UserError):
    """A suite file that is missing, malformed or contains something unknown.

    Args:
        sentences: One for each mistake; as text they are lines.
    """

    def __init__(self, *sentences: str) -> None:
        super().__init__("\n".join(sentences))
        self._sentences = sentences

    @property
    def sentences(self) -> tuple[str, ...]:
        """One for each mistake."""
        return self._sentences


class ModelError(UserError):
    """A model that cannot be found or loaded."""


class AdapterError(UserError):
    """An adapter that cannot be found, loaded, or toggled on this model."""


class ServerError(UserError):
    """A model server that is not reached, refuses a request, or answers with something else.

    Before a run it is a mistake that the user can correct; in a run it ends one probe.

    Attributes:
        status: HTTP status of the refusal; None where there was no answer, or another one
            than expected.
        is_gone: Whether nothing accepts connections at its address.
    """

    def __init__(self, message: str, status: int | None = None, *, is_gone: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.is_gone = is_gone


class OutputError(UserError):
    """An output file that cannot be written."""


class StoreError(UserError):
    """A store that cannot be opened or read."""


class MissingExtraError(UserError):
    """A dependency of an optional extra is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; add it with: {install_command(extra)}")


class ScoringError(ForwardscopeError):
    """An input that the model cannot score."""


class PromptError(ScoringError, ValueError):
    """A prompt that cannot be scored: empty, longer than the context, or adding no token."""


class NonFiniteError(ScoringError, ArithmeticError):
    """The model gave NaN or infinite logits for a prompt.

    Attributes:
        view_id: Id of the view that computed the logits.
        prompt_hash: Hash of the prompt, as in trace records; never its text.
    """

    def __init__(self, view_id: str, prompt_hash: str) -> None:
        self.view_id = view_id
        self.prompt_hash = prompt_hash
        super().__init__(
            f"view {view_id!r} gave NaN or infinite logits for prompt {prompt_hash}; "
            "check the adapter's weights and the dtype"
        )


class ProbeError(ForwardscopeError):
    """A probe that cannot be measured."""


class DivergenceError(ProbeError):
    """Two distributions whose divergence is not defined."""


class ViewError(ForwardscopeError, RuntimeError):
    """A view opened while another is open, or used after it was closed."""


class UnsupportedError(ViewError):
    """Something that the backend cannot do; a suite skips the probe that needs it."""


class UnsupportedViewError(UnsupportedError):
    """A view that the backend cannot open for its adapter.

    Attributes:
        view_id: Id of the view.
        reason: Why, as the rest of a sentence.
    """

    def __init__(self, view_id: str, reason: str) -> None:
        self.view_id = view_id
        self.reason = reason
        super().__init__(f"view {view_id!r} is not available: {reason}")
