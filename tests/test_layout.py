"""
Tests for the layout: which module may import which, and what the plugin costs.
"""

import ast
import subprocess
import sys
from pathlib import Path

import msgbus

PACKAGE = Path(msgbus.__file__).parent

# Each may import those before it.
ORDER = [
    "message",
    "match",
    "history",
    "framing",
    "multipart",
    "envelope",
    "eventstream",
    "ndjson",
    "frames",
    "formats",
    "backlog",
    "replay",
    "idempotency",
    "target",
    "origin",
    "address",
    "exchange",
    "blocking",
    "connect",
    "client",
    "bus",
    "store",
    "poll",
    "outlet",
    "group",
    "fanout",
    "auth",
    "answers",
    "pages",
    "documents",
    "site",
    "websocket",
    "web",
    "daemon",
    "service",
]

# No I/O and no Twisted, but for its logger.
PURE = ORDER[: ORDER.index("blocking")]

# What clients share with the server is pure.
CLIENTS = ("blocking", "connect", "client")


def imports(tree):
    """
    The modules that a module imports, ours with a leading dot.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            dots = "." * node.level
            if node.module is None:
                yield from (dots + alias.name for alias in node.names)
            else:
                yield dots + node.module


def tree(name):
    """
    The parsed source of one of our modules.
    """
    return ast.parse((PACKAGE / f"{name}.py").read_text())


def test_every_module_has_its_place():
    """
    The list above names every module.
    """
    assert {path.stem for path in PACKAGE.glob("*.py")} == {*ORDER, "__init__"}


def test_imports_go_one_way():
    """
    A module imports those before it only.
    """
    for place, name in enumerate(ORDER):
        ours = {i.removeprefix(".") for i in imports(tree(name)) if i.startswith(".")}
        assert ours - {"__version__"} <= set(ORDER[:place]), name
        assert "msgbus" not in {i.partition(".")[0] for i in imports(tree(name))}, name


def test_pure_modules():
    """
    The pure modules know neither Twisted nor sockets.
    """
    for name in PURE:
        for imported in imports(tree(name)):
            assert imported.partition(".")[0] not in ("twisted", "socket", "time"), name


def test_clients_and_server():
    """
    Clients and the server meet in the pure modules only, and the blocking client knows
    no Twisted.
    """
    for name in ORDER:
        ours = {i.removeprefix(".") for i in imports(tree(name)) if i.startswith(".")}
        if name in CLIENTS:
            assert ours <= {*PURE, *CLIENTS}, name
        else:
            assert not ours & set(CLIENTS), name
    code = (
        "import sys, msgbus.blocking;"
        "sys.exit(any(m.partition('.')[0] in ('twisted', 'OpenSSL') for m in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


def test_no_reactor_at_module_level():
    """
    Importing us installs no reactor, so programs can choose theirs; and the
    plugin imports nothing of ours until it is chosen.
    """
    for modules, absent in (
        ("msgbus.web, msgbus.service, msgbus.client", "twisted.internet.reactor"),
        ("twisted.plugins.msgbus_plugin", "msgbus"),
    ):
        code = f"import sys, {modules}; sys.exit({absent!r} in sys.modules)"
        subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)
