"""What a release's own JSON Schema says of an agent's settings. Pure.

Keywords that are not understood here accept anything: the gateway has the last word.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from worker.gateway.documents import items, mapping
from worker.printable import line

Schema = Mapping[str, Any]

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
_WORDS: Mapping[str, str] = {
    "string": "a text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
}
_CHOICES = ("anyOf", "oneOf")
_BOUNDS: Mapping[str, Callable[[float, float], bool]] = {
    "minimum": operator.ge,
    "maximum": operator.le,
    "exclusiveMinimum": operator.gt,
    "exclusiveMaximum": operator.lt,
}


_MOST_DESCRIBED = 400
"""Limit on the characters that `described` takes."""


def schema_at(schema: Schema, path: Sequence[str]) -> Schema | None:
    """The schema of the value at ``path``; None if the schema takes no such key."""
    if not path:
        return schema
    found = [below for each in _choices(schema) if (below := _child(each, path)) is not None]
    return None if not found else found[0] if len(found) == 1 else {"anyOf": found}


def keys_at(schema: Schema, path: Sequence[str]) -> list[str]:
    """The keys that the object at ``path`` takes, as far as the schema names them."""
    there = schema_at(schema, path)
    if there is None:
        return []
    return sorted({key for each in _choices(there) for key in mapping(each.get("properties"))})


def accepts(schema: Any, value: Any) -> bool:
    """Whether the schema accepts the value."""
    if not isinstance(schema, Mapping):
        return schema is not False
    if "const" in schema and not _same(schema["const"], value):
        return False
    if isinstance(schema.get("enum"), list) and not any(_same(each, value) for each in schema["enum"]):
        return False
    for key in _CHOICES:
        choices = schema.get(key)
        if isinstance(choices, list) and not any(accepts(each, value) for each in choices):
            return False
    if not all(accepts(each, value) for each in items(schema.get("allOf"))):
        return False
    return _has_type(schema.get("type"), value) and _within(schema, value) and _parts_accepted(schema, value)


def described(schema: Schema) -> str:
    """What the schema takes, in words: ``a list``, ``"off" or "all"``."""
    told = list(dict.fromkeys(word for each in _choices(schema) for word in _words(each)))
    if len(told) < 2:
        words = told[0] if told else "something else"
    else:
        words = f"{', '.join(told[:-1])} or {told[-1]}"
    return line(words, _MOST_DESCRIBED)


def _child(schema: Schema, path: Sequence[str]) -> Schema | None:
    below = mapping(schema.get("properties")).get(path[0])
    if below is None:
        if items(schema.get("type")) or schema.get("type") not in (None, "object"):
            return None
        if "const" in schema or "enum" in schema:
            return None
        below = schema.get("additionalProperties", True)
    if below is False:
        return None
    return schema_at(below if isinstance(below, Mapping) else {}, path[1:])


def _choices(schema: Schema) -> Iterator[Schema]:
    """The schema's alternatives, or the schema itself if it has none."""
    listed = [each for key in _CHOICES for each in items(schema.get(key)) if isinstance(each, Mapping)]
    if not listed:
        yield schema
    for each in listed:
        yield from _choices(each)


def _words(schema: Schema) -> Iterator[str]:
    if "const" in schema:
        yield _quoted(schema["const"])
    elif isinstance(schema.get("enum"), list):
        yield from map(_quoted, schema["enum"])
    else:
        named = schema.get("type")
        for each in named if isinstance(named, list) else [named]:
            word = _WORDS.get(str(each))
            if word == "a list" and mapping(schema.get("items")).get("type") == "string":
                word = "a list of texts"
            if word is not None:
                yield word


def _quoted(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def _has_type(named: Any, value: Any) -> bool:
    named = named if isinstance(named, list) else [named]
    wanted = [each for each in named if isinstance(each, str) and each in _TYPES]
    if not wanted:
        return True
    if isinstance(value, bool):
        return "boolean" in wanted
    if isinstance(value, float) and value.is_integer() and "integer" in wanted:
        return True
    return any(isinstance(value, _TYPES[each]) for each in wanted)


def _within(schema: Schema, value: Any) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        for key, holds in _BOUNDS.items():
            bound = schema.get(key)
            if isinstance(bound, int | float) and not isinstance(bound, bool) and not holds(value, bound):
                return False
    if isinstance(value, str | list):
        noun, size = ("Length" if isinstance(value, str) else "Items"), len(value)
        least, most = (_count(schema.get(f"{end}{noun}"), size) for end in ("min", "max"))
        return least <= size <= most
    return True


def _parts_accepted(schema: Schema, value: Any) -> bool:
    if isinstance(value, list):
        return all(accepts(schema.get("items"), each) for each in value)
    if isinstance(value, Mapping):
        named, others = mapping(schema.get("properties")), schema.get("additionalProperties")
        required = items(schema.get("required"))
        if not all(key in value for key in required if isinstance(key, str)):
            return False
        return all(accepts(named.get(key, others), each) for key, each in value.items())
    return True


def _count(bound: Any, otherwise: int) -> int:
    return bound if isinstance(bound, int) and not isinstance(bound, bool) else otherwise


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
