"""A suite file is read whole, or refused in one line that names file, line and key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forwardscope.errors import SpecError
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


def refusal(text: str) -> str:
    """Return what is said of a text that is no suite."""
    with pytest.raises(SpecError) as caught:
        parse_suite(text, "suite.yaml")
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_suite_is_read() -> None:
    """What the file says is what the suite has."""
    spec = parse_suite(SUITE, "suite.yaml")
    assert (spec.model.path, spec.model.adapter) == ("some-model", "some-adapter")
    assert (spec.defaults.seed, spec.cache.max_entries) == (3, 9)
    assert [(probe.name, probe.kind) for probe in spec.probes] == [
        ("one", "delta_kl"),
        ("two", "adapter_ablation"),
    ]
    assert spec.probes[0].prompts == ("first", "second")


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("defaults:", "defualts:", "5: defualts: unknown key; did you mean defaults?"),
        ("path:", "pth:", "3: model.pth: unknown key; did you mean path?"),
        ("seed:", "sede:", "6: defaults.sede: unknown key; did you mean seed?"),
        ("max_entries:", "max_entrys:", "8: cache.max_entrys: unknown key; did you mean"),
        ("prompts:\n", "promts:\n", "12: probes[0].promts: unknown key; did you mean prompts?"),
        ("kind: ad", "min_z: 1\n    kind: ad", "16: probes[1].min_z: unknown key; "),
        ("cache:", "delta_kl:", "7: delta_kl: unknown key; known: version, name, model"),
        ("cache:", '"a\\nb":', r"7: 'a\nb': unknown key; known: "),
        ("cache:", "c" * 50 + ":", "7: 'cccccccccccc...ccccccccccccc': unknown key; known: "),
        ("name: two", "delta_kl: two", "15: probes[1].delta_kl: unknown key; known: name, kind"),
    ],
)
def test_a_typo_in_a_key_gets_a_suggestion(right: str, wrong: str, said: str) -> None:
    """A key that nobody knows is named with its line and what was probably meant."""
    assert refusal(SUITE.replace(right, wrong)).startswith(f"suite.yaml:{said}")


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("version: 1", "version: 2", "1: version: must be 1; got 2"),
        ("version: 1", "version: '1'", "1: version: must be 1; got '1'"),
        ("version: 1\n", "", "1: version: missing"),
        ("seed: 3", "seed: '3'", "6: defaults.seed: must be a valid integer; got '3'"),
        ("seed: 3", "seed: true", "6: defaults.seed: must be a valid integer; got True"),
        ("seed: 3", "seed: -1", "6: defaults.seed: must be greater than or equal to 0; got -1"),
        ("max_entries: 9", "enabled: 'no'", "8: cache.enabled: must be a valid boolean; got"),
        ("  adapter: some-adapter\n", "", "2: model.adapter: missing"),
        ("some-adapter", "''", "4: model.adapter: needs at least 1 character; got ''"),
        ("cache:\n  max_entries: 9", "cache: 9", "7: cache: must be a mapping; got 9"),
        ("defaults:", "exactness: exact\ndefaults:", "5: exactness: must be 'fast' or 'strict'"),
        ("defaults:", "period: 1y\ndefaults:", "5: period: must match pattern"),
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
        ("delta_kl", "delta_lk", f"11: probes[0].kind: unknown probe kind 'delta_lk'; {KINDS}"),
        ("kind: adapter_ablation", "top_k: 5", f"15: probes[1].kind: missing; one of {KINDS}"),
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
        ("[third]", "[third]\n    lambdas: [0, 1, 1]", "18: probes[1].lambdas: must rise"),
        ("[third]", "[third]\n    lambdas: [0, '1', 2]", "18: probes[1].lambdas[1]: must be a"),
        ("name: two", "name: one", "15: probes[1].name: two probes are named 'one'; give each"),
        ("  - name: two", "  - 5\n  - name: two", "15: probes[1]: must be a mapping; got 5"),
        ("some-model", '"\\ud800"', "3: model.path: must be a valid string"),
    ],
)
def test_a_mistake_is_named_with_its_place(right: str, wrong: str, said: str) -> None:
    """File, line, key, what is expected and what is there stand in one line."""
    said = said.replace(f"; {KINDS}", f"; known: {KINDS}")
    assert refusal(SUITE.replace(right, wrong)).startswith(f"suite.yaml:{said}")


@pytest.mark.parametrize("probes", ["probes:", "probes: []", "probes: {a: 1}", "probes: 5"])
def test_a_suite_has_probes(probes: str) -> None:
    """No list of probes, or an empty one, is refused at its key."""
    text = SUITE[: SUITE.index("probes:")] + probes
    assert refusal(text).startswith("suite.yaml:9: probes: ")


@pytest.mark.parametrize("text", ["", "# a comment\n", "---\n", "- version: 1", "5", "null", "[]"])
def test_what_is_no_mapping_is_no_suite(text: str) -> None:
    """An empty file, a list and a number are told what a suite is."""
    assert refusal(text) == (
        "suite.yaml: a suite is a mapping with the keys version, model and probes"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\na: [1", ":2: not valid YAML: "),
        ("a: 1\n\tb: 2", ":2: not valid YAML: "),
        ("a: b: c", ":1: not valid YAML: mapping values are not allowed here"),
        ("a: *nobody", ":1: not valid YAML: found undefined alias 'nobody'"),
        ("a: 1\n---\nb: 2", ":2: not valid YAML: but found another document"),
        ("a: \0", ": not valid YAML: unacceptable character #x0000"),
        ("a: !!python/object/apply:os.getcwd []", ":1: not valid YAML: could not determine a"),
        ("a: !!python/name:os.system", ":1: not valid YAML: could not determine a"),
        (f"{SUITE}version: 1\n", ":18: not valid YAML: key 'version' stands twice"),
        (SUITE.replace("seed: 3", "seed: 3\n  seed: 4"), ":7: not valid YAML: key 'seed' stands"),
        ("1: a", ":1: not valid YAML: a key must be text; put it in quotes"),
        ("yes: a", ":1: not valid YAML: a key must be text"),
        ("? [a, b]\n: c", ":1: not valid YAML: a key must be text"),
        ("a: !!bool maybe", ":1: not valid YAML: 'maybe' is no valid bool"),
        ("a: !!int ''", ":1: not valid YAML: '' is no valid int"),
        ("a: !!timestamp soon", ":1: not valid YAML: 'soon' is no valid timestamp"),
        ("a: 2001-99-99", ":1: not valid YAML: '2001-99-99' is no valid timestamp"),
        ("a: 99999999999999999999", ":1: not valid YAML: '99999999999999999999' is no valid int"),
    ],
)
def test_malformed_yaml_is_told_with_its_line(text: str, said: str) -> None:
    """What YAML itself does not allow is refused before anything else is looked at."""
    assert refusal(text).startswith(f"suite.yaml{said}")


@pytest.mark.parametrize("digits", ["9" * 5000, "0x" + "f" * 5000], ids=["decimal", "hex"])
def test_a_number_of_any_length_is_told_in_short(digits: str) -> None:
    """A number that Python would not print is cut in the message."""
    said = refusal(SUITE.replace("seed: 3", f"seed: {digits}"))
    assert said.startswith("suite.yaml:6: not valid YAML: '")
    assert said.endswith("' is no valid int")
    assert len(said) < 100


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_deep_nesting_is_refused(opening: str) -> None:
    """A file that nests without end does not exhaust the stack."""
    assert refusal(opening * 100_000) == "suite.yaml: nested too deeply to be a suite"


def layers(form: str) -> str:
    """Return nine mappings or lists, each of ten aliases of the one before: 10^9 in all."""
    aliases = (", ".join([f"*a{i}"] * 10) for i in range(9))
    lines = (f"a{i}: &a{i} {form.format(below)}" for i, below in enumerate(aliases, start=1))
    return "\n".join(["a0: &a0 {x: y}", *lines])


@pytest.mark.parametrize(
    "text",
    [layers("[{}]"), layers("{{<<: [{}]}}"), "a: &a [*a]", "&a {b: *a}", "a: &a\n  <<: *a"],
    ids=["lists", "merges", "circle of lists", "circle of maps", "circle of merges"],
)
def test_alias_bombs_are_refused(text: str) -> None:
    """Aliases that write out to more than a file could hold are not written out."""
    assert "its aliases refer to more than a suite can hold" in refusal(text)


def test_aliases_and_merges_that_stay_small_are_fine() -> None:
    """Prompts can be shared and settings merged; what stands in the probe itself wins."""
    text = SUITE.replace("kind: adapter_ablation\n    prompts: [third]", "<<: *one\n")
    text = text.replace("- name: one\n", "- &one\n    name: one\n    top_k: 7\n")
    first, second = parse_suite(text, "suite.yaml").probes
    assert (second.name, second.kind, second.top_k) == ("two", "delta_kl", 7)
    assert second.prompts == first.prompts


def test_a_mistake_behind_a_merge_is_named_with_its_line() -> None:
    """A value that overrides a merged one is told at its own line."""
    text = SUITE.replace("kind: adapter_ablation\n    prompts: [third]", "<<: *one\n    top_k: 0")
    text = text.replace("- name: one\n", "- &one\n    name: one\n    top_k: 7\n")
    assert refusal(text).startswith("suite.yaml:19: probes[1].top_k: must be greater than")


def test_paths_beside_the_file_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path that exists beside the file is made absolute; another is left alone."""
    (tmp_path / "suites" / "some-model").mkdir(parents=True)
    (tmp_path / "suites" / "suite.yaml").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    model = load_suite(Path("suites/suite.yaml")).model
    assert model.path == str(tmp_path / "suites" / "some-model")
    assert model.adapter == "some-adapter"


def test_a_model_is_called_what_is_written(tmp_path: Path) -> None:
    """A folder's place on this machine is in no metric: the path as it stands, or a name."""
    (tmp_path / "weights").mkdir()
    file = tmp_path / "suite.yaml"
    file.write_text(SUITE.replace("some-model", "./weights"))
    spec = load_suite(file)
    assert spec.model.path == str(tmp_path / "weights")
    assert spec.model.label == "./weights"
    file.write_text(SUITE.replace("some-model", "./weights\n  name: tiny"))
    labels = RunMetrics(load_suite(file)).labels
    assert labels == {"suite": "suite", "model": "tiny"}


def test_a_name_that_no_file_can_have_is_left_alone(tmp_path: Path) -> None:
    """A path that is too long to look for is the model's to complain of."""
    path = "m" * 5000
    (tmp_path / "suite.yaml").write_text(SUITE.replace("some-model", path))
    assert load_suite(tmp_path / "suite.yaml").model.path == path


@pytest.mark.parametrize(("named", "name"), [("", "nightly"), ("name: mine\n", "mine")])
def test_a_suite_is_named_for_its_file(tmp_path: Path, named: str, name: str) -> None:
    """A suite without a name has its file's."""
    (tmp_path / "nightly.yaml").write_text(named + SUITE)
    assert load_suite(tmp_path / "nightly.yaml").name == name


def test_a_byte_order_mark_and_crlf_are_taken(tmp_path: Path) -> None:
    """A file from an editor on Windows is read as any other."""
    data = b"\xef\xbb\xbf" + SUITE.replace("\n", "\r\n").encode()
    (tmp_path / "suite.yaml").write_bytes(data)
    assert load_suite(str(tmp_path / "suite.yaml")).probes[0].prompts == ("first", "second")


def test_a_missing_file_is_told_with_the_way_out(tmp_path: Path) -> None:
    """The error names the file and the command that writes one."""
    with pytest.raises(SpecError, match=r"nope\.yaml does not exist; `forwardscope init` writes"):
        load_suite(tmp_path / "nope.yaml")


def test_a_folder_is_no_suite(tmp_path: Path) -> None:
    """The error says what is there."""
    with pytest.raises(SpecError, match=f"^suite file {tmp_path} cannot be read: Is a directory$"):
        load_suite(tmp_path)


def test_a_suite_below_a_file_cannot_be_read(tmp_path: Path) -> None:
    """A path that goes through a file is an error of the user's too."""
    (tmp_path / "file").touch()
    with pytest.raises(SpecError, match="cannot be read: Not a directory"):
        load_suite(tmp_path / "file" / "suite.yaml")


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    """A file that is not UTF-8 is told where it stops being it."""
    (tmp_path / "suite.yaml").write_bytes(b"name: caf\xe9")
    with pytest.raises(SpecError, match=r"suite\.yaml: not UTF-8 text \(byte 9\)$"):
        load_suite(tmp_path / "suite.yaml")


@pytest.mark.parametrize("size", [MAX_BYTES + 1, 1 << 40])
def test_a_huge_file_is_not_read(tmp_path: Path, size: int) -> None:
    """More than a mebibyte is refused, and a terabyte is not first read into memory."""
    (tmp_path / "suite.yaml").touch()
    os.truncate(tmp_path / "suite.yaml", size)
    with pytest.raises(SpecError, match=f"larger than {MAX_BYTES} bytes"):
        load_suite(tmp_path / "suite.yaml")


def test_a_file_of_the_largest_size_is_read(tmp_path: Path) -> None:
    """The bound itself is allowed."""
    (tmp_path / "suite.yaml").write_text(SUITE + "#" * (MAX_BYTES - len(SUITE)))
    assert len(load_suite(tmp_path / "suite.yaml").probes) == 2
