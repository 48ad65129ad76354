"""What the schema of a function says, for functions of every shape."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypedDict

import pydantic
import pytest
import tool_functions as tools

from snakepit_grpc_bridge.errors import ValidationFailed
from snakepit_grpc_bridge.tools.schema import Schema, check_tool_name, read_schema

ROWS: Callable[..., Any] = tools.rows


Named = TypedDict("Named", {"x-kind": int})


def plain(function: Callable[..., Any]) -> dict[str, Any]:
    return read_schema(function).describe()


def parameters(function: Callable[..., Any]) -> list[tuple[str, str, bool, Any]]:
    return [
        (each.name, each.type, each.required, each.default)
        for each in read_schema(function).parameters
    ]


def test_a_function() -> None:
    assert plain(tools.price) == {
        "description": "What some of an item cost.\n\nTaxes are included.",
        "parameters": {
            "type": "object",
            "properties": {
                "item": {"type": "string", "description": "Its name, in\nlower case."},
                "count": {"type": "integer", "default": 1, "description": "How many."},
                "discount": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None},
            },
            "required": ["item"],
            "additionalProperties": False,
        },
        "returns": {"type": "number"},
        "streams": False,
        "is_async": False,
    }


def test_a_function_that_is_given_a_signature() -> None:
    def passes_on(**given: Any) -> dict[str, Any]:
        """Ask another service.

        Args:
            item: What for.
        """
        return given

    kind, count = inspect.Parameter.KEYWORD_ONLY, Annotated[int, pydantic.Field(ge=1)]
    given = [
        inspect.Parameter("item", kind, annotation=str),
        inspect.Parameter("count", kind, annotation=count, default=1),
    ]
    vars(passes_on)["__signature__"] = inspect.Signature(given)
    schema = read_schema(passes_on)
    assert not schema.open_ended
    assert parameters(passes_on) == [("item", "string", True, None), ("count", "integer", False, 1)]
    assert schema.parameters[0].description == "What for."
    assert passes_on(**schema.check("ask", {"item": "a", "count": 2})) == {"item": "a", "count": 2}
    for side in (schema, Schema.from_description(schema.describe())):
        with pytest.raises(ValidationFailed) as caught:
            side.check("ask", {"count": 0, "size": 1})
        assert caught.value.details["problems"] == [
            "missing: item", "unknown: size", "count: must be at least 1",
        ]  # fmt: skip


def test_a_function_that_says_nothing() -> None:
    schema = read_schema(tools.anything)
    assert parameters(tools.anything) == [
        ("value", "any", True, None),
        ("flag", "any", False, False),
    ]
    assert schema.description == ""
    assert schema.open_ended
    assert schema.describe()["parameters"]["additionalProperties"] == {"type": "integer"}
    assert schema.returns == {}
    assert schema.check("anything", {"value": None, "more": 1}) == {"value": None, "more": 1}


@pytest.mark.parametrize(
    ("function", "names", "returns", "streams", "is_async", "description"),
    [
        (tools.later, ["count"], "object", False, True, ""),
        (tools.counts, ["to"], "integer", True, False, ""),
        (tools.lines, ["of"], "string", True, True, ""),
        (tools.Shop().price, ["item"], "number", False, False, "The price of one."),
        (tools.Shop.open, ["name"], None, False, False, ""),
        (tools.Shop.tax, ["amount"], "number", False, False, ""),
        (tools.Shop(), ["item"], "string", False, False, "Sells things."),
        (tools.AsyncShop(), ["item"], "string", False, True, "Sell one."),
        (tools.Guest, ["name", "age", "friends"], None, False, False, "Somebody who comes."),
        (tools.Point, ["x"], None, False, False, ""),
        (tools.Pair, ["left", "right"], None, False, False, ""),
        (tools.Order, ["itemId", "when"], None, False, False, "What is asked for."),
        (functools.partial(tools.later), ["count"], "object", False, True, ""),
        (functools.partial(tools.counts), ["to"], "integer", True, False, ""),
        (functools.partial(ROWS, None), ["query", "token"], "array", False, False, ...),
        (
            functools.partial(ROWS, connection=1),
            ["query", "token"],
            "array",
            False,
            False,
            ...,
        ),
        (tools.logged(tools.price), ["item", "count", "discount"], "number", False, False, ...),
        (
            functools.lru_cache(tools.price),
            ["item", "count", "discount"],
            "number",
            False,
            False,
            ...,
        ),
        (lambda: None, [], None, False, False, ""),
    ],
)
def test_shapes(
    function: Callable[..., Any],
    names: list[str],
    returns: str | None,
    streams: bool,
    is_async: bool,
    description: Any,
) -> None:
    schema = read_schema(function)
    assert [each.name for each in schema.parameters] == names
    assert schema.returns.get("type") == returns
    assert (schema.streams, schema.is_async) == (streams, is_async)
    if description is not ...:
        assert schema.description == description


def test_what_is_bound_is_neither_seen_nor_replaced() -> None:
    bound = functools.partial(tools.forwards, "there", token="hunter2")
    schema = read_schema(bound)
    assert "hunter2" not in json.dumps(schema.describe())
    assert schema.check("forwards", {"retries": 2}) == {"retries": 2}
    for name in ("token", "target"):
        with pytest.raises(ValidationFailed) as caught:
            schema.check("forwards", {"retries": 2, name: 5})
        assert caught.value.details["problems"] == [f"unknown: {name}"]


def test_fields_of_pydantic_describe_parameters() -> None:
    schema = read_schema(tools.with_fields)
    assert parameters(tools.with_fields) == [
        ("count", "integer", False, 5),
        ("name", "string", True, None),
        ("tags", "array", False, []),
        ("city", "string", False, "Rome"),
        ("via", "string", False, "road"),
    ]
    texts = {each.name: each.description for each in schema.parameters}
    assert texts.pop("tags") == ""
    assert list(texts.values()) == ["How many.", "Whose.", "Where.", "By what."]
    assert tools.with_fields(**schema.check("f", {"name": "n"})) == [5, "n", [], "Rome", "road"]


@pytest.mark.parametrize(
    ("default", "shown"),
    [
        (5, 5),
        ((1, 2), [1, 2]),
        (tools.Color.RED, "red"),
        (tools.Point(1), {"x": 1}),
        (b"ab", None),  # text that would be taken for text
        (object(), None),
        (float("inf"), None),
        (["long"] * 1000, None),
    ],
)
def test_defaults_are_shown_as_json_where_they_can_be(default: object, shown: object) -> None:
    def function(value: Any = default) -> None: ...

    parameter = read_schema(function).parameters[0]
    assert not parameter.required
    if shown is not None:
        assert parameter.default == shown
    assert read_schema(function).check("f", {}) == {}


def test_a_default_is_shown_only_if_a_call_may_give_it() -> None:
    def function(count: int = "auto", key: bytes = b"\xff", name: str = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013

    schema = read_schema(function)
    assert [each.default for each in schema.parameters] == [None, "_w==", None]
    assert "default" not in schema.parameters[0].schema
    # What may be left out to get None may be None.
    assert schema.check("f", {"name": None, "key": "_w=="}) == {"name": None, "key": b"\xff"}


def test_the_default_of_a_secret_is_not_shown() -> None:
    secret = pydantic.SecretStr("hunter2")

    def function(
        key: pydantic.SecretStr = secret,
        other: pydantic.SecretStr = pydantic.Field(secret),  # noqa: B008
    ) -> None: ...

    assert "default" not in json.dumps(read_schema(function).describe())


def test_the_description_can_be_given() -> None:
    assert read_schema(tools.price, description="Asks the till.").description == "Asks the till."


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (5, "must be a function, not an integer"),
        (lambda a, /: a, "'a' is positional-only.*remove the '/'"),
        (lambda *a: a, r"no call could fill \*a.*take a list"),
        (max, "its parameters are not known; wrap it"),
        (tools.Shop.price, "without its object; take it from an instance"),
        (tools.rows, r"parameter 'connection'.*sqlite3\.Connection.*functools\.partial"),
    ],
)
def test_what_can_not_be_a_tool_is_refused(function: Any, says: str) -> None:
    with pytest.raises(ValidationFailed, match=says):
        read_schema(function)


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        ("Missing", "'value' can't be resolved .*'Missing' is not defined.*or annotate it as Any"),
        ("1 / 0", "can't be resolved .*ZeroDivisionError"),
        (Callable[[], int], "no data can become a function"),
        (type[int], "no data can become a class"),
        (list[Callable[[], int]] | None, "no data can become a function"),
        (type("Opaque", (), {}), "no data can become <class '.*Opaque'>"),
    ],
)
def test_annotations_that_no_data_can_fit_are_refused(annotation: Any, says: str) -> None:
    def function(other: int, value: Any) -> None: ...

    function.__annotations__["value"] = annotation
    with pytest.raises(ValidationFailed, match=says):
        read_schema(function)


def test_an_annotation_of_the_result_need_not_be_known() -> None:
    def function() -> Missing: ...  # type: ignore[name-defined]  # noqa: F821

    def opaque() -> Callable[[], int]: ...  # type: ignore[empty-body]

    assert read_schema(function).returns == read_schema(opaque).returns == {}


def test_a_parameter_has_one_name() -> None:
    def function(count: Annotated[int, pydantic.Field(alias="number")]) -> None: ...

    with pytest.raises(ValidationFailed, match="has an alias; give it that name itself"):
        read_schema(function)


def test_a_json_schema_that_an_author_broke_is_refused() -> None:
    odd = pydantic.Field(json_schema_extra={"type": "odd"})

    def function(count: Annotated[int, odd]) -> None: ...

    with pytest.raises(ValidationFailed, match="function can't be a tool"):
        read_schema(function)


def test_limits() -> None:
    def function(value: int) -> None: ...

    function.__doc__ = "x" * 4097
    with pytest.raises(ValidationFailed, match="its description has 4097 characters"):
        read_schema(function)
    assert read_schema(function, description="short").description == "short"
    function.__doc__ = f"Do.\n\nArgs:\n    value: {'x' * 1025}"
    with pytest.raises(ValidationFailed, match="the description of 'value' has 1025 characters"):
        read_schema(function)
    many: dict[str, Any] = {}
    exec(f"def many({', '.join(f'p{i}' for i in range(129))}): ...", many)
    with pytest.raises(ValidationFailed, match="it has 129 parameters, and may have 128"):
        read_schema(many["many"])
    exec("def big(a): ...", many)
    many["big"].__annotations__["a"] = Literal[tuple(map(str, range(10_000)))]
    with pytest.raises(ValidationFailed, match=r"its schema has \d+ bytes as JSON"):
        read_schema(many["big"])


@pytest.mark.parametrize("name", ["a", "a.b-c_d", "9", "x" * 64])
def test_names_of_tools(name: str) -> None:
    assert check_tool_name(name) == name


@pytest.mark.parametrize("name", ["", "a b", "_private", ".a", "é", "x" * 65, "a\n", None, 5])
def test_names_that_no_tool_can_have(name: object) -> None:
    with pytest.raises(ValidationFailed, match="is no tool name"):
        check_tool_name(name)


def test_names_that_no_parameter_can_have() -> None:
    names: dict[str, Any] = {}
    exec(f"def foreign(größe): ...\ndef long({'x' * 65}): ...", names)
    for function in (names["foreign"], names["long"]):
        with pytest.raises(ValidationFailed, match="is no name for a parameter"):
            read_schema(function)


# --- the plain form ------------------------------------------------------------------------------


def test_the_plain_form_is_json_and_makes_an_equal_schema() -> None:
    for function in (tools.price, tools.anything, tools.counts, tools.Guest, tools.with_fields):
        schema = read_schema(function)
        assert Schema.from_description(json.loads(json.dumps(schema.describe()))) == schema


def test_what_is_described_is_a_copy() -> None:
    schema = read_schema(tools.price)
    schema.describe()["parameters"]["properties"].clear()
    schema.to_json_schema()["properties"].clear()
    assert schema == read_schema(tools.price)


def test_tool_definitions_hold_json_schema_alone() -> None:
    def function(key: bytes, when: dict[int, set[float]], x: tools.Guest) -> None: ...

    schema = read_schema(function).to_json_schema()
    assert "x-" not in json.dumps(schema)
    # A name is no keyword.
    assert list(schema["properties"]) == ["key", "when", "x"]
    assert schema["properties"]["key"] == {"type": "string", "contentEncoding": "base64"}
    assert schema["$defs"]["Guest"]["required"] == ["name"]

    def keeps(value: Named = {"x-kind": 5}) -> None: ...  # noqa: B006

    schema = read_schema(keeps).to_json_schema()
    assert schema["properties"]["value"]["default"] == {"x-kind": 5}
    assert schema["$defs"]["Named"]["properties"] == {"x-kind": {"type": "integer"}}

    odd: dict[str, Any] = {}
    exec("def odd(properties: int, default: int = 1): ...", odd)
    assert read_schema(odd["odd"]).to_json_schema()["properties"] == {
        "properties": {"type": "integer"},
        "default": {"type": "integer", "default": 1},
    }


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


def with_parameter(schema: object, name: str = "a", **more: object) -> dict[str, object]:
    parameters = {
        "type": "object",
        "properties": {name: schema},
        "required": [],
        "additionalProperties": False,
    }
    return {"parameters": parameters | more}


@pytest.mark.parametrize(
    "broken",
    [
        {"streams": 1},
        {"description": None},
        {"description": "x" * 5000},
        {"more": 1},
        {"returns": {"default": b"no json"}},
        {"parameters": []},
        {"parameters": {"type": "object", "properties": {}}},
        with_parameter({"type": "no"}),
        with_parameter({"type": ["no"]}),
        with_parameter({"x-kind": "no"}),
        with_parameter({"x-kind": "ndarray", "x-dtype": 5}),
        with_parameter({"$ref": "#/$defs/no"}),
        with_parameter({"type": "integer", "minimum": "1"}),
        with_parameter({"type": "array", "maxItems": None}),
        with_parameter({"enum": [[]]}),
        with_parameter({"anyOf": []}),
        with_parameter({"anyOf": [None]}),
        with_parameter({"description": 5}),
        with_parameter(False),
        with_parameter({}, name="a b"),
        with_parameter({}, required=[[]]),
        with_parameter({}, type="array"),
        with_parameter(nested(5000)),
    ],
)
def test_other_descriptions_are_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(ValidationFailed, match=r"no description of a tool|may have|no name"):
        Schema.from_description(plain(tools.price) | broken)


@pytest.mark.parametrize("other", [None, [], {}, "text"])
def test_what_is_no_description_is_refused(other: Any) -> None:
    with pytest.raises(ValidationFailed, match="no description of a tool"):
        Schema.from_description(other)


def test_a_definition_that_is_nothing_but_itself_ends() -> None:
    given = plain(tools.price)
    given["parameters"]["properties"]["item"] = {"$ref": "#/$defs/loop"}
    given["parameters"]["$defs"] = {"loop": {"$ref": "#/$defs/loop"}}
    schema = Schema.from_description(given)
    with pytest.raises(ValidationFailed, match="nested too deeply"):
        schema.check("price", {"item": 1})
