"""The OpenAPI document of a route table."""

from typing import Any, Literal, get_args

from jsonschema import Draft202012Validator
from msgspec import Struct

from shared.errors import KINDS, MillraceError
from shared.openapi import ProblemDetail, openapi
from shared.routes import Route
from shared.secret_store import Secret


class Key(Struct, kw_only=True, forbid_unknown_fields=True):
    secret_key: Secret
    size: int = 0


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


def test_document_says_whose_it_is() -> None:
    document = document_of()

    assert ("3.1.0", {"title": "Millrace toy", "version": "1.2.3"}) == (document["openapi"], document["info"])


def test_parts_of_the_path_and_the_query_are_parameters() -> None:
    document = document_of(Route("GET", "/cdn/{app_key}/{key:.+}", handle, "An object", query={"limit": "How many"}))

    (operation,) = document["paths"]["/cdn/{app_key}/{key}"].values()
    assert [("app_key", "path"), ("key", "path"), ("limit", "query")] == [
        (parameter["name"], parameter["in"]) for parameter in operation["parameters"]
    ]


def test_methods_of_one_path_stand_together_each_with_an_id_of_its_own() -> None:
    document = document_of(Route("GET", "/v1/things", handle, "One"), Route("PUT", "/v1/things", handle, "Other"))

    ids = {method: operation["operationId"] for method, operation in document["paths"]["/v1/things"].items()}
    assert {"get": "get_v1_things", "put": "put_v1_things"} == ids


def test_open_route_needs_no_token() -> None:
    assert [] == operation_of(scope="open")["security"]
    assert [{"token": []}] == operation_of(scope="app")["security"] == operation_of(scope="admin")["security"]


def test_body_and_reply_are_told_by_their_types() -> None:
    operation = operation_of("POST", body=Key, reply=list[Key], status=202)

    reference = {"$ref": "#/components/schemas/Key"}
    assert {"application/json": {"schema": reference}} == operation["requestBody"]["content"]
    answer = operation["responses"]["202"]["content"]["application/json"]["schema"]
    assert reference == answer["items"]


def test_body_that_is_no_json_is_told_by_its_content_type() -> None:
    operation = operation_of("POST", consumes="text/html")

    assert {"required": True, "content": {"text/html": {}}} == operation["requestBody"]
    assert "requestBody" not in operation_of("POST")


def test_every_operation_may_answer_with_a_problem() -> None:
    schema = operation_of()["responses"]["default"]["content"]["application/json"]["schema"]

    assert {"$ref": "#/components/schemas/Problem"} == schema


def test_problem_knows_every_kind_of_error() -> None:
    codes = get_args(ProblemDetail.__annotations__["code"])

    assert {*KINDS, MillraceError.code} == set(codes)


def test_secret_is_a_password_that_goes_in_only() -> None:
    schemas = document_of(Route("PUT", "/v1/key", handle, "Save", body=Key))["components"]["schemas"]

    field = schemas["Key"]["properties"]["secret_key"]
    assert ("string", "password") == (field["type"], field["format"])
    Draft202012Validator.check_schema(schemas["Key"])
