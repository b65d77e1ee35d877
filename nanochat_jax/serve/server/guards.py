"""Who is let in: names that a browser calls this server by, keys, how often an address may ask."""

import fnmatch
import hmac
import ipaddress
import urllib.parse
from collections.abc import Callable, Collection

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.types import Scope

from nanochat_jax.config.serve import ChatWeb
from nanochat_jax.serve.server.errors import ApiError

Check = Callable[[Scope], ApiError | None]

OPEN_PATHS = frozenset({"/", "/health", "/logo.svg", "/favicon.ico"})
GUESSES = 20  # wrong keys a minute from one address


def bearer_keys(keys: Collection[str]) -> Check:
    """401 without one of `keys`, 429 after `GUESSES` wrong ones; page and `/health` stay open."""
    known, guesses = [key.encode() for key in keys], _Rate(GUESSES)

    def check(scope: Scope) -> ApiError | None:
        if scope["path"] in OPEN_PATHS or scope["path"].startswith("/web/"):
            return None
        given = _bearer(_header(scope, b"authorization"))
        # Before the key is looked at: the right one must not stand out among the guesses.
        if given and not guesses.left(scope):
            return ApiError(429, "too many wrong keys from this address", code="too_many_keys")
        # Compared in constant time: how long a refusal takes must not tell how much was right.
        if given and any([hmac.compare_digest(given, key) for key in known]):
            return None
        if given:
            guesses.take(scope)
        message = "Incorrect API key: send `Authorization: Bearer <key>`"
        return ApiError(401, message, code="invalid_api_key")

    return check


def rate_limit(per_minute: int) -> Check:
    """429 to an address that posts more than `per_minute` requests a minute."""
    rate = _Rate(per_minute)

    def check(scope: Scope) -> ApiError | None:
        if scope["method"] != "POST" or rate.take(scope):
            return None
        return ApiError(429, "too many requests from this address", code="rate_limit_exceeded")

    return check


def guards_hosts(cfg: ChatWeb) -> bool:
    """Whether it matters by which name a browser calls the server.

    A page from anywhere may have its own name point at 127.0.0.1 and then read what a server there
    answers (DNS rebinding), if that answers without a key.
    """
    return bool(cfg.allowed_host) or (not cfg.api_key and _is_loopback(cfg.host))


def hosts(names: Collection[str]) -> Check:
    """403 to a Host that is no address, no localhost and none of `names` (`*` stands for any)."""
    # An address typed as such was looked up nowhere, so nobody can have bent it.
    local = ("localhost", "*.localhost", *(name.lower() for name in names))

    def check(scope: Scope) -> ApiError | None:
        host = _header(scope, b"host").decode("latin-1")
        name = _host_name(host)
        if not host or _address(name) or any(fnmatch.fnmatchcase(name, n) for n in local):
            return None
        message = f"this server does not answer to the name {host[:100]!r}; if that is its own, "
        return ApiError(403, message + f"start it with --allowed-host {name[:100]}", code="host")

    return check


class _Rate:
    """So many a minute from each address, any window of 60 s counted."""

    def __init__(self, per_minute: int):
        self._most = RateLimitItemPerMinute(per_minute)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())  # forgets what is a minute old

    def take(self, scope: Scope) -> bool:
        """Counts one more; whether it was allowed."""
        return self._limiter.hit(self._most, _client(scope))

    def left(self, scope: Scope) -> bool:
        return self._limiter.test(self._most, _client(scope))


def _client(scope: Scope) -> str:
    """The address, or of IPv6 its network: one subscriber has 2^64 addresses of it."""
    text = (scope.get("client") or ("",))[0]
    address = _address(text)
    if address is None or address.version == 4:
        return text
    return str(address.ipv4_mapped or ipaddress.ip_network((int(address), 64), strict=False))


def _header(scope: Scope, name: bytes) -> bytes:
    return dict(scope["headers"]).get(name, b"")


def _bearer(header: bytes) -> bytes:
    """The key of an Authorization header; the scheme's case is free (RFC 9110, section 11.1)."""
    match header.strip().split(maxsplit=1):
        case scheme, key if scheme.lower() == b"bearer":
            return key
    return b""


def _host_name(host: str) -> str:
    """A Host without its port; what is none at all stays as it is, and fits nothing."""
    try:
        return (urllib.parse.urlsplit(f"//{host}").hostname or host).rstrip(".")
    except ValueError:
        return host


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return address.is_loopback if address else host.lower() == "localhost"
