"""What the demonstration submits: some dozens of varied tasks."""

from __future__ import annotations

from typing import Any

TEXTS: tuple[tuple[str, str], ...] = (
    ("Make the sign-up button stick to the bottom on small screens", "normal"),
    ("Write documentation for the public REST endpoints", "low"),
    ("Implement password reset by e-mail with a token that expires", "high"),
    ("Fix TypeError: cannot read properties of undefined (reading 'id') in cart.js", "high"),
    ("Add unit tests for the invoice rounding rules", "normal"),
    ("Compare three message queues for our workload and recommend one", "low"),
    ("Analyse last month's latency figures and find the slowest endpoint", "normal"),
    ("Add an index to orders(customer_id, created_at) and explain the query plan", "normal"),
    ("Add a GET /v1/orders/{id}/events endpoint with cursor pagination", "normal"),
    ("Set up a nightly job that rotates and compresses the logs", "low"),
    ("Align the icons in the navigation bar and use the new colours", "normal"),
    ("Refactor the payment module into smaller functions", "normal"),
    ("Why does the worker leak memory after a few hours? Find and fix it", "critical"),
    ("Update the README with the new installation steps", "low"),
    ("Write a migration that splits users.name into first and last name", "high"),
    ("Research how other projects throttle by tokens instead of requests", "low"),
    ("End-to-end test: a guest buys two articles with a voucher", "normal"),
    ("Dark mode for the settings page", "normal"),
    ("Explain the difference between our two caching layers for new colleagues", "low"),
    ("Validate e-mail addresses on the server and return field errors", "normal"),
    ("Summarise customer feedback of the last quarter by theme", "normal"),
    ("GraphQL: add a mutation to archive a project", "normal"),
    ("The build fails with 'module not found: utils/date' since yesterday", "high"),
    ("Write a shell script that checks all certificates for expiry", "normal"),
    ("Translate the onboarding guide into French", "low"),
    ("Implement an LRU cache with a size limit in Python", "normal"),
    ("Responsive layout for the pricing table", "normal"),
    ("Speed up the slow dashboard query with a materialized view", "high"),
    ("Property-based tests for the date parser", "normal"),
    ("Estimate what moving the archive to cold storage would save", "normal"),
    ("Rate-limit the login endpoint per account and per address", "high"),
    ("Changelog entries for release 2.4", "low"),
    ("Race condition: two workers pick up the same job; reproduce and fix", "critical"),
    ("Add keyboard shortcuts to the editor", "normal"),
    ("Automate the weekly report and send it on Mondays", "normal"),
    ("Find out which licences our dependencies use", "low"),
    ("Write the on-call runbook for a full disk", "normal"),
)
CHAIN = (
    "Design the database schema for a booking system",
    "Implement the booking API on that schema",
    "Write integration tests for the booking API",
)
TWICE = "Create a user authentication system with sessions and roles"


def submissions(count: int) -> list[dict[str, Any]]:
    """``count`` submissions: the one that is sent twice, a chain of three, the rest."""
    wanted: list[dict[str, Any]] = [{"id": "demo-auth", "text": TWICE, "priority": "high"}]
    for number, text in enumerate(CHAIN, 1):
        step: dict[str, Any] = {"id": f"demo-booking-{number}", "text": text, "project": "charge"}
        if number > 1:
            step["after"] = [f"demo-booking-{number - 1}"]
        wanted.append(step)
    for number in range(max(0, count - 4)):
        text, priority = TEXTS[number % len(TEXTS)]
        again = f" (part {number // len(TEXTS) + 1})" if number >= len(TEXTS) else ""
        wanted.append({"text": text + again, "priority": priority})
    return wanted
