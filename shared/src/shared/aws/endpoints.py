"""Which endpoints are AWS's own."""

from urllib.parse import urlsplit


def is_aws(endpoint_url: str) -> bool:
    """
    Return whether only AWS answers at an endpoint: HTTPS, and a host below one of its domains. It may be private, as
    an interface endpoint of a VPC is.
    """
    try:
        parts = urlsplit(endpoint_url)
    except ValueError:
        return False
    host = parts.hostname or ""
    return parts.scheme == "https" and host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
