"""Prompts, texts and pairs in files beside a suite."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from forwardscope.errors import SpecError
from forwardscope.suite import load_suite
from forwardscope.suite.text_files import read_items

SUITE = """version: 1
model: {path: some-model, adapter: some-adapter}
probes:
  - name: one
    kind: KIND
    KEY: FILE
"""
PAIR = {"prompt": "x", "wanted": "a", "unwanted": "b"}


def suite(folder: Path, kind: str, key: str, file: str) -> Path:
    """Write a suite with one probe that names a file."""
    text = SUITE.replace("KIND", kind).replace("KEY", key).replace("FILE", file)
    (folder / "suite.yaml").write_text(text)
    return folder / "suite.yaml"


def error_of(path: Path) -> str:
    """Return the error message for an invalid suite."""
    with pytest.raises(SpecError) as caught:
        load_suite(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("delta_kl", "prompts_file"),
        ("perplexity_shift", "texts_file"),
        ("null_adapter", "sentinel_prompts_file"),
    ],
)
def test_texts_of_a_file(tmp_path: Path, kind: str, key: str) -> None:
    """Each line that is not blank is a text; the path is relative to the suite."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "texts.txt").write_text("\ufeffone\n\n  two \r\n", encoding="utf-8")
    path = suite(tmp_path, kind, key, "data/texts.txt")
    path.write_text(path.read_text() + "  - {name: two, kind: delta_kl, prompts: [a]}\n")
    probe = load_suite(path).probes[0]
    assert getattr(probe, key.removesuffix("_file")) == ("one", "  two ")


def test_texts_of_json_lines(tmp_path: Path) -> None:
    """A line of JSON is a text, or an object with a single text; it may have line breaks."""
    items = ["one\ntwo", {"text": "three"}, {"prompt": "four"}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, items)))
    (probe,) = load_suite(suite(tmp_path, "delta_kl", "prompts_file", "t.jsonl")).probes
    assert probe.prompts == ("one\ntwo", "three", "four")


def test_pairs_of_json_lines(tmp_path: Path) -> None:
    """A line of JSON is a pair."""
    (tmp_path / "p.jsonl").write_text(json.dumps(PAIR) + "\n")
    (probe,) = load_suite(suite(tmp_path, "completion_preference", "pairs_file", "p.jsonl")).probes
    assert [pair.model_dump() for pair in probe.pairs] == [PAIR]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "probes[0].texts: needs at least 1 item"),
        (b'{"text": "a"}\n{"text": ', "probes[0].texts_file: FILE:2: not JSON"),
        (b"[" * 100_000, "probes[0].texts_file: FILE:1: not JSON"),
        (b'""', "probes[0].texts[0]: needs at least 1 character"),
        (b'{"other": "a"}', "probes[0].texts[0]: must be a valid string"),
        (b"\xff", "probes[0].texts_file: FILE is not UTF-8 text (byte 0)"),
    ],
)
def test_invalid_file(tmp_path: Path, content: bytes, message: str) -> None:
    """The error has the suite's line and key, and the line of the file."""
    file = tmp_path / "t.jsonl"
    file.write_bytes(content)
    path = suite(tmp_path, "perplexity_shift", "texts_file", file.name)
    expected = message.replace("FILE", str(file))
    line = 6 if "texts_file" in message else 4
    assert error_of(path).startswith(f"{path}:{line}: {expected}")


def test_missing_file(tmp_path: Path) -> None:
    """The error names the file."""
    path = suite(tmp_path, "perplexity_shift", "texts_file", "missing.txt")
    assert error_of(path) == (
        f"{path}:6: probes[0].texts_file: {tmp_path / 'missing.txt'} cannot be read: "
        "No such file or directory"
    )


@pytest.mark.parametrize("value", ["3", "[a]"])
def test_a_path_is_text(tmp_path: Path, value: str) -> None:
    """Another value is an error."""
    path = suite(tmp_path, "perplexity_shift", "texts_file", value)
    assert error_of(path) == f"{path}:6: probes[0].texts_file: must be the path of a file"


def test_texts_and_file(tmp_path: Path) -> None:
    """Only one of both may be given."""
    path = suite(tmp_path, "perplexity_shift", "texts: [a]\n    texts_file", "t.txt")
    assert error_of(path).startswith(f"{path}:7: probes[0].texts_file: texts is given as well")


def test_a_key_of_another_probe(tmp_path: Path) -> None:
    """A probe without such items has no such file."""
    (tmp_path / "t.txt").write_text("one")
    path = suite(tmp_path, "perplexity_shift", "prompts_file", "t.txt")
    assert "unknown key" in error_of(path)


def test_size_is_bounded(tmp_path: Path) -> None:
    """A file that is too large is read up to the bound."""
    file = tmp_path / "large.txt"
    file.touch()
    os.truncate(file, 2**40)
    with pytest.raises(SpecError, match=r"is larger than \d+ bytes"):
        read_items(file)


def test_only_plain_files(tmp_path: Path) -> None:
    """A pipe, for which the suite would wait, a device and a folder are refused."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(SpecError, match="is no plain file"):
            read_items(path)


@pytest.mark.parametrize("name", [r'"a\0b"', r'"a\ud800b"'])
def test_impossible_path(tmp_path: Path, name: str) -> None:
    """A name that no file can have is an error of the suite."""
    assert "cannot be read" in error_of(suite(tmp_path, "delta_kl", "prompts_file", name))


@pytest.mark.parametrize(("file", "form"), [("t.txt", "{}"), ("t.jsonl", '"{}"')])
def test_separators_that_end_no_line(tmp_path: Path, file: str, form: str) -> None:
    """Only line feeds and carriage returns end a line; U+2028 and its like are part of a text."""
    texts = ["a\u2028b", "c\u2029d", "e\x85f"]
    lines = map(form.format, texts)
    (tmp_path / file).write_bytes("{}\r\n{}\r{}\n".format(*lines).encode())
    assert read_items(tmp_path / file) == texts
