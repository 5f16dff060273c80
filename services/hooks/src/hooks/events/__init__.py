"""Events: accepted by HTTP, published to `EVENTS`, and decoded again."""
