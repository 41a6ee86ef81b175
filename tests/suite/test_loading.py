"""Loading a suite file; errors are one line with file, line and key."""

from __future__ import annotations

import os
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from forwardscope.errors import SpecError
from forwardscope.probes import DeltaKL
from forwardscope.suite import RunMetrics, load_suite
from forwardscope.suite.loading import parse_suite
from forwardscope.suite.yaml_source import MAX_BYTES

SUITE = """version: 1
model:
  path: some-model
  adapter: some-adapter
defaults:
  seed: 3
cache:
  max_entries: 9
probes:
  - name: one
    kind: delta_kl
    prompts:
      - first
      - second
  - name: two
    kind: adapter_ablation
    prompts: [third]
"""
KINDS = "null_adapter, delta_kl, adapter_ablation, prompt_collapse"


def mistakes_in(text: str) -> list[str]:
    """Return the sentences of the error for an invalid suite, without the file's name."""
    with pytest.raises(SpecError) as caught:
        parse_suite(text, "suite.yaml")
    assert str(caught.value).splitlines() == list(caught.value.sentences)
    return [sentence.removeprefix("suite.yaml:") for sentence in caught.value.sentences]


def error_of(text: str) -> str:
    """Return the first sentence of the error for an invalid suite."""
    return f"suite.yaml:{mistakes_in(text)[0]}"


def test_a_valid_suite() -> None:
    """The suite has the values of the file."""
    spec = parse_suite(SUITE, "suite.yaml")
    assert (spec.model.path, spec.model.adapter) == ("some-model", "some-adapter")
    assert (spec.defaults.seed, spec.cache.max_entries) == (3, 9)
    assert [(probe.name, probe.kind) for probe in spec.probes] == [
        ("one", "delta_kl"),
        ("two", "adapter_ablation"),
    ]
    assert spec.probes[0].prompts == ("first", "second")


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("defaults:", "defualts:", "5: defualts: unknown key; did you mean defaults?"),
        ("path:", "pth:", "3: model.pth: unknown key; did you mean path?"),
        ("seed:", "sede:", "6: defaults.sede: unknown key; did you mean seed?"),
        ("max_entries:", "max_entrys:", "8: cache.max_entrys: unknown key; did you mean"),
        ("prompts:\n", "promts:\n", "12: probes[0].promts: unknown key; did you mean prompts?"),
        (
            "prompts: [third]",
            "promts_file: third.txt",
            "17: probes[1].promts_file: unknown key; did you mean prompts_file?",
        ),
        ("kind: ad", "min_z: 1\n    kind: ad", "16: probes[1].min_z: unknown key; "),
        ("cache:", "delta_kl:", "7: delta_kl: unknown key; known: version, name, model"),
        ("cache:", '"a\\nb":', r"7: 'a\nb': unknown key; known: "),
        ("cache:", "c" * 50 + ":", "7: 'cccccccccccc...ccccccccccccc': unknown key; known: "),
        ("name: two", "delta_kl: two", "15: probes[1].delta_kl: unknown key; known: name, kind"),
    ],
)
def test_unknown_keys(right: str, wrong: str, message: str) -> None:
    """The error has the line, the key, and a similar key or all known keys."""
    assert error_of(SUITE.replace(right, wrong)).startswith(f"suite.yaml:{message}")


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("version: 1", "version: 2", "1: version: must be 1; got 2"),
        ("version: 1", "version: '1'", "1: version: must be 1; got '1'"),
        ("version: 1\n", "", "1: version: missing"),
        ("seed: 3", "seed: '3'", "6: defaults.seed: must be a valid integer; got '3'"),
        ("seed: 3", "seed: true", "6: defaults.seed: must be a valid integer; got True"),
        ("seed: 3", "seed: -1", "6: defaults.seed: must be greater than or equal to 0; got -1"),
        ("max_entries: 9", "enabled: 'no'", "8: cache.enabled: must be a valid boolean; got"),
        (
            "  adapter: some-adapter\n",
            "",
            "2: model: needs either adapter (a LoRA adapter) or tuned",
        ),
        (
            "some-adapter",
            "some-adapter\n  tuned: other",
            "2: model: needs either adapter (a LoRA adapter) or tuned (a fully fine-tuned model)",
        ),
        ("some-adapter", "''", "4: model.adapter: needs at least 1 character; got ''"),
        ("cache:\n  max_entries: 9", "cache: 9", "7: cache: must be a mapping; got 9"),
        (
            "max_entries: 9",
            "store_max_bytes: 10 XB",
            "8: cache.store_max_bytes: must be a size: a whole number of bytes, or such as 256MiB "
            "or 10GiB; got '10 XB'",
        ),
        ("max_entries: 9", "max_bytes: -1MiB", "8: cache.max_bytes: must be a size: a whole"),
        ("defaults:", "exactness: exact\ndefaults:", "5: exactness: must be 'fast' or 'strict'"),
        ("defaults:", "report: {prompt: show}\ndefaults:", "5: report.prompt: unknown key; did"),
        ("defaults:", "report: {prompts: yes}\ndefaults:", "5: report.prompts: must be 'hide' or"),
        (
            "defaults:",
            "period: 1y\ndefaults:",
            "5: period: must be a number and s, m, h, d or w",
        ),
        ("defaults:", "telemetry: {otpl: x}\ndefaults:", "5: telemetry.otpl: unknown key; did you"),
        (
            "defaults:",
            "telemetry: {metrics_port: '9'}\ndefaults:",
            "5: telemetry.metrics_port: must",
        ),
        (
            "defaults:",
            "telemetry: {span_budget: -1}\ndefaults:",
            "5: telemetry.span_budget: must be a whole number or all; got -1",
        ),
        (
            "delta_kl",
            "delta_lk",
            "11: probes[0].kind: unknown probe kind 'delta_lk'; did you mean delta_kl? (`forw",
        ),
        ("delta_kl", "other", f"11: probes[0].kind: unknown probe kind 'other'; {KINDS}"),
        ("kind: adapter_ablation", "top_k: 5", f"15: probes[1].kind: missing; use one of {KINDS}"),
        ("delta_kl", "[]", "11: probes[0].kind: unknown probe kind '[]'"),
        ("[third]", "[]", "17: probes[1].prompts: needs at least 1 item; got []"),
        ("[third]", "", "17: probes[1].prompts: must be a list; got None"),
        ("[third]", "third", "17: probes[1].prompts: must be a list; got 'third'"),
        ("[third]", "{third: 3}", "17: probes[1].prompts: must be a list; got {'third': 3}"),
        ("- second", "- ''", "14: probes[0].prompts[1]: needs at least 1 character; got ''"),
        ("- second", "- 2", "14: probes[0].prompts[1]: must be a valid string; got 2"),
        (
            "[third]",
            "[third]\n    lambdas: [0, 1]",
            "18: probes[1].lambdas: needs at least 3 items",
        ),
        ("[third]", "[third]\n    lambdas: [0, 1, 1]", "18: probes[1].lambdas: must be strictly"),
        ("[third]", "[third]\n    lambdas: [0, '1', 2]", "18: probes[1].lambdas[1]: must be a"),
        ("name: two", "name: one", "15: probes[1].name: two probes are named 'one'; names must"),
        ("  - name: two", "  - 5\n  - name: two", "15: probes[1]: must be a mapping; got 5"),
        ("some-model", '"\\ud800"', "3: model.path: must be a valid string"),
    ],
)
def test_invalid_values(right: str, wrong: str, message: str) -> None:
    """The error has the file, the line, the key, the expected value and the value."""
    message = message.replace(f"; {KINDS}", f"; known: {KINDS}")
    assert error_of(SUITE.replace(right, wrong)).startswith(f"suite.yaml:{message}")


@pytest.mark.parametrize("probes", ["probes:", "probes: []", "probes: {a: 1}", "probes: 5"])
def test_a_suite_must_have_probes(probes: str) -> None:
    """A missing or empty list of probes is an error at its key."""
    text = SUITE[: SUITE.index("probes:")] + probes
    assert error_of(text).startswith("suite.yaml:9: probes: ")


@pytest.mark.parametrize("text", ["", "# a comment\n", "---\n", "- version: 1", "5", "null", "[]"])
def test_a_suite_must_be_a_mapping(text: str) -> None:
    """The error for an empty file, a list or a number describes a suite."""
    assert error_of(text) == (
        "suite.yaml: a suite is a mapping with the keys version, model and probes"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\na: [1", "2:4: [ is not closed; add ], or a comma between two items"),
        ("a: {b: 1\nc: 2", "1:4: { is not closed; add }, or a comma between two items"),
        ("a: [b: c: d]", "1:9: a colon in a text; put the text in quotes"),
        ("a: [b,, c]", "1:7: a value is missing before the comma"),
        ("a: [\n- b]", "2:1: items in brackets are separated by commas, and have no '-'"),
        ("a: 1\n\tb: 2", "2:1: a tab in the indentation; indent with spaces, two for each level"),
        (
            "a:\n\tb: 2\n\tc: 2",
            "2:1: a tab in the indentation; indent with spaces, two for each level (lines 2, 3)",
        ),
        ("a:\t1", "1:3: a tab before a value; replace it by a space"),
        ("a: b: c", '1:5: a colon in a value; put the value in quotes: "b: c"'),
        (
            SUITE.replace("- second", "- What: is: it  # really?"),
            '14:17: a colon in a value; put the value in quotes: "is: it"',
        ),
        ("a: %x", '1:4: a value cannot begin with %; put it in quotes: "%x"'),
        ("a: `x`", '1:4: a value cannot begin with `; put it in quotes: "`x`"'),
        (
            "a: b\n   c: d",
            "2:5: indented deeper than the line above, whose value it would "
            "continue; begin it in column 1",
        ),
        (
            "a:\n  - b: c\n      d: e",
            "3:8: indented deeper than the line above, whose value it "
            "would continue; begin it in column 5",
        ),
        ("a\n  b: c", "2:4: the line above needs a colon after its key: 'a'"),
        ("a:b\nc: d", "2:2: the line above needs a space after its colon: 'a:b'"),
        ("a: b\nc d\n", "2:1: a line without a colon; write it as key: value"),
        ("- a\n  b: c", "2:4: a colon in a text of several lines; put the whole text in quotes"),
        ("a:\n   b: c\n  d: e", "3:3: begins in column 3, and the lines of its block in column 1"),
        ("a:\n  - b\n - c", "3:2: begins in column 2, and the lines of its block in column 1"),
        (
            "a:\n  - b: c\n  d: e",
            "3:3: a key among the items of a list; begin it with '- ' if it "
            "is an item, or in column 5 if it belongs to the item above",
        ),
        ("a: b\n- c", "2:1: an item of a list among keys; indent it below its key"),
        (" a: b\nc: d", "2:1: the lines above are indented, or are no keys; begin each key in"),
        ("a: 'don't'", "1:9: text after the end of a value; put the whole value in one pair of"),
        ('a: "b\nc: d', "1:4: a quote is opened and not closed; close it"),
        ('a: "C:\\Users"', "1:9: a backslash begins an escape in double quotes; use single quotes"),
        ("a: - b", "1:4: a list begins on a line of its own; put text that begins with '-' in"),
        ("a: |b", "1:5: a text after | or > begins on the next line; put other text in quotes"),
        ("a: *nobody", "1:4: no value has the anchor &nobody; put text that begins with * in"),
        ("a: **b**", "1:5: the name of an alias is missing; put text that begins with * or & in"),
        ("a: &b 1\nc: &b 2", "2:4: two values have the anchor &b; rename one of them"),
        ("a: 1\n---\nb: 2", "2:1: a second document begins here; remove the line ---"),
        ("\na: \0", "2: the character U+0000 is not allowed; remove it"),
        ("a: !!python/name:os.system", "1:4: the tag python/name:os.system is not known; put text"),
        ("a: !b c", "1:4: the tag !b is not known; put text that begins with ! in quotes"),
        ("a: {<<: 3}", "1:9: << takes a mapping, such as an alias: <<: *name"),
        (f"{SUITE}version: 1\n", "18:1: key 'version' is duplicated; remove one"),
        (SUITE.replace("seed: 3", "seed: 3\n  seed: 4"), "7:3: key 'seed' is duplicated"),
        ("1: a", "1:1: a key must be text; put it in quotes"),
        ("yes: a", "1:1: a key must be text"),
        ("? [a, b]\n: c", "1:3: a key must be text"),
        ("a: !!bool maybe", "1:4: 'maybe' is not a valid bool; put text in quotes"),
        ("a: !!int ''", "1:4: '' is not a valid int"),
        ("a: !!timestamp soon", "1:4: 'soon' is not a valid timestamp"),
        ("a: 2001-99-99", "1:4: '2001-99-99' is not a valid timestamp; put text in quotes"),
        ("a: 9999999999999999999", "1:4: '9999999999999999999' is not a valid int"),
    ],
)
def test_malformed_yaml(text: str, message: str) -> None:
    """The error has line and column, and the fix."""
    assert error_of(text).startswith(f"suite.yaml:{message}")


FIVE_MISTAKES = """version: 1
model:
  path: some: model
  adaptor: some-adapter
  dtype: flaot32
defaults:
  seed: '3'
probes:
  - name: one
    kind: delta_lk
  - name: one
    kind: delta_kl
    promts: [a, 2]
    top_k: 1.0
"""


def test_all_mistakes_are_told() -> None:
    """Each has its line and its fix; a misspelt key is not missing too."""
    assert mistakes_in(FIVE_MISTAKES) == [
        '3:13: a colon in a value; put the value in quotes: "some: model"',
        "4: model.adaptor: unknown key; did you mean adapter?",
        "5: model.dtype: must be 'auto', 'float32', 'float16' or 'bfloat16'; got 'flaot32'; "
        "did you mean float32?",
        "7: defaults.seed: must be a valid integer; got '3'; write 3, without quotes",
        "10: probes[0].kind: unknown probe kind 'delta_lk'; did you mean delta_kl? "
        "(`forwardscope probes` lists their settings)",
        "11: probes[1].name: two probes are named 'one'; names must be unique",
        "13: probes[1].promts: unknown key; did you mean prompts?",
        "14: probes[1].top_k: must be a valid integer; got 1.0; write 1",
    ]


def test_a_misspelt_key_of_a_file() -> None:
    """It is one mistake, although the probe then has neither the items nor their file."""
    kind = "{name: two, kind: completion_preference, pair_file: pairs.jsonl}"
    text = SUITE[: SUITE.index("  - name: two")] + f"  - {kind}\n"
    assert mistakes_in(text) == ["15: probes[1].pair_file: unknown key; did you mean pairs_file?"]


def test_the_number_of_sentences_is_bounded() -> None:
    """The first twenty mistakes are told, and how many more there are."""
    mistakes = mistakes_in(SUITE + "".join(f"key{number}: 1\n" for number in range(3000)))
    assert len(mistakes) == 21
    assert mistakes[0].startswith("18: key0: unknown key; known: ")
    assert mistakes[-1] == " 2980 more mistakes"


def test_a_file_of_mistakes() -> None:
    """It is one sentence, because a description of each would take much memory."""
    items = ", ".join(["1"] * 10_001)  # and the list is too short without them
    assert mistakes_in(SUITE.replace("third", items)) == [
        " 10002 values that are no part of a suite; is it one?"
    ]


@pytest.mark.parametrize(
    ("right", "wrong", "fix"),
    [
        ("some-model", "no", 'put it in quotes: "no"'),
        ("some-model", "2001-01-01", 'put it in quotes: "2001-01-01"'),
        ("some-model", "", "write a value after the colon, or remove the key"),
        ("seed: 3", "seed: 3.0", "write 3"),
        ("max_entries: 9", "max_entries: 1e3", "write 1000"),
        ("max_entries: 9", "max_entries: 1,5", None),
        ("max_entries: 9", "max_entries: 1,500", "write 1500, without quotes"),
        ("max_entries: 9", "verify: 1,500", None),
        ("max_entries: 9", "verify: nan", None),
        ("max_entries: 9", "verify: '1e-6'", "write 1e-6, without quotes"),
        ("max_entries: 9", "verify: '0,5'", "write 0.5, without quotes"),
        ("max_entries: 9", "enabled: 'no'", "write false, without quotes"),
        ("max_entries: 9", "enabled: maybe", "write true or false"),
        ("- second", "- 2", 'put it in quotes: "2"'),
        ("- second", "-", "write the item, or remove it"),
        ("- second", '- Say: "no"', 'put it in quotes: "Say: no"'),
        (
            "- second",
            "- {content: x}",
            "a chat is a list of messages: [{role: …, content: …}]",
        ),
        (
            "- second",
            "- {role: user, content: x}",
            "a chat is a list of messages: [{role: …, content: …}]",
        ),
        ("[third]", "third", 'write ["third"]'),
        ("[third]", "3", "write [3]"),
        ("[third]", "", "write its items below it, indented, each after '- '"),
        ("[third]", "{third: 3}", "write each item after '- '"),
        ("cache:\n  max", "cache:\nmax", "indent its keys below it"),
        ("max_entries: 9", "store: 1", 'put it in quotes: "1"'),
        ("defaults:", "exactness: stric\ndefaults:", "did you mean strict?"),
    ],
)
def test_the_fix_of_a_value(right: str, wrong: str, fix: str | None) -> None:
    """The sentence ends with how to write it, if that is certain."""
    first = mistakes_in(SUITE.replace(right, wrong))[0]
    assert first.endswith(f"; {fix}" if fix else f"; got {wrong.split()[1]!r}")


def test_a_key_of_another_section() -> None:
    """The error names the section to which it belongs."""
    assert "7: top_k: unknown key; it belongs to defaults, indented below it" in mistakes_in(
        SUITE.replace("cache:", "top_k: 5\ncache:")
    )


@pytest.mark.parametrize(
    "digits",
    ["9" * 5000, "0x" + "f" * 5000, "1" + ":1" * 5000, "1" + "_" * 5000],
    ids=["decimal", "hex", "base 60", "underscores"],
)
def test_a_very_long_number_is_an_error(digits: str) -> None:
    """It is not computed, which takes quadratic time in base 60; the message stays short."""
    (message,) = mistakes_in(SUITE.replace("seed: 3", f"seed: {digits}"))
    assert message.startswith("6:9: '")
    assert message.endswith("' is not a valid int; put text in quotes")
    assert len(message) < 100


@pytest.mark.parametrize(("text", "value"), [("1e-4", 1e-4), ("2.E+1", 20.0), (".5e-1", 0.05)])
def test_a_number_with_an_exponent(text: str, value: float) -> None:
    """It needs neither a dot nor a sign, as in YAML 1.2 and JSON."""
    probe = parse_suite(
        SUITE.replace("prompts:\n", f"min_mean: {text}\n    prompts:\n", 1), ""
    ).probes[0]
    assert isinstance(probe, DeltaKL)
    assert probe.min_mean == value


@pytest.mark.parametrize("text", ["1e5x", "e5", "'1e5'", "1e"])
def test_text_that_resembles_a_number(text: str) -> None:
    """It stays text."""
    suite = parse_suite(SUITE.replace("third", text), "suite.yaml")
    assert suite.probes[1].prompts == (text.strip("'"),)


@pytest.mark.parametrize("text", ["a: !{} b", "a: *{}", "a: !!python/object:{} b"])
def test_a_very_long_name_in_a_message_is_truncated(text: str) -> None:
    """The message stays short for a tag or an alias of any length."""
    assert len(error_of(text.format("x" * 100_000))) < 300


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_deep_nesting(opening: str) -> None:
    """Deep nesting is an error and does not exhaust the stack."""
    assert error_of(opening * 100_000) == "suite.yaml: nested too deeply to be a suite"


def alias_bomb(form: str) -> str:
    """Return nine collections, each with ten aliases of the previous one: 10^9 nodes."""
    aliases = (", ".join([f"*a{i}"] * 10) for i in range(9))
    lines = (f"a{i}: &a{i} {form.format(below)}" for i, below in enumerate(aliases, start=1))
    return "\n".join(["a0: &a0 {x: y}", *lines])


@pytest.mark.parametrize(
    "text",
    [alias_bomb("[{}]"), alias_bomb("{{<<: [{}]}}"), "a: &a [*a]", "&a {b: *a}", "a: &a\n  <<: *a"],
    ids=["lists", "merges", "cycle of lists", "cycle of maps", "cycle of merges"],
)
def test_alias_bombs(text: str) -> None:
    """Aliases with too many nodes are an error before they are expanded."""
    assert f"its aliases expand to more than {MAX_BYTES} nodes" in error_of(text)


def test_aliases_and_merges() -> None:
    """Probes can share values by alias or merge; their own values take precedence."""
    text = SUITE.replace("kind: adapter_ablation\n    prompts: [third]", "<<: *one\n")
    text = text.replace("- name: one\n", "- &one\n    name: one\n    top_k: 7\n")
    first, second = parse_suite(text, "suite.yaml").probes
    assert (second.name, second.kind, second.top_k) == ("two", "delta_kl", 7)
    assert second.prompts == first.prompts


def test_an_invalid_value_that_overrides_a_merged_one() -> None:
    """The error has the line of the overriding value."""
    text = SUITE.replace("kind: adapter_ablation\n    prompts: [third]", "<<: *one\n    top_k: 0")
    text = text.replace("- name: one\n", "- &one\n    name: one\n    top_k: 7\n")
    assert error_of(text).startswith("suite.yaml:19: probes[1].top_k: must be greater than")


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that exists relative to the file becomes absolute; any other is unchanged."""
    (tmp_path / "suites" / "some-model").mkdir(parents=True)
    (tmp_path / "suites" / "suite.yaml").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    model = load_suite(Path("suites/suite.yaml")).model
    assert model.path == str(tmp_path / "suites" / "some-model")
    assert (model.adapter, model.tuned) == ("some-adapter", None)


def test_relative_path_of_a_tuned_model(tmp_path: Path) -> None:
    """`tuned` replaces `adapter`; a path that exists relative to the file becomes absolute."""
    (tmp_path / "tuned").mkdir()
    (tmp_path / "suite.yaml").write_text(SUITE.replace("adapter: some-adapter", "tuned: ./tuned"))
    model = load_suite(tmp_path / "suite.yaml").model
    assert (model.adapter, model.tuned) == (None, str(tmp_path / "tuned"))
    assert model.adapter_label == "./tuned"


def test_the_adapter_label(tmp_path: Path) -> None:
    """It is the path as in the file, not its place on one machine, or the name given there."""
    (tmp_path / "my-adapter").mkdir()
    for line, label in (("", "./my-adapter"), ("\n  adapter_name: mine", "mine")):
        text = SUITE.replace("adapter: some-adapter", f"adapter: ./my-adapter{line}")
        (tmp_path / "suite.yaml").write_text(text)
        assert load_suite(tmp_path / "suite.yaml").model.adapter_label == label


def test_the_model_label(tmp_path: Path) -> None:
    """The label is the name, or the path as it is in the file, never the absolute path."""
    (tmp_path / "weights").mkdir()
    file = tmp_path / "suite.yaml"
    file.write_text(SUITE.replace("some-model", "./weights"))
    spec = load_suite(file)
    assert spec.model.path == str(tmp_path / "weights")
    assert spec.model.label == "./weights"
    file.write_text(SUITE.replace("some-model", "./weights\n  name: tiny"))
    labels = RunMetrics(load_suite(file)).labels
    assert labels == {"suite": "suite", "model": "tiny"}


def test_a_path_that_no_file_can_have(tmp_path: Path) -> None:
    """A path that is too long for the file system is unchanged."""
    path = "m" * 5000
    (tmp_path / "suite.yaml").write_text(SUITE.replace("some-model", path))
    assert load_suite(tmp_path / "suite.yaml").model.path == path


@pytest.mark.parametrize(("named", "name"), [("", "nightly"), ("name: mine\n", "mine")])
def test_the_suite_name(tmp_path: Path, named: str, name: str) -> None:
    """By default a suite has the name of its file."""
    (tmp_path / "nightly.yaml").write_text(named + SUITE)
    assert load_suite(tmp_path / "nightly.yaml").name == name


def test_byte_order_mark_and_crlf(tmp_path: Path) -> None:
    """A file with a byte order mark and CRLF line ends is valid."""
    data = b"\xef\xbb\xbf" + SUITE.replace("\n", "\r\n").encode()
    (tmp_path / "suite.yaml").write_bytes(data)
    assert load_suite(str(tmp_path / "suite.yaml")).probes[0].prompts == ("first", "second")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nope.yaml", "suite file {} does not exist; `forwardscope init` writes a template"),
        ("", "suite file {} cannot be read: Is a directory"),
        ("latin1.yaml/suite.yaml", "suite file {} cannot be read: Not a directory"),
        ("latin1.yaml", "{}: not UTF-8 text (byte 9)"),
    ],
    ids=["missing", "folder", "below a file", "not UTF-8"],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, message: str) -> None:
    """The error has the file and the reason."""
    (tmp_path / "latin1.yaml").write_bytes(b"name: caf\xe9")
    path = tmp_path / name
    with pytest.raises(SpecError) as caught:
        load_suite(path)
    assert str(caught.value) == message.format(path)


@pytest.mark.parametrize("size", [MAX_BYTES + 1, 1 << 40])
def test_a_file_above_the_size_limit(tmp_path: Path, size: int) -> None:
    """A file of more than MAX_BYTES is an error, and is not read as a whole."""
    (tmp_path / "suite.yaml").touch()
    os.truncate(tmp_path / "suite.yaml", size)
    with pytest.raises(SpecError, match=f"larger than {MAX_BYTES} bytes"):
        load_suite(tmp_path / "suite.yaml")


def test_a_file_of_the_maximum_size(tmp_path: Path) -> None:
    """A file of MAX_BYTES is valid."""
    (tmp_path / "suite.yaml").write_text(SUITE + "#" * (MAX_BYTES - len(SUITE)))
    assert len(load_suite(tmp_path / "suite.yaml").probes) == 2


BASELINE = "  - {name: baseline, kind: null_adapter}\n"


def test_a_baseline_that_comes_too_late() -> None:
    """It is a mistake where no later probe uses it; the fix is its place."""
    assert mistakes_in(SUITE + BASELINE) == [
        "18: probes[2]: null_adapter gives only later probes a z-score, and not one; move it up, "
        "before one"
    ]


def test_a_baseline_that_nothing_uses() -> None:
    """It is a mistake, and the kinds that use one are named."""
    text = SUITE.replace("kind: delta_kl", "kind: prompt_collapse")
    (mistake,) = mistakes_in(text.replace("probes:\n", f"probes:\n{BASELINE}"))
    assert mistake.startswith("10: probes[0]: no later probe uses this baseline; remove it, or add")


def test_a_baseline_between_its_users() -> None:
    """It is a warning where an earlier probe gets no z-score."""
    text = f"{SUITE}{BASELINE}  - {{name: last, kind: delta_kl, prompts: [a]}}\n"
    with pytest.warns(UserWarning, match="suite.yaml:18: .* not one; move it up, before one"):
        assert len(parse_suite(text, "suite.yaml").probes) == 4


def test_a_second_baseline() -> None:
    """The probes before it have the first."""
    text = SUITE.replace("probes:\n", f"probes:\n{BASELINE}")
    again = BASELINE.replace("baseline", "again")
    text += f"{again}  - {{name: last, kind: delta_kl, prompts: [a]}}\n"
    assert len(parse_suite(text, "suite.yaml").probes) == 5


@pytest.fixture
def paths(tmp_path: Path) -> Path:
    """Return a folder with a model `m`, an adapter `a` and a suite that has them swapped."""
    for folder, file in (("m", "config.json"), ("a", "adapter_config.json")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_text("{}")
    text = SUITE.replace("some-model", "a").replace("some-adapter", "m")
    (tmp_path / "suite.yaml").write_text(text)
    return tmp_path


def test_swapped_paths(paths: Path) -> None:
    """The sentence names both, before anything is loaded, and beside other mistakes."""
    file = paths / "suite.yaml"
    file.write_text(file.read_text().replace("seed: 3", "seed: x"))
    with pytest.raises(SpecError) as caught:
        load_suite(file)
    first, second = caught.value.sentences
    assert first == (
        f"{file}:3: model.path: model and adapter are swapped: {paths / 'a'} is an adapter, and "
        f"{paths / 'm'} a model; exchange the two paths"
    )
    assert "defaults.seed" in second


@pytest.mark.parametrize(
    ("name", "fix"),
    [("a/adapter_config.json", "give {}/a"), ("file", "give one with adapter_config.json")],
)
def test_an_adapter_that_is_a_file(paths: Path, name: str, fix: str) -> None:
    """A folder is expected, and named if it is known."""
    (paths / "file").write_text("")
    (paths / "suite.yaml").write_text(SUITE.replace("some-adapter", name))
    with pytest.raises(SpecError) as caught:
        load_suite(paths / "suite.yaml")
    assert str(caught.value) == (
        f"{paths}/suite.yaml:4: model.adapter: adapter {paths}/{name} is a file, and a folder is "
        f"expected; {fix.format(paths)}"
    )


def test_a_top_k_above_every_vocabulary() -> None:
    """It is a mistake, in the defaults and in a probe."""
    text = SUITE.replace("seed: 3", "top_k: 1048577").replace("[third]", "[a]\n    top_k: 9999999")
    assert mistakes_in(text) == [
        "6: defaults.top_k: must be less than or equal to 1048576; got 1048577",
        "18: probes[1].top_k: must be less than or equal to 1048576; got 9999999",
    ]


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its relative paths start at the working directory, and it has no name."""
    (tmp_path / "some-model").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(SUITE.encode())))
    spec = load_suite("-")
    assert (spec.name, spec.model.path) == (None, str(tmp_path / "some-model"))
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(b"[]")))
    with pytest.raises(SpecError, match="standard input: a suite is a mapping"):
        load_suite("-")
    monkeypatch.setattr("sys.stdin", None)  # as Python has it where the file is closed
    with pytest.raises(SpecError, match="standard input is closed; give it a suite"):
        load_suite("-")
