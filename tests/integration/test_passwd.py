"""
`msgbus-passwd`, as it is installed, on real files.
"""

import fcntl
import os
import pwd
import stat
import subprocess
import time

import pexpect
import pytest

from msgbus.access.passwords import verify
from msgbus.access.users import Users

from .daemon import BIN

TOOL = BIN / "msgbus-passwd"

# As `htpasswd -nbB` and `htpasswd -nbm` of apache2-utils 2.4 print them for "secret".
BY_HTPASSWD = "$2y$05$Ia1/yEG8t0WTxGKT6S9jD.yS4egKjZP.kFjfBO/EGFgjostPM/rAW"
BY_MD5 = "$apr1$2OF4vfEU$Hzobd43m30nMaPfodvbE81"


@pytest.fixture
def file(tmp_path):
    """
    A file of users that htpasswd has written, and somebody has commented on.
    """
    path = tmp_path / "users"
    path.write_text(f"# Us.\nalice:{BY_HTPASSWD}\nbob:{BY_HTPASSWD}\n")
    return path


def passwd(*arguments, given="", **options):
    """
    Run the tool to its end: the exit code, and what it printed.
    """
    if isinstance(given, str):
        given = given.encode()
    done = subprocess.run(
        [TOOL, *arguments], input=given, capture_output=True, timeout=60, **options
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def is_password(file, user, password):
    """
    Is this the password of a user, as the bus reads the file?
    """
    hashed = Users.parse(file.read_bytes(), "users").hash_of(user)
    return hashed is not None and verify(password.encode(), hashed)


def test_new_file(tmp_path):
    """
    The first user makes the file, which only its owner may read.
    """
    file = tmp_path / "users"
    code, out, err = passwd(file, "alice", given="secret\n", umask=0)
    assert (code, out, err) == (0, f"Added alice in {file}.\n", "")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert is_password(file, "alice", "secret")
    assert os.listdir(tmp_path) == ["users"]


def test_add_change_delete(file):
    """
    A user is added, changed and removed; all other lines stay as they are.
    """
    assert passwd(file, "carol é", given="new\r\n")[0] == 0
    before, carol = file.read_text().rsplit("carol", 1)
    assert before == f"# Us.\nalice:{BY_HTPASSWD}\nbob:{BY_HTPASSWD}\n"
    assert passwd(file, "alice", given="other")[1] == (
        f"Changed the password of alice in {file}.\n"
    )
    assert is_password(file, "alice", "other")
    assert is_password(file, "bob", "secret")
    assert is_password(file, "carol é", "new")
    assert passwd("--delete", file, "alice") == (0, f"Removed alice from {file}.\n", "")
    assert file.read_text() == f"# Us.\nbob:{BY_HTPASSWD}\ncarol{carol}"
    assert passwd(file, "--delete", "alice") == (
        1,
        "",
        f"msgbus-passwd: there is no user alice in {file}\n",
    )


def test_verify(file):
    """
    The exit code tells whether a password that htpasswd has set is the right one.
    """
    assert passwd("--verify", file, "alice", given="secret\n")[0] == 0
    code, out, err = passwd("--verify", file, "alice", given="Secret\n")
    assert (code, out, err) == (1, "", "msgbus-passwd: the password of alice is wrong\n")
    assert passwd("--verify", file, "x" * 9, given="secret\n")[0] == 1
    assert passwd("--verify", file, "alice", given="x" * 100)[0] == 1


def test_list(file):
    """
    All names are listed; those that the bus would refuse are complained of, and a new
    password mends them.
    """
    assert passwd("--list", file) == (0, "alice\nbob\n", "")
    file.write_text(file.read_text() + f"old:{BY_MD5}\n")
    code, out, err = passwd("--list", file)
    assert (code, out) == (1, "alice\nbob\nold\n")
    assert err.startswith("msgbus-passwd: old: The password is hashed by MD5")
    assert passwd(file, "old", given="secret")[0] == 0
    assert passwd("--list", file) == (0, "alice\nbob\nold\n", "")


def test_terminal(file):
    """
    On a terminal, a new password is asked for twice, and not shown.
    """
    for again, code in (("pässword", 0), ("password", 2)):
        terminal = pexpect.spawn(
            str(TOOL), [str(file), "dave"], encoding="utf-8", timeout=60
        )
        terminal.expect("Password: ")
        terminal.sendline("pässword")
        terminal.expect("Again: ")
        terminal.sendline(again)
        terminal.expect(pexpect.EOF)
        assert "ssword" not in terminal.before.replace("the password of", "").replace(
            "The passwords differ", ""
        )
        terminal.close()
        assert terminal.exitstatus == code
    assert is_password(file, "dave", "pässword")


@pytest.mark.parametrize(
    ("arguments", "given", "complaint"),
    [
        (["alice"], "", "The password is empty."),
        (["alice"], "x" * 73, "The password is longer than the 72 bytes"),
        (["alice"], b"a\0b", "The password holds a NUL."),
        (["alice"], "a\nb\n", "A password is one line"),
        (["@users"], "secret", "begins with '@'"),
        (["a:b"], "secret", "holds a colon or a slash"),
        (["a\nb"], "secret", "control character"),
        ([""], "secret", "is empty"),
        ([], "secret", "the following arguments are required: NAME"),
        (["--list", "alice"], "", "--list takes no NAME"),
        (["--list", "--delete"], "", "not allowed with"),
        (["alice", "secret"], "", "unrecognized arguments"),
    ],
)
def test_wrong_use(arguments, given, complaint, file):
    """
    What cannot be done is told in a sentence, and changes nothing.
    """
    before = file.read_bytes()
    code, out, err = passwd(file, *arguments, given=given)
    assert (code, out) == (2, "")
    assert complaint in err
    assert file.read_bytes() == before


def test_damaged_file(file):
    """
    A file that is damaged is left as it is; the line is named.
    """
    for damage in ("carol\n", "alice:x\n", "carol:x", "\0\n"):
        text = f"# Us.\nalice:{BY_HTPASSWD}\n{damage}"
        file.write_text(text)
        code, _, err = passwd(file, "alice", given="secret")
        assert code == 2
        assert err.startswith(f"msgbus-passwd: {file}, line 3: ")
        assert file.read_text() == text


def test_no_file(tmp_path):
    """
    Without a file there is nothing to remove, list or verify; a folder is no file.
    """
    for arguments in (["--list"], ["--delete", "a"], ["--verify", "a"]):
        code, _, err = passwd(tmp_path / "users", *arguments)
        assert (code, err) == (
            1,
            f"msgbus-passwd: {tmp_path}/users: No such file or directory\n",
        )
    assert passwd(tmp_path, "alice", given="secret")[0] == 2
    assert passwd(tmp_path / "no/users", "alice", given="secret")[0] == 1
    assert os.listdir(tmp_path) == []


def test_mode_owner_and_link(file, tmp_path):
    """
    A file that exists keeps its mode and its owner, and a link to it stays one.
    """
    file.chmod(0o640)
    nobody = pwd.getpwnam("nobody")
    os.chown(file, nobody.pw_uid, nobody.pw_gid)
    link = tmp_path / "link"
    link.symlink_to("users")
    assert passwd(link, "carol", given="secret")[0] == 0
    assert link.is_symlink()
    assert is_password(file, "carol", "secret")
    now = file.stat()
    assert (now.st_uid, now.st_gid) == (nobody.pw_uid, nobody.pw_gid)
    assert stat.S_IMODE(now.st_mode) == 0o640


def test_two_at_once(file):
    """
    Tools that run at one time lose no user.
    """
    tools = [
        subprocess.Popen([TOOL, file, f"user{i}"], stdin=subprocess.PIPE) for i in range(6)
    ]
    for tool in tools:
        tool.stdin.write(b"secret\n")
        tool.stdin.close()
    assert [tool.wait(60) for tool in tools] == [0] * 6
    assert len(Users.parse(file.read_bytes(), "users")) == 8


def test_lock(file):
    """
    While somebody holds the lock, the file is not changed.
    """
    folder = os.open(file.parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    tool = subprocess.Popen([TOOL, "--delete", file, "alice"], stdout=subprocess.DEVNULL)
    time.sleep(1)
    assert tool.poll() is None
    assert "alice" in file.read_text()
    os.close(folder)
    assert tool.wait(60) == 0
    assert "alice" not in file.read_text()


def test_help():
    """
    The help has examples.
    """
    code, out, _ = passwd("--help")
    assert code == 0
    assert "examples:\n  msgbus-passwd users alice" in out
    assert passwd("--version")[1].startswith("msgbus ")
