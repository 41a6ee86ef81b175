"""The commands `forwardscope probes` and `forwardscope schema`."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import typer

from forwardscope.analysis.tables import Column, Table, as_markdown, as_rich
from forwardscope.cli.terminal import Terminal
from forwardscope.errors import UserError
from forwardscope.suite.schema import KindSchema, kind_schemas, suite_schema
from forwardscope.text import plural, shown

__all__ = ["probes", "schema"]

_MAX_DEFAULT: Final = 36
#: Settings of each probe, which the tables leave out.
_COMMON: Final = ("name", "weight")
_COLUMNS: Final = (
    Column("name", "setting"),
    Column("type", "type"),
    Column("default", "default", length=_MAX_DEFAULT),
    Column("description", "what it is"),
)
#: Types of JSON in words.
_TYPES: Final = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "object": "mapping",
}
_BOUNDS: Final = {
    "minimum": "≥",
    "exclusiveMinimum": ">",
    "maximum": "≤",
    "exclusiveMaximum": "<",
}


def probes(
    kind: Annotated[
        str | None, typer.Argument(help="Only this kind.", metavar="[KIND]", show_default=False)
    ] = None,
    format: Annotated[  # noqa: A002 - the option's name
        Literal["terminal", "json", "markdown"], typer.Option("--format", help="Output format.")
    ] = "terminal",
) -> None:
    """List the kinds of probes that a suite can have, with their settings and defaults.

    Kinds of installed packages are among them, and are imported for it.

    Exit status: 0, or 2 for an unknown kind.
    """
    known = kind_schemas()
    if kind is not None and kind not in known:
        similar = difflib.get_close_matches(kind, known, n=1)
        hint = f"did you mean {similar[0]}?" if similar else f"known: {', '.join(known)}"
        raise UserError(f"no probe has the kind {shown(kind)!r}; {hint}")
    chosen = {name: known[name] for name in ([kind] if kind else known)}
    terminal = Terminal(soft_wrap=False)
    if format == "json":
        terminal.write(json.dumps([_described(*one) for one in chosen.items()], indent=2))
        return
    for table in map(_table, chosen, chosen.values()):
        if format == "markdown":
            terminal.write(as_markdown(table))
        else:
            terminal.print(as_rich(table))
    terminal.print("each probe also has a name, and a weight of its score, by default 1")


def schema() -> None:
    """Print the JSON schema of a suite file, with which editors complete and check it.

    `forwardscope schema > suite.schema.json` writes the file that the first line
    of the files of `forwardscope init` names.
    """
    Terminal().write(json.dumps(suite_schema(), indent=2))


def _described(kind: str, schema: KindSchema) -> dict[str, Any]:
    """Return a kind with its settings, as plain data."""
    required = [*schema.get("required", ())]
    for choice in schema.get("allOf", ()):  # a key, or one that names a file
        required += choice.get("oneOf", [{}])[0].get("required", ())
    settings = [
        {
            "name": name,
            "type": _type(one, schema),
            "required": name in required,
            "default": one.get("default"),
            "description": one.get("description", ""),
        }
        for name, one in schema.get("properties", {}).items()
        if name != "kind"
    ]
    return {"kind": kind, "description": schema["description"], "settings": settings}


def _table(kind: str, schema: KindSchema) -> Table:
    described = _described(kind, schema)
    rows = [
        (one["name"], one["type"], _default(one), one["description"])
        for one in described["settings"]
        if one["name"] not in _COMMON
    ]
    return Table(f"{kind}: {described['description']}", _COLUMNS, rows)


def _default(setting: Mapping[str, Any]) -> str:
    default = setting["default"]
    if default is None:
        return "required" if setting["required"] else "–"
    if isinstance(default, list) and default and isinstance(default[0], str):
        return plural(len(default), "text")
    return default if isinstance(default, str) else json.dumps(default)


def _type(one: Mapping[str, Any], schema: KindSchema) -> str:
    """Return the type of a value in words."""
    if "$ref" in one:
        one = schema.get("$defs", {}).get(str(one["$ref"]).rpartition("/")[2], {})
        return f"{{{', '.join(one.get('properties', ()))}}}"
    if choices := one.get("anyOf") or one.get("oneOf"):
        words = [_type(choice, schema) for choice in choices if choice.get("type") != "null"]
        return " or ".join(dict.fromkeys(words))
    if "enum" in one or "const" in one:
        return " or ".join(map(str, one.get("enum", [one.get("const")])))
    if one.get("type") == "array":
        items = _type(one.get("items", {}), schema)
        return f"list of ({items})" if " or " in items else f"list of {items}"
    bounds = [f"{sign} {one[key]}" for key, sign in _BOUNDS.items() if key in one]
    return " ".join([_TYPES.get(str(one.get("type")), "any"), ", ".join(bounds)]).strip()
