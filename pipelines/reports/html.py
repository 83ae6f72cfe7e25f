"""Pages that open without a server: one file that embeds its pictures and fetches nothing."""

import base64
from pathlib import Path

import jinja2

_STYLE = Path(__file__).with_name("page.css")


def render(template: Path, **values: object) -> str:
    """Render a Jinja template; values are escaped, a missing name is an error, and `style` is set."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        style=_STYLE.read_text(encoding="utf-8"), **values
    )


def inline(data: bytes, kind: str) -> str:
    """Return a picture as a data URL; `kind` is png or jpeg."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
