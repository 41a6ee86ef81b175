"""Instrumented torch modules and callables: what is cached, what is not, and what stays."""

from __future__ import annotations

import copy
import io
import json
import pickle
import subprocess
import sys
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from forwardscope import BackendInstrumentation
from forwardscope.integrations.torch_module import calls_of, instrument, uninstrument
from forwardscope.testing import InMemoryTelemetry, MemoryStore

_X = torch.linspace(-1.0, 1.0, 24).reshape(3, 8)


class Counted(nn.Module):
    """A layer with a parameter, a buffer, an attribute and a part."""

    def __init__(self, function: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(8) * 2)
        self.register_buffer("shift", torch.ones(8))
        self.scale = 1.0
        self.inner = Inner(function)

    def forward(self, x: Any, *more: Any, **options: Any) -> Any:
        return self.inner((x @ self.weight + self.shift) * self.scale, *more, **options)


class Inner(nn.Module):
    """Applies a function; the class counts how often, where no module's content has it."""

    computed = 0

    def __init__(self, function: Callable[..., Any] | None) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, *more: Any, **options: Any) -> Any:
        Inner.computed += 1
        return x if self.function is None else self.function(x, *more, **options)


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    Inner.computed = 0
    with torch.no_grad():
        yield


def _net(function: Callable[..., Any] | None = None, **settings: Any) -> Counted:
    settings = {"identity": "content", "cache": True} | settings
    return instrument(Counted(function).eval(), **settings)


def _counts(target: Any) -> tuple[int, int]:
    """Return hits and forward passes."""
    stats = calls_of(target).instrumentation.stats
    return stats.cache_hits, stats.forward_passes


def _returns_ones(*_: Any, **__: Any) -> Tensor:
    return torch.ones(2)


def test_a_hit_equals_what_was_computed_bit_for_bit() -> None:
    """The second call computes nothing and has the same values, as without instrumentation."""
    net = _net()
    plain = uninstrument(copy.deepcopy(net))
    expected = plain(_X)
    assert torch.equal(net(_X), expected)
    hit = net(_X.clone())
    assert torch.equal(hit, expected)
    assert (hit.dtype, hit.stride(), hit.device) == (torch.float32, (8, 1), _X.device)
    assert _counts(net) == (1, 1)
    assert calls_of(net).bypasses == {}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (((torch.ones(2),), {}), ((torch.ones(2, dtype=torch.float64),), {})),
        (((torch.ones(2, 3),), {}), ((torch.ones(3, 2),), {})),
        (((torch.ones(2, 3),), {}), ((torch.ones(6),), {})),
        (((torch.tensor([0.0]),), {}), ((torch.tensor([-0.0]),), {})),
        (((torch.zeros(2).bfloat16(),), {}), ((torch.zeros(2).half(),), {})),
        (((1,), {}), ((True,), {})),
        (((1,), {}), ((1.0,), {})),
        (((0.0,), {}), ((-0.0,), {})),
        ((("1",), {}), ((1,), {})),
        (((b"1",), {}), (("1",), {})),
        (((None,), {}), ((), {})),
        (((1,), {}), ((), {"a": 1})),
        (((), {"a": 1}), ((), {"b": 1})),
        ((([1, 2], 3), {}), (([1], 2, 3), {})),
        ((((1, 2),), {}), (([1, 2],), {})),
        ((({"a": 1},), {}), (({"a": 2},), {})),
        (((torch.float32,), {}), ((torch.float64,), {})),
    ],
)
def test_calls_that_differ_have_keys_that_differ(one: Any, other: Any) -> None:
    """Dtype, shape, sign of zero, type, nesting and names of arguments are in the key."""
    function = instrument(_returns_ones, identity="1", cache=True)
    for args, kwargs in (one, other, one, other):
        function(*args, **kwargs)
    assert _counts(function) == (2, 2)


def test_the_layout_of_equal_integers_is_not_in_the_key() -> None:
    """A slice of a batch finds what was computed of the same tokens in other memory."""
    function = instrument(_returns_ones, identity="1", cache=True)
    batch = torch.arange(40).reshape(4, 10)
    function(batch[:, :5])
    function(batch[:, :5].contiguous())
    assert _counts(function) == (1, 1)


def test_the_layout_of_numbers_is_in_the_key() -> None:
    """Kernels may round a transposed matrix in another way."""
    function = instrument(_returns_ones, identity="1", cache=True)
    square = torch.arange(4.0).reshape(2, 2)
    function(square.T)
    function(square.T.contiguous())
    assert _counts(function) == (0, 2)


def test_settings_that_change_results_are_in_the_key() -> None:
    """Autocast, the default dtype and the number of threads are."""
    net = _net()
    net(_X)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert net(_X).dtype == net(_X).dtype
    torch.set_default_dtype(torch.float64)
    net(_X)
    torch.set_default_dtype(torch.float32)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    net(_X)
    torch.set_num_threads(threads)
    assert _counts(net) == (1, 4)


def test_nothing_is_cached_while_gradients_are_enabled() -> None:
    """Such calls are counted, with the reason, and neither read nor fill the cache."""
    net = _net()
    net(_X)
    with torch.enable_grad():
        assert net(_X).requires_grad
        assert net(_X).grad_fn is not None
    assert _counts(net) == (0, 3)
    assert calls_of(net).bypasses == {"gradients are enabled": 2}


def test_gradients_are_those_of_the_module_alone() -> None:
    """Parameters and inputs get the same gradients, bit for bit."""
    gradients = []
    plain = Counted(torch.tanh)
    for net in (plain, instrument(copy.deepcopy(plain), identity="content", cache=True)):
        with torch.enable_grad():
            x = _X.clone().requires_grad_()
            net(x).square().sum().backward()
            gradients.append((net.weight.grad, x.grad))
    assert all(map(torch.equal, *gradients))


def test_training_mode_of_any_part_bypasses_the_cache() -> None:
    """One part in training mode, such as a dropout, is enough."""
    net = _net()
    net.inner.train()
    net(_X)
    net(_X)
    assert _counts(net) == (0, 2)
    assert calls_of(net).bypasses == {"training mode": 2}


def test_hooks_run_at_each_call() -> None:
    """A module with hooks around a forward is never answered from the cache."""
    net, seen = _net(), []
    handle = net.inner.register_forward_hook(lambda *_: seen.append(1))
    net(_X)
    net(_X)
    assert len(seen) == 2
    handle.remove()
    net(_X)
    net(_X)
    assert _counts(net) == (1, 3)


def _change_weight(net: Counted) -> None:
    net.weight.add_(1.0)


def _change_buffer(net: Counted) -> None:
    net.shift.add_(1.0)


def _change_attribute(net: Counted) -> None:
    net.scale = 3.0


def _change_part(net: Counted) -> None:
    net.inner = Inner(torch.tanh).eval()


def _replace_weight(net: Counted) -> None:
    net.weight = nn.Parameter(torch.eye(8))


def _load(net: Counted) -> None:
    net.load_state_dict({"weight": torch.eye(8) * 7, "shift": torch.zeros(8)})


@pytest.mark.parametrize(
    "change",
    [_change_weight, _change_buffer, _change_attribute, _change_part, _replace_weight, _load],
)
def test_a_module_that_was_changed_is_computed_anew(change: Callable[[Counted], None]) -> None:
    """What was cached before the change is found again only when the change is undone."""
    net = _net()
    before, first = net(_X), copy.deepcopy(net)
    change(net)
    plain = uninstrument(copy.deepcopy(net))
    assert not torch.equal(net(_X), before)
    assert torch.equal(net(_X), plain(_X))
    assert _counts(net) == (1, 2)
    assert torch.equal(first(_X), before)
    assert _counts(net) == (2, 2)


def test_an_identity_that_is_a_text_holds_until_the_weights_change() -> None:
    """Afterwards, and for a copy, calls bypass the cache."""
    net = _net(identity="1")
    net(_X)
    net(_X)
    changed = copy.deepcopy(net)
    changed.weight.add_(1.0)
    assert not torch.equal(changed(_X), net(_X))
    net.shift.add_(1.0)
    net(_X)
    assert _counts(net) == (2, 3)
    reason = "the weights are not those that the identity is of"
    assert calls_of(net).bypasses == {reason: 2}


def test_an_identity_may_be_a_function() -> None:
    """It is called at each call; None means that the call must not be cached."""
    given = iter(["1", "1", "1", "2", "2", None])
    function = instrument(_returns_ones, identity=lambda: next(given), cache=True)
    for _ in range(4):
        function()
    assert _counts(function) == (1, 3)
    assert calls_of(function).bypasses == {"its identity is not known": 1}


def test_two_modules_share_what_is_equal_and_nothing_else() -> None:
    """Equal content of one class is one identity; another activation is another."""
    instrumentation = BackendInstrumentation()
    settings: dict[str, Any] = {"instrumentation": instrumentation}
    results = [_net(function, **settings)(_X) for function in (None, torch.tanh, torch.relu, None)]
    assert torch.equal(results[0], results[3])
    assert len({tuple(one.flatten().tolist()) for one in results}) == 3
    assert (instrumentation.stats.cache_hits, instrumentation.stats.forward_passes) == (1, 3)
    linear = nn.Linear(8, 8).eval()
    one, two = nn.Sequential(linear), nn.Sequential(linear, linear)
    for net in (one, two):
        instrument(net.eval(), identity="content", cache=True, **settings)
    assert not torch.equal(one(_X), two(_X))


def test_a_caller_cannot_change_what_others_get() -> None:
    """The computed value and each hit have memory of their own."""
    net = _net()
    first = net(_X)
    expected = first.clone()
    first.zero_()
    second = net(_X)
    assert torch.equal(second, expected)
    second.zero_()
    assert torch.equal(net(_X), expected)
    assert _counts(net) == (2, 1)


def test_nested_results_keep_their_types_and_what_they_share() -> None:
    """Tuples, lists, dicts and plain values come back; one tensor at two places stays one."""

    def nested(x: Tensor) -> Any:
        y = x + 1
        return {"a": (y, [y, None]), 2: True, "t": y.T.clone(), "e": torch.empty(0, 3)}, 1.5, "ä"

    function = instrument(nested, identity="1", cache=True)
    computed, hit = function(_X), function(_X)
    assert _counts(function) == (1, 1)
    assert repr(hit) == repr(computed)
    assert hit[0]["a"][0] is hit[0]["a"][1][0]
    assert hit[0]["a"][0] is not computed[0]["a"][0]
    assert hit[0]["t"].stride() == computed[0]["t"].stride()


class _Drawing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand(8)


class _Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + self.calls


class _Writing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x += 1
        return x * 2


class _Viewing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[0]


class _Splitting(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return (x + 1).chunk(3)


class _Generating(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return iter([x + 1, x + 2])


class _Differentiable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            return x * self.weight


_REFUSED = {
    _Drawing: "it draws random numbers",
    _Remembering: "it changes its arguments or its module",
    _Writing: "it changes its arguments or its module",
    _Viewing: "its result shares memory",
    _Splitting: "its result shares memory",
    _Generating: "its result has a builtins.list_iterator",
    _Differentiable: "its result has gradients",
}


@pytest.mark.parametrize("kind", _REFUSED)
def test_a_call_that_does_more_than_return_a_value_is_never_cached(
    kind: type[nn.Module],
) -> None:
    """Each call has the effect and the result that it has without instrumentation."""
    plain = kind().eval()
    net = instrument(copy.deepcopy(plain), identity="content", cache=True)
    seen = []
    for one in (plain, net):
        torch.manual_seed(1)
        x = _X.clone()
        results = [one(x) for _ in range(3)]
        parts = [[one] if torch.is_tensor(one) else list(one) for one in results]
        seen.append(repr((parts, x)))
    assert seen[0] == seen[1]
    assert calls_of(net).bypasses == {_REFUSED[kind]: 2}
    assert _counts(net) == (0, 3)


def test_what_one_module_cannot_keep_another_of_equal_content_computes() -> None:
    """It finds the refusal in the cache, makes the call itself and counts it as a bypass."""
    instrumentation = BackendInstrumentation()
    nets = [
        instrument(
            _Viewing().eval(), identity="content", cache=True, instrumentation=instrumentation
        )
        for _ in range(2)
    ]
    for net in nets:
        assert net(_X).data_ptr() == _X.data_ptr()
    assert [calls_of(net).bypasses for net in nets] == [{}, {"its result shares memory": 1}]
    assert instrumentation.stats.forward_passes == 2


def test_arguments_without_a_known_content_bypass_the_cache() -> None:
    """A generator is not consumed, and objects are passed on as they are."""
    net = _net(lambda x, items, **_: x + sum(items))
    plain = uninstrument(copy.deepcopy(net))
    instrument(net.inner, identity="content", cache=True)
    for _ in range(2):
        got, expected = net(_X, iter([1, 2])), plain(_X, iter([1, 2]))
        assert torch.equal(got, expected)
    net(_X, [1], cache=object())
    assert _counts(net) == (0, 3)
    assert list(calls_of(net).bypasses) == [
        "builtins.list_iterator has no known content",
        "builtins.object has no known content",
    ]


@pytest.mark.parametrize(
    "argument",
    [torch.ones(2, 2).to_sparse(), torch.ones(2, device="meta"), torch.Generator()],
    ids=["sparse", "meta", "generator"],
)
def test_tensors_that_cannot_be_read_bypass_the_cache(argument: Any) -> None:
    """The call is made all the same."""
    function = instrument(_returns_ones, identity="1", cache=True)
    function(argument)
    function(argument)
    assert _counts(function) == (0, 2)


def test_an_exception_is_that_of_the_module_and_leaves_no_entry() -> None:
    """It is raised unchanged and counted; the next call computes."""
    fails = [True, False]

    def function(x: Tensor) -> Tensor:
        if fails.pop(0):
            raise ZeroDivisionError("once")
        return x + 1

    wrapped = instrument(function, identity="1", cache=True)
    with pytest.raises(ZeroDivisionError, match="once"):
        wrapped(_X)
    assert torch.equal(wrapped(_X), wrapped(_X))
    assert calls_of(wrapped).instrumentation.stats.to_dict()["cache_misses"] == 2
    assert _counts(wrapped) == (1, 1)


def test_threads_that_miss_one_call_pay_for_it_once() -> None:
    """Each gets a value of its own."""
    began, go = threading.Barrier(4), threading.Event()

    def slow(x: Tensor) -> Tensor:
        go.wait(30)
        return x + 1

    function = instrument(slow, identity="1", cache=True)
    calls, results = calls_of(function), []

    def ask() -> None:
        with torch.no_grad():
            began.wait(30)
            results.append(function(_X))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    began.wait(30)
    go.set()
    for thread in threads:
        thread.join(30)
    assert _counts(function) == (2, 1)
    results[0].zero_()
    assert torch.equal(results[1], _X + 1)
    assert torch.equal(results[2], _X + 1)
    assert calls.bypasses == {}


def test_a_result_of_inference_mode_is_handed_out_for_all_modes() -> None:
    """A hit is a tensor of the mode that it is asked in."""
    net = _net()
    with torch.inference_mode():
        expected = net(_X).tolist()
        assert net(_X).is_inference()
    hit = net(_X)
    assert not hit.is_inference()
    assert hit.tolist() == expected
    assert _counts(net) == (2, 1)


def test_a_deep_copy_calls_its_own_weights() -> None:
    """It is instrumented too, and the original is not changed by it."""
    net = _net()
    before = net(_X)
    copied = copy.deepcopy(net)
    copied.weight.mul_(0.0)
    assert torch.equal(copied(_X), torch.ones(3, 8))
    assert torch.equal(net(_X), before)
    assert calls_of(copied) is calls_of(net)


def test_state_dict_class_and_saved_module_are_as_before() -> None:
    """Names, `isinstance` and `repr` stay; what is pickled needs nothing of this package."""
    plain = Counted().eval()
    names, shown = list(plain.state_dict()), repr(plain)
    net = instrument(plain, identity="content", cache=True)
    assert (list(net.state_dict()), repr(net)) == (names, shown)
    assert isinstance(net, Counted)
    assert type(net).__name__ == "Counted"
    sequence = instrument(nn.Sequential(nn.Linear(2, 2)).eval())
    data = pickle.dumps(sequence)
    assert b"forwardscope" not in data
    loaded = pickle.loads(data)  # noqa: S301 - made above
    assert type(loaded) is nn.Sequential
    file = io.BytesIO()
    torch.save(sequence.state_dict(), file)
    file.seek(0)
    assert isinstance(torch.load(file), OrderedDict)


def test_uninstrument_restores_the_class() -> None:
    """Of a function it returns what was wrapped; of anything else it says so."""
    net = _net()
    assert uninstrument(net) is net
    assert type(net) is Counted
    assert uninstrument(instrument(_returns_ones)) is _returns_ones
    for one in (net, _returns_ones):
        with pytest.raises(ValueError, match="not instrumented"):
            uninstrument(one)
        with pytest.raises(ValueError, match="not instrumented"):
            calls_of(one)


def test_what_cannot_be_instrumented_is_named() -> None:
    """A class, a second time, a cache without identity, content of a function."""
    with pytest.raises(TypeError, match="a module or function"):
        instrument(Counted)
    net = _net()
    with pytest.raises(ValueError, match="instrumented already"):
        instrument(net)
    with pytest.raises(ValueError, match="needs an identity"):
        instrument(Counted(), cache=True)
    with pytest.raises(ValueError, match="give max_bytes, or an instrumentation"):
        instrument(Counted(), max_bytes=1, instrumentation=BackendInstrumentation())
    with pytest.raises(ValueError, match="must be positive"):
        instrument(Counted(), max_bytes=0)
    with pytest.raises(TypeError, match="only a module has a content"):
        instrument(_returns_ones, identity="content", cache=True)


@pytest.mark.parametrize(("max_bytes", "hits"), [(_X.nbytes, 0), (100 * _X.nbytes, 1), (None, 1)])
def test_results_are_kept_within_a_bound_of_bytes(max_bytes: int | None, hits: int) -> None:
    """A result that is larger is handed out and not kept; without a bound it is 1 GiB."""
    net = instrument(Counted().eval(), identity="content", cache=True, max_bytes=max_bytes)
    assert torch.equal(net(_X), net(_X))
    assert _counts(net) == (hits, 2 - hits)
    assert calls_of(net).instrumentation.cache.max_bytes == (max_bytes or 2**30)


def test_the_decorator_keeps_name_and_signature() -> None:
    """Without a cache each call is computed and counted."""

    @instrument(name="my_loss")
    def loss(x: Tensor, *, power: int = 2) -> Tensor:
        """Return a loss."""
        return x.pow(power).sum()

    assert (loss.__name__, loss.__doc__) == ("loss", "Return a loss.")
    assert torch.equal(loss(_X, power=3), _X.pow(3).sum())
    assert calls_of(loss).bypasses == {"no cache was requested": 1}
    assert _counts(loss) == (0, 1)


def test_modules_inside_modules_are_counted_where_they_are_computed() -> None:
    """A hit of the outer one makes no call of the inner one."""
    instrumentation = BackendInstrumentation()
    net = Counted(torch.tanh).eval()
    for part in (net.inner, net):
        instrument(part, identity="content", cache=True, instrumentation=instrumentation)
    assert torch.equal(net(_X), net(_X))
    assert (instrumentation.stats.cache_hits, instrumentation.stats.forward_passes) == (1, 2)
    assert Inner.computed == 1


def test_wrappers_of_torch_take_an_instrumented_module() -> None:
    """DataParallel counts its calls, jit traces it, and compiled it is the module alone."""
    net = _net()
    expected = net(_X)
    assert torch.equal(nn.DataParallel(net)(_X), expected)
    assert _counts(net) == (1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.jit itself, by the release
        traced = torch.jit.trace(net, _X)
    assert torch.equal(traced(_X), expected)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    assert torch.equal(compiled(_X), expected)
    around = instrument(torch.compile(Counted().eval(), backend="eager"))
    assert torch.equal(around(_X), expected)
    assert _counts(around) == (0, 1)


def test_results_outlive_the_process_in_a_store() -> None:
    """Another process with a module of equal content gets equal values, bit for bit."""
    store = MemoryStore()

    def result() -> tuple[Tensor, tuple[int, int]]:
        net = _net(torch.tanh, instrumentation=BackendInstrumentation(store=store))
        return net(_X), _counts(net)

    (computed, first), (stored, second) = result(), result()
    assert torch.equal(computed, stored)
    assert (first, second) == ((0, 1), (1, 0))


def test_a_stored_result_is_never_that_of_another_module() -> None:
    """Also where an instrumentation has one identity for all of its views."""
    store = MemoryStore()
    settings: dict[str, Any] = {"store": store, "view_identity": lambda _: "same"}
    one = _net(torch.tanh, instrumentation=BackendInstrumentation(**settings))
    other = _net(torch.relu, instrumentation=BackendInstrumentation(**settings))
    assert not torch.equal(one(_X), other(_X))
    assert _counts(other) == (0, 1)


def test_spans_have_digests_in_place_of_contents(tmp_path: Path) -> None:
    """The view names module and identity; nothing of the argument's text is in span or trace."""
    telemetry, path = InMemoryTelemetry(), tmp_path / "trace.jsonl"
    instrumentation = telemetry.instrumentation(trace_path=path)
    function = instrument(
        lambda text: torch.ones(len(text)),
        identity="1",
        name="encode_text",
        cache=True,
        instrumentation=instrumentation,
    )
    for text in ("secret", "secret", object.__name__):
        function(text)
    with torch.enable_grad():
        function("secret")
    instrumentation.close()
    spans = telemetry.spans()
    assert [one.name for one in spans if one.name.startswith("lookup")] == [
        "lookup miss",
        "lookup hit",
        "lookup miss",
        "lookup miss",
    ]
    assert {one.name.partition("_")[0] for one in spans if one.name.startswith("forward")} == {
        "forward encode-text"
    }
    assert "secret" not in repr(spans) + path.read_text()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.get("bypassed") for line in lines] == [None, None, None, True]
    assert lines[0]["prompt_hash"] == lines[1]["prompt_hash"] != lines[2]["prompt_hash"]


def test_importing_the_integrations_loads_no_torch() -> None:
    """Only the module of an integration loads its tool."""
    code = "import sys, forwardscope.integrations; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def _tangent(net: Any) -> Any:
    with forward_ad.dual_level():
        out = net(forward_ad.make_dual(_X, torch.ones_like(_X)))
        return forward_ad.unpack_dual(out).tangent


def _flops(net: Any) -> int:
    with FlopCounterMode(display=False) as counter:
        net(_X)
    return int(counter.get_total_flops())


def _hooked(net: Any) -> int:
    seen: list[Any] = []
    hook = nn.modules.module.register_module_forward_hook(lambda *_: seen.append(1))
    try:
        net(_X)
    finally:
        hook.remove()
    return len(seen)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # of forward_ad
@pytest.mark.parametrize("observe", [_tangent, _flops, _hooked])
def test_what_observes_each_operation_sees_a_call_that_was_cached(
    observe: Callable[[Any], Any],
) -> None:
    """A hit would show it nothing."""
    net = _net()
    net(_X)
    found, expected = observe(net), observe(Counted().eval())
    assert found is not None
    assert torch.equal(torch.as_tensor(found), torch.as_tensor(expected))


def test_a_default_device_is_in_the_key() -> None:
    """What the module makes is there."""
    make = instrument(lambda: torch.zeros(2), name="make", identity="1", cache=True)
    make()
    with torch.device("meta"):
        assert make().is_meta


def test_strides_of_single_channels_are_in_the_key() -> None:
    """They decide the layout of a convolution, although either tensor is contiguous."""
    plain = nn.Conv2d(1, 2, 3).eval()
    net = instrument(copy.deepcopy(plain), identity="content", cache=True)
    image = torch.randn(2, 1, 6, 6)
    channels_last = image.as_strided(image.shape, (36, 1, 6, 1))
    net(image)
    assert net(channels_last).stride() == plain(channels_last).stride()


def test_casts_that_autocast_keeps_are_not_those_of_other_weights() -> None:
    """Autocast would use its casts of the weights of before, until it ends."""
    net = instrument(nn.Linear(8, 8).eval(), identity="content", cache=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        net(_X)
        net.weight.mul_(2)
        net(_X)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(net(_X), nn.functional.linear(_X, net.weight, net.bias))


def test_conversions_that_return_to_an_address_are_seen() -> None:
    """`half().float()` rounds the weights, and may allocate where they were."""
    net = instrument(nn.Linear(300, 300).eval(), identity="content", cache=True)
    x = torch.randn(2, 300)
    for _ in range(20):
        nn.init.normal_(net.weight)
        net(x)
        net.half().float()
        assert torch.equal(net(x), nn.functional.linear(x, net.weight, net.bias))


def test_functions_of_one_version_do_not_share_a_store() -> None:
    """A version says nothing of which function it is."""
    store = MemoryStore()
    answers = []
    for function in (_double, _triple):
        inst = BackendInstrumentation(store=store)
        wrapped = instrument(function, identity="1", cache=True, instrumentation=inst)
        answers.append(wrapped(1))
        inst.close()
    assert answers == [2, 3]


def _double(x: int) -> int:
    return 2 * x


def _triple(x: int) -> int:
    return 3 * x


def test_texts_come_back_with_their_surrogates() -> None:
    """JSON's escapes would join two of them to a character."""
    text = instrument(lambda: "\ud83d\ude00", name="text", identity="1", cache=True)
    assert [text(), text()] == ["\ud83d\ude00"] * 2


def test_flushed_denormals_are_in_the_key() -> None:
    """torch.set_flush_denormal changes values."""
    tiny = torch.full((3,), 1e-40)
    scale = instrument(_scale, identity="1", cache=True)
    scale(tiny)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush")
    try:
        assert scale(tiny).count_nonzero() == 0
    finally:
        torch.set_flush_denormal(False)


def _scale(x: Tensor) -> Tensor:
    return x * 1.5
