"""
A real bus with its options in a file, which it reads again while it runs.
"""

import signal

from .blocking import GET, raw
from .pages import CHECKOUT, blocks
from .test_twistd import curl

POST = ("-H", "Content-Type: text/plain", "-d")
LISTEN = "listen = 'tcp:0:interface=127.0.0.1'\n"
TOO_LARGE = "x" * 100


def test_docs(start, tmp_path):
    """
    The file that docs/operations.md shows gives the options that it seems to give.
    """
    (text,) = blocks(CHECKOUT / "docs/operations.md", "toml")
    file = tmp_path / "msgbus.toml"
    # The port of the page may be in use.
    file.write_text(text.replace("tcp:8888", "tcp:0"))
    bus = start("--config", str(file))
    assert bus.wait_for("starting on 'msgbus.sock'")
    bus.port = int(bus.wait_for(r"starting on (\d+)")[1])
    with raw(bus, GET) as stream:
        assert stream.recv(4096).startswith(b"HTTP/1.1 200 ")
        bus.wait_for("subscribes to 'foo'")
    assert curl(bus.url + "foo", *POST, "x" * 65536)[0] == 204
    assert curl(bus.url + "foo", *POST, "x" * 65537)[0] == 413


def test_reload(start, tmp_path):
    """
    At SIGHUP, other limits hold and another verbosity, also for a daemon, in whose folder
    the file is not; the streams that are open stay, and a mistake changes nothing.
    """
    file = tmp_path / "msgbus.toml"
    file.write_text(LISTEN + "max-message = 99")
    (tmp_path / "elsewhere").mkdir()
    command = ("twistd", "-n", "--pidfile=", f"--rundir={tmp_path / 'elsewhere'}")
    bus = start("--config", file.name, "--docroot", str(tmp_path), command=command)
    stream = raw(bus, GET)
    assert stream.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert curl(bus.url + "foo", *POST, TOO_LARGE)[0] == 413
    file.write_text(LISTEN + "max-message = 100\nverbose = true\ndocroot = 'x'\ndrain = 1")
    bus.process.send_signal(signal.SIGHUP)
    bus.wait_for(f"Read {file} again: max-message, verbose changed")
    assert curl(bus.url + "foo", *POST, TOO_LARGE)[0] == 204
    assert TOO_LARGE.encode() in stream.recv(4096)
    bus.wait_for(f"drain has changed in {file}, which takes a restart")
    assert "docroot has changed" not in bus.log
    with raw(bus, GET):
        bus.wait_for("subscribes to 'foo'")
    file.write_text(LISTEN + "max-mesage = 99")
    bus.process.send_signal(signal.SIGHUP)
    bus.wait_for(r"stay as they were, .*: .*, line 2: There is no option 'max-mesage' here")
    assert curl(bus.url + "foo", *POST, TOO_LARGE)[0] == 204
    stream.close()
    # A stop would look for errors in the log, and there is one.
    bus.kill()
