"""The failure of an export as data, to its recovery: states, the 48 hours, texts. Pure."""
