"""Every setting of asb, and the only place that reads the environment.

Sources, the later one wins: the defaults, one TOML file, ``ASB_*`` variables, the command line.
The file is ``./asb.toml`` if there is one, else ``$XDG_CONFIG_HOME/asb/config.toml``; ``--config``
or ``ASB_CONFIG`` names another one. A setting ``[tasks] lease_s`` is ``tasks.lease_s`` here and
``ASB_TASKS_LEASE_S`` in the environment, where lists and tables are written as JSON. A list
replaces the default list; a table (prices, routes) adds to the default one.

Whatever asb does not know is an error that names it: a typo must not pass as "no budget".
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
import zoneinfo
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, cast, get_args, get_origin

import msgspec
from msgspec import Struct

from services.runtime import setting_amounts
from services.runtime.errors import ConfigError
from services.runtime.settings_types import (
    AlertBudgetSetting,
    DelegatorSettings,
    EmbeddedSettings,
    HookSetting,
    LimitSetting,
    Origin,
    PolicySettings,
    PriceSetting,
    RouteSetting,
    RuleSetting,
    Section,
    Settings,
    TaskSettings,
    Unit,
    window_minutes,
)
from services.runtime.urls import names_a_redis, redacted

__all__ = [
    "AlertBudgetSetting",
    "DelegatorSettings",
    "EmbeddedSettings",
    "LimitSetting",
    "Origin",
    "PolicySettings",
    "PriceSetting",
    "RouteSetting",
    "RuleSetting",
    "SettingRow",
    "Settings",
    "TaskSettings",
    "Unit",
    "describe",
    "load",
    "window_minutes",
]

# Variables of ours that are no settings: what names the file, what tests read, and what a worker
# tells the process that runs a task, which may well call `asb` itself.
_TOLD_TO_TASKS = "TASK ATTEMPT SESSION WORKER MODEL AGENT KIND RUN USAGE_FILE"
NOT_SETTINGS = frozenset({"ASB_CONFIG", *(f"ASB_{name}" for name in _TOLD_TO_TASKS.split())})
NOT_SETTINGS_PREFIXES = ("ASB_TEST_", "ASB_RUN_")  # the second: from us to our own processes


def told_by_tests(name: str) -> str:
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


class _Leaf(Struct, frozen=True):
    name: str
    type: Any
    meaning: str
    default: Any  # None for data_dir, whose default depends on the environment

    @property
    def variable(self) -> str:
        return "ASB_" + self.name.replace(".", "_").upper()

    @property
    def is_table(self) -> bool:
        return get_origin(_bare(self.type)) is dict

    @property
    def is_list(self) -> bool:
        return get_origin(_bare(self.type)) is tuple


class _Given(Struct, frozen=True):
    """One value as a source gave it; ``where`` is for error messages."""

    name: str
    value: Any
    origin: Origin
    where: str
    strict: bool = True  # False: text that may stand for a number or a boolean


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
    file = _find_file(given.pop("config", None), environ, cwd)
    values = {leaf.name: leaf.default for leaf in _LEAVES.values()}
    values["data_dir"] = _home_folder(environ, "XDG_DATA_HOME", ".local/share") / "asb"
    all_given = [*_from_file(file), *_from_environment(environ), *_from_overrides(given)]
    for one in all_given:
        base = file.parent if one.origin == "file" and file else cwd
        _take(values, one, base, environ)
    origins: dict[str, Origin] = {one.name: one.origin for one in all_given}
    settings = _built(values, origins, file)
    _check_relations(settings)
    return settings


def describe(settings: Settings) -> list[SettingRow]:
    """Every setting with its origin, default and meaning, passwords hidden; in the file's order."""
    rows: list[SettingRow] = []
    for leaf in _LEAVES.values():
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


# -- the sources -------------------------------------------------------------------------------


def _find_file(named: object, environ: Mapping[str, str], cwd: Path) -> Path | None:
    where = "--config"
    if named is None and environ.get("ASB_CONFIG"):
        named, where = environ["ASB_CONFIG"], "ASB_CONFIG"
    if named is not None:
        path = cwd / _expanded(str(named), environ)
        if not path.is_file():
            raise ConfigError(
                f"{where} names {path}, and there is no such file", hint="check the path"
            )
        return path
    for path in (
        cwd / "asb.toml",
        _home_folder(environ, "XDG_CONFIG_HOME", ".config") / "asb/config.toml",
    ):
        if path.is_file():
            return path
    return None


def _from_file(path: Path | None) -> Iterator[_Given]:
    if path is None:
        return
    try:
        # Decimal, not float: 0.1 dollars are exactly 0.1 dollars.
        content = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the configuration {path}: {error}", hint="check the file"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}", hint="correct that line") from error
    where = f"in {path}"
    for key, value in content.items():
        if key not in _SECTIONS:
            yield _Given(name=_known(key, where), value=value, origin="file", where=where)
            continue
        if not isinstance(value, dict):
            raise ConfigError(
                f"{key} = {_short(value)} ({where}): expected a table", hint=f"write [{key}]"
            )
        for name, inner in cast("dict[str, Any]", value).items():
            known = _known(f"{key}.{name}", where)
            yield _Given(name=known, value=inner, origin="file", where=where)


def _from_environment(environ: Mapping[str, str]) -> Iterator[_Given]:
    by_variable = {leaf.variable: leaf for leaf in _LEAVES.values()}
    for variable in sorted(environ):
        ours = variable.startswith("ASB_") and variable not in NOT_SETTINGS
        if not ours or variable.startswith(NOT_SETTINGS_PREFIXES):
            continue
        leaf = by_variable.get(variable)
        if leaf is None:
            raise ConfigError(
                f"{variable} in the environment is not a setting of asb",
                hint=_did_you_mean(variable, by_variable) or "`asb config` lists all settings",
            )
        text = environ[variable]
        if not text:
            continue  # an empty variable counts as not set, as everywhere on Unix
        as_json = leaf.is_table or leaf.is_list
        yield _Given(
            name=leaf.name,
            value=_from_json(variable, text) if as_json else text,
            origin="environment",
            where=f"{variable} in the environment",
            strict=as_json,
        )


def _from_json(variable: str, text: str) -> Any:
    try:
        return json.loads(text, parse_float=Decimal)
    except ValueError as error:
        raise ConfigError(
            f"{variable} = {_short(text)} in the environment is not valid JSON: {error}",
            hint="lists and tables are written as JSON in the environment",
        ) from error


def _from_overrides(overrides: Mapping[str, object]) -> Iterator[_Given]:
    where = "on the command line"
    for name, value in overrides.items():
        yield _Given(name=_known(name, where), value=value, origin="command line", where=where)


def _known(name: str, where: str) -> str:
    if name in _LEAVES:
        return name
    last = name.rpartition(".")[2]
    same_key = [known for known in _LEAVES if known.rpartition(".")[2] == last]
    hint = (
        f"did you mean {same_key[0]}?" if same_key else _did_you_mean(name, [*_LEAVES, *_SECTIONS])
    )
    raise ConfigError(
        f"{name} ({where}) is not a setting of asb", hint=hint or "`asb config` lists all settings"
    )


# -- one value ---------------------------------------------------------------------------------


def _take(values: dict[str, Any], one: _Given, base: Path, environ: Mapping[str, str]) -> None:
    """Check one given value and put it over what earlier sources said."""
    leaf = _LEAVES[one.name]
    value = setting_amounts.typed(_exact(one.value), leaf.name, one.where)
    if leaf.name == "data_dir" and isinstance(value, str | Path) and str(value):
        values[leaf.name] = Path(os.path.normpath(base / _expanded(str(value), environ)))
    elif leaf.is_table and isinstance(value, dict):
        item_type = get_args(_bare(leaf.type))[1]
        table = cast("dict[str, Any]", value)
        added = {
            key: _converted(one, item_type, v, f"{leaf.name}.{key}") for key, v in table.items()
        }
        values[leaf.name] = {**values[leaf.name], **added}
    elif leaf.name == "redis_url" and value == "":
        values[leaf.name] = None  # `redis_url = ""` asks for the embedded one again
    else:
        values[leaf.name] = _checked(one, _converted(one, leaf.type, value, leaf.name))


def _converted(one: _Given, type_: Any, value: Any, name: str) -> Any:
    try:
        return msgspec.convert(value, type_, strict=one.strict)
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
            hint = _did_you_mean(unknown[1], _ITEM_FIELDS)
        elif not path and (allowed := _allowed(type_, value)):
            message = f"expected {allowed}"
        if one.name == "redis_url":
            inner = redacted(str(inner))
        raise ConfigError(
            f"{full} = {_short(inner)} ({one.where}): {message}",
            hint=hint or "correct that setting",
        ) from error


def _checked(one: _Given, value: Any) -> Any:
    """The checks that a type cannot express."""
    problem = ""
    if one.name == "namespace" and not re.fullmatch(r"[A-Za-z0-9_-]+", value):
        problem = "expected letters, digits, - and _ only"
    elif one.name == "redis_url" and not names_a_redis(value):
        problem, value = (
            "expected redis://HOST:PORT, rediss://HOST:PORT or unix:///PATH",
            redacted(value),
        )
    elif one.name == "policy.timezone" and not _is_zone(value):
        problem = "expected the name of a time zone, such as UTC or Europe/Berlin"
    if problem:
        raise ConfigError(
            f"{one.name} = {_short(value)} ({one.where}): {problem}", hint="correct that setting"
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


def _is_zone(name: str) -> bool:
    try:
        zoneinfo.ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # unknown, a folder of zones, a path
        return False
    return True


# -- helpers -----------------------------------------------------------------------------------


def _bare(type_: Any) -> Any:
    return get_args(type_)[0] if hasattr(type_, "__metadata__") else type_


def _walk(struct: type[Struct], prefix: str = "") -> Iterator[_Leaf]:
    for one in msgspec.structs.fields(struct):
        type_: Any = one.type
        if prefix == "" and one.name in ("origins", "file"):
            continue
        if isinstance(type_, type) and issubclass(type_, Section):
            yield from _walk(type_, f"{one.name}.")
            continue
        default = one.default if one.default is not msgspec.NODEFAULT else None
        if one.default_factory is not msgspec.NODEFAULT:
            default = one.default_factory()
        metas = cast("tuple[msgspec.Meta, ...]", get_args(type_)[1:])
        meaning = next(meta.description for meta in reversed(metas) if meta.description)
        yield _Leaf(prefix + one.name, type_, meaning, default)


_LEAVES = {leaf.name: leaf for leaf in _walk(Settings)}
_SECTIONS = {name.partition(".")[0] for name in _LEAVES if "." in name}
_ITEM_FIELDS = sorted(
    {
        one.name
        for item in (AlertBudgetSetting, HookSetting, PriceSetting, RouteSetting, RuleSetting)
        for one in msgspec.structs.fields(item)
    }
)


def _built(values: Mapping[str, Any], origins: dict[str, Origin], file: Path | None) -> Settings:
    tree: dict[str, Any] = {}
    for name, value in values.items():
        section, _, key = name.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[key] = value
    types = {one.name: one.type for one in msgspec.structs.fields(Settings)}
    sections = {name: types[name](**tree.pop(name)) for name in _SECTIONS}
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
            return "a table of " + ", ".join(one.name for one in fields)
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


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else ""


def _expanded(path: str, environ: Mapping[str, str]) -> Path:
    if path == "~" or path.startswith("~/"):
        return _home(environ) / path[2:]
    return Path(path)


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ["HOME"]) if environ.get("HOME") else Path.home()


def _home_folder(environ: Mapping[str, str], variable: str, fallback: str) -> Path:
    named = Path(environ.get(variable, ""))
    return named if named.is_absolute() else _home(environ) / fallback  # as the XDG rules say


def _short(value: Any) -> str:
    if isinstance(value, Decimal):
        return str(value)
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _shown(leaf: _Leaf, value: Any) -> Any:
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
