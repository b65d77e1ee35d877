"""Which key goes to an endpoint: none to a server that it was not made for, none in the clear."""

import ipaddress
import logging
import os
import urllib.parse
from collections.abc import Mapping

log = logging.getLogger(__name__)

USUAL = "OPENAI_API_KEY"


def key_for(url: str, variable: str = "", environ: Mapping[str, str] = os.environ) -> str | None:
    """The key of a server, from the environment.

    `$OPENAI_API_KEY` lies there for OpenAI's own servers, whatever else runs: it goes to them and
    to this machine. To others goes what `variable` names, and nothing beyond this machine by http.

    Raises:
        ValueError: `variable` is not set, or the key would travel unencrypted.
    """
    key, name = environ.get(variable or USUAL, "").strip(), variable or USUAL
    if variable and not key:
        raise ValueError(f"--key-variable names ${variable}, which is not set")
    parts = urllib.parse.urlsplit(url.strip())
    host = (parts.hostname or "").rstrip(".")
    if not key or _is_here(host):
        return key or None
    if not variable and not f".{host}".endswith(".openai.com"):
        log.info("$%s is not sent to %s; --key-variable %s sends it", USUAL, host, USUAL)
        return None
    if parts.scheme != "https":
        raise ValueError(f"${name} would travel to {host} unencrypted; give --endpoint https://...")
    return key


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
