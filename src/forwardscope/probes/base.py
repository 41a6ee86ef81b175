"""Base classes of probes: settings, context and outcome."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from forwardscope.backends.base import Backend
from forwardscope.core.keys import prompt_hash
from forwardscope.errors import PromptError
from forwardscope.probes.calibration import NullBaseline
from forwardscope.probes.divergence import Divergence
from forwardscope.probes.general import GENERAL_PROMPTS
from forwardscope.text import MAX_SENTENCE, shown

__all__ = [
    "PROMPT_KINDS",
    "Message",
    "Outcome",
    "Probe",
    "ProbeContext",
    "Prompt",
    "PromptProbe",
    "Prompts",
    "Texts",
    "Threshold",
    "TopK",
    "Verdict",
    "score_against",
    "skip_without",
]


class Message(BaseModel):
    """A message of a chat.

    Attributes:
        role: Who says it: `system`, `user`, `assistant`, or what the model's template has.
        content: What is said.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    role: Annotated[str, Field(pattern=r"^[a-z_]{1,32}$")]
    content: Annotated[str, Field(min_length=1)]


_Text = Annotated[str, Field(min_length=1)]
_Chat = Annotated[tuple[Message, ...], Field(strict=False, min_length=1)]
#: Names of the two kinds of prompts in the positions of validation errors.
PROMPT_KINDS: Final = ("a text", "a chat")
#: A text that is not empty, or the messages of a chat.
Prompt = Annotated[
    Annotated[_Text, Tag(PROMPT_KINDS[0])] | Annotated[_Chat, Tag(PROMPT_KINDS[1])],
    Discriminator(lambda value: PROMPT_KINDS[isinstance(value, list | tuple)]),
]
#: One or more prompts.
Prompts = Annotated[tuple[Prompt, ...], Field(strict=False, min_length=1)]
#: One or more texts, none of them empty.
Texts = Annotated[tuple[_Text, ...], Field(strict=False, min_length=1)]
#: Number of tokens in a distribution; no vocabulary has as many as the largest.
TopK = Annotated[int, Field(ge=1, le=2**20)]
#: A positive number that a measured value must reach.
Threshold = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Verdict(StrEnum):
    """Verdict of a probe."""

    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    ERROR = "error"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of one probe.

    Attributes:
        verdict: Whether the probe passed, failed, had an error or was skipped.
        message: One sentence with the numbers that decide the verdict.
        score: A number in [0, 1] by the probe's own formula, or None.
        raw: The measured quantity itself, or None.
        z_score: Distance of `raw` from the null baseline, in standard deviations.
        ci_95: A 95 % confidence interval of `raw`.
        n: Number of prompts, texts or pairs that `raw` is a mean over.
        lower_is_better: Whether a smaller `raw` is better.
        evidence: The data behind the verdict, as plain JSON. Never a prompt, except as
            `ProbeContext.named` gives it.
        baseline: Null baseline for the later probes.
    """

    verdict: Verdict
    message: str
    score: float | None = None
    raw: float | None = None
    z_score: float | None = None
    ci_95: tuple[float, float] | None = None
    n: int | None = None
    lower_is_better: bool = False
    evidence: Mapping[str, Any] = field(default_factory=dict)
    baseline: NullBaseline | None = None


@dataclass(frozen=True, slots=True)
class ProbeContext:
    """Inputs of a probe's run.

    Attributes:
        backend: The backend to measure.
        seed: Seed of random draws.
        top_k: `top_k` of probes that do not set their own.
        baseline: Null baseline of an earlier `null_adapter`, or None.
        later: The probes after this one in the suite.
        chat: Whether a prompt that is a text is a message of the user.
        show_prompts: Whether evidence has the texts of prompts.
    """

    backend: Backend
    seed: int = 0
    top_k: int = 256
    baseline: NullBaseline | None = None
    later: tuple[Probe, ...] = ()
    chat: bool = False
    show_prompts: bool = False

    def render(self, prompts: Sequence[Prompt]) -> list[str]:
        """Return what the views are asked: texts, and chats as the backend renders them.

        Raises:
            PromptError: The backend has no chat template, or it refuses a chat.
        """
        return [self._rendered(prompt) for prompt in prompts]

    def named(
        self, prompts: Sequence[str], texts: Sequence[str] | None = None
    ) -> dict[str, list[str]]:
        """Return evidence that names what was measured: hashes, and texts if the suite shows them.

        Args:
            prompts: What was looked up; see `prompt_hash`.
            texts: What is shown for each of them; by default the prompt itself.
        """
        evidence = {"prompts": [prompt_hash(prompt) for prompt in prompts]}
        if self.show_prompts:
            evidence["prompt_texts"] = [shown(text, MAX_SENTENCE) for text in texts or prompts]
        return evidence

    def _rendered(self, prompt: Prompt) -> str:
        if isinstance(prompt, str):
            if not self.chat:
                return prompt
            prompt = (Message(role="user", content=prompt),)
        render_chat = getattr(self.backend, "render_chat", None)
        if render_chat is None:
            raise PromptError("this backend renders no chats; write the prompts as plain text")
        rendered: str = render_chat([message.model_dump() for message in prompt])
        return rendered


class Probe(BaseModel):
    """A named measurement over views: its settings and its `run` method.

    Immutable, so that a probe can be compared and used as a dictionary key.
    Subclasses set `kind` to their name in a suite file. The first line of a subclass's
    docstring and its attributes are what `forwardscope probes` prints.

    Attributes:
        name: Name in report, result and metrics.
        kind: What is measured.
        weight: Weight of the score in that of the suite.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Annotated[str, Field(min_length=1)]
    kind: str
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0

    @abstractmethod
    def run(self, context: ProbeContext) -> Outcome:
        """Measure and return the outcome.

        Raises:
            ForwardscopeError: The measurement is not possible.
        """

    def calibration(self, sentinels: tuple[Prompt, ...]) -> Probe | None:  # noqa: ARG002 - for subclasses
        """Return the probe that measures this probe's null baseline, or None for no baseline.

        Probes with equal calibrations share one baseline, so a calibration does
        not contain the name of the probe.
        """
        return None


class PromptProbe(Probe):
    """A probe that compares next-token distributions over prompts.

    Attributes:
        prompts: What both models continue: texts, or chats; by default 32 general texts.
        top_k: Number of most probable tokens in each distribution; by default that of the suite.
        divergence: Between two distributions: `js` (Jensen-Shannon, at most ln 2) or `kl`.
    """

    prompts: Prompts = GENERAL_PROMPTS
    top_k: TopK | None = None
    divergence: Divergence = "js"

    def k(self, context: ProbeContext) -> int:
        """Return the probe's own `top_k`, or that of the suite."""
        return context.top_k if self.top_k is None else self.top_k


def score_against(value: float, threshold: float) -> float:
    """Return 1 - 2 ** -(value / threshold): 0 up to value 0, 0.5 at the threshold, at most 1."""
    return 1.0 - float(2.0 ** -(max(0.0, value) / threshold))


def skip_without(backend: Backend, view_family: str, default: str) -> Outcome:
    """Return a SKIP with the backend's reason for having no views of a family, or the default."""
    refused: Mapping[str, str] = getattr(backend, "refused_views", {})
    return Outcome(Verdict.SKIP, refused.get(view_family, default))
