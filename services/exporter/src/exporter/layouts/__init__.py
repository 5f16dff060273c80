"""How exported files look. Adding a layout: a file here, a line below, a row in the service's README."""

from typing import Literal

from exporter.layouts.affise import AffiseLayout

LayoutName = Literal["affise"]
LAYOUTS = {"affise": AffiseLayout}
