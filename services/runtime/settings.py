"""Every setting of asb, and the only place that reads the environment.

Sources, the later one wins: the defaults, one TOML file, ``ASB_*`` variables, the command line.
The file is ``./asb.toml`` if there is one, else ``$XDG_CONFIG_HOME/asb/config.toml``; ``--config``
or ``ASB_CONFIG`` names another one. A setting ``[tasks] lease_s`` is ``tasks.lease_s`` here and
``ASB_TASKS_LEASE_S`` in the environment, where lists and tables are written as JSON. A list
replaces the default list; a table (prices, routes) adds to the default one.

Whatever asb does not know is an error that names it: a typo must not pass as "no budget".
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, cast, get_args

import msgspec
from msgspec import Struct

from events.policy import check_zone
from services.runtime import setting_amounts
from services.runtime.errors import ConfigError
from services.runtime.setting_sources import (
    LEAVES,
    SECTIONS,
    Given,
    Leaf,
    bare,
    did_you_mean,
    expanded,
    find_file,
    from_environment,
    from_file,
    from_overrides,
    home_folder,
    short,
)
from services.runtime.settings_shares import ShareOfBus, ShareSetting
from services.runtime.settings_types import (
    AlertBudgetSetting,
    HookSetting,
    Origin,
    PriceSetting,
    RouteSetting,
    RuleSetting,
    Settings,
)
from services.runtime.urls import names_a_redis, redacted


def set_by_tests(name: str) -> str:
    """A variable that only tests set."""
    return os.environ.get(f"ASB_TEST_{name}", "")


class SettingRow(Struct, frozen=True):
    """One line of ``asb config``: texts for people, ``raw`` (plain JSON types) for programs."""

    name: str
    value: str
    origin: Origin
    default: str
    meaning: str
    raw: Any


def load(
    overrides: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Settings:
    """Read, merge and check all settings.

    ``overrides`` is the command line: ``{"tasks.lease_s": 30}``; None means "not given", and
    ``config`` names the file. Raises ConfigError naming the first setting that is wrong.
    """
    environ = os.environ if environ is None else environ
    cwd = Path.cwd() if cwd is None else cwd
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    file = find_file(given.pop("config", None), environ, cwd)
    values = {leaf.name: leaf.default for leaf in LEAVES.values()}
    values["data_dir"] = home_folder(environ, "XDG_DATA_HOME", ".local/share") / "asb"
    all_given = [*from_file(file), *from_environment(environ), *from_overrides(given)]
    for given_value in all_given:
        base = file.parent if given_value.origin == "file" and file else cwd
        _take(values, given_value, base, environ)
    origins: dict[str, Origin] = {given_value.name: given_value.origin for given_value in all_given}
    settings = _built(values, origins, file)
    _check_relations(settings)
    return settings


def describe(settings: Settings) -> list[SettingRow]:
    """Every setting with its origin, default and meaning, passwords hidden; in the file's order."""
    rows: list[SettingRow] = []
    for leaf in LEAVES.values():
        value = _shown(leaf, _value(settings, leaf.name))
        default = "$XDG_DATA_HOME/asb" if leaf.name == "data_dir" else _text(leaf.default)
        rows.append(
            SettingRow(
                name=leaf.name,
                value=_text(value),
                origin=settings.origins.get(leaf.name, "default"),
                default=default,
                meaning=leaf.meaning,
                raw=msgspec.to_builtins(value, enc_hook=str),
            )
        )
    return rows


# -- one value ---------------------------------------------------------------------------------


def _take(values: dict[str, Any], given: Given, base: Path, environ: Mapping[str, str]) -> None:
    """Check one given value and put it over what earlier sources said."""
    leaf = LEAVES[given.name]
    value = setting_amounts.typed(_exact(given.value), leaf.name, given.where)
    if leaf.is_folder and isinstance(value, str | Path) and str(value):
        values[leaf.name] = Path(os.path.normpath(base / expanded(str(value), environ)))
    elif leaf.is_table and isinstance(value, dict):
        item_type = get_args(bare(leaf.type))[1]
        table = cast("dict[str, Any]", value)
        added = {
            key: _converted(given, item_type, v, f"{leaf.name}.{key}") for key, v in table.items()
        }
        values[leaf.name] = {**values[leaf.name], **added}
    elif leaf.name == "redis_url" and value == "":
        values[leaf.name] = None  # `redis_url = ""` asks for the embedded one again
    else:
        values[leaf.name] = _checked(given, _converted(given, leaf.type, value, leaf.name))


def _converted(given: Given, type_: Any, value: Any, name: str) -> Any:
    try:
        return msgspec.convert(value, type_, strict=given.strict)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        path = path.rstrip("`")
        full, inner = name + path, _at(value, path)
        hint = ""
        if unknown := re.match(r"Object contains unknown field `(.*)`", message):
            full, inner, message = (
                f"{full}.{unknown[1]}",
                inner[unknown[1]],
                "it is not a setting of asb",
            )
            hint = did_you_mean(unknown[1], _ITEM_FIELDS)
        elif not path and (allowed := _allowed(type_, value)):
            message = f"expected {allowed}"
        if given.name == "redis_url":
            inner = redacted(str(inner))
        elif given.name == "shares":
            inner = re.sub(r"//[^/\s]*@", "//(hidden)@", str(inner))
        raise ConfigError(
            f"{full} = {short(inner)} ({given.where}): {message}",
            hint=hint or "correct that setting",
        ) from error


def _checked(given: Given, value: Any) -> Any:
    """The checks that a type cannot express."""
    problem = ""
    if given.name == "namespace" and not re.fullmatch(r"[A-Za-z0-9_-]+", value):
        problem = "expected letters, digits, - and _ only"
    elif given.name == "redis_url" and not names_a_redis(value):
        problem, value = (
            "expected redis://HOST:PORT, rediss://HOST:PORT, unix:///PATH, "
            "redis+sentinel://HOST,HOST,HOST/SERVICE or redis+cluster://HOST,HOST",
            redacted(value),
        )
    elif given.name == "policy.timezone":
        problem = _zone_problem(value)
    if problem:
        raise ConfigError(
            f"{given.name} = {short(value)} ({given.where}): {problem}", hint="correct that setting"
        )
    return value


def _check_relations(settings: Settings) -> None:
    tasks = settings.tasks
    if tasks.heartbeat_s * 3 > tasks.lease_s:
        # One late heartbeat must not lose a worker.
        origin = settings.origins.get("tasks.heartbeat_s", "default")
        best = tasks.lease_s // 3
        raise ConfigError(
            f"tasks.heartbeat_s = {tasks.heartbeat_s} ({origin}) is more than a third of "
            f"tasks.lease_s = {tasks.lease_s}",
            hint=f"set tasks.heartbeat_s to {best} or less"
            if best
            else "set tasks.lease_s to 3 or more",
        )
    if tasks.backoff_max_s < tasks.backoff_s:
        raise ConfigError(
            f"tasks.backoff_max_s = {tasks.backoff_max_s} is less than "
            f"tasks.backoff_s = {tasks.backoff_s}",
            hint="raise tasks.backoff_max_s",
        )
    divided = [f"{x.unit}/{x.window}" for x in settings.shares]
    for name in divided:
        if divided.count(name) > 1:
            raise ConfigError(
                f"shares: two of them divide {name}", hint="a limit is divided once: keep one"
            )


def _zone_problem(name: str) -> str:
    try:
        check_zone(name)
    except ValueError as error:
        return str(error)
    return ""


# -- helpers -----------------------------------------------------------------------------------


_SECRET = ("web.token", "traces.headers")
_ITEM_FIELDS = sorted(
    {
        field.name
        for item in (
            *(AlertBudgetSetting, HookSetting, PriceSetting, RouteSetting, RuleSetting),
            *(ShareSetting, ShareOfBus),
        )
        for field in msgspec.structs.fields(item)
    }
)


def _built(values: Mapping[str, Any], origins: dict[str, Origin], file: Path | None) -> Settings:
    tree: dict[str, Any] = {}
    for name, value in values.items():
        section, _, key = name.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[key] = value
    types = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    sections = {name: types[name](**tree.pop(name)) for name in SECTIONS}
    return Settings(**tree, **sections, origins=origins, file=file)


def _value(settings: Settings, name: str) -> Any:
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _allowed(type_: Any, value: Any) -> str:
    """What a setting of this type may be, in words; empty where msgspec's own words are as good."""
    info = msgspec.inspect.type_info(type_)
    if isinstance(info, msgspec.inspect.Metadata):
        info = info.type
    match info:
        case msgspec.inspect.IntType(ge=low, le=high):
            return f"a whole number from {low} to {high}"
        case msgspec.inspect.LiteralType(values=values):
            return "one of " + ", ".join(sorted(map(str, values)))
        case msgspec.inspect.BoolType():
            return "true or false"
        case msgspec.inspect.DictType():
            return "a table"
        case msgspec.inspect.VarTupleType():
            return "a list of tables"
        case msgspec.inspect.StructType(fields=fields) if not isinstance(value, dict):
            return "a table of " + ", ".join(field.name for field in fields)
        case msgspec.inspect.CustomType(cls=cls) if cls is Path:
            return "the path of a folder"
        case _:
            return ""


def _at(value: Any, path: str) -> Any:
    """The part of ``value`` that msgspec's error path (``[0].amount``) points to."""
    for index, key in re.findall(r"\[(\d+)\]|\.(\w+)", path):
        try:
            value = value[int(index)] if index else value[key]
        except (KeyError, IndexError, TypeError):
            return value
    return value


def _exact(value: Any) -> Any:
    """``value`` with every float as the decimal number a person wrote."""
    if isinstance(value, float):
        return Decimal(str(value))
    if isinstance(value, Mapping):
        return {str(k): _exact(v) for k, v in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_exact(v) for v in cast("Iterable[Any]", value)]
    return value


def _shown(leaf: Leaf, value: Any) -> Any:
    if leaf.name in _SECRET and value:
        return "(hidden)"
    if leaf.name == "shares":
        return tuple(share.shown for share in value)
    return redacted(value) if leaf.name == "redis_url" and value else value


def _text(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in cast("dict[str, Any]", value).items()) or "none"
    if isinstance(value, tuple):
        return ", ".join(map(str, cast("tuple[Any, ...]", value))) or "none"
    return str(value)
