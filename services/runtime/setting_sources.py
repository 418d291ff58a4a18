"""Where settings come from: the defaults, one TOML file, ``ASB_*`` variables, the command line.

What asb does not know is refused here, with the nearest name that it knows.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, cast, get_args, get_origin

import msgspec
from msgspec import Struct

from services.runtime.errors import ConfigError
from services.runtime.settings_types import Origin, Section, Settings

# Variables of ours that are no settings: what names the file, what tests read, and what a worker
# tells the process that runs a task, which may well call `asb` itself.
_FOR_TASKS = "TASK ATTEMPT SESSION WORKER MODEL AGENT KIND RUN USAGE_FILE"
NOT_SETTINGS = frozenset({"ASB_CONFIG", *(f"ASB_{name}" for name in _FOR_TASKS.split())})
NOT_SETTINGS_PREFIXES = ("ASB_TEST_", "ASB_RUN_")  # the second: from us to our own processes


class Leaf(Struct, frozen=True):
    name: str
    type: Any
    meaning: str
    default: Any  # None for data_dir, whose default depends on the environment

    @property
    def variable(self) -> str:
        return "ASB_" + self.name.replace(".", "_").upper()

    @property
    def is_table(self) -> bool:
        return get_origin(bare(self.type)) is dict

    @property
    def is_folder(self) -> bool:
        type_ = bare(self.type)
        return type_ is Path or Path in get_args(type_)

    @property
    def is_list(self) -> bool:
        return get_origin(bare(self.type)) is tuple


class Given(Struct, frozen=True):
    """One value as a source gave it; ``where`` is for error messages."""

    name: str
    value: Any
    origin: Origin
    where: str
    strict: bool = True  # False: text that may stand for a number or a boolean


def bare(type_: Any) -> Any:
    return get_args(type_)[0] if hasattr(type_, "__metadata__") else type_


def _walk(struct: type[Struct], prefix: str = "") -> Iterator[Leaf]:
    for field in msgspec.structs.fields(struct):
        type_: Any = field.type
        if prefix == "" and field.name in ("origins", "file"):
            continue
        if isinstance(type_, type) and issubclass(type_, Section):
            yield from _walk(type_, f"{field.name}.")
            continue
        default = field.default if field.default is not msgspec.NODEFAULT else None
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        metas = cast("tuple[msgspec.Meta, ...]", get_args(type_)[1:])
        meaning = next(meta.description for meta in reversed(metas) if meta.description)
        yield Leaf(prefix + field.name, type_, meaning, default)


LEAVES = {leaf.name: leaf for leaf in _walk(Settings)}
SECTIONS = {name.partition(".")[0] for name in LEAVES if "." in name}


# -- the sources -------------------------------------------------------------------------------


def find_file(named: object, environ: Mapping[str, str], cwd: Path) -> Path | None:
    where = "--config"
    if named is None and environ.get("ASB_CONFIG"):
        named, where = environ["ASB_CONFIG"], "ASB_CONFIG"
    if named is not None:
        path = cwd / expanded(str(named), environ)
        if not path.is_file():
            raise ConfigError(
                f"{where} names {path}, and there is no such file", hint="check the path"
            )
        return path
    for path in (
        cwd / "asb.toml",
        home_folder(environ, "XDG_CONFIG_HOME", ".config") / "asb/config.toml",
    ):
        if path.is_file():
            return path
    return None


def from_file(path: Path | None) -> Iterator[Given]:
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
        if key not in SECTIONS:
            yield Given(name=known(key, where), value=value, origin="file", where=where)
            continue
        if not isinstance(value, dict):
            raise ConfigError(
                f"{key} = {short(value)} ({where}): expected a table", hint=f"write [{key}]"
            )
        for name, inner in cast("dict[str, Any]", value).items():
            full = known(f"{key}.{name}", where)
            yield Given(name=full, value=inner, origin="file", where=where)


def from_environment(environ: Mapping[str, str]) -> Iterator[Given]:
    by_variable = {leaf.variable: leaf for leaf in LEAVES.values()}
    for variable in sorted(environ):
        ours = variable.startswith("ASB_") and variable not in NOT_SETTINGS
        if not ours or variable.startswith(NOT_SETTINGS_PREFIXES):
            continue
        leaf = by_variable.get(variable)
        if leaf is None:
            raise ConfigError(
                f"{variable} in the environment is not a setting of asb",
                hint=did_you_mean(variable, by_variable) or "`asb config` lists all settings",
            )
        text = environ[variable]
        if not text:
            continue  # an empty variable counts as not set, as everywhere on Unix
        as_json = leaf.is_table or leaf.is_list
        yield Given(
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
            f"{variable} = {short(text)} in the environment is not valid JSON: {error}",
            hint="lists and tables are written as JSON in the environment",
        ) from error


def from_overrides(overrides: Mapping[str, object]) -> Iterator[Given]:
    where = "on the command line"
    for name, value in overrides.items():
        yield Given(name=known(name, where), value=value, origin="command line", where=where)


def known(name: str, where: str) -> str:
    if name in LEAVES:
        return name
    last = name.rpartition(".")[2]
    same_key = [known for known in LEAVES if known.rpartition(".")[2] == last]
    hint = f"did you mean {same_key[0]}?" if same_key else did_you_mean(name, [*LEAVES, *SECTIONS])
    raise ConfigError(
        f"{name} ({where}) is not a setting of asb", hint=hint or "`asb config` lists all settings"
    )


# -- helpers -----------------------------------------------------------------------------------


def did_you_mean(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else ""


def expanded(path: str, environ: Mapping[str, str]) -> Path:
    if path == "~" or path.startswith("~/"):
        return _home(environ) / path[2:]
    return Path(path)


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ["HOME"]) if environ.get("HOME") else Path.home()


def home_folder(environ: Mapping[str, str], variable: str, fallback: str) -> Path:
    named = Path(environ.get(variable, ""))
    return named if named.is_absolute() else _home(environ) / fallback  # as the XDG rules say


def short(value: Any) -> str:
    if isinstance(value, Decimal):
        return str(value)
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
