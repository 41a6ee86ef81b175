"""Chats: rendered by the model's own template, and tokenised as they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer

from forwardscope import BackendInstrumentation
from forwardscope.backends.hf import HFBackend, ModelSource, load_backend
from forwardscope.backends.hf.models import quiet_transformers
from forwardscope.backends.hf.tokens import encode
from forwardscope.core.keys import RenderedChat
from forwardscope.errors import AdapterError, PromptError
from forwardscope.probes import ProbeContext
from forwardscope.probes.general import GENERAL_PROMPTS
from forwardscope.store.sqlite import SqliteStore
from forwardscope.suite import load_suite, run_suite
from forwardscope.suite.stored import stored_plan

#: Begins with a token that the tokenizer also adds to each plain text, as many templates do.
TEMPLATE = (
    "<pad>{% for message in messages %}{{ message.role }}\n{{ message.content }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}assistant\n{% endif %}"
)
CHAT = [{"role": "system", "content": "the cat"}, {"role": "user", "content": "sat on"}]
RENDERED = "<pad>system\nthe cat<eos>user\nsat on<eos>assistant\n"


@pytest.fixture
def tokenizer(zoo: Any) -> Any:
    """A tokenizer with a chat template, which adds `<pad>` before each plain text."""
    tokenizer = zoo.tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<pad> $A", special_tokens=[("<pad>", tokenizer.convert_tokens_to_ids("<pad>"))]
    )
    return tokenizer


@pytest.fixture
def backend(zoo: Any, tokenizer: Any) -> HFBackend:
    """A backend with that tokenizer."""
    return HFBackend(zoo.tuned("llama_lora"), tokenizer)


def test_rendered(backend: HFBackend) -> None:
    """The answer of the assistant follows; a begun answer is continued."""
    assert backend.render_chat(CHAT) == RenderedChat(RENDERED)
    begun = [*CHAT, {"role": "assistant", "content": "the"}]
    assert backend.render_chat(begun) == RenderedChat(RENDERED + "the")


def test_no_token_is_doubled(tokenizer: Any) -> None:
    """A chat has the special tokens of its template, and none that the tokenizer adds."""
    chat, plain, other = encode(tokenizer, [RenderedChat(RENDERED), "the cat", RenderedChat("sat")])
    assert chat == tokenizer.apply_chat_template(CHAT, add_generation_prompt=True)["input_ids"]
    assert (chat.count(0), plain[0], other.count(0)) == (1, 0, 0)
    assert encode(tokenizer, [RENDERED]) == [[0, *chat]]


@pytest.mark.parametrize("exactness", ["fast", "strict"])
def test_values_are_those_of_plain_transformers(zoo: Any, tokenizer: Any, exactness: Any) -> None:
    """All ops have the values of the ids that transformers makes of the messages."""
    backend = HFBackend(zoo.tuned("llama_lora"), tokenizer, exactness=exactness)
    ids = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True)["input_ids"]
    answer = tokenizer("there", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = zoo.tuned("llama_lora")(torch.tensor([[*ids, *answer]])).logits[0]
    logprobs = logits.double().log_softmax(-1).numpy()
    chat = backend.render_chat(CHAT)
    with backend.as_finetuned() as view:
        (dist, _) = view.next_token_dist_batch([chat, "the cat sat"], top_k=10_000)
        summed = view.logprob_of(chat, "there")
        rolled = view.rolling_logprob(chat)
    assert np.abs(dist.logprobs - logprobs[len(ids) - 1][dist.token_ids]).max() < 1e-4
    assert rolled.token_ids.tolist() == ids
    places = np.arange(len(ids) - 1, len(ids) + len(answer) - 1)
    assert summed == pytest.approx(logprobs[places, answer].sum(), abs=1e-4)


def test_chat_and_its_text_are_two_entries(backend: HFBackend) -> None:
    """A plain text that looks like a rendered chat has other tokens, and other values."""
    chat = backend.render_chat(CHAT)
    with backend.as_base() as view:
        as_chat = view.next_token_dist(chat)
        as_text = view.next_token_dist(str(chat))
        assert view.next_token_dist(chat) is as_chat
    assert backend.instrumentation.stats.forward_passes == 2
    assert not np.array_equal(as_chat.logprobs, as_text.logprobs)


def test_filler_keeps_a_chat(backend: HFBackend, tokenizer: Any) -> None:
    """Filler before a chat adds its own tokens only, and its limit is exact."""
    chat = backend.render_chat(CHAT[1:])
    longest = backend.longest_filler(chat)
    assert len(encode(tokenizer, [backend.filler(longest) + chat])[0]) == 64
    with backend.as_base() as view:
        view.next_token_dist(backend.filler(longest) + chat)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "the tokenizer has no chat template"),
        ("{{ raise_exception('no ' + messages[0].content) }}", "refuses messages of the roles"),
        ("{% for %}", "refuses messages of the roles system, user (TemplateSyntaxError)"),
        ("{{ 1 / 0 }}", "refuses messages of the roles system, user (ZeroDivisionError)"),
        ("{{ range(10 ** 12) }}", "(OverflowError)"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "(RecursionError)"),
        ("{{ 'x' * 10 ** 15 }}", "(MemoryError)"),
        ("{% if 1 %}" * 200 + "{% endif %}" * 200, "(IndentationError)"),
        ("{{ '\\ud800' }}", "(UnicodeEncodeError)"),
    ],
)
def test_no_template_for_the_messages(
    zoo: Any, tokenizer: Any, template: str | None, message: str
) -> None:
    """The error says why, without the content."""
    tokenizer.chat_template = template
    with pytest.raises(PromptError) as raised:
        HFBackend(zoo.tuned("llama_lora"), tokenizer).render_chat(CHAT)
    assert message in str(raised.value)
    assert "the cat" not in str(raised.value)


def test_template_cannot_reach_the_program(zoo: Any, tokenizer: Any) -> None:
    """A template of a hostile model runs in a sandbox."""
    tokenizer.chat_template = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(PromptError, match="SecurityError"):
        HFBackend(zoo.tuned("llama_lora"), tokenizer).render_chat(CHAT)


def test_template_of_the_adapter(zoo: Any, copy_of: Callable[[str], Path]) -> None:
    """An adapter's template without a tokenizer is used with the base's."""
    adapter = copy_of("llama_lora")
    (adapter / "chat_template.jinja").write_text(TEMPLATE)
    backend = load_backend(ModelSource(str(zoo.path("llama")), str(adapter)))
    assert backend.render_chat(CHAT) == RenderedChat(RENDERED)
    (adapter / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(AdapterError, match=r"chat_template\.jinja cannot be read"):
        load_backend(ModelSource(str(zoo.path("llama")), str(adapter)))


def test_suite_of_chats(tmp_path: Path, backend: HFBackend) -> None:
    """Texts of a chat suite are messages of the user; messages are chats in any suite."""
    chats = [[{"role": "user", "content": text}] for text in ("the cat", "the mat")]
    suite = "version: 1\nmodel: {path: m, adapter: a}\n"
    probe = "probes: [{name: one, kind: delta_kl, prompts: PROMPTS}]\n"
    texts = suite + "chat: true\n" + probe.replace("PROMPTS", "[the cat, the mat]")
    messages = suite + probe.replace("PROMPTS", json.dumps(chats))
    (tmp_path / "chats.jsonl").write_text("\n".join(json.dumps({"messages": c}) for c in chats))
    in_file = suite + probe.replace("prompts: PROMPTS", "prompts_file: chats.jsonl")
    results = []
    for number, text in enumerate((texts, messages, in_file)):
        (tmp_path / f"{number}.yaml").write_text(text)
        results.append(run_suite(load_suite(tmp_path / f"{number}.yaml"), backend))
    assert len({result.probes[0].raw for result in results}) == 1
    assert [result.probes[0].stats.forward_passes for result in results] == [4, 0, 0]


def test_plan_with_a_store(tmp_path: Path, zoo: Any, tokenizer: Any) -> None:
    """What a chat suite has stored is found before its next run, by the rendered text."""
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "version: 1\nmodel: {path: m, adapter: a}\nchat: true\n"
        "probes: [{name: one, kind: delta_kl, prompts: [the cat, the mat]}]\n"
    )
    with closing(SqliteStore(tmp_path / "s.db")) as store:
        inst = BackendInstrumentation(store=store)
        backend = HFBackend(zoo.tuned("llama_lora"), tokenizer, instrumentation=inst)
        run_suite(load_suite(suite), backend)
        store.flush(10.0)
        planned = stored_plan(load_suite(suite), backend, store)
    assert planned.answered == {
        (None, "base"): 1,
        (None, "ft"): 1,
        ("one", "base"): 2,
        ("one", "ft"): 2,
    }


@pytest.mark.parametrize("view_id", ["base", "ft"])
def test_a_chat_model_answers_as_in_plain_transformers(
    demo_model_folder: Path, tmp_path: Path, view_id: str
) -> None:
    """A suite with `chat: true` asks SmolLM2-Instruct what its own template makes of a prompt."""
    tokenizer = AutoTokenizer.from_pretrained(demo_model_folder)
    chats = [[{"role": "user", "content": prompt}] for prompt in GENERAL_PROMPTS[:6]]
    recipe = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)
    with quiet_transformers():
        plain = AutoModelForCausalLM.from_pretrained(demo_model_folder, dtype=torch.float32)
        tuned = get_peft_model(plain, recipe)
        tuned.save_pretrained(tmp_path)
    expected = []
    with torch.no_grad(), tuned.disable_adapter() if view_id == "base" else nullcontext():
        for chat in chats:
            ids = tokenizer.apply_chat_template(
                chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            expected.append(tuned(**ids).logits[0, -1].double().log_softmax(-1).numpy())
    source = ModelSource(str(demo_model_folder), str(tmp_path), device="cpu", dtype="float32")
    with closing(load_backend(source)) as backend:
        prompts = ProbeContext(backend, chat=True).render(GENERAL_PROMPTS[:6])
        with backend.as_base() if view_id == "base" else backend.as_finetuned() as view:
            dists = view.next_token_dist_batch(prompts, top_k=256)
    for dist, logprobs in zip(dists, expected, strict=True):
        assert np.abs(dist.logprobs - logprobs[dist.token_ids]).max() < 1e-4
