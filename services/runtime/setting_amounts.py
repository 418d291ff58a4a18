"""Settings that are amounts: as text they are read as on the command line."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, cast

from events import amounts
from services.runtime.errors import ConfigError

READERS: dict[str, Callable[[str], object]] = {
    **dict.fromkeys(("input", "cache_read", "cache_write", "output", "flat"), amounts.dollars),
    "amount": amounts.dollars,
    "plausible_dollars": amounts.dollars,
    "plausible_tokens": amounts.count,
    "threshold_percent": amounts.percent,
    "cache_read_weight_percent": amounts.percent,
}
PLAUSIBLE_DOLLARS_MAX = 1_000_000


def typed(value: Any, path: str, where: str) -> Any:
    """``value`` of the setting ``path`` with texts that stand for amounts as numbers: ``"500K"``.

    Raises ConfigError, saying ``where`` it stood, for one that is none, can be read in two ways or
    is out of the range of its setting.
    """
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return {key: typed(inner, f"{path}.{key}", where) for key, inner in items}
    if isinstance(value, list):
        items = enumerate(cast("list[Any]", value))
        return [typed(inner, f"{path}[{n}]", where) for n, inner in items]
    name = path.rpartition(".")[2]
    try:
        read = READERS.get(name)
        amount = read(value) if isinstance(value, str) and read is not None else value
        if name == "plausible_dollars" and isinstance(amount, int | Decimal):
            _check_plausible(Decimal(amount))
    except ValueError as error:
        raise ConfigError(
            f"{path} = {str(value)[:60]!r} ({where}): {error}", hint="correct that setting"
        ) from error
    return amount


def _check_plausible(amount: Decimal) -> None:
    if not 0 < amount <= PLAUSIBLE_DOLLARS_MAX:
        raise ValueError("expected more than 0 dollars, and at most a million")
