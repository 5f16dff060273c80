"""
Layouts of exported files: columns, cells and names.

To add a layout: a file here, an entry in `LAYOUTS`, a row in the service's README.
"""

from collections.abc import Callable
from typing import Literal

from exporter.layouts.affise import AffiseLayout
from exporter.pipeline.content import Content
from exporter.pipeline.ports import Layout

LayoutName = Literal["affise"]
LAYOUTS: dict[str, Callable[[str, Content], Layout]] = {"affise": AffiseLayout}
"""Makes the layout of an app's content, by the name of the layout."""
