"""The OpenAPI document of a route table."""

from typing import Annotated, Any, Literal, get_args

import pytest
from jsonschema import Draft202012Validator
from msgspec import Meta, Struct

from shared.config.secret import Secret
from shared.errors import KINDS, MillraceError
from shared.http.openapi import STATUS, ProblemDetail, openapi
from shared.http.routes import Binary, Query, Route


class Key(Struct, kw_only=True, forbid_unknown_fields=True):
    secret_key: Secret
    size: int = 0


class Upload(Struct, kw_only=True, forbid_unknown_fields=True):
    file: Binary


async def handle(_: object) -> None:
    return None


def document_of(*routes: Route) -> dict[str, Any]:
    return openapi("toy", "1.2.3", routes)


def operation_of(
    method: Literal["GET", "PUT", "POST", "DELETE"] = "GET", path: str = "/v1/things", **fields: Any
) -> dict[str, Any]:
    (operations,) = document_of(Route(method, path, handle, "A thing", **fields))["paths"].values()
    operation: dict[str, Any] = operations[method.lower()]
    return operation


def test_document_names_its_service_and_version() -> None:
    document = document_of()

    assert "3.1.0" == document["openapi"]
    assert ("Millrace toy", "1.2.3") == (document["info"]["title"], document["info"]["version"])


def test_parts_of_the_path_and_the_query_are_parameters() -> None:
    document = document_of(Route("GET", "/cdn/{app_key}/{key:.+}", handle, "An object", query={"limit": "How many"}))

    (operation,) = document["paths"]["/cdn/{app_key}/{key}"].values()
    assert [("app_key", "path"), ("key", "path"), ("limit", "query")] == [
        (parameter["name"], parameter["in"]) for parameter in operation["parameters"]
    ]


def test_part_of_a_path_is_an_identifier_unless_it_has_a_pattern() -> None:
    document = document_of(Route("GET", "/cdn/{app_key}/{key:.+}", handle, "An object"))

    (operation,) = document["paths"]["/cdn/{app_key}/{key}"].values()
    assert ["^[A-Za-z0-9_-]{1,64}$", "^.+$"] == [
        parameter["schema"]["pattern"] for parameter in operation["parameters"]
    ]


def test_query_parameter_is_described_with_its_type_and_its_default() -> None:
    operation = operation_of(query={"limit": Query("How many", Annotated[int, Meta(ge=1, le=9)], 5), "after": "Where"})

    limit, after = operation["parameters"]
    assert ("How many", {"type": "integer", "minimum": 1, "maximum": 9, "default": 5}) == (
        limit["description"],
        limit["schema"],
    )
    assert {"type": "string"} == after["schema"]


def test_methods_of_one_path_stand_together_each_with_an_id_of_its_own() -> None:
    document = document_of(Route("GET", "/v1/things", handle, "One"), Route("PUT", "/v1/things", handle, "Other"))

    ids = {method: operation["operationId"] for method, operation in document["paths"]["/v1/things"].items()}
    assert {"get": "get_v1_things", "put": "put_v1_things"} == ids


def test_open_route_needs_no_token() -> None:
    assert [] == operation_of(scope="open")["security"]
    assert [{"token": []}] == operation_of(scope="app")["security"] == operation_of(scope="admin")["security"]


def test_body_and_reply_are_described_by_their_types() -> None:
    operation = operation_of("POST", body=Key, reply=list[Key], status=202)

    reference = {"$ref": "#/components/schemas/Key"}
    assert {"application/json": {"schema": reference}} == operation["requestBody"]["content"]
    answer = operation["responses"]["202"]["content"]["application/json"]["schema"]
    assert reference == answer["items"]


def test_body_that_is_not_json_is_described_by_its_content_type() -> None:
    operation = operation_of("POST", consumes="text/html")

    assert {"required": True, "content": {"text/html": {}}} == operation["requestBody"]
    assert "requestBody" not in operation_of("POST")


def test_body_of_several_content_types_is_described_by_the_type_of_each() -> None:
    operation = operation_of("POST", consumes={"text/html": None, "multipart/form-data": Upload})

    content = operation["requestBody"]["content"]
    assert {"text/html": {}, "multipart/form-data": {"schema": {"$ref": "#/components/schemas/Upload"}}} == content
    upload = document_of(Route("POST", "/x", handle, "X", consumes={"multipart/form-data": Upload}))
    file = upload["components"]["schemas"]["Upload"]["properties"]["file"]
    assert {"type": "string", "format": "binary"} == file


def test_optional_body_is_marked_as_not_required() -> None:
    assert not operation_of("POST", body=Key, body_required=False)["requestBody"]["required"]


@pytest.mark.parametrize(
    ("method", "fields", "statuses"),
    [
        ("GET", {}, "200 400 401 403 404 500 503"),
        ("GET", {"scope": "open", "also": {206: None}}, "200 206 400 404 500 503"),
        ("DELETE", {"status": 204}, "204 400 401 403 404 409 424 429 500 503"),
        ("PUT", {"body": Key}, "200 400 401 403 404 409 413 415 424 429 500 503"),
    ],
)
def test_every_status_of_an_operation_is_listed(
    method: Literal["GET", "PUT", "DELETE"], fields: dict[str, Any], statuses: str
) -> None:
    assert statuses == " ".join(operation_of(method, **fields)["responses"])


def test_every_error_has_a_problem_for_its_body() -> None:
    responses = document_of(Route("GET", "/x", handle, "X"))["components"]["responses"]

    assert {*STATUS, "unsupported_encoding"} == set(responses)
    for response in responses.values():
        assert {"$ref": "#/components/schemas/Problem"} == response["content"]["application/json"]["schema"]
    assert ["WWW-Authenticate"] == list(responses["unauthenticated"]["headers"])
    assert ["Retry-After"] == list(responses["busy"]["headers"]) == list(responses["unavailable"]["headers"])


def test_error_with_a_body_of_its_own_may_have_either() -> None:
    operation = operation_of("POST", status=202, also={200: Upload, 400: Key})

    schemas = {
        status: answer["content"]["application/json"]["schema"]
        for status, answer in operation["responses"].items()
        if "content" in answer
    }
    own, problem = {"$ref": "#/components/schemas/Key"}, {"$ref": "#/components/schemas/Problem"}
    assert {"200": {"$ref": "#/components/schemas/Upload"}, "400": {"anyOf": [own, problem]}} == schemas


def test_problem_lists_the_code_of_every_kind_of_error() -> None:
    codes = get_args(ProblemDetail.__annotations__["code"])

    assert {*KINDS, MillraceError.code} == set(codes)


def test_secret_is_a_password_that_goes_in_only() -> None:
    schemas = document_of(Route("PUT", "/v1/key", handle, "Save", body=Key))["components"]["schemas"]

    field = schemas["Key"]["properties"]["secret_key"]
    assert ("string", "password") == (field["type"], field["format"])
    Draft202012Validator.check_schema(schemas["Key"])
