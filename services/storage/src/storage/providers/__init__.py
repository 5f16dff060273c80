"""
Providers of object storage.

To add a provider: a file here, a member of the union, a fixture in `tests/contracts/test_providers.py`, a row in the
service's README.
"""

from storage.providers.amazon import AmazonStorageConfig
from storage.providers.azure import AzureStorageConfig
from storage.providers.local import LocalConfig

ProviderConfig = AmazonStorageConfig | AzureStorageConfig | LocalConfig
