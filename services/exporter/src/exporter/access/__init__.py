"""Access to customers' buckets by roles: the external id of each app, and the policies that a customer's AWS needs."""
