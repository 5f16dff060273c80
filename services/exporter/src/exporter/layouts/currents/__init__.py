"""
Files as Braze's Currents writes them: a folder for each type of events, hour and schema; Avro.

Configuration: `types` picks the types of an export, all where it is empty; `remove` and `hash` name fields.
Implementation: `event_types` names types, `schemas` reads `schemas/*/*.avsc`, `layout` makes rows and names.
Considerations: the hour is that in which the stream stored an event, so no event comes late into a folder. `time` is
in seconds, as Braze's is; `properties` is the attributes' JSON as it was published.
"""

from exporter.layouts.currents.layout import CurrentsLayout

__all__ = ["CurrentsLayout"]
