"""What is wrong with malformed YAML, and how to write it, in words for people."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import yaml

from forwardscope.text import shown

__all__ = ["Syntax", "explain", "quoted"]

_BREAK: Final = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_COLON: Final = re.compile(r":\s")
_COMMENT: Final = re.compile(r"\s#")
_MAX_SHOWN: Final = 60
_MAX_LINES: Final = 10


@dataclass(frozen=True, slots=True)
class Syntax:
    """A mistake in the syntax.

    Attributes:
        message: What is wrong, and the fix.
        line: Its line.
        column: Its column.
        fixed: The text with the fix, where the fix is certain.
    """

    message: str
    line: int = 0
    column: int = 0
    fixed: str | None = None


def explain(error: yaml.YAMLError, text: str) -> Syntax:
    """Return what the parser's error means.

    Args:
        error: The error.
        text: The whole text.
    """
    if isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        line = len(_BREAK.findall(before)) + 1
        return Syntax(f"the character U+{int(error.character):04X} is not allowed; remove it", line)
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem is None:
        return Syntax(f"not valid YAML: {error}")
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return Syntax(f"not valid YAML: {error.problem}")
    for pattern, describe in _RULES:
        if found := re.search(pattern, f"{error.context or ''}|{error.problem}", re.DOTALL):
            return describe(_Place(text, mark, error.context_mark or mark), found)
    return _Place(text, mark, mark).at(f"not valid YAML: {error.problem}")


def quoted(text: str) -> str:
    """Return a text in quotes, as YAML has it."""
    if '"' in text or "\\" in text:
        return "'" + text.replace("'", "''") + "'"
    return f'"{text}"'


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an error is, with the marks of the parser."""

    text: str
    mark: yaml.Mark
    context: yaml.Mark

    def at(self, message: str, mark: yaml.Mark | None = None, fixed: str | None = None) -> Syntax:
        mark = mark or self.mark
        return Syntax(message, mark.line + 1, mark.column + 1, fixed)

    @property
    def begin(self) -> int:
        """Index of the first character of the line."""
        return int(self.mark.index - self.mark.column)

    @property
    def before(self) -> str:
        """The line up to the mark."""
        return self.text[self.begin : self.mark.index]

    @property
    def line(self) -> str:
        """The whole line."""
        end = _BREAK.search(self.text, self.begin)
        return self.text[self.begin : end.start() if end else len(self.text)]

    @property
    def line_above(self) -> str:
        """The nearest line above that is not blank."""
        return _BREAK.split(self.text[: self.begin].rstrip())[-1]

    def quoting_from(self, column: int, message: str) -> Syntax:
        """Return a mistake whose fix is quotes around the rest of the line."""
        rest = _COMMENT.split(self.line[column:], maxsplit=1)[0]
        value = rest.strip()
        start = self.begin + column + len(rest) - len(rest.lstrip())
        fixed = None
        if value and value[0] not in "[{\"'" and not {"[", "{"} & set(self.line[:column]):
            fixed = self.text[:start] + quoted(value) + self.text[start + len(value) :]
        return self.at(f"{message}: {quoted(shown(value, _MAX_SHOWN))}", fixed=fixed)


def _tab(place: _Place, _: re.Match[str]) -> Syntax:
    if place.before.strip():
        return place.at("a tab before a value; replace it by a space")
    lines = [
        str(number)
        for number, line in enumerate(_BREAK.split(place.text), start=1)
        if "\t" in line[: len(line) - len(line.lstrip())]
    ]
    where = ", ".join(lines[:_MAX_LINES]) + " …" * (len(lines) > _MAX_LINES)
    return place.at(
        "a tab in the indentation; indent with spaces, two for each level"
        + (f" (lines {where})" if len(lines) > 1 else "")
    )


def _colon(place: _Place, _: re.Match[str]) -> Syntax:
    if key := _COLON.search(place.before):
        return place.quoting_from(key.end(), "a colon in a value; put the value in quotes")
    above = place.line_above
    if above.lstrip().startswith("- ") and not _COLON.search(f"{above} "):
        return place.at("a colon in a text of several lines; put the whole text in quotes")
    if _COLON.search(f"{above} "):
        column = len(above) - len(above.lstrip(" -")) + 1
        return place.at(
            f"indented deeper than the line above, whose value it would continue; begin it in "
            f"column {column}"
        )
    fix = "a space after its colon" if ":" in above else "a colon after its key"
    return place.at(f"the line above needs {fix}: {shown(above.strip(), _MAX_SHOWN)!r}")


def _block(place: _Place, found: re.Match[str]) -> Syntax:
    if place.before.strip(" -"):
        return place.at("text after the end of a value; put the whole value in one pair of quotes")
    own, others = place.mark.column, place.context.column
    is_list = "collection" in found[0]
    if is_list and own <= others:
        return place.at(
            f"a key among the items of a list; begin it with '- ' if it is an item, or in column "
            f"{others + 3} if it belongs to the item above"
        )
    if own == others:
        return place.at("an item of a list among keys; indent it below its key")
    return place.at(
        f"begins in column {own + 1}, and the lines of its block in column {others + 1}; "
        "indent them alike"
    )


def _bracket(place: _Place, found: re.Match[str]) -> Syntax:
    if found[2] == "':'" and place.mark.line == place.context.line:
        return place.at("a colon in a text; put the text in quotes")
    opened = "[" if found[1] == "]" else "{"
    return place.at(
        f"{opened} is not closed; add {found[1]}, or a comma between two items", place.context
    )


def _character(place: _Place, found: re.Match[str]) -> Syntax:
    return place.quoting_from(
        place.mark.column, f"a value cannot begin with {found[1]}; put it in quotes"
    )


def _words(message: str, *, at_context: bool = False) -> Callable[..., Syntax]:
    def describe(place: _Place, found: re.Match[str]) -> Syntax:
        names = [shown(group or "", _MAX_SHOWN) for group in found.groups()]
        return place.at(message.format(*names), place.context if at_context else None)

    return describe


#: What the parser says, as `context|problem`, and what it means.
_RULES: Final[tuple[tuple[str, Callable[[_Place, re.Match[str]], Syntax]], ...]] = (
    (r"found character '\\t' that cannot", _tab),
    (r"found character '(.)' that cannot", _character),
    (r"mapping values are not allowed", _colon),
    (r"block (?:mapping|collection)\|expected <block end>", _block),
    (r"expected ',' or '([]}])', but got (.*)", _bracket),
    (
        r"expected '<document start>'",
        _words("the lines above are indented, or are no keys; begin each key in column 1"),
    ),
    (
        r"quoted scalar\|found unexpected",
        _words("a quote is opened and not closed; close it", at_context=True),
    ),
    (
        r"double-quoted scalar\|",
        _words("a backslash begins an escape in double quotes; use single quotes"),
    ),
    (
        r"simple key\|",
        _words("a line without a colon; write it as key: value", at_context=True),
    ),
    (r"expected the node content, but found ','", _words("a value is missing before the comma")),
    (
        r"expected the node content, but found '-'",
        _words("items in brackets are separated by commas, and have no '-'"),
    ),
    (
        r"block scalar\|",
        _words("a text after | or > begins on the next line; put other text in quotes"),
    ),
    (
        r"sequence entries are not allowed",
        _words("a list begins on a line of its own; put text that begins with '-' in quotes"),
    ),
    (
        r"undefined alias '(.*)'",
        _words("no value has the anchor &{0}; put text that begins with * in quotes"),
    ),
    (
        r"scanning an (alias|anchor)\|",
        _words("the name of an {0} is missing; put text that begins with * or & in quotes"),
    ),
    (r"duplicate anchor '(.*)'", _words("two values have the anchor &{0}; rename one of them")),
    (r"another document", _words("a second document begins here; remove the line ---")),
    (
        r"constructor for the tag '(?:tag:yaml.org,2002:)?(.*)'",
        _words("the tag {0} is not known; put text that begins with ! in quotes"),
    ),
    (r"for merging", _words("<< takes a mapping, such as an alias: <<: *name")),
)
