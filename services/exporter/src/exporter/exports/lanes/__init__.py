"""
The lanes of an export: each reads its partitions of `EVENTS`, with a cursor of its own. So replicas share the work.

Implementation: `changes` decides the steps from one number of lanes to another, `lane_store` writes them to `PLANS`,
`lane_group` has a worker for each lane that is stored.
Considerations: ADR 0043.
"""
