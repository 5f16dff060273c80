"""Listing what an app has in all services, and its deletion; a fake answers for the services."""

from typing import Any, cast

import pytest

from millrace.configuration.file import COLLECTIONS, CONNECTORS
from millrace.mesh.service_api import ServiceApi
from millrace.verbs.app import delete_resources, find_resources
from shared.errors import ConflictError, NotFoundError, UnavailableError

EVERYTHING = {
    "/v1/apps/shop": "ftp-gateway",
    "/v1/apps/shop/connectors/kinesis": "hooks",
    "/v1/apps/shop/connectors/azure-storage": "storage",
    "/v1/apps/shop/hooks/a": "hooks",
    "/v1/apps/shop/hooks/b": "hooks",
    "/v1/apps/shop/ftp-users/nightly": "ftp-gateway",
    "/v1/apps/shop/remotes/theirs": "ftp-gateway",
    "/v1/apps/shop/exports/clicks": "exporter",
    "/v1/apps/shop/lake": "exporter",
}


class Services:
    """A fake of the services: the paths that they have, and those that were deleted, in their order."""

    def __init__(self) -> None:
        self.kept = {**EVERYTHING, "/v1/apps/shop2/hooks/a": "hooks"}
        self.deleted: list[str] = []
        self.down: str | None = None
        self.unsigned: str | None = None

    async def call(self, service: str, method: str, path: str) -> Any:
        if service == self.down:
            raise UnavailableError(f"{service} cannot be reached")
        if method == "GET" and path.rpartition("/")[2].replace("-", "_") in COLLECTIONS:
            ids = [one.rpartition("/")[2] for one in self.kept if one.rpartition("/")[0] == path]
            return {"items": [{"id": id} for id in ids]}
        if self.kept.get(path) != service:
            raise NotFoundError(f"there is no {path}")
        if method == "DELETE":
            del self.kept[path]
            self.deleted.append(path)
        elif path == self.unsigned:
            raise ConflictError("is not used: it has no signature")
        return None


@pytest.fixture
def services() -> Services:
    return Services()


@pytest.fixture
def api(services: Services) -> ServiceApi:
    return cast(ServiceApi, services)


async def test_everything_of_an_app_is_found_in_all_services(api: ServiceApi, services: Services) -> None:
    services.unsigned = "/v1/apps/shop/connectors/kinesis"

    found = await find_resources(api, "shop")

    assert EVERYTHING == {one.path: one.service for one in found}
    assert {"connectors.kinesis", "connectors.azure-storage"} <= {one.kind for one in found}


async def test_everything_is_deleted_and_the_app_last(api: ServiceApi, services: Services) -> None:
    found = await find_resources(api, "shop")
    services.kept.pop("/v1/apps/shop/hooks/b")

    assert len(EVERYTHING) - 1 == await delete_resources(api, found)

    assert {"/v1/apps/shop2/hooks/a": "hooks"} == services.kept
    assert "/v1/apps/shop" == services.deleted[-1]
    assert services.deleted.index("/v1/apps/shop/hooks/a") < services.deleted.index("/v1/apps/shop/connectors/kinesis")


async def test_nothing_is_said_of_an_app_while_a_service_cannot_be_asked(api: ServiceApi, services: Services) -> None:
    for services.down in {*CONNECTORS.values(), *COLLECTIONS.values()}:
        with pytest.raises(UnavailableError):
            await find_resources(api, "shop")
