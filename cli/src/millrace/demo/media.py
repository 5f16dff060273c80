"""The demo's media: a photograph, and the pictures inside a widget. Both end in the bucket, under permanent URLs."""

import re
from typing import Any

import aiohttp

from millrace.demo.demo_run import StepResult, equal
from millrace.demo.environment import APP, DemoEnvironment
from shared.errors import UnavailableError

DATA_URI = re.compile(rb"data:image/[a-z+]+;base64,")


async def upload_photo(environment: DemoEnvironment) -> StepResult:
    """Upload a photograph, and fetch it and its thumbnail with the URLs alone."""
    photo = (environment.inputs / "photo.jpg").read_bytes()
    form = aiohttp.FormData()
    form.add_field("kind", "message-image")
    form.add_field("file", photo, filename="photo.jpg", content_type="image/jpeg")
    stored = await environment.api.call("storage", "POST", f"/v1/apps/{APP}/media", body=form)
    both = [stored["original"], stored["thumbnail"]]
    fetched = [await fetch(one["url"]) for one in both]
    return equal(
        "original and thumbnail fetched, 2 image/jpeg",
        f"original and thumbnail fetched, {fetched.count('image/jpeg')} image/jpeg",
        *(f"{one['url']}  {one['width']} x {one['height']}, {one['size_bytes']} bytes" for one in both),
    )


async def upload_widget(environment: DemoEnvironment) -> StepResult:
    """Upload a page, check that it comes back without Base64, and fetch each of its pictures."""
    page = (environment.inputs / "widget.html").read_bytes()
    inside = len(DATA_URI.findall(page))
    stored: dict[str, Any] = await environment.api.call(
        "storage", "POST", f"/v1/apps/{APP}/widgets", body=page, content_type="text/html"
    )
    left = len(DATA_URI.findall(stored["html"].encode()))
    urls = dict.fromkeys(image["url"] for image in stored["images"])
    fetched = [await fetch(url) for url in urls]
    return equal(
        f"{inside} pictures replaced, 0 left inside, {len(urls)} files fetched",
        f"{sum(url in stored['html'] for url in (image['url'] for image in stored['images']))} pictures replaced, "
        f"{left} left inside, {sum(kind.startswith('image/') for kind in fetched)} files fetched",
        f"{len(page)} bytes of HTML became {len(stored['html'].encode())}",
        *urls,
    )


async def fetch(url: str) -> str:
    """Fetch without any credential, and return the content type. Raises `UnavailableError`."""
    try:
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            body = await answer.read()
    except aiohttp.ClientError as error:
        raise UnavailableError(f"{url} cannot be fetched: {error}") from None
    if answer.status != 200 or not body:
        raise UnavailableError(f"{url} answered {answer.status} with {len(body)} bytes")
    return answer.content_type
