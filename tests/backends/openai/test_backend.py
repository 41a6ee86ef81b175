"""A served model gives the values of `HFBackend`, as far as a server has them."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from forwardscope import BackendInstrumentation, TraceReader
from forwardscope.backends.base import NullBackend, ScalableBackend, ScoringView
from forwardscope.backends.openai import ServedSource
from forwardscope.backends.openai.client import ServerClient
from forwardscope.backends.openai.runtime_adapters import RuntimeAdapters
from forwardscope.backends.server_url import ServerUrl
from forwardscope.core.keys import RenderedChat, prompt_hash
from forwardscope.core.server_requests import Exchange
from forwardscope.errors import (
    AdapterError,
    ModelError,
    NonFiniteError,
    PromptError,
    ServerError,
    UnsupportedError,
    UnsupportedViewError,
    ViewError,
)
from forwardscope.store.sqlite import SqliteStore
from forwardscope.store.tier import DEFAULT_TOLERANCE

from .conftest import QUICK, OpenBackend, write_adapter
from .vllm_double import UNKNOWN, Fault, VllmDouble

PROMPTS = ["The capital of France is", "To bake bread you need", "Hello"]
K = 5


def test_implements_every_protocol(open_backend: OpenBackend, adapter: Path) -> None:
    """The planner and the probes find all views."""
    backend = open_backend(adapter_dir=str(adapter))
    assert isinstance(backend, ScalableBackend)
    assert isinstance(backend, NullBackend)
    with backend.as_base() as view:
        assert isinstance(view, ScoringView)


def test_distributions(open_backend: OpenBackend) -> None:
    """A distribution has the most probable tokens in order, and the rest of the probability."""
    with open_backend().as_base() as view:
        dists = view.next_token_dist_batch(PROMPTS, top_k=K)
    for dist in dists:
        assert dist.vocab_size == 49152
        assert dist.token_ids.shape == dist.logprobs.shape == (K,)
        assert (np.diff(dist.logprobs) <= 0).all()
        known = float(np.exp(dist.logprobs.astype(np.float64)).sum())
        assert dist.tail_logprob is not None
        assert known + math.exp(dist.tail_logprob) == pytest.approx(1.0)


def test_views_are_names_of_the_server(open_backend: OpenBackend, server: VllmDouble) -> None:
    """Base and fine-tuned view differ as the models do that the server has under their names."""
    backend = open_backend()
    with backend.as_base() as base:
        before = base.next_token_dist(PROMPTS[0], top_k=K)
    with backend.as_finetuned() as tuned:
        after = tuned.next_token_dist(PROMPTS[0], top_k=K)
    assert not np.array_equal(before.logprobs, after.logprobs)
    asked = [one for one in server.of("completions") if one.get("logprobs") == K]
    assert [one["model"] for one in asked] == ["base", "tiny"]


def test_a_batch_is_one_request(open_backend: OpenBackend, server: VllmDouble) -> None:
    """Prompts are sent together as token ids, and what was answered is not asked again."""
    with open_backend().as_base() as view:
        first = view.next_token_dist_batch(PROMPTS, top_k=K)
        again = view.next_token_dist_batch([*PROMPTS, PROMPTS[0]], top_k=K)
    asked = [one for one in server.of("completions") if one.get("logprobs") == K]
    assert len(asked) == 1
    assert [len(ids) for ids in asked[0]["prompt"]] == [5, 5, 1]
    assert again == [*first, first[0]]


def test_rolling_logprobs(open_backend: OpenBackend) -> None:
    """Each token but the first has its log-probability given those before it."""
    with open_backend().as_base() as view:
        rolled, single = view.rolling_logprob_batch([PROMPTS[0], PROMPTS[2]])
    assert rolled.num_tokens == 5
    assert rolled.logprobs.shape == (4,)
    assert rolled.total_logprob == pytest.approx(float(rolled.logprobs.sum()), rel=1e-6)
    assert (single.num_tokens, single.total_logprob, single.perplexity) == (1, 0.0, 1.0)


def test_log_probability_of_a_completion(open_backend: OpenBackend) -> None:
    """It is the sum over the tokens that the completion adds to the prompt."""
    with open_backend().as_base() as view:
        paris, london = view.logprob_of_batch([(PROMPTS[0], " Paris"), (PROMPTS[0], " London")])
        rolled = view.rolling_logprob(f"{PROMPTS[0]} Paris")
    assert paris == pytest.approx(float(rolled.logprobs[-1]))
    assert london < paris < 0


def test_completion_that_adds_nothing(open_backend: OpenBackend) -> None:
    """It has no log-probability."""
    with open_backend().as_base() as view, pytest.raises(PromptError, match="adds no token"):
        view.logprob_of(PROMPTS[0], "")


def test_scaled_views(open_backend: OpenBackend, adapter: Path, server: VllmDouble) -> None:
    """A scaled view is an adapter of another alpha, which is unloaded when the view closes."""
    backend = open_backend(adapter_dir=str(adapter))
    assert backend.refused_views == {}
    server.unloaded.clear()
    with backend.as_scaled_adapter(0.5) as view:
        assert not server.loaded  # until the first miss
        half = view.next_token_dist(PROMPTS[0], top_k=K)
        assert list(server.loaded.values()) == ["trained, lora_alpha 4.0, r 4, bias None"]
        [name] = server.loaded
    assert server.unloaded == [name]
    assert [one.name for one in adapter.parent.iterdir()] == ["tiny"]
    with backend.as_base() as base, pytest.raises(ViewError), backend.as_finetuned():
        pass
    with backend.as_base() as base:
        whole = base.next_token_dist(PROMPTS[0], top_k=K)
    assert not np.array_equal(half.logprobs, whole.logprobs)


def test_adapter_of_another_folder(
    open_backend: OpenBackend, adapter: Path, tmp_path: Path
) -> None:
    """A folder with the same adapter is as good as the server's."""
    copy = write_adapter(tmp_path / "copy")
    backend = open_backend(adapter_dir=str(copy))
    assert (backend.refused_views, backend.warnings) == ({}, [])


@pytest.mark.parametrize("revision", [None, "1"])
def test_files_of_another_adapter(
    open_backend: OpenBackend, server: VllmDouble, tmp_path: Path, revision: str | None
) -> None:
    """Files that the server has not loaded, such as those of a later training, are refused."""
    other = write_adapter(tmp_path / "other", lora_alpha=16)
    inst = BackendInstrumentation(store=SqliteStore(tmp_path / "store.db"))
    with pytest.raises(AdapterError, match=r"is not what the server has as tiny: .* by .* nats"):
        open_backend(inst, adapter_dir=str(other), revision=revision)
    assert (len(server.unloaded), server.loaded) == (1, {})
    assert [one.name for one in tmp_path.glob("*/.forwardscope*")] == []


def test_scales_that_are_other_views(open_backend: OpenBackend, adapter: Path) -> None:
    """0 is the base and 1 the fine-tuned model; a scale that is no number has no view."""
    backend = open_backend(adapter_dir=str(adapter))
    for scale, view_id in ((0.0, "base"), (1.0, "ft"), (0.5, "scaled_0.5")):
        with backend.as_scaled_adapter(scale) as view:
            assert view.id == view_id
    with pytest.raises(ValueError, match="must be finite"):
        backend.as_scaled_adapter(math.inf)


def test_null_views(open_backend: OpenBackend, adapter: Path, server: VllmDouble) -> None:
    """A null view is an adapter of random factors with the scaling of the trained one."""
    backend = open_backend(adapter_dir=str(adapter))
    with backend.as_null_adapter(7, init_scale=0.2) as view:
        view.next_token_dist(PROMPTS[0], top_k=K)
        assert list(server.loaded.values()) == ["random, lora_alpha 8, r 4, bias None"]
    assert not server.loaded


def test_names_have_the_content(
    open_backend: OpenBackend, tmp_path: Path, server: VllmDouble
) -> None:
    """Views of other content have other names, because a server keeps what it knows of a name."""
    names = []
    for number, alpha in enumerate((8, 16)):
        folder = write_adapter(tmp_path / str(number), lora_alpha=alpha)
        for scale in (0.5, 0.25):
            server.loaded.clear()
            backend = open_backend(adapter_dir=str(folder), check=False)
            with backend.as_scaled_adapter(scale) as view:
                view.next_token_dist(PROMPTS[2], top_k=K)
            names.append(server.unloaded[-1])
    assert len(set(names)) == 4


def test_filler_is_the_pad_token(open_backend: OpenBackend, server: VllmDouble) -> None:
    """It is as long as asked for; a server that names no pad token makes it a warning."""
    backend = open_backend()
    assert backend.warnings == []
    assert (backend.filler(0), backend.filler(2)) == ("", "<|endoftext|><|endoftext|>\n\n")
    assert any("filler is the token <|endoftext|>" in one for one in backend.warnings)
    info = b'{"tokenizer_class": "X", "pad_token": {"content": "<|im_end|>"}}'
    server.faults.append(Fault(200, info, operation="tokenizer_info"))
    backend = open_backend()
    assert backend.filler(1) == "<|im_end|>\n\n"
    assert backend.warnings == []


def test_filler_and_context(open_backend: OpenBackend) -> None:
    """The longest filler fits the server's context, with one token for what is predicted."""
    backend = open_backend()
    longest = backend.longest_filler(PROMPTS[2])
    assert longest == 2047 - 3
    with backend.as_base() as view, pytest.raises(PromptError, match="more than the 2047"):
        view.next_token_dist(backend.filler(longest + 1) + PROMPTS[2], top_k=K)


def test_chats(open_backend: OpenBackend) -> None:
    """A chat is rendered by the server's template, and gets no further special tokens."""
    backend = open_backend()
    rendered = backend.render_chat([{"role": "user", "content": "Hi"}])
    assert isinstance(rendered, RenderedChat)
    assert rendered.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    begun = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "I"}]
    assert backend.render_chat(begun).endswith("<|im_start|>assistant\nI")
    with backend.as_base() as view:
        assert view.next_token_dist(rendered, top_k=K).token_ids.shape == (K,)


def test_chat_that_the_server_refuses(open_backend: OpenBackend, server: VllmDouble) -> None:
    """The error names the roles and no text."""
    backend = open_backend()
    said = b'{"error":{"message":"tool: secret words is refused"}}'
    server.faults.append(Fault(400, said, operation="tokenize"))
    with pytest.raises(PromptError, match="roles tool") as refused:
        backend.render_chat([{"role": "tool", "content": "secret words"}])
    assert "secret" not in str(refused.value)


def test_without_a_tokenizer(open_backend: OpenBackend, server: VllmDouble) -> None:
    """Prompts are sent as text; what needs token ids says so, without a lookup."""
    server.absent = {"tokenize"}
    backend = open_backend()
    with backend.as_base() as view:
        assert view.next_token_dist(PROMPTS[0], top_k=K).vocab_size == 49152
        assert view.rolling_logprob(PROMPTS[0]).num_tokens == 5
        with pytest.raises(UnsupportedError, match=r"model\.tokenizer"):
            view.logprob_of_batch([(PROMPTS[0], " Paris")])
    for ask in (lambda: backend.filler(1), lambda: backend.longest_filler("a")):
        with pytest.raises(UnsupportedError, match=r"model\.tokenizer"):
            ask()
    with pytest.raises(PromptError, match="plain text"):
        backend.render_chat([{"role": "user", "content": "Hi"}])
    assert backend.instrumentation.stats.total_lookups == 2


def test_without_the_files_of_the_adapter(open_backend: OpenBackend) -> None:
    """There are no scaled and no null views, and the reason has the key that is missing."""
    backend = open_backend()
    assert backend.scaled_aliases == {}
    for ask in (lambda: backend.as_scaled_adapter(0.0), lambda: backend.as_null_adapter(1)):
        with pytest.raises(UnsupportedViewError, match=r"model\.adapter_dir"):
            ask()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "saved modules"),
        ({"peft_type": "IA3"}, "only LoRA"),
        ({"r": 16}, "LoRA rank 16 is greater than max_lora_rank 8; start vLLM with a --max"),
        ({"bias": "all"}, "Adapter bias is not supported"),
    ],
)
def test_adapters_without_scaled_views(
    open_backend: OpenBackend, tmp_path: Path, config: dict[str, object], reason: str
) -> None:
    """What server or adapter do not allow is known before the run, with the reason."""
    folder = write_adapter(tmp_path / "other", **config)
    backend = open_backend(adapter_dir=str(folder))
    assert set(backend.refused_views) == {"scaled", "null"}
    assert all(reason in one for one in backend.refused_views.values())
    assert list(tmp_path.glob(".forwardscope*")) == []


def test_server_without_loading_at_run_time(
    open_backend: OpenBackend, adapter: Path, server: VllmDouble
) -> None:
    """The reason says how to start vLLM."""
    server.absent = {"load_lora_adapter"}
    refused = open_backend(adapter_dir=str(adapter)).refused_views
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True" in refused["scaled"]


def test_server_that_does_not_see_the_files(
    open_backend: OpenBackend, adapter: Path, server: VllmDouble
) -> None:
    """The reason names the option for another folder."""
    said = b'{"error":{"message":"Loading lora x failed: No adapter found for /y","code":404}}'
    server.faults.append(Fault(404, said, operation="load_lora_adapter"))
    refused = open_backend(adapter_dir=str(adapter)).refused_views
    assert "model.adapter_scratch" in refused["null"]


def test_folder_that_cannot_be_written(open_backend: OpenBackend, adapter: Path) -> None:
    """The reason names the option for another folder."""
    refused = open_backend(adapter_dir=str(adapter), adapter_scratch="/proc").refused_views
    assert "model.adapter_scratch" in refused["scaled"]


def test_adapter_is_unloaded_after_an_error(
    open_backend: OpenBackend, adapter: Path, server: VllmDouble
) -> None:
    """An exception or an interrupt in a view leaves no adapter on the server and no file."""
    backend = open_backend(adapter_dir=str(adapter))
    for failure in (KeyError, KeyboardInterrupt):
        with pytest.raises(failure), backend.as_scaled_adapter(0.5) as view:
            view.next_token_dist(PROMPTS[0], top_k=K)
            backend.instrumentation.cache.clear()
            raise failure
        assert not server.loaded
    backend.close()
    assert [one.name for one in adapter.parent.iterdir()] == ["tiny"]


def test_lost_answer_of_a_load(
    open_backend: OpenBackend, adapter: Path, server: VllmDouble
) -> None:
    """A repeated request finds the adapter there already, and it is unloaded afterwards."""
    backend = open_backend(adapter_dir=str(adapter))
    said = b'{"error":{"message":"The lora adapter \'x\' has already been loaded.","code":400}}'
    server.faults += [
        Fault(operation="load_lora_adapter"),
        Fault(400, said, operation="load_lora_adapter"),
    ]
    with backend.as_scaled_adapter(0.5) as view:  # loaded once more, since it was not there
        assert view.next_token_dist(PROMPTS[0], top_k=K).token_ids.shape == (K,)
    assert len(server.of("unload_lora_adapter")) == 2
    assert not server.loaded


def test_adapter_that_is_loaded_at_the_second_attempt(
    open_backend: OpenBackend, adapter: Path, server: VllmDouble
) -> None:
    """The next miss loads it, where the server refused to or its answers were lost."""
    backend = open_backend(adapter_dir=str(adapter))
    refused = Fault(500, b"busy", operation="load_lora_adapter")
    for faults in ([refused], [Fault(operation="load_lora_adapter")] * QUICK.attempts):
        server.faults += faults
        with backend.as_scaled_adapter(0.5) as view:
            with pytest.raises(ServerError):
                view.next_token_dist(PROMPTS[0], top_k=K)
            assert view.next_token_dist(PROMPTS[0], top_k=K).token_ids.size == K
        backend.instrumentation.cache.clear()
        assert not server.loaded


@pytest.mark.parametrize(("status", "unloads"), [(0, 1), (500, 0)])
def test_load_that_failed(
    open_backend: OpenBackend, adapter: Path, server: VllmDouble, status: int, unloads: int
) -> None:
    """It is unloaded where all answers were lost, since the server may have it, and else not."""
    backend = open_backend(adapter_dir=str(adapter))
    before = len(server.of("unload_lora_adapter"))
    server.faults += [Fault(status, operation="load_lora_adapter")] * QUICK.attempts
    with backend.as_scaled_adapter(0.5) as view, pytest.raises(ServerError):
        view.next_token_dist(PROMPTS[0], top_k=K)
    assert len(server.of("unload_lora_adapter")) - before == unloads


def test_server_that_is_gone(
    open_backend: OpenBackend, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no adapter of ours, so there is no warning that one may be left."""
    backend = open_backend(adapter_dir=str(adapter))

    def refuse(*_: object) -> None:
        raise ServerError("refused", is_gone=True)

    with backend.as_scaled_adapter(0.5) as view:
        view.next_token_dist(PROMPTS[0], top_k=K)
        monkeypatch.setattr(ServerClient, "request", refuse)
    with backend.as_null_adapter(7) as view, pytest.raises(ServerError):
        view.next_token_dist(PROMPTS[0], top_k=K)
    assert backend.warnings == []


def test_backend_that_is_closed_in_a_view(
    open_backend: OpenBackend, adapter: Path, server: VllmDouble
) -> None:
    """Its adapter is unloaded, and its files are removed."""
    backend = open_backend(adapter_dir=str(adapter))
    with backend.as_scaled_adapter(0.5) as view:
        view.next_token_dist(PROMPTS[0], top_k=K)
        backend.close()
        with pytest.raises(ViewError, match="closed"):
            view.next_token_dist(PROMPTS[1], top_k=K)
    assert not server.loaded
    assert [one.name for one in adapter.parent.iterdir()] == ["tiny"]


def test_adapter_of_a_view_that_is_closed(adapter: Path, server: VllmDouble) -> None:
    """A thread that is late loads nothing, which no view would unload."""
    client = ServerClient(ServerUrl.parse(server.url), retries=QUICK)
    source = ServedSource(server.url, "base", "tiny", adapter_dir=str(adapter))
    adapters = RuntimeAdapters(client, source, lambda _: None)
    with adapters.scaled(0.5) as late:
        pass
    for load in (late.name, late.renew):
        with pytest.raises(ViewError, match="closed"):
            load()
    client.close()
    assert not server.loaded
    assert [one.name for one in adapter.parent.iterdir()] == ["tiny"]


def test_nothing_is_left_of_a_backend_that_is_not_opened(
    open_backend: OpenBackend, adapter: Path, server: VllmDouble
) -> None:
    """A server that is lost at the start leaves no file."""
    server.faults += [Fault(operation="load_lora_adapter")] * QUICK.attempts
    with pytest.raises(ServerError, match="did not answer /load_lora_adapter"):
        open_backend(adapter_dir=str(adapter))
    assert [one.name for one in adapter.parent.iterdir()] == ["tiny"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_has_adapters_of_its_own(
    open_backend: OpenBackend, adapter: Path, server: VllmDouble
) -> None:
    """What a child loads and unloads in an open view is not what its parent has loaded."""
    backend = open_backend(adapter_dir=str(adapter))
    with backend.as_scaled_adapter(0.5) as view:
        view.next_token_dist(PROMPTS[0], top_k=K)
        backend.instrumentation.cache.clear()
        child = os.fork()
        if child == 0:
            view.next_token_dist(PROMPTS[0], top_k=K)
            backend.close()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert len(server.loaded) == 1
        view.next_token_dist(PROMPTS[0], top_k=K)
    assert not server.loaded
    assert len(set(server.unloaded)) == 3  # with that of the start


def test_unknown_models(open_backend: OpenBackend) -> None:
    """Names that the server does not have are told with those that it has."""
    with pytest.raises(ModelError, match=r"model\.name: the server has no model x; it has base"):
        open_backend(name="x")
    with pytest.raises(ModelError, match=r"model\.adapter: the server has no model x"):
        open_backend(adapter="x")


def test_adapter_of_another_base(open_backend: OpenBackend, server: VllmDouble) -> None:
    """It is refused: the two models would not be comparable."""
    models = b'{"data":[{"id":"base"},{"id":"other"},{"id":"tiny","parent":"other"}]}'
    server.faults.append(Fault(200, models, operation="models"))
    with pytest.raises(ModelError, match="an adapter of other on this server, and not of base"):
        open_backend()


def test_base_with_several_names(open_backend: OpenBackend, server: VllmDouble) -> None:
    """VLLM names the first as the parent of its adapters; any of them is the base."""
    models = [{"id": name, "root": "/m"} for name in ("first", "base")]
    body = json.dumps({"data": [*models, {"id": "tiny", "root": "/t", "parent": "first"}]})
    server.faults.append(Fault(200, body.encode(), operation="models"))
    assert open_backend().refused_views.keys() == {"scaled", "null"}


def test_identities(open_backend: OpenBackend, adapter: Path, tmp_path: Path) -> None:
    """A view has an identity with a revision; another one changes all, another adapter its own."""

    def identities(**settings: str) -> list[str | None]:
        backend = open_backend(check=False, **settings)
        return [backend.view_identity(one) for one in ("base", "ft", "scaled_0.5", "null_1")]

    assert identities() == [None] * 4
    first = identities(revision="1", adapter_dir=str(adapter))
    assert len(set(first)) == 4
    assert None not in first
    assert identities(revision="1", adapter_dir=str(adapter)) == first
    assert not set(identities(revision="2", adapter_dir=str(adapter))) & set(first)
    folder = write_adapter(tmp_path / "b", lora_alpha=4)
    other = identities(revision="1", adapter_dir=str(folder))
    assert [one in other for one in first] == [True, False, False, False]
    assert identities(revision="1")[2:] == [None, None]
    assert open_backend(check=False, revision="1").view_identity("mine") is None


def test_identity_of_a_backend(open_backend: OpenBackend) -> None:
    """Two backends of one server and its models have one identity; another adapter has another."""
    one, other = open_backend(), open_backend()
    assert one.identity() == other.identity() != open_backend(adapter="base").identity()


def test_closed_backend(open_backend: OpenBackend) -> None:
    """It opens no view; a closed view computes nothing."""
    backend = open_backend()
    with backend.as_base() as view:
        known = view.next_token_dist(PROMPTS[0], top_k=K)
    assert view.next_token_dist(PROMPTS[0], top_k=K) is known
    with pytest.raises(ViewError, match="closed"):
        view.next_token_dist(PROMPTS[1], top_k=K)
    backend.close()
    backend.close()
    with pytest.raises(ViewError, match="closed"), backend.as_base():
        pass


def test_top_k_of_the_server(open_backend: OpenBackend, server: VllmDouble) -> None:
    """A larger `top_k` is clipped to what the server gives."""
    said = b'{"error":{"message":"Requested sample logprobs of 9, greater than max allowed: 5"}}'
    server.faults.append(Fault(400, said, operation="completions", after=1))
    backend = open_backend()
    assert backend.vocab_size == 5
    with backend.as_base() as view:
        assert view.next_token_dist(PROMPTS[0], top_k=256).token_ids.shape == (5,)


def test_what_was_answered_is_kept(
    open_backend: OpenBackend, server: VllmDouble, tmp_path: Path
) -> None:
    """Of a batch in several requests, those that were answered are in cache and trace."""
    inst = BackendInstrumentation(trace_path=tmp_path / "trace.jsonl")
    backend = open_backend(inst, concurrency=1)
    many = [f"{PROMPTS[2]} {number}" for number in range(33)]  # two requests
    lost = Fault(operation="completions")
    server.faults += [replace(lost, after=1), lost, lost, lost]
    with backend.as_base() as view, pytest.raises(ServerError):
        view.next_token_dist_batch(many, top_k=K)
    inst.close()
    records = list(TraceReader(tmp_path / "trace.jsonl"))
    assert [one.error for one in records] == [*[None] * 32, "ServerError"]
    assert inst.stats.forward_passes == len(inst.cache) == 32


def test_messages_have_no_prompt(open_backend: OpenBackend, server: VllmDouble) -> None:
    """A prompt that a server quotes is in no error; its hash is."""
    server.absent = {"tokenize"}
    backend = open_backend()
    said = b'{"error":{"message":"bad prompt: my secret words"}}'
    server.faults.append(Fault(400, said, operation="completions"))
    with backend.as_base() as view, pytest.raises(ServerError) as refused:
        view.next_token_dist("my secret words", top_k=K)
    assert "secret" not in str(refused.value)
    with backend.as_base() as view, pytest.raises(PromptError) as surrogate:
        view.next_token_dist("a\ud800", top_k=K)
    assert prompt_hash("a\ud800") in str(surrogate.value)


def test_surrogates_in_chats_and_before_filler(open_backend: OpenBackend) -> None:
    """They are refused as in prompts."""
    backend = open_backend()
    for ask in (
        lambda: backend.render_chat([{"role": "user", "content": "a\ud800"}]),
        lambda: backend.longest_filler("a\ud800"),
    ):
        with pytest.raises(PromptError, match=prompt_hash("a\ud800")):
            ask()


def test_values_that_are_not_finite(open_backend: OpenBackend, server: VllmDouble) -> None:
    """VLLM refuses a whole request for one NaN; the error names the prompt that has it."""
    said = b'{"error":{"message":"Out of range float values are not JSON compliant","code":400}}'
    nan = Fault(400, said, operation="completions")
    backend = open_backend()
    server.faults += [nan, replace(nan, after=1)]
    with backend.as_base() as view, pytest.raises(NonFiniteError) as refused:
        view.next_token_dist_batch(PROMPTS, top_k=K)
    assert (refused.value.view_id, refused.value.prompt_hash) == ("base", prompt_hash(PROMPTS[1]))


@pytest.mark.parametrize("answered", [0, 5, 6], ids=["base", "ft", "scaled"])
def test_values_that_are_not_finite_before_a_run(
    open_backend: OpenBackend, adapter: Path, server: VllmDouble, answered: int
) -> None:
    """What is measured when a backend is opened hides no later error, and is none itself."""
    said = b'{"error":{"message":"Out of range float values are not JSON compliant","code":400}}'
    nan = Fault(400, said, operation="completions")
    server.faults += [replace(nan, after=2 + answered), *[nan] * 3]
    backend = open_backend(adapter_dir=str(adapter))
    assert backend.refused_views == {}
    assert backend.tolerance == DEFAULT_TOLERANCE
    assert not server.loaded


def test_context_that_is_too_short_for_samples(
    open_backend: OpenBackend, adapter: Path, server: VllmDouble
) -> None:
    """Nothing is measured with them, and shorter prompts are computed."""
    models = server.answer("models", None)[1].replace(
        b'"max_model_len": 2048', b'"max_model_len": 8'
    )
    server.faults.append(Fault(200, models, operation="models"))
    backend = open_backend(adapter_dir=str(adapter))
    with backend.as_base() as view:
        assert view.next_token_dist(PROMPTS[0], top_k=K).token_ids.shape == (K,)


def test_values_that_are_not_finite_without_a_tokenizer(
    open_backend: OpenBackend, server: VllmDouble
) -> None:
    """The prompt is found also where it is sent as text."""
    server.absent = {"tokenize"}
    backend = open_backend()
    said = b'{"error":{"message":"Out of range float values are not JSON compliant","code":400}}'
    server.faults.append(Fault(400, said, operation="completions"))
    with backend.as_base() as view, pytest.raises(NonFiniteError):
        view.next_token_dist(PROMPTS[1], top_k=K)


def test_stop_in_a_batch(open_backend: OpenBackend) -> None:
    """No other request is sent, and what was answered is kept."""

    class Stopping(BackendInstrumentation):
        armed = False

        def report_request(self, exchange: Exchange) -> None:
            super().report_request(exchange)
            if self.armed and exchange.operation == "completions":
                self.request_stop()

    inst = Stopping()
    backend = open_backend(inst, concurrency=1)
    inst.armed = True
    many = [f"{PROMPTS[2]} {number}" for number in range(33)]  # two requests
    with backend.as_base() as view, pytest.raises(KeyboardInterrupt):
        view.next_token_dist_batch(many, top_k=K)
    assert inst.stats.forward_passes == len(inst.cache) == 32


@pytest.mark.timeout(60)
@pytest.mark.parametrize("operation", ["tokenize", "completions"])
def test_many_requests_of_which_one_fails(
    open_backend: OpenBackend, server: VllmDouble, operation: str
) -> None:
    """The others that wait for their turn are not sent, and nothing waits for them."""
    backend = open_backend(concurrency=1)
    texts = [f"{PROMPTS[2]} {number}" for number in range(33)]
    asked = len(server.of(operation))
    server.faults.append(Fault(501, operation=operation))
    with backend.as_base() as view, pytest.raises(ServerError):
        view.next_token_dist_batch(texts, top_k=K)
    assert len(server.of(operation)) - asked < len(texts)


def test_random_adapters_without_torch(
    open_backend: OpenBackend, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scaled views need nothing; the reason for null views has the command that adds the extra."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else find(name)
    )
    monkeypatch.delitem(sys.modules, "forwardscope.backends.hf", raising=False)
    refused = open_backend(adapter_dir=str(adapter)).refused_views
    assert set(refused) == {"null"}
    assert "forwardscope[hf]" in refused["null"]


def test_server_that_was_restarted(
    open_backend: OpenBackend, adapter: Path, server: VllmDouble
) -> None:
    """It has lost the adapter of the open view, which is loaded again."""
    backend = open_backend(adapter_dir=str(adapter))
    with backend.as_scaled_adapter(0.5) as view:
        first = view.next_token_dist(PROMPTS[0], top_k=K)
        backend.instrumentation.cache.clear()
        server.faults.append(Fault(404, UNKNOWN, operation="completions"))
        again = view.next_token_dist(PROMPTS[0], top_k=K)
    assert np.array_equal(first.logprobs, again.logprobs)
    names = [one["lora_name"] for one in server.of("load_lora_adapter")[-2:]]
    assert names[0] == names[1] == server.unloaded[-1]


def test_server_that_lost_its_own_models(open_backend: OpenBackend, server: VllmDouble) -> None:
    """A name that it was started with is not loaded here, so it is an error with its words."""
    backend = open_backend()
    server.faults.append(Fault(404, UNKNOWN, operation="completions"))
    with backend.as_finetuned() as view, pytest.raises(ServerError, match="does not exist"):
        view.next_token_dist(PROMPTS[0], top_k=K)
