"""Read YAML safely, with the line of each value, and write a text as YAML."""

from __future__ import annotations

import math
import re
import reprlib
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import yaml

from forwardscope.suite.mistakes import Mistakes
from forwardscope.suite.yaml_errors import explain

__all__ = ["MAX_BYTES", "Place", "locate", "read_yaml", "yaml_text"]

#: Maximum bytes of a suite file, and maximum nodes after its aliases are expanded.
MAX_BYTES: Final = 1 << 20
#: Characters that are read again after mistakes whose fix is certain.
_REREAD: Final = 1 << 18

_TEXT: Final = "tag:yaml.org,2002:str"
_MERGE: Final = "tag:yaml.org,2002:merge"
_INT: Final = "tag:yaml.org,2002:int"
_INT_BITS: Final = 64
#: Maximum characters of an integer, underscores and base included.
_MAX_INT: Final = 100
_MAX_KEY: Final = 40


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value is in a file.

    Attributes:
        line: Its line, or that of its nearest parent in the file.
        key: Its key with those of its parents, as `probes[0].prompts`; empty for the whole.
        node: The value; None where the file does not have it.
    """

    line: int
    key: str
    node: yaml.Node | None


def read_yaml(text: str, mistakes: Mistakes) -> tuple[yaml.Node | None, Any]:
    """Return the nodes of a YAML document, which have line numbers, and its content.

    Where the text is malformed and the fix is certain, reading goes on with the fix. In the
    content a value that is a mistake is None, and a key that is no text is left out.

    Args:
        text: The document.
        mistakes: Receives what is wrong with it.

    Raises:
        SpecError: It is malformed, or expands to more than MAX_BYTES nodes. The error has
            all mistakes so far.
    """
    left = _REREAD
    while True:
        found: list[tuple[str, yaml.Mark]] = []
        try:
            nodes_and_content = _read(text, found)
        except RecursionError as error:
            mistakes.add("nested too deeply to be a suite")
            raise mistakes.error() from error
        except yaml.YAMLError as error:
            wrong = explain(error, text)
            left -= len(text)
            goes_on = wrong.fixed is not None and left >= 0
            rest = "" if goes_on else "; the rest of the file was not checked"
            mistakes.add(wrong.message + rest, wrong.line, wrong.column)
            if wrong.fixed is not None and goes_on:
                text = wrong.fixed
                continue
            _add(found, mistakes)
            raise mistakes.error() from error
        _add(found, mistakes)
        return nodes_and_content


def _read(text: str, found: list[tuple[str, yaml.Mark]]) -> tuple[yaml.Node | None, Any]:
    loader = _Loader(text)
    loader.found = found
    try:
        tree = loader.get_single_node()
        if tree is None:
            return None, None
        if _expanded_size(tree, {}) > MAX_BYTES:
            raise yaml.constructor.ConstructorError(
                None, None, f"its aliases expand to more than {MAX_BYTES} nodes", tree.start_mark
            )
        return tree, loader.construct_document(tree)
    finally:
        loader.dispose()


def _add(found: list[tuple[str, yaml.Mark]], mistakes: Mistakes) -> None:
    for message, mark in found:
        mistakes.add(message, mark.line + 1, mark.column + 1)


def locate(tree: yaml.Node, loc: tuple[int | str, ...]) -> Place:
    """Return where the value at `loc` is."""
    node: yaml.Node | None = tree
    line, name = tree.start_mark.line, ""
    for part in loc:
        name += f"[{part}]" if isinstance(part, int) else f".{_printable_key(part)}"
        child = None
        if isinstance(node, yaml.MappingNode):
            for key, value in reversed(node.value):  # merged pairs come first
                if key.value == part:
                    child, line = value, key.start_mark.line
                    break
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            child = node.value[part]
            line = child.start_mark.line
        node = child
    return Place(line + 1, name[1:] if name.startswith(".") else name, node)


def yaml_text(text: str) -> str:
    """Return any text as a value in quotes, on one line. JSON's escapes of some are others here."""
    dumped = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=math.inf)
    return str(dumped).rstrip("\n")


def _printable_key(key: str) -> str:
    """Return a plain word unchanged, and any other key quoted and truncated."""
    return key if key.isidentifier() and len(key) <= _MAX_KEY else reprlib.repr(key)


class _Loader(yaml.SafeLoader):
    """A safe loader that requires unique text keys and integers that fit 64 bits.

    Attributes:
        found: Mistakes with which reading goes on.
    """

    found: list[tuple[str, yaml.Mark]]

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == _MERGE:
                continue
            if key.tag != _TEXT:
                self.found.append(("a key must be text; put it in quotes", key.start_mark))
            elif key.value in seen:
                name = reprlib.repr(key.value)
                self.found.append((f"key {name} is duplicated; remove one", key.start_mark))
            else:
                seen.add(key.value)
        node.value = [pair for pair in node.value if pair[0].tag in (_MERGE, _TEXT)]
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            if node.tag == _INT and len(node.value) > _MAX_INT:  # base 60 takes quadratic time
                raise OverflowError
            value = super().construct_object(node, deep)
            if isinstance(value, int) and value.bit_length() >= _INT_BITS:
                raise OverflowError
        except (ArithmeticError, AttributeError, LookupError, ValueError):
            kind = node.tag.rpartition(":")[2]
            problem = f"{reprlib.repr(node.value)} is not a valid {kind}; put text in quotes"
            self.found.append((problem, node.start_mark))
            self.recursive_objects.pop(node, None)
            self.constructed_objects[node] = value = None
        return value


#: `1e-4` is a number in YAML 1.2, and text in YAML 1.1, which the base class reads.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+\Z"),
    list("-+.0123456789"),
)


def _expanded_size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Count the nodes of a tree with aliases expanded; a cycle exceeds MAX_BYTES."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in sizes:
        sizes[id(node)] = MAX_BYTES
        is_map = isinstance(node, yaml.MappingNode)
        children = chain.from_iterable(node.value) if is_map else node.value
        count = 1 + sum(_expanded_size(child, sizes) for child in children)
        sizes[id(node)] = min(count, MAX_BYTES + 1)
    return sizes[id(node)]
