"""
Tests for the layout: which room may import which, how large its parts may grow, and what
importing us costs.
"""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import msgbus

PACKAGE = Path(msgbus.__file__).parent
CHECKOUT = Path(__file__).parents[1]

GROUND = {"message", "headers", "match", "ids", "invalid", "meters"}

# In the order in which a message travels, from a publisher's socket inward and out again.
MAY_IMPORT = {
    "server": {"admin", "web", "access", "fanout", "tls", "formats", "redis", "bus"},
    "admin": {"web", "fanout", "formats", "bus"},
    "web": {"access", "fanout", "formats", "bus"},
    "access": set(),
    "fanout": {"tls", "formats", "bus"},
    "tls": set(),
    "formats": set(),
    "redis": {"bus"},
    "bus": set(),
    "client": {"formats"},
    "scripts": {"client", "formats", "access"},
    # A name for users.
    "blocking": {"client"},
}

# No I/O and no clock, and no Twisted, which clients do without.
PURE = {
    "message",
    "headers",
    "match",
    "ids",
    "invalid",
    "meters",
    "formats",
    "bus.history",
    "bus.cursor",
    "bus.id_sequence",
    "bus.subscriptions",
    "bus.known_channels",
    "bus.idempotency",
    "redis.address",
    "redis.scripts",
    "fanout.backlog",
    "fanout.choices",
    "fanout.counters",
    "fanout.overflow",
    "fanout.pending",
    "fanout.replay",
    "access.verbs",
    "access.channels",
    "access.grant",
    "access.credentials",
    "access.link_keys",
    "access.links",
    "access.tokens",
    "access.limits",
    "access.rate_fields",
    "access.open_counts",
    "access.guesses",
    "access.log_throttle",
    "access.addresses",
    "web.query",
    "web.origins",
    "web.sorted_names",
    "access.rules",
    "access.patterns",
    "access.rule_limits",
    "access.readable",
    "access.users",
    "access.passwords",
    "access.verified",
    "access.file_lines",
    "client.url",
    "client.options",
    "client.errors",
    "client.requests",
    "client.responses",
    "client.stream",
    "client.notices",
    "client.retry",
    "client.resumable",
    "client.publication_stream",
    "client.response_reader",
    "client.channel_pages",
}
IMPURE = {"twisted", "socket", "select", "ssl", "time", "threading", "sqlite3"}

FUNCTION_LINES = 60
PARAMETERS = 7

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(
        ".__init__"
    ): path
    for path in PACKAGE.rglob("*.py")
    if path != PACKAGE / "__init__.py" and "chatdemo" not in path.parts
}


def room(module):
    """
    The first part of a name: a room, or a module of the ground.
    """
    return module.partition(".")[0]


def imports(module):
    """
    All that a module imports: ours by names without `msgbus.`, and that of others with a
    bang.
    """
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ("!" + alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if not node.level:
                yield "!" + node.module
                continue
            parts = package.split(".") if package else []
            base = parts[: len(parts) - node.level + 1]
            if node.module:
                yield ".".join([*base, node.module])
            else:
                yield from (".".join([*base, alias.name]) for alias in node.names)


def functions():
    """
    All functions and methods, with where they are.
    """
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{module}.{node.name}", node


def test_every_module_has_its_place():
    """
    Each module is on the ground or in a room of the table, and the tests' folders mirror
    the rooms.
    """
    assert {room(module) for module in MODULES} == GROUND | MAY_IMPORT.keys()
    options = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    folders = {
        path.rpartition("/")[2]
        for path in options["tool"]["pytest"]["ini_options"]["testpaths"]
    }
    rooms = {name for name in MAY_IMPORT if (PACKAGE / name).is_dir()}
    assert folders == rooms | {"integration", "test_*.py"}


def test_imports_go_one_way():
    """
    A room imports itself, the ground, and what the table allows it; a module of the
    ground, others of the ground.
    """
    for module in MODULES:
        home = room(module)
        allowed = GROUND if home in GROUND else GROUND | {home} | MAY_IMPORT[home]
        for imported in imports(module):
            assert imported.startswith("!") or room(imported) in {
                *allowed,
                "__version__",
            }, f"{module} imports {imported}"
            assert not imported.startswith("!msgbus"), f"{module} imports {imported}"


def test_no_circles():
    """
    No module imports itself, by way of whatever others.
    """
    left = {
        module: {i for i in imports(module) if i in MODULES and i != module}
        for module, path in MODULES.items()
        if path.name != "__init__.py"
    }
    while free := {module for module, needs in left.items() if not needs & left.keys()}:
        for module in free:
            del left[module]
    assert not left


def test_pure_modules():
    """
    The pure modules know neither Twisted nor sockets nor the time.
    """
    for module in MODULES:
        if {module, room(module)} & PURE:
            for imported in imports(module):
                assert imported.lstrip("!").partition(".")[0] not in IMPURE, module


def test_functions_fit_on_a_screen():
    """
    No function is longer than a screen, or takes more than a value object should.
    """
    for name, node in functions():
        lines = node.end_lineno - node.lineno + 1
        assert lines <= FUNCTION_LINES, f"{name} has {lines} lines"
        arguments = node.args
        count = len(arguments.posonlyargs + arguments.args + arguments.kwonlyargs)
        if arguments.args and arguments.args[0].arg in ("self", "cls"):
            count -= 1
        assert count <= PARAMETERS, f"{name} has {count} parameters"


@pytest.mark.parametrize(
    "name",
    [
        "msgbus.access.BadRules",
        "msgbus.access.BadUsers",
        "msgbus.access.PasswordChecker",
        "msgbus.access.Rules",
        "msgbus.access.Users",
        "msgbus.access.new_pool",
        "msgbus.blocking.Publisher",
        "msgbus.blocking.channels",
        "msgbus.blocking.publish",
        "msgbus.blocking.stream",
        "msgbus.blocking.subscribe",
        "msgbus.bus.Bus",
        "msgbus.bus.History",
        "msgbus.bus.Keep",
        "msgbus.bus.TooLarge",
        "msgbus.client.Client",
        "msgbus.fanout.Limits",
        "msgbus.match.Filter",
        "msgbus.message.Invalid",
        "msgbus.message.Message",
        "msgbus.redis.RedisAddress",
        "msgbus.redis.RedisLog",
        "msgbus.web.Access",
        "msgbus.web.BusResource",
        "msgbus.web.Origins",
        "msgbus.web.Request",
        "msgbus.web.Root",
        "msgbus.web.Site",
        "msgbus.web.portal_for",
        "msgbus.web.portal_with",
    ],
)
def test_what_users_import(name):
    """
    What our documentation names is where it says.
    """
    module, _, attribute = name.rpartition(".")
    assert getattr(importlib.import_module(module), attribute)


def test_each_room_introduces_itself():
    """
    A room says what it is for, and names all its modules in the order to read them.
    """
    for module, path in MODULES.items():
        if path.name == "__init__.py":
            said = ast.get_docstring(ast.parse(path.read_text()))
            for sibling in path.parent.glob("*.py"):
                if sibling != path:
                    assert re.search(rf"`{sibling.stem}`", said), (module, sibling.stem)


def test_docs_name_all_modules():
    """
    docs/architecture.md names every module by its room, and no file that does not exist;
    its table of rooms is the one that is tested here.
    """
    page = (CHECKOUT / "docs/architecture.md").read_text()
    modules = {
        path.relative_to(PACKAGE).as_posix()
        for path in MODULES.values()
        if path.name != "__init__.py"
    }
    said = set(re.findall(r"`([\w/]+\.py)`", page))
    ours = {file for file in said if not (CHECKOUT / file).is_file()} - {"__init__.py"}
    assert ours == modules
    # In the picture, modules stand below their rooms.
    drawn = set(re.findall(r"[ │](\w+\.py)", page.partition("```")[2].partition("```")[0]))
    assert drawn <= {module.rpartition("/")[2] for module in modules}
    rows = dict(re.findall(r"^\| `(\w+)/` \| (.*) \|$", page, re.MULTILINE))
    assert {name: set(re.findall(r"`(\w+)/`", row)) for name, row in rows.items()} == {
        name: others for name, others in MAY_IMPORT.items() if (PACKAGE / name).is_dir()
    }


def test_the_blocking_client_knows_no_twisted():
    """
    A plain program imports neither Twisted nor OpenSSL with it.
    """
    code = (
        "import sys, msgbus.blocking;"
        "sys.exit(any(m.partition('.')[0] in ('twisted', 'OpenSSL') for m in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


def test_no_reactor_at_module_level():
    """
    Importing us installs no reactor, so programs can choose theirs; the plugin imports
    nothing of ours until it is chosen, and nothing for tokens until there are any.
    """
    for modules, absent in (
        (
            "msgbus.web, msgbus.server.plugin, msgbus.client.client",
            "twisted.internet.reactor",
        ),
        ("twisted.plugins.msgbus_plugin", "msgbus"),
        ("msgbus.server.plugin", "joserfc"),
    ):
        code = f"import sys, {modules}; sys.exit({absent!r} in sys.modules)"
        subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)
