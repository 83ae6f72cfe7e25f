"""Pages that open without a server: one file, pictures inside, nothing fetched."""

import base64
from pathlib import Path

import jinja2

_STYLE = Path(__file__).with_name("page.css")


def render(template: Path, **values: object) -> str:
    """Fill a Jinja template; what is filled in is escaped, a name that is missing is an error, `style` is there."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        style=_STYLE.read_text(encoding="utf-8"), **values
    )


def inline(data: bytes, kind: str) -> str:
    """Give a picture as an address that holds it; `kind` is png or jpeg."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
