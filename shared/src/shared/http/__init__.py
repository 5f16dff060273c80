"""HTTP: the server, routes as data, and the OpenAPI document made from them."""
