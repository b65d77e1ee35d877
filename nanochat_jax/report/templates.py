"""The page's templates. Every text is escaped unless it is markup already: nothing slips in."""

from typing import Any

import jinja2
from markupsafe import Markup

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("nanochat_jax.report", "page_files"),
    autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
)  # fmt: skip


def render(name: str, /, **values: Any) -> Markup:
    """The markup of `page_files/<name>` with these values."""
    return Markup(_TEMPLATES.get_template(name).render(values))
