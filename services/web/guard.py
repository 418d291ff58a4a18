"""Who may ask the page for what: checked before anything else sees a request.

Against pages of other sites that a browser has open, and names that lead here from elsewhere (DNS
rebinding): the ``Host`` must be a name of ours, an ``Origin`` the very same. Against who only
reaches the port: orders need the token, in a header that no form or link can send. There are no
cookies, so that nothing is sent that a person did not mean to send.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

import msgspec
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OWN_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
BODY_MAX = 600_000  # bytes: a prompt of 256 kB, escaped
API = "/api/"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Rules(msgspec.Struct, frozen=True):
    """``names``: what the page is called by. ``token``: what orders need; ``reads_too``: looking
    needs it as well."""

    names: frozenset[str]
    token: str
    reads_too: bool


class Denial(msgspec.Struct, frozen=True):
    """Why a request is not served, and its HTTP status."""

    status: int
    error: str
    hint: str = ""


def denial(rules: Rules, method: str, path: str, headers: Mapping[str, str]) -> Denial | None:
    """Why this request is not served; None where it is. PURE."""
    host = headers.get("host", "").lower()
    if host_name(host) not in rules.names:
        hint = "name it in [web] names, if it is yours"
        return Denial(421, f"this page does not go by the name {host[:80]!r}", hint)
    origin = headers.get("origin")
    if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
        return Denial(403, "another site's page may not ask this one")
    is_api = path.startswith(API)
    site = headers.get("sec-fetch-site", "none")
    if is_api and site not in ("same-origin", "none"):
        return Denial(403, "another site's page may not ask this one")
    if method not in ("GET", "HEAD", "POST"):
        return Denial(405, f"{method} means nothing here")
    if is_api and (method == "POST" or rules.reads_too) and not _has_token(rules, headers):
        return Denial(401, "the token is missing or wrong", "it stands in `web-token`")
    return _bad_body(headers) if method == "POST" else None


def host_name(host: str) -> str:
    """The name in a ``Host`` header, without its port."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() and not host.endswith("]") else host


def _has_token(rules: Rules, headers: Mapping[str, str]) -> bool:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    given = token.strip().encode("utf-8", "replace")
    return scheme.lower() == "bearer" and hmac.compare_digest(given, rules.token.encode())


def _bad_body(headers: Mapping[str, str]) -> Denial | None:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        return Denial(415, "an order is JSON (Content-Type: application/json)")
    length = headers.get("content-length", "")
    if not length.isdigit():
        return Denial(411, "an order says how long it is (Content-Length)")
    return Denial(413, "too long") if int(length) > BODY_MAX else None


class PageGuard:
    """Serves what ``denial`` does not refuse, with the headers that keep a browser strict."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self._app, self._rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def strict(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        refused = denial(self._rules, scope["method"], scope["path"], Headers(scope=scope))
        if refused is None:
            await self._app(scope, receive, strict)
            return
        body = {"error": refused.error, "hint": refused.hint}
        await JSONResponse(body, refused.status)(scope, receive, strict)
