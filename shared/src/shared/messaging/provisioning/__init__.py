"""
Provisioning of NATS: streams, buckets and durable consumers are made by one user, and looked at by all others.
"""
