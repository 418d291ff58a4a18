"""The house rules, as tests: sizes, which way imports point, where I/O may happen, key slots."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pytest

from events.keys import Keys
from services.runtime.setting_sources import NOT_SETTINGS, NOT_SETTINGS_PREFIXES
from services.runtime.settings import describe, load

ROOT = Path(__file__).resolve().parent.parent
TREES = ("events", "projections", "services")
FILE_LINES, FUNCTION_LINES, LUA_LINES = 400, 70, 90
CLI_PERCENT = 12  # of the source

# The edges: only here may the outside world be touched.
EDGES = tuple(
    f"services/{room}/"
    for room in (
        "runtime",
        "store",
        "worker",
        "running",
        "client",
        "queries",
        "cli",
        "snapshots",
        "exporter",
        "top",
        "web",
        "telemetry",
        "traces",
    )
)
OUTSIDE = frozenset(
    {
        "redis",
        "prometheus_client",
        "textual",
        "starlette",
        "uvicorn",
        "time",
        "random",
        "uuid",
        "socket",
        "subprocess",
        "secrets",
    }
)
CLOCKS = frozenset({"now", "utcnow", "today"})  # of datetime and date


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    return name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=name_of(path))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a file imports, wherever in the file."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: relative import"
            # `from services.runtime import host` may mean a module or a name in the package.
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def below(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def ours(module: str) -> bool:
    return below(module, *TREES, "concurrent_task_manager", "tests")


def wrong_imports(path: Path, *allowed: str) -> list[str]:
    return [
        f"{name_of(path)}:{line} imports {module}"
        for line, module in imports(path)
        if ours(module) and not below(module, *allowed)
    ]


# -- sizes -------------------------------------------------------------------------------------


def test_files_are_short() -> None:
    long = {name_of(p): n for p in sources(*TREES) if (n := len(lines(p))) > FILE_LINES}
    assert long == {}


def test_functions_are_short() -> None:
    long = [
        f"{name_of(path)}:{node.lineno} {node.name} has {size} lines"
        for path in sources(*TREES)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (size := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES
    ]
    assert long == []


def test_the_command_line_is_a_small_part() -> None:
    lengths = {name_of(path): len(lines(path)) for path in sources(*TREES)}
    ours = sum(n for name, n in lengths.items() if name.startswith("services/cli/"))
    assert 100 * ours <= CLI_PERCENT * sum(lengths.values())


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_scripts_are_short_and_say_what_they_take() -> None:
    problems: list[str] = []
    for path in sorted((ROOT / "services").rglob("*.lua")):
        text = lines(path)
        header: list[str] = []
        for line in text:
            if not line.startswith("--"):
                break
            header.append(line)
        if len(text) > LUA_LINES:
            problems.append(f"{name_of(path)} has {len(text)} lines")
        problems += [
            f"{name_of(path)}: the header comment does not name {what}"
            for what in ("KEYS", "ARGV")
            if what not in "\n".join(header)
        ]
    assert problems == []


# -- which way imports point -------------------------------------------------------------------

# How high a room of services/ stands: imports point down. Rooms that are not named are services.
RANKS = {
    "decider": 2,
    "ledger": 2,
    "letters": 2,
    "mentions": 2,
    "runtime": 4,
    "store": 5,
    "projector": 6,
    "engine": 6,
    "assembly": 8,
    "hosting": 8,
    "telemetry": 8,
    "worker": 9,
    "running": 9,
    "client": 9,
    "queries": 10,
    "screens": 11,
    "task_delegator": 12,
    "token_throttle": 12,
    "concurrent_task_manager": 12,
    "exporter": 13,
    "shares": 13,
    "top": 13,
    "web": 13,
    "cli": 13,
}
PURE_SERVICE, PROJECTOR = 3, 7
DECIDERS = ("intake", "delegator", "dispatcher", "throttle", "reports")


def room_of(module: str) -> str:
    """``events``, ``projections``, or the room of services/ a module lies in."""
    first, *others = module.split(".")
    return others[0] if first == "services" and others else first


def rank(module: str) -> int:
    room = room_of(module)
    if room in ("events", "projections", "services"):
        return {"events": 0, "projections": 1, "services": 0}[room]
    if room in RANKS:
        return RANKS[room]
    return PURE_SERVICE if room in DECIDERS and not module.endswith("projector") else PROJECTOR


def modules() -> dict[str, Path]:
    return {module_of(path): path for path in sources(*TREES)}


def imported_modules(path: Path, known: Collection[str]) -> set[str]:
    return {
        module if module in known else module.rpartition(".")[0]
        for _, module in imports(path)
        if ours(module) and not below(module, "tests", "concurrent_task_manager")
    }


def test_imports_point_one_way() -> None:
    known = modules()
    wrong = [
        f"{module} imports {other}"
        for module, path in known.items()
        for other in sorted(imported_modules(path, known))
        if room_of(module) != room_of(other) and rank(other) > rank(module)
    ]
    assert wrong == []


def cycles(graph: Mapping[str, Collection[str]]) -> list[list[str]]:
    """The groups of modules that import each other, directly or by way of others."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for other in graph.get(module, ()):
            if other not in order:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], order[other])
        if low[module] == order[module]:
            at = stack.index(module)
            group, stack[at:] = stack[at:], []
            if len(group) > 1 or module in graph.get(module, ()):
                groups.append(sorted(group))

    for module in graph:
        if module not in order:
            visit(module)
    return groups


def test_no_imports_run_in_circles() -> None:
    """Those for the type checker alone included: what needs another file to be read needs it."""
    known = modules()
    graph = {name: imported_modules(path, known) for name, path in known.items()}
    assert cycles(graph) == []
    assert cycles({"a": ["b"], "b": ["c"], "c": ["a", "d"], "d": []}) == [["a", "b", "c"]]


def test_services_do_not_know_each_other() -> None:
    known = modules()
    wrong = [
        f"{module} imports {other}"
        for module, path in known.items()
        for other in sorted(imported_modules(path, known))
        if rank(module) == rank(other) in (PURE_SERVICE, PROJECTOR)
        and room_of(module) != room_of(other)
    ]
    assert wrong == []


def test_the_engine_knows_no_service() -> None:
    services = tuple(f"services.{name}" for name in (*DECIDERS, "inbox", "progress", "usage"))
    wrong = [
        f"{name_of(path)}:{line} imports {module}"
        for room in ("engine", "store", "runtime")
        for path in sources(f"services/{room}")
        for line, module in imports(path)
        if below(module, *services)
    ]
    assert wrong == []


def test_the_audit_shares_nothing_with_what_it_judges() -> None:
    assert [
        bad for p in sources("services/audit") for bad in wrong_imports(p, "services.audit")
    ] == []


def test_nobody_imports_the_command_line() -> None:
    wrong = [
        f"{name_of(path)}:{line} imports {module}"
        for path in sources(*TREES)
        if not name_of(path).startswith("services/cli/")
        for line, module in imports(path)
        if below(module, "services.cli")
    ]
    assert wrong == []


def test_what_decides_is_pure() -> None:
    inner = [path for module, path in modules().items() if rank(module) <= PURE_SERVICE]
    tools = {"services/delegator/train.py", "services/delegator/validate.py"}
    assert len(inner) > 50
    assert [bad for p in inner if name_of(p) not in tools for bad in outside(p)] == []


def test_no_class_name_stands_twice() -> None:
    where: dict[str, list[str]] = {}
    for path in sources(*TREES):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef):
                where.setdefault(node.name, []).append(name_of(path))
    assert {name: places for name, places in where.items() if len(places) > 1} == {}


# -- words ------------------------------------------------------------------------------------

VARIABLES = frozenset({"found", "d", "b", "one", "most", "told"})
IDENTIFIERS = frozenset(
    {
        *("desk", "door", "told", "booked", "settle", "crew", "shapes", "gather", "doomed"),
        *("witness", "patience"),
    }
)


def given_names(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of everything a file gives a name to."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name


def test_names_are_nouns_of_the_field() -> None:
    wrong = [
        f"{name_of(path)}:{line} {name}"
        for path in sources(*TREES)
        for line, name in given_names(path)
        if name.strip("_").lower() in VARIABLES
        or not IDENTIFIERS.isdisjoint(name.strip("_").lower().split("_"))
    ]
    assert wrong == []


# -- where the outside world is ----------------------------------------------------------------


def outside(path: Path) -> list[str]:
    """Uses of the network, the clock, chance or the environment."""
    found = [
        f"{name_of(path)}:{line} imports {module}"
        for line, module in imports(path)
        if module.partition(".")[0] in OUTSIDE
    ]
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.Attribute):
            continue
        text = ast.unparse(node)
        is_clock = node.attr in CLOCKS and re.search(r"\bdate(time)?\.\w+$", text)
        if text in ("os.environ", "os.getenv", "os.urandom") or is_clock:
            found.append(f"{name_of(path)}:{node.lineno} uses {text}")
    return found


def test_the_outside_world_is_touched_at_the_edges_only() -> None:
    inner = [path for path in sources(*TREES) if not name_of(path).startswith(EDGES)]
    assert [bad for path in inner for bad in outside(path)] == []


def test_settings_come_from_one_place() -> None:
    """Only settings.py looks at the environment; workers hand it on to processes they start."""
    readers = {
        name_of(path)
        for path in sources(*TREES)
        for bad in outside(path)
        if bad.endswith(("os.environ", "os.getenv"))
    }
    # A hook is called by an agent in a pane of tmux, which is named there.
    hand_it_on = {"services/runtime/agent_hook.py"}
    found = {name for name in readers - hand_it_on if not name.startswith("services/worker/")}
    assert found == {"services/runtime/settings.py"}


def test_settings_know_every_variable_of_ours() -> None:
    """A variable that the worker sets must not make `asb`, called by a task, refuse to start."""
    known = {
        f"ASB_{row.name.replace('.', '_').upper()}"
        for row in describe(load(environ={"HOME": "/nowhere"}, cwd=ROOT / "tests"))
    }
    named = {
        node.value: name_of(path)
        for path in sources(*TREES)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"ASB_[A-Z_]*[A-Z]", node.value)
    }
    unknown = {
        name: at
        for name, at in named.items()
        if name not in known | NOT_SETTINGS and not name.startswith(NOT_SETTINGS_PREFIXES)
    }
    assert unknown == {}


def test_this_walk_sees_what_it_looks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk that finds nothing anywhere would pass every test above."""
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    path = tmp_path / "bad.py"
    path.write_text(
        "import os, redis.asyncio\nfrom services.runtime import host\nfrom time import monotonic\n"
        "x = os.environ['X']\ny = datetime.datetime.now()\ndef f():\n    import services.intake\n"
    )
    assert wrong_imports(path, "events") == [
        "bad.py:2 imports services.runtime.host",
        "bad.py:7 imports services.intake",
    ]
    assert outside(path) == [
        "bad.py:1 imports redis.asyncio",
        "bad.py:3 imports time.monotonic",
        "bad.py:4 uses os.environ",
        "bad.py:5 uses datetime.datetime.now",
    ]


# -- keys --------------------------------------------------------------------------------------


def crc16(data: bytes) -> int:
    """CRC-16/XMODEM, as Redis Cluster hashes keys."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = ((crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def slot(key: str) -> int:
    """The cluster slot of a key: of what stands in its first braces, if there is anything."""
    match = re.match(r"[^{]*\{([^}]+)\}", key)
    return crc16((match[1] if match else key).encode()) % 16384


def built_keys(keys: Keys) -> list[str]:
    """Every key that Keys can build."""
    built: list[str] = []
    for name, member in inspect.getmembers(Keys):
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            built.append(str(getattr(keys, name)))
        elif inspect.isfunction(member):
            samples = {"str": "some:thing", "int": 7, "str | None": None}
            parameters = list(inspect.signature(member).parameters.values())[1:]
            built.append(member(keys, *(samples[str(p.annotation)] for p in parameters)))
    return built


@pytest.mark.parametrize("namespace", ["asb", "t-1_x"])
def test_internal_keys_share_the_slot_of_what_they_belong_to(namespace: str) -> None:
    keys = Keys(namespace)
    built = built_keys(keys)
    of_the_log = [key for key in built if key.startswith(f"{{{keys.log}}}:")]
    assert len(of_the_log) >= 4
    assert {slot(key) for key in of_the_log} == {slot(keys.log)}
    for key in built:
        if key.startswith("{"):  # written by one script together with the key in the braces
            owner = key[1:].partition("}")[0]
            assert owner in built
            assert slot(key) == slot(owner)


def test_slots_are_computed_as_redis_does() -> None:
    assert crc16(b"123456789") == 0x31C3  # the check value in the Redis Cluster specification
    assert slot("{user1000}.following") == slot("user1000")
    assert slot("foo{}{bar}") == crc16(b"foo{}{bar}") % 16384


# -- the rest ----------------------------------------------------------------------------------


def test_the_changelog_is_about_this_version() -> None:
    changelog = ROOT / "CHANGELOG.md"
    if not changelog.exists():
        return
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^##\s+\[?v?(\d+\.\d+\.\d+)", changelog.read_text(), re.MULTILINE)
    assert headings, "CHANGELOG.md has no heading like `## 0.1.0`"
    assert headings[0] == version, "CHANGELOG.md's newest heading is not pyproject's version"


def test_every_file_with_tests_is_collected() -> None:
    hidden = [
        name_of(path)
        for path in sources("tests")
        if not path.name.startswith("test_")
        and any(
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name.startswith("test_")
            for node in tree_of(path).body
        )
    ]
    assert hidden == []


def test_tests_wait_for_conditions_and_not_for_time() -> None:
    sleepers = [
        f"{name_of(path)}:{node.lineno} {ast.unparse(node)}"
        for path in sources("tests")
        if not name_of(path).startswith(("tests/wait.py", "tests/bench/"))
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "sleep"
    ]
    assert sleepers == []


def test_decisions_are_numbered_once() -> None:
    files = sorted((ROOT / "ops" / "adr").glob("*.md"))
    numbers = [int(file.name.partition("-")[0]) for file in files]
    assert numbers == list(range(1, len(files) + 1))
    for file, number in zip(files, numbers, strict=True):
        assert file.read_text(encoding="utf-8").startswith(f"# {number}. ")


def test_the_page_for_contributors_names_what_there_is() -> None:
    """Every path, and every name that it says a file has."""
    text = re.sub(r"\s+", " ", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    paths = re.findall(r"`((?:events|projections|services|tests|ops)/[\w/.-]*|tests\.\w+)`", text)
    assert len(paths) > 15
    assert [path for path in paths if not (ROOT / path.replace("tests.", "tests/")).exists()] == []
    named = re.findall(r"`(\w+)` (?:in|of) (?:the file of its subject in )?`([\w/]+\.py)`", text)
    assert len(named) > 5
    missing = [f"{name} in {path}" for name, path in named if name not in (ROOT / path).read_text()]
    assert missing == []
    targets = re.findall(r"`make (\w+)`", text)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [target for target in targets if f"\n{target}: " not in makefile] == []
