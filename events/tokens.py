"""Tokens as programs tell them, brought to disjoint parts: the one reader for all who tell usage.

``read`` takes an object that *is* usage; ``events.readings.find`` looks for it in one that holds it
(a program's output, a report, a progress document). The same figures get the same verdict:

* Names of the vendors (the table below) say which part a figure is, and whether cached tokens lie
  within the input or beside it. What lies within is taken out.
* Parts are held against a total. The total wins; what contradicts it is flagged.
* A figure that cannot be read makes the usage unknown, and is flagged; it is never zero. Where a
  total can be read, that counts.
* No figure counts whose meaning is unknown: beside a total it explains the total, without one only
  names that hold ``token`` are tokens.

A ``flag`` holds names of the table and figures only, no text of the writer, so it is public.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import product
from typing import Any, cast

import msgspec

from events.figures import TOKENS_MAX, count


class TokenParts(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Disjoint token parts. ``input_tokens`` excludes what was read from or written to a cache;
    ``output_tokens`` includes reasoning."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0

    @property
    def whole(self) -> int:
        """The sum of the parts."""
        return (
            self.input_tokens
            + self.output_tokens
            + self.cache_read_tokens
            + self.cache_write_tokens
        )

    def counted(self, cache_read_weight_percent: int = 0) -> int:
        """The tokens that limits, totals and screens count: cache reads by their weight."""
        return (
            self.input_tokens
            + self.output_tokens
            + self.cache_write_tokens
            + self.cache_read_tokens * cache_read_weight_percent // 100
        )

    def plus(self, other: TokenParts) -> TokenParts:
        """The sum, part by part."""
        return TokenParts(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_read_tokens + other.cache_read_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
        )


class Reading(msgspec.Struct, frozen=True, gc=False):
    """The verdict on what was told of tokens.

    ``parts`` are the disjoint parts that were named, None where nothing is known. ``total`` is the
    total that was named (None: none, or unreadable), ``rest`` what of it no part accounts for.
    ``flag`` says what contradicts itself or cannot be read ("": all is well). ``models`` are the
    parts by model, where the writer tells them so.
    """

    parts: TokenParts | None = None
    rest: int = 0
    total: int | None = None
    flag: str = ""
    models: tuple[tuple[str, TokenParts], ...] = ()

    @property
    def usage(self) -> TokenParts | None:
        """The parts, with the rest of the total as input; None: unknown, which is not zero."""
        if self.parts is None or not self.rest:
            return self.parts
        return self.parts.plus(TokenParts(self.rest))

    @property
    def says_something(self) -> bool:
        return self.parts is not None or bool(self.flag)


NOTHING = Reading()


# -- the vendors' names --------------------------------------------------------------------------

INPUT, OUTPUT, READ, WRITE = "input", "output", "cache read", "cache write"
READ_WITHIN, WRITE_WITHIN = "cached input", "cache written input"  # counted within the input
THOUGHTS, TOOLS = "thoughts", "tool prompts"  # beside the output and the input they belong to
REASONING = "reasoning"  # counted within the output
TOTAL = "total"
_ESSENTIAL = frozenset((INPUT, OUTPUT, READ, WRITE, THOUGHTS, TOOLS))

_NAMES = {
    # What all, or nobody in particular, write; Anthropic, OpenAI, Bedrock, Ollama.
    INPUT: "input_tokens prompt_tokens prompt input input_token_count prompt_token_count "
    "tokens_in prompt_eval_count",
    OUTPUT: "output_tokens completion_tokens completion output output_token_count candidates "
    "candidates_token_count tokens_out eval_count",
    READ: "cache_read_tokens cache_read_input_tokens cache_read cached_read_tokens "
    "cache_read_input_token_count",
    WRITE: "cache_write_tokens cache_creation_tokens cache_creation_input_tokens cache_write "
    "cache_write_input_tokens cache_creation cache_write_input_token_count cached_write_tokens",
    # Codex, OpenAI, Gemini, DeepSeek, OpenTelemetry: within the input.
    READ_WITHIN: "cached_input_tokens cached_tokens cached cached_content_token_count "
    "prompt_cache_hit_tokens cache_read.input_tokens",
    WRITE_WITHIN: "cache_creation.input_tokens",
    THOUGHTS: "thoughts_token_count thoughts thought_tokens",  # Gemini, ACP
    TOOLS: "tool_use_prompt_token_count tool",  # Gemini
    REASONING: "reasoning reasoning_tokens reasoning_output_tokens thinking_tokens "
    "reasoning.output_tokens",
    TOTAL: "total_tokens total sum total_token_count tokens tokens_used token_count",
}
_SLOTS = {name: slot for slot, names in _NAMES.items() for name in names.split()}
_INPUT_DETAILS = {
    "cached_tokens": READ_WITHIN,
    "cache_read": READ_WITHIN,
    "cache_read_tokens": READ_WITHIN,
    "cache_write_tokens": WRITE_WITHIN,
    "cache_creation": WRITE_WITHIN,
    "cache_creation_tokens": WRITE_WITHIN,
}
_OUTPUT_DETAILS: dict[str, str] = dict.fromkeys(
    ("reasoning_tokens", "reasoning", "thinking_tokens"), REASONING
)
_NESTED: dict[str, dict[str, str]] = {
    "prompt_tokens_details": _INPUT_DETAILS,
    "input_tokens_details": _INPUT_DETAILS,
    "input_token_details": _INPUT_DETAILS,
    "completion_tokens_details": _OUTPUT_DETAILS,
    "output_tokens_details": _OUTPUT_DETAILS,
    "output_token_details": _OUTPUT_DETAILS,
    "cache": {"read": READ, "write": WRITE},  # opencode
}
_OWN = frozenset(TokenParts.__struct_fields__)
_BY_MODEL = ("model_usage", "models", "by_model", "per_model")  # Claude Code, Gemini CLI
_SPLIT = re.compile(r"ephemeral|prompt_cache_miss")  # parts of parts that are told as well
_NO_TOKENS = frozenset(
    ("cost", "costs", "price", "usd", "dollars", "percent", "percentage", "limit", "limits",
     "budget", "remaining", "left", "max", "min", "rate", "ratio", "window", "quota", "per",
     "speed", "average", "avg", "mean", "duration", "time", "ms", "seconds", "id", "version")
)  # fmt: skip
# One CLI's summary names its input twice (with and without the cached ones) and leaves thoughts out
# of its output: there the rest of the total is output.
_THOUGHTS_UNNAMED = frozenset(("input", "input_tokens", "cached"))


def plain(name: str) -> str:
    """A name in the spelling of the table: ``promptTokenCount`` is ``prompt_token_count``."""
    return _plain(name) if len(name) <= 64 else _plain.__wrapped__(name)


@lru_cache(4096)
def _plain(name: str) -> str:
    name = name.removeprefix("gen_ai.usage.")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().replace("-", "_")


def is_token_name(name: str, value: object) -> bool:
    """Whether a field says by its name alone that it holds tokens: ``input_tokens`` does,
    ``prompt`` does not."""
    name = plain(name)
    return "token" in name and (name in _SLOTS or (name in _NESTED and isinstance(value, dict)))


# -- what was named ------------------------------------------------------------------------------


def _is_figure(name: str, value: object) -> bool:
    """Whether ``value`` means to be a number. Short names (``prompt``, ``output``) stand for texts
    elsewhere: a text under one is a figure only where it begins like one."""
    if isinstance(value, bool):
        return "token" in name
    if isinstance(value, str):
        return "token" in name or re.match(r"\s*[-+]?[0-9]", value) is not None
    return isinstance(value, int | float)


class _Named:
    """Figures by their place in the table, and those of unknown meaning."""

    def __init__(self, reported: Mapping[str, Any]) -> None:
        self.slots: dict[str, int] = {}
        self.unknown: list[int] = []
        self.unknown_tokens = 0
        self.unreadable: dict[str, str] = {}  # slot -> the name it was told under
        self.names = {plain(name) for name in reported}
        for given, value in reported.items():
            name = plain(given)
            if isinstance(value, dict):
                self._nested(name, cast("dict[str, Any]", value))
            elif value is not None and not isinstance(value, list):
                self._figure(name, value, _SLOTS.get(name))

    def _nested(self, name: str, inner: dict[str, Any]) -> None:
        if name == "cache_creation":  # a split of what was written, by lifetime
            written = [n for value in inner.values() if (n := count(value)) is not None]
            if written:
                self._take(WRITE, sum(written))
        for given, value in inner.items():
            slot = _NESTED.get(name, {}).get(plain(given))
            if slot is not None and value is not None:
                self._figure(plain(given), value, slot)

    def _figure(self, name: str, value: object, slot: str | None) -> None:
        if slot is None and (_NO_TOKENS.intersection(name.split("_")) or _SPLIT.search(name)):
            return
        if not _is_figure(name, value):
            return
        number = count(value)
        if slot is None and "token" not in name:
            self.unknown.append(number or 0)
        elif number is None:
            self.unreadable[slot or INPUT] = name if slot else "a part"
        elif slot is None:
            self.unknown.append(number)
            self.unknown_tokens += number
        else:
            self._take(slot, number)

    def _take(self, slot: str, number: int) -> None:
        """Two names of one part say the same thing twice."""
        self.slots[slot] = max(number, self.slots.get(slot, 0))

    def get(self, slot: str) -> int:
        return self.slots.get(slot, 0)


# -- the arithmetic ------------------------------------------------------------------------------


def read(reported: object) -> Reading:
    """The verdict on an object that is usage, or on a bare number of tokens."""
    if not isinstance(reported, dict):
        return _bare(reported)
    inner = cast("dict[str, Any]", reported)
    if inner and inner.keys() <= _OWN and all(_is_count(value) for value in inner.values()):
        return Reading(TokenParts(**inner))  # as asb's own workers tell it: nothing is to be judged
    named = _Named(inner)
    flat = _reading(named)
    models = _models(inner)
    return flat if models is None else _heavier(models, flat)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= TOKENS_MAX


def _bare(reported: object) -> Reading:
    number = count(reported)
    if number is not None:
        return Reading(TokenParts(), number, number)
    return NOTHING if reported is None else Reading(flag="usage is no number of tokens")


def _reading(named: _Named) -> Reading:
    total = named.slots.get(TOTAL)
    essential = [name for slot, name in named.unreadable.items() if slot in _ESSENTIAL]
    unread = sorted(named.unreadable.values())
    flags = [f"{', '.join(unread)}: not a whole number of tokens"] if unread else []
    if total is None and (essential or not (named.slots or named.unknown_tokens)):
        return Reading(flag=flags[0] if flags else "")
    parts, more = _disjoint(named)
    flags += more
    if total is None:
        return Reading(parts, named.unknown_tokens, None, "; ".join(flags))
    parts, rest, more = _against(total, parts, named, excused=bool(essential))
    return Reading(parts, rest, total, "; ".join(flags + more))


def _disjoint(named: _Named) -> tuple[TokenParts, list[str]]:
    """The parts by what their names mean."""
    fresh, within = named.get(INPUT), named.get(READ_WITHIN) + named.get(WRITE_WITHIN)
    flags: list[str] = []
    if INPUT in named.slots and within:
        if within <= fresh:
            fresh -= within
        else:
            flags = [f"{within:,} cached tokens cannot lie within {fresh:,} of input"]
    said = named.get(OUTPUT if OUTPUT in named.slots else REASONING)
    return TokenParts(
        fresh + named.get(TOOLS),
        said + named.get(THOUGHTS),
        max(named.get(READ), named.get(READ_WITHIN)),
        max(named.get(WRITE), named.get(WRITE_WITHIN)),
    ), flags


def _against(
    total: int, parts: TokenParts, named: _Named, *, excused: bool
) -> tuple[TokenParts, int, list[str]]:
    """Hold the parts against the total: the parts as they can be true, the rest, the flags.
    ``excused``: a part could not be read, so the total may well be more."""
    if total == parts.whole:
        return parts, 0, []
    said = f"total {total:,} against parts of {parts.whole:,}"
    for variant, flags in _variants(parts, named):
        if variant.whole == total:
            return variant, 0, [f"{said}: {words}" for words in flags]
    cached = parts.cache_read_tokens
    if total in (parts.whole - cached, parts.whole - cached - parts.cache_write_tokens):
        return parts, 0, [f"{said}: it leaves the cached ones out"]
    if not total:
        return parts, 0, [f"{said}: it was never set"]
    if total < parts.whole:
        return _reduced(parts, parts.whole - total), 0, [f"{said}: the total counts"]
    rest = total - parts.whole
    if named.names >= _THOUGHTS_UNNAMED:
        return parts.plus(TokenParts(0, rest)), 0, []
    explained = sum(n for n in named.unknown if n <= rest) >= rest
    if excused or explained or not named.slots.keys() - {TOTAL}:
        return parts, rest, []
    return parts, rest, [f"{said}: the total counts"]


def _variants(parts: TokenParts, named: _Named) -> Iterator[tuple[TokenParts, list[str]]]:
    """Other things the names may mean, those that bend them least first."""
    read, write = parts.cache_read_tokens, parts.cache_write_tokens
    apart = REASONING in named.slots and OUTPUT in named.slots
    beside = [0, named.get(REASONING)] if apart else [0]
    within = [0, named.get(THOUGHTS)] if THOUGHTS in named.slots else [0]
    tools = [0, named.get(TOOLS)] if TOOLS in named.slots else [0]
    for cached, more, less, asked in product((0, read + write, read, write), beside, within, tools):
        fresh, said = parts.input_tokens - cached - asked, parts.output_tokens + more - less
        if fresh >= 0 and said >= 0:
            flags = ["the input holds the cached ones"] if cached else []
            yield TokenParts(fresh, said, read, write), flags


def _reduced(parts: TokenParts, surplus: int) -> TokenParts:
    """Parts less what is too much in them: of the input first, for cached tokens counted there
    once more are the usual reason, and output, the dearest, last."""
    left: list[int] = []
    for part in (
        parts.input_tokens,
        parts.cache_read_tokens,
        parts.cache_write_tokens,
        parts.output_tokens,
    ):
        taken = min(part, surplus)
        surplus -= taken
        left.append(part - taken)
    return TokenParts(left[0], left[3], left[1], left[2])


# -- by model ------------------------------------------------------------------------------------


def by_model(reported: Mapping[str, Any]) -> dict[str, dict[str, Any]] | None:
    """The map from models to their usage, where there is one."""
    for given, value in reported.items():
        if plain(given) in _BY_MODEL and isinstance(value, dict) and value:
            models = cast("dict[str, Any]", value)
            if all(isinstance(entry, dict) for entry in models.values()):
                return models
    return None


def _models(reported: Mapping[str, Any]) -> Reading | None:
    entries = by_model(reported)
    if entries is None:
        return None
    whole, flags = TokenParts(), dict[str, None]()
    models: list[tuple[str, TokenParts]] = []
    for model, entry in entries.items():
        reading = read(entry.get("tokens") or entry.get("usage") or entry)
        if reading.flag:
            flags[reading.flag] = None
        if reading.usage is None:
            return Reading(flag="; ".join(flags)) if flags else None
        models.append((model, reading.usage))
        whole = whole.plus(reading.usage)
    return Reading(whole, flag="; ".join(flags), models=tuple(models))


def _heavier(models: Reading, flat: Reading) -> Reading:
    """The figures by model, which hold subagents too. Where they are less than the figures beside
    them something is missing in them, and those count."""
    if flat.usage is None:
        return models
    if models.usage is None:
        return msgspec.structs.replace(flat, flag=flat.flag or models.flag)
    more = flat.usage.whole - models.usage.whole
    if more <= 0:
        return models
    flag = f"the models' parts of {models.usage.whole:,} are {more:,} less than the usage"
    return msgspec.structs.replace(flat, flag=f"{flat.flag}; {flag}" if flat.flag else flag)
