"""
Layouts of exported files: columns, cells and names.

To add a layout: a file here, an entry in `LAYOUTS`, a row in the service's README.
"""

from collections.abc import Callable
from typing import Literal

from exporter.layouts.affise import AffiseLayout
from exporter.layouts.currents import CurrentsLayout
from exporter.pipeline.content import Content
from exporter.pipeline.origin import Origin
from exporter.pipeline.ports import Layout

LayoutName = Literal["affise", "currents"]
LAYOUTS: dict[str, Callable[[Origin, Content], Layout]] = {"affise": AffiseLayout, "currents": CurrentsLayout}
"""Makes the layout of an export's content, by the name of the layout."""
