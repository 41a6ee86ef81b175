"""A base and its full fine-tune have the values of plain transformers on each checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM
from typer.testing import CliRunner

from forwardscope import BackendInstrumentation
from forwardscope.backends import Backend, NullBackend, ScalableBackend
from forwardscope.backends.hf import HFPairBackend, ModelSource, load_backend
from forwardscope.backends.hf.loading import quiet_transformers
from forwardscope.cli.app import app
from forwardscope.errors import AdapterError, ModelError, PromptError, UserError, ViewError
from forwardscope.probes import AdapterAblation, DeltaKL, NullAdapter, PromptCollapse, Verdict
from forwardscope.suite import SuiteSpec, run_suite
from forwardscope.suite.plan import plan_suite
from forwardscope.suite.spec import ModelSpec

Make = Callable[..., Path]

ALL = 10_000
PROMPT = "the cat sat on the"
CHAT = "the <|call|>cat<|end|>"
PROMPTS = [PROMPT, "x", "the cat sat on the mat and the other", "<pad>" * 30 + "\n\nhello there"]


@pytest.fixture
def tuned(zoo: Any, tmp_path: Path) -> Make:
    """Return a function that saves a full fine-tune of a model of the zoo."""

    def make(
        model: str = "llama", *, rows: int | None = None, change: Any = None, tokenizer: Any = None
    ) -> Path:
        folder = tmp_path / f"tuned-{model}"
        with quiet_transformers(), torch.no_grad():
            torch.manual_seed(5)
            whole = zoo.base(model)
            if rows is not None:
                whole.resize_token_embeddings(rows)
            for parameter in whole.parameters():
                parameter.add_(torch.randn(parameter.shape) * 0.05)
            if change is not None:
                change(whole)
            whole.save_pretrained(folder)
            if tokenizer is not None:
                tokenizer.save_pretrained(folder)
        return folder

    return make


def _load(
    zoo: Any, folder: Path, model: str = "llama", *, one_at_a_time: bool = False, **options: Any
) -> HFPairBackend:
    source = ModelSource(
        str(zoo.path(model)), tuned=str(folder), device="cpu", one_at_a_time=one_at_a_time
    )
    backend = load_backend(source, **options)
    assert isinstance(backend, HFPairBackend)
    return backend


def _message(kind: type[UserError], path: Path, **source: Any) -> str:
    given = {name: str(value) for name, value in source.items()}
    with pytest.raises(kind) as raised:
        load_backend(ModelSource(str(path), device="cpu", **given))
    return str(raised.value)


def _chat_tokenizer(zoo: Any, rows: int) -> Any:
    """Return the tokenizer with added tokens, the last two of them for chats."""
    tokenizer = zoo.tokenizer()
    tokenizer.add_tokens([f"<|{i}|>" for i in range(len(tokenizer), rows - 2)])
    tokenizer.add_tokens(["<|call|>", "<|end|>"], special_tokens=True)
    return tokenizer


def _whole(dist: Any) -> torch.Tensor:
    """Return a distribution's log-probabilities by token id."""
    return torch.from_numpy(dist.logprobs[np.argsort(dist.token_ids)])


@torch.no_grad()
def _alone(model: Any, ids: list[int]) -> torch.Tensor:
    logits: torch.Tensor = model.eval()(torch.tensor([ids]), use_cache=False).logits[0]
    return logits.float().log_softmax(-1)


def _near(got: Any, expected: Any) -> bool:
    return bool(np.abs(np.asarray(got) - np.asarray(expected)).max(initial=0.0) < 1e-4)


@pytest.mark.parametrize("model", ["llama", "gpt2"])
@pytest.mark.parametrize("exactness", ["fast", "strict"])
def test_values_are_those_of_each_checkpoint(
    zoo: Any, tuned: Make, model: str, exactness: str
) -> None:
    """All ops of both views equal calls of a fresh model with one prompt."""
    folder = tuned(model)
    backend = _load(zoo, folder, model, exactness=exactness)
    tokenizer, kind = zoo.tokenizer(), type(zoo.base(model))
    for opened, path in ((backend.as_base(), zoo.path(model)), (backend.as_finetuned(), folder)):
        reference = kind.from_pretrained(path)
        values = [_alone(reference, tokenizer(prompt)["input_ids"]) for prompt in PROMPTS]
        ids = tokenizer(PROMPT + " mat")["input_ids"]
        with opened as view:
            dists = view.next_token_dist_batch(PROMPTS, top_k=ALL)
            rolled = view.rolling_logprob(PROMPT + " mat")
            summed = view.logprob_of(PROMPT, " mat")
        assert all(_near(_whole(dist), own[-1]) for dist, own in zip(dists, values, strict=True))
        each = _alone(reference, ids)[torch.arange(len(ids) - 1), ids[1:]]
        assert _near(rolled.logprobs, each)
        given = len(tokenizer(PROMPT)["input_ids"])
        assert _near(summed, each[given - 1 :].sum())


def test_a_merged_adapter_has_the_values_of_base_and_adapter(
    zoo: Any, tmp_path: Path, open_backend: Any
) -> None:
    """A merged LoRA is a full fine-tune; without its own tokenizer it has the base's."""
    with quiet_transformers():
        zoo.tuned("llama_lora").merge_and_unload().save_pretrained(tmp_path / "merged")
    pair, adapter = _load(zoo, tmp_path / "merged"), open_backend("llama_lora")
    for opened, expected in (
        (pair.as_base(), adapter.as_base()),
        (pair.as_finetuned(), adapter.as_finetuned()),
    ):
        with opened as view, expected as other:
            for prompt in PROMPTS:
                dists = (one.next_token_dist(prompt, top_k=ALL) for one in (view, other))
                assert _near(*map(_whole, dists))
    assert pair.warnings == []


def test_it_is_a_backend_with_two_views(zoo: Any, tuned: Make) -> None:
    """It opens base and fine-tuned, one at a time, and nothing else."""
    backend = _load(zoo, tuned())
    assert isinstance(backend, Backend)
    assert not isinstance(backend, ScalableBackend | NullBackend)
    assert backend.optimisations == {"prefix sharing": "on", "padded batches": "on"}
    with backend.as_base(), pytest.raises(ViewError, match="'base' is open"):
        backend.as_finetuned().__enter__()
    backend.close()
    with pytest.raises(ViewError, match="closed"):
        backend.as_base().__enter__()


def test_optimisations_are_off_where_one_model_cannot_take_them(zoo: Any, tuned: Make) -> None:
    """The state of both is that of the model with more restrictions."""
    folder = tuned()
    config = json.loads((folder / "config.json").read_text())
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    (folder / "config.json").write_text(json.dumps({**config, "rope_parameters": rope}))
    backend = _load(zoo, folder)
    assert all(state.startswith("on (") for state in backend.optimisations.values())
    strict = _load(zoo, folder, exactness="strict")
    assert set(strict.optimisations.values()) == {"off (exactness is strict)"}


def test_added_tokens(zoo: Any, tuned: Make) -> None:
    """Each view predicts its own tokens; the base reads an added one with the mean of its rows."""
    tokenizer = _chat_tokenizer(zoo, 320)
    folder = tuned(rows=320, tokenizer=tokenizer)
    backend = _load(zoo, folder)
    base, size = zoo.base("llama"), zoo.vocab_size
    ids = tokenizer(CHAT)["input_ids"]
    assert max(ids) == 319
    with backend.as_base() as view:
        assert _near(
            _whole(view.next_token_dist(PROMPT, top_k=ALL)),
            _alone(base, tokenizer(PROMPT)["input_ids"])[-1],
        )
        read = _whole(view.next_token_dist(CHAT, top_k=ALL))
        with pytest.raises(PromptError, match="does not predict"):
            view.logprob_of("the", " <|end|>")
    embedded = base.get_input_embeddings().weight
    inputs = torch.stack([embedded[i] if i < size else embedded.mean(0) for i in ids])
    with torch.no_grad():
        logits = base(inputs_embeds=inputs[None]).logits[0, -1]
    assert _near(read, logits.log_softmax(-1))
    with backend.as_finetuned() as view:
        expected = _alone(LlamaForCausalLM.from_pretrained(folder), ids)[-1]
        assert _near(_whole(view.next_token_dist(CHAT, top_k=ALL)), expected)
    assert backend.warnings == [
        f"the tuned model's vocabulary has 320 tokens and the base's {size}; each distribution "
        "has the tokens of its own model"
    ]


def test_other_sizes_without_added_tokens(zoo: Any, tuned: Make) -> None:
    """More rows, such as padding, and fewer change no value of the base."""
    for rows in (zoo.vocab_size + 32, zoo.vocab_size - 1):
        backend = _load(zoo, tuned(rows=rows))
        sizes = []
        for opened in (backend.as_base(), backend.as_finetuned()):
            with opened as view:
                sizes.append(view.next_token_dist(PROMPT).vocab_size)
        assert sizes == [zoo.vocab_size, rows]
        assert any(f"has {rows} tokens" in warning for warning in backend.warnings)
    last = zoo.tokenizer().decode([zoo.vocab_size - 1])
    [warning] = [
        one
        for one in backend.warnings
        if "without embedding" in one or "without an embedding" in one
    ]
    assert last.strip() in warning
    with backend.as_finetuned() as view, pytest.raises(PromptError, match="no embedding"):
        view.next_token_dist(last)


def test_the_shorter_context_limits_filler(zoo: Any, tuned: Make) -> None:
    """Filler fits both models; a prompt that fits one of them alone is an error in the other."""
    folder = tuned()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 32}))
    backend = _load(zoo, folder)
    length = backend.longest_filler(PROMPT)
    assert length is not None
    longest = backend.filler(length) + PROMPT
    assert len(zoo.tokenizer()(longest)["input_ids"]) == 32
    for opened in (backend.as_base(), backend.as_finetuned()):
        with opened as view:
            view.next_token_dist(longest)
    with backend.as_base() as view:
        view.next_token_dist("<pad>" + longest)
    with backend.as_finetuned() as view, pytest.raises(PromptError, match="more than the 32"):
        view.next_token_dist("<pad>" + longest)


def test_a_suite_skips_what_needs_an_adapter(zoo: Any, tuned: Make) -> None:
    """Ablation and calibration are skipped with the reason; the plan is that of the run."""
    folder = tuned()
    spec = SuiteSpec(
        version=1,
        model=ModelSpec(path=str(zoo.path("llama")), tuned=str(folder)),
        probes=(
            NullAdapter(name="baseline"),
            DeltaKL(name="change", prompts=PROMPTS),
            AdapterAblation(name="response", prompts=PROMPTS),
            PromptCollapse(name="context", prompts=[PROMPT], context_lengths=(0, 8, 16)),
        ),
    )
    backend = _load(zoo, folder)
    result = run_suite(spec, backend)
    by_name = {probe.name: probe for probe in result.probes}
    for name, reason in (
        ("baseline", "a full fine-tune has no adapter, so it has no random counterpart"),
        ("response", "a full fine-tune has no adapter to scale"),
    ):
        assert (by_name[name].verdict, by_name[name].message) == (Verdict.SKIP, reason)
    assert by_name["change"].verdict is Verdict.PASS
    assert by_name["context"].raw is not None or by_name["context"].score is not None
    assert result.adapter == str(folder)
    passes = result.backend_stats["forward_passes"]
    assert passes == plan_suite(spec).forward_passes == plan_suite(spec, backend).forward_passes


def test_a_suite_file(zoo: Any, tuned: Make, tmp_path: Path) -> None:
    """`forwardscope run` loads the tuned model of a suite."""
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        f"version: 1\nmodel: {{path: {zoo.path('llama')}, tuned: {tuned().name}, device: cpu}}\n"
        f"probes:\n  - {{name: change, kind: delta_kl, prompts: [{PROMPT}]}}\n"
    )
    result = CliRunner().invoke(app, ["run", str(suite), "--json", str(tmp_path / "result.json")])
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["adapter"] == "tuned-llama"


def test_identity_is_that_of_both_models(zoo: Any, tuned: Make, tmp_path: Path) -> None:
    """It changes with either model's weights and is equal for copies of the same weights."""
    folder = tuned()
    expected = _load(zoo, folder).identity()
    assert _load(zoo, folder).identity() == expected
    copies = [
        Path(shutil.copytree(path, tmp_path / "copies" / path.name))
        for path in (zoo.path("llama"), folder)
    ]
    source = ModelSource(str(copies[0]), tuned=str(copies[1]), device="cpu")
    assert load_backend(source).identity() == expected
    zoo.tokenizer().save_pretrained(copies[1])
    swapped = ModelSource(str(copies[1]), tuned=str(copies[0]), device="cpu")
    assert load_backend(swapped).identity() != expected
    other = tuned(change=lambda model: model.lm_head.weight.mul_(1.001))
    assert _load(zoo, other).identity() != expected
    assert _load(zoo, other, exactness="strict").identity() != _load(zoo, other).identity()


def test_neither_or_both_of_adapter_and_tuned(zoo: Any) -> None:
    """Exactly one of them is given."""
    path, adapter = zoo.path("llama"), zoo.path("llama_lora")
    assert "either an adapter or a tuned model" in _message(ModelError, path)
    assert "not both" in _message(ModelError, path, adapter=adapter, tuned=path)


def test_an_adapter_and_a_model_in_each_others_place(zoo: Any) -> None:
    """The error says under which key to give it."""
    path, adapter = zoo.path("llama"), zoo.path("llama_lora")
    assert "give it as the adapter, not as the tuned" in _message(ModelError, path, tuned=adapter)
    assert "give it as `tuned`" in _message(AdapterError, path, adapter=path)


def test_another_architecture(zoo: Any, tuned: Make) -> None:
    """A model of another type or size is no fine-tune of the base."""
    message = _message(ModelError, zoo.path("llama"), tuned=zoo.path("gpt2"))
    assert "a gpt2 of 2 layers and width 32 and the base a llama of 2 layers" in message

    def shorten(model: Any) -> None:
        model.model.layers = model.model.layers[:1]
        model.config.num_hidden_layers = 1

    message = _message(ModelError, zoo.path("llama"), tuned=tuned(change=shorten))
    assert "a llama of 1 layers" in message


def test_another_tokenizer(zoo: Any, tuned: Make) -> None:
    """Distributions over other tokens are refused; a few other ids are a warning."""
    tokenizer = zoo.tokenizer()
    folder = tuned(tokenizer=tokenizer)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    vocab = content["model"]["vocab"]
    one, other = list(vocab)[100:102]
    vocab[one], vocab[other] = vocab[other], vocab[one]
    file.write_text(json.dumps(content))
    [warning] = _load(zoo, folder).warnings
    assert "the tuned model's tokenizer, which is used for base and tuned, has other" in warning
    last = len(vocab) - 1
    content["model"]["vocab"] = {token: last - index for token, index in vocab.items()}
    content["added_tokens"] = []
    file.write_text(json.dumps(content))
    message = _message(ModelError, zoo.path("llama"), tuned=folder)
    assert "has other ids for most tokens of the base's" in message


def test_damaged_weights(zoo: Any, tuned: Make) -> None:
    """Weights that are NaN, or missing, are named."""

    def spoil(model: Any) -> None:
        model.model.layers[1].self_attn.q_proj.weight[0, 0] = torch.nan

    message = _message(ModelError, zoo.path("llama"), tuned=tuned(change=spoil))
    assert "NaN or infinite weights (model.layers.1.self_attn.q_proj.weight)" in message
    folder = tuned()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    assert "lacks 9 of its weights" in _message(ModelError, zoo.path("llama"), tuned=folder)


def _suite(max_entries: int = 256) -> SuiteSpec:
    return SuiteSpec(
        version=1,
        model=ModelSpec(path="base", tuned="tuned"),
        cache={"max_entries": max_entries},
        probes=[
            DeltaKL(name="all", prompts=PROMPTS, min_mean=1e-6),
            PromptCollapse(name="collapse", prompts=[PROMPT], context_lengths=(0, 8)),
            DeltaKL(name="again", prompts=[*PROMPTS[:2], "another"], min_mean=1e-6),
        ],
    )


def test_one_model_at_a_time(zoo: Any, tuned: Make) -> None:
    """Where one model is on the device at a time, a suite moves them once, with equal values."""
    folder = tuned()
    results = {}
    for one_at_a_time in (False, True):
        backend = _load(zoo, folder, one_at_a_time=one_at_a_time)
        assert (backend.base_first, backend.moves) == (one_at_a_time, 0)
        results[one_at_a_time] = run_suite(_suite(), backend)
        # once to the tuned model, after the base's part of the check before the probes
        assert backend.moves == (1 if one_at_a_time else 0)
        backend.close()
    both, swapped = results[False], results[True]
    assert [probe.raw for probe in swapped.probes] == [probe.raw for probe in both.probes]
    assert swapped.backend_stats["forward_passes"] == both.backend_stats["forward_passes"]
    assert swapped.backend_stats["forward_passes"] == swapped.expected_forward_passes
    assert any("one at a time" in warning for warning in swapped.warnings)
    passes = [[one.stats.forward_passes for one in result.probes] for result in (both, swapped)]
    assert passes[0] == passes[1]


def test_evicted_values_of_the_base_are_computed_again(zoo: Any, tuned: Make) -> None:
    """With a small cache the models are moved more often, and the values stay."""
    folder = tuned()
    roomy = _load(zoo, folder, one_at_a_time=True)
    small = _load(
        zoo,
        folder,
        one_at_a_time=True,
        instrumentation=BackendInstrumentation(cache_maxsize=2),
    )
    with closing(roomy), closing(small):
        expected, result = run_suite(_suite(), roomy), run_suite(_suite(2), small)
        assert (roomy.moves, small.moves > 1) == (1, True)
    raw = [one.raw for one in expected.probes]  # other batches round differently
    assert [one.raw for one in result.probes] == pytest.approx(raw, abs=1e-4)


def test_one_at_a_time_needs_two_models() -> None:
    """A suite with an adapter cannot ask for it."""
    with pytest.raises(ValueError, match="one_at_a_time is for tuned"):
        ModelSpec(path="base", adapter="adapter", one_at_a_time=True)
