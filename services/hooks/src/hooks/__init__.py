"""The hooks service: accepts user events and streams those that a hook asks for to its target."""

SERVICE_NAME = "hooks"
