"""The pages of measuring are one HTML file each, which a browser opens from the disk: `page.html` is the frame of them all."""

from pathlib import Path
from typing import Any

import jinja2

TEMPLATES = Path(__file__).parent


def render(template: str, **values: Any) -> str:
    """Return the page of a template in this folder, such as "report.html", filled with values."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True)
    return environment.get_template(template).render(values)
