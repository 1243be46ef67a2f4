"""
Fixtures for tests of more than one room.
"""

import pytest

from .redis_server import RedisServer


@pytest.fixture
def redis(tmp_path):
    """
    A Redis that writes each message to its file before it answers.
    """
    server = RedisServer(tmp_path, appendfsync="always")
    yield server
    server.thaw()
    server.kill()
