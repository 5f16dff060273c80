"""
Layouts of exported files: columns, cells and names.

To add a layout: a file here, an entry in `LAYOUTS`, a row in the service's README.
"""

from typing import Literal

from exporter.layouts.affise import AffiseLayout

LayoutName = Literal["affise"]
LAYOUTS = {"affise": AffiseLayout}
