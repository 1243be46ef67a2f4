"""
Fixtures for the tests in browsers.
"""

import pytest

from ..integration.conftest import proxy, start  # noqa: F401
from .browsers import Chromium, Firefox, WebKit
from .canary import Canary


@pytest.fixture(
    scope="module", params=[Chromium, Firefox, WebKit], ids=lambda b: b.__name__
)
def browser(request, tmp_path_factory):
    """
    Each browser.
    """
    browser = request.param(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()


@pytest.fixture
def window(browser):
    """
    A function that opens a window; those that it opened are closed after the test.
    """
    # Some browsers end with their last window.
    first = browser.window()
    windows = []

    def window():
        windows.append(browser.window())
        return windows[-1]

    yield window
    for one in windows:
        one.close()
    first.open("about:blank")


@pytest.fixture
def canary():
    """
    A site of another origin, that notes who asks it for anything.
    """
    canary = Canary()
    yield canary
    canary.close()
