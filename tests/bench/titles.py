"""Distinct titles, as people write them: what to do, with what, and where."""

from __future__ import annotations

_ASKS = (
    "Fix the crash in {0} {1}",
    "Add {0} to the settings page {1}",
    "Write unit tests for {0} {1}",
    "Document how {0} works {1}",
    "{0} throws a NullPointerException {1}",
    "Refactor {0} {1}",
    "Compare libraries for {0} {1}",
    "Why is {0} so slow {1}?",
    "Dark mode: {0} is unreadable {1}",
    "Automate {0} {1}",
    "Migrate the schema behind {0} {1}",
    "GET /api/v2 returns 500 for {0} {1}",
    "[Feature] Support {0} {1}",
    "Analyse the cost of {0} {1}",
    "Investigate flaky test of {0} {1}",
    "Update the README section on {0} {1}",
    "Make {0} configurable {1}",
    "Button for {0} does nothing {1}",
    "Remove deprecated code around {0} {1}",
    "Cache {0} {1}",
)
_THINGS = (
    "the invoice export",
    "user avatars",
    "the nightly backup",
    "OAuth token refresh",
    "the search index",
    "CSV import",
    "password reset mails",
    "the order table",
    "rate limiting",
    "the deployment script",
    "push notifications",
    "the date picker",
    "pagination of results",
    "webhook retries",
    "the audit log",
    "file uploads over 2 GB",
    "the GraphQL gateway",
    "session handling",
    "currency rounding",
    "the plugin loader",
    "translated error messages",
    "the message queue",
    "drag and drop",
    "PDF rendering",
    "the build cache",
)
_PLACES = (
    "on Windows",
    "after upgrading to 4.2",
    "when the network is slow",
    "for admin users",
    "in the mobile app",
    "behind a proxy",
    "since the last release",
    "with an empty database",
    "under heavy load",
    "in the staging cluster",
    "for right-to-left languages",
    "when two users save at once",
    "before the next milestone",
    "without blocking the main thread",
    "in CI",
    "with Python 3.12",
    "for tenants in the EU",
    "on first start",
    "when JavaScript is off",
    "across time zones",
)


def titles(count: int, start: int = 0) -> list[str]:
    """``count`` titles; different ``start`` ranges give different ones."""
    return [_title(n) for n in range(start, start + count)]


def _title(n: int) -> str:
    number, ask = divmod(n, len(_ASKS))
    number, thing = divmod(number, len(_THINGS))
    number, place = divmod(number, len(_PLACES))
    title = _ASKS[ask].format(_THINGS[thing], _PLACES[place])
    return f"{title} (#{number})" if number else title
