"""What a JSON Schema accepts, and how it is said."""

from __future__ import annotations

from typing import Any

import pytest

from worker.gateway.setting_schema import accepts, described, keys_at, schema_at

TEXT = {"type": "string"}
TEXTS = {"type": "array", "items": TEXT}
MODEL = {
    "anyOf": [
        TEXT,
        {
            "type": "object",
            "properties": {"primary": TEXT, "fallbacks": TEXTS},
            "additionalProperties": False,
        },
    ]
}
MODE = {"anyOf": [{"type": "string", "const": value} for value in ("off", "non-main", "all")]}
COUNT = {"type": "integer", "exclusiveMinimum": 0, "maximum": 9}
ENTRY = {
    "type": "object",
    "properties": {
        "model": MODEL,
        "mode": MODE,
        "count": COUNT,
        "env": {"type": "object", "additionalProperties": TEXT},
        "params": {"type": "object", "additionalProperties": {}},
        "free": {},
    },
    "required": ["model"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (TEXT, ["", "x"], [1, True, [], {}, None]),
        (TEXTS, [[], ["a"]], ["a", [1], {}]),
        (MODEL, ["a/b", {"primary": "a"}, {}], [5, {"primary": 1}, {"other": "x"}, ["a"]]),
        (MODE, ["off", "all"], ["sometimes", True, 0]),
        (COUNT, [1, 9, 3.0], [0, 10, 1.5, True, "1"]),
        ({"type": ["string", "number"]}, ["a", 1, 1.5], [True, []]),
        ({"type": "string", "enum": ["a", "b"]}, ["a"], ["c", 1]),
        ({"enum": [1]}, [1, 1.0], [True]),
        ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "abc"], ["a", "abcd"]),
        ({"type": "array", "maxItems": 1, "minItems": 1}, [["a"]], [[], ["a", "b"]]),
        ({"allOf": [TEXT, {"minLength": 1}]}, ["a"], ["", 1]),
        (ENTRY, [{"model": "a"}, {"model": "a", "free": 1}], [{}, {"model": "a", "nosuch": 1}, "x"]),
        ({}, [1, None, "a"], []),
        (True, [1], []),
        (False, [], [1]),
        ({"type": "mystery", "anyOf": "no list", "properties": 7, "minimum": "x"}, [1, "a", {}], []),
    ],
)
def test_a_value_is_accepted_or_not(schema: Any, good: list[Any], bad: list[Any]) -> None:
    assert [accepts(schema, value) for value in good] == [True] * len(good)
    assert [accepts(schema, value) for value in bad] == [False] * len(bad)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("model", MODEL),
        ("model.fallbacks", TEXTS),
        ("env.ANY", TEXT),
        ("params.x.y", {}),
        ("free.x.y", {}),
        ("nosuch", None),
        ("model.nosuch", None),
        ("mode.x", None),
        ("count.x", None),
        ("env.ANY.x", None),
    ],
)
def test_the_schema_of_a_field_is_found(path: str, found: Any) -> None:
    assert schema_at(ENTRY, path.split(".")) == found


def test_what_a_schema_takes_is_said() -> None:
    assert described(MODE) == '"off", "non-main" or "all"'
    assert described(MODEL) == "a text or an object"
    assert described(TEXTS) == "a list of texts"
    assert described({"type": "array"}) == "a list"
    assert described({"type": ["string", "number"]}) == "a text or a number"
    assert described({"type": "boolean"}) == "true or false"
    assert described({}) == "something else"
    assert keys_at(ENTRY, ["model"]) == ["fallbacks", "primary"]
    assert keys_at(ENTRY, ["nosuch"]) == []


KEYWORDS = (
    *("type", "enum", "const", "anyOf", "oneOf", "allOf", "properties", "additionalProperties", "items"),
    *("required", "minimum", "exclusiveMaximum", "minLength", "maxItems"),
)
ODD: list[Any] = [
    *(None, True, -1, 10**23, 1.5, float("nan"), "", "x\x00\ud800", [], [[]], [7], [{}], [None], {}),
    *({"a": {"a": []}}, {"a": [], "type": []}),
]


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_a_schema_of_any_shape_can_be_asked(keyword: str) -> None:
    for odd in ODD:
        for schema in ({keyword: odd}, {"anyOf": [{keyword: odd}]}, {"properties": {"a": {keyword: odd}}}):
            for value in ("x", 1, 1.5, True, [], ["x"], {}, {"a": {"a": 1}}):
                assert accepts(schema, value) in (True, False)
            below = schema_at(schema, ["a", "a"])
            assert below is None or len(described(below)) <= 400
            assert isinstance(keys_at(schema, ["a"]), list)


def test_what_a_schema_takes_is_said_in_few_words() -> None:
    many = {"enum": [f"value {number}" for number in range(9000)]}
    assert described(many).startswith('"value 0", "value 1"')
    assert len(described(many)) == 400
    assert len(described({"const": "x" * 2**20})) == 400
