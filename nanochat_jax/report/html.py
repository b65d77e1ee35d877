"""Elements of a page. Every text is escaped unless it is an `Html` already: nothing slips in."""

import html
from typing import Any

VOID = ("meta", "input", "br")


# A type for markup: what is not of it is escaped, so that forgetting is harmless.
class Html(str):
    """Text that is markup; only `tag`, `join` and this package's own files make it."""


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """`<name attribute="...">children</name>`.

    Children are Html or texts to escape; None and False are left out, as attributes too; True is
    an attribute without a value. `class_` and `data_x` become `class` and `data-x`.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{_safe(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    inside = join(*children)
    return Html(f"<{name}{written}>" + ("" if name in VOID else f"{inside}</{name}>"))


def join(*children: Any) -> Html:
    """The children one after another."""
    return Html("".join(map(_child, children)))


def _child(child: Any) -> str:
    if child is None or child is False:
        return ""
    return child if isinstance(child, Html) else _safe(child)


def _safe(value: Any) -> str:
    """Escaped; half a character (a lone surrogate), which no file can hold, becomes `?`."""
    text = html.escape(str(value), quote=True)
    return text.encode("utf-8", "replace").decode("utf-8")
