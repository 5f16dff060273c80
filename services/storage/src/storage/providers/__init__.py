"""Where objects can lie. Adding a provider is one file, one word here, one fixture of its contract test."""

from storage.providers.amazon import AmazonStorageConfig
from storage.providers.azure import AzureStorageConfig
from storage.providers.local import LocalConfig

ProviderConfig = AmazonStorageConfig | AzureStorageConfig | LocalConfig
