"""The JSON schema of a suite, for editors, and of each kind of probe."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from forwardscope.errors import ProbeError
from forwardscope.suite.any_probe import class_of, known_kinds
from forwardscope.suite.spec import SuiteSpec
from forwardscope.suite.text_files import FILE_KEYS

__all__ = ["KindSchema", "kind_schemas", "suite_schema"]

#: Editors know this version, and it has all that a suite needs.
_VERSION: Final = "http://json-schema.org/draft-07/schema#"
_ATTRIBUTE: Final = re.compile(r"^    (\w+): (.*(?:\n     .*)*)", re.MULTILINE)

#: A JSON schema of a mapping.
KindSchema = dict[str, Any]


def suite_schema() -> dict[str, Any]:
    """Return the JSON schema of a suite file, with all kinds of probes that are installed."""
    schema = _schema_of(SuiteSpec)
    cases = []
    for kind, inner in kind_schemas().items():
        schema["$defs"] |= inner.pop("$defs", {})
        cases.append(
            {"if": {"required": ["kind"], "properties": {"kind": {"const": kind}}}, "then": inner}
        )
    schema["properties"]["probes"]["items"] = {
        "type": "object",
        "required": ["name", "kind"],
        "properties": {"kind": {"enum": known_kinds()}},
        "allOf": cases,
    }
    return {"$schema": _VERSION, **schema, "title": "forwardscope suite"}


def kind_schemas() -> dict[str, KindSchema]:
    """Return the JSON schema of each kind of probe, as it is in a suite file.

    A kind of an installed package that cannot be imported has no `properties`, and a
    description that says why.
    """
    return {kind: _kind_schema(kind, number) for number, kind in enumerate(known_kinds())}


def _kind_schema(kind: str, number: int) -> KindSchema:
    """Return the schema of a kind; the names of its definitions begin with a number."""
    try:
        schema = _schema_of(class_of(kind), f"{number}.")
    except ProbeError as error:
        return {"type": "object", "description": str(error)}
    except Exception as error:  # noqa: BLE001 - whatever the types of a package do
        return {"type": "object", "description": f"settings not known: {type(error).__name__}"}
    return _with_files(schema)


def _with_files(schema: KindSchema) -> KindSchema:
    """Return a schema with the keys that name files of other keys' items."""
    required, properties = list(schema.get("required", ())), {}
    choices: list[dict[str, Any]] = []
    file_keys = {key: file_key for file_key, key in FILE_KEYS.items()}
    for key, one in schema["properties"].items():
        properties[key] = one
        if key not in file_keys:
            continue
        properties[file_keys[key]] = {
            "type": "string",
            "description": f"File with one of the {key} in each line, or .jsonl; in their place.",
        }
        if key in required:
            required.remove(key)
            choices.append({"oneOf": [{"required": [key]}, {"required": [file_keys[key]]}]})
        else:
            choices.append({"not": {"required": [key, file_keys[key]]}})
    schema |= {"required": required, "properties": properties}
    return schema | ({"allOf": choices} if choices else {})


def _schema_of(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    template = f"#/$defs/{prefix}{{model}}"
    schema = model.model_json_schema(ref_template=template, schema_generator=_Described)
    definitions = {f"{prefix}{name}": one for name, one in schema.pop("$defs", {}).items()}
    return schema | ({"$defs": definitions} if definitions else {})


class _Described(GenerateJsonSchema):
    """Generates schemas whose descriptions are those of the docstrings."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - of all
        """Leave out titles, which would repeat the keys."""
        return False

    def model_schema(self, schema: Any) -> JsonSchemaValue:
        """Generate the schema of a model."""
        made = super().model_schema(schema)
        model: type[BaseModel] = schema["cls"]
        made["description"] = _first_line(model)
        for name, text in _descriptions(model).items():
            if name in made.get("properties", {}):
                made["properties"][name].setdefault("description", text)
        return made


def _first_line(model: type[BaseModel]) -> str:
    return (inspect.cleandoc(model.__doc__ or "").splitlines() or [""])[0]


def _descriptions(model: type[BaseModel]) -> Mapping[str, str]:
    """Return the attributes that the docstrings of a model and its bases describe."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        _, _, section = inspect.cleandoc(base.__doc__ or "").partition("\nAttributes:\n")
        for name, text in _ATTRIBUTE.findall(section):
            found[name] = " ".join(text.split())
    return found
