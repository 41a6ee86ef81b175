"""Read YAML safely, with the line of each value."""

from __future__ import annotations

import re
import reprlib
from itertools import chain
from typing import Any, Final

import yaml

__all__ = ["MAX_BYTES", "locate", "read_yaml"]

#: Maximum bytes of a suite file, and maximum nodes after its aliases are expanded.
MAX_BYTES: Final = 1 << 20

_TEXT: Final = "tag:yaml.org,2002:str"
_MERGE: Final = "tag:yaml.org,2002:merge"
_INT: Final = "tag:yaml.org,2002:int"
_INT_BITS: Final = 64
#: Maximum characters of an integer, underscores and base included.
_MAX_INT: Final = 100
_MAX_KEY: Final = 40


def read_yaml(text: str) -> tuple[yaml.Node | None, Any]:
    """Return the nodes of a YAML document, which have line numbers, and its content.

    Raises:
        yaml.YAMLError: It is malformed, has a duplicate key, or expands to more
            than MAX_BYTES nodes.
        RecursionError: It is nested too deeply.
    """
    loader = _Loader(text)
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


def locate(tree: yaml.Node, loc: tuple[int | str, ...]) -> tuple[int, str]:
    """Return the line and the key of the value at `loc`, or of its nearest parent in the file."""
    node, line, name = tree, tree.start_mark.line, ""
    for part in loc:
        name += f"[{part}]" if isinstance(part, int) else f".{_printable_key(part)}"
        if isinstance(node, yaml.MappingNode):
            for key, value in reversed(node.value):  # merged pairs come first
                if key.value == part:
                    node, line = value, key.start_mark.line
                    break
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line
    return line + 1, f"{name[1:]}: " if name else ""


def _printable_key(key: str) -> str:
    """Return a plain word unchanged, and any other key quoted and truncated."""
    return key if key.isidentifier() and len(key) <= _MAX_KEY else reprlib.repr(key)


class _Loader(yaml.SafeLoader):
    """A safe loader that requires unique text keys and integers that fit 64 bits."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == _MERGE:
                continue
            if key.tag != _TEXT:
                raise yaml.composer.ComposerError(
                    None, None, "a key must be text; put it in quotes", key.start_mark
                )
            if key.value in seen:
                raise yaml.composer.ComposerError(
                    None, None, f"key {reprlib.repr(key.value)} is duplicated", key.start_mark
                )
            seen.add(key.value)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            if node.tag == _INT and len(node.value) > _MAX_INT:  # base 60 takes quadratic time
                raise OverflowError
            value = super().construct_object(node, deep)
            if isinstance(value, int) and value.bit_length() >= _INT_BITS:
                raise OverflowError
        except (ArithmeticError, AttributeError, LookupError, ValueError) as error:
            problem = f"{reprlib.repr(node.value)} is not a valid {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error
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
