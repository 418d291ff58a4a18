"""metrics --forecast: where it goes at the present rate, and the seed's tables as a check. PURE."""

from __future__ import annotations

SHOWN = 12  # limits on the screen; --json has all
MONTH_DAYS = 30
