"""
Real browsers: Chromium, Firefox, and WebKit, which is Safari's engine.

Chromium and WebKit are driven by WebDriver, through Selenium.  Firefox speaks
WebDriver BiDi by itself, so it needs no driver program.
"""

import base64
import json
import os
import re
import subprocess
import time
from contextlib import ExitStack
from glob import glob
from itertools import count
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.by import By
from websockets.sync.client import connect

START_SECONDS = 60
WAIT_SECONDS = 30

_MINI_BROWSER = "/usr/lib/*/webkit2gtk-4.1/MiniBrowser"


class Window:
    """
    One window of a browser.
    """

    def open(self, url):
        """
        Navigate to it, as one who types its address does.
        """
        raise NotImplementedError

    def run(self, body, *args):
        """
        What the body of an async function, run in the page with `args`, returns; true for
        an element.
        """
        source = (
            f"(async (...args) => {{ {body} }})(...{json.dumps(args)})"
            ".then((value) => JSON.stringify(value instanceof Node || (value ?? null)))"
        )
        return json.loads(self._evaluate(source))

    def type(self, selector, text):
        """
        Type into an element, as one at the keyboard does; a line feed is the Enter key.
        """
        raise NotImplementedError

    def click(self, selector):
        """
        Click on an element.
        """
        raise NotImplementedError

    def click_at(self, x, y):
        """
        Click on what is at this place of the page, in CSS pixels.
        """
        raise NotImplementedError

    def choose(self, selector, path):
        """
        Choose a file in an element that asks for one.
        """
        raise NotImplementedError

    def screenshot(self, path):
        """
        Write what is seen as a PNG.
        """
        raise NotImplementedError

    def resize(self, width, height):
        """
        Make what is seen of a page so large, in CSS pixels, as near as may be.
        """
        raise NotImplementedError

    def close(self):
        """
        Close it.
        """
        raise NotImplementedError

    def wait(self, body, *args, seconds=WAIT_SECONDS):
        """
        What `run` returns, as soon as that is true.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if value := self.run(body, *args):
                return value
            time.sleep(0.05)
        seen = self.run("return document.body.outerHTML.slice(0, 5000)")
        raise AssertionError(f"Never: {body} {args}, in\n{seen}")

    def _evaluate(self, source):
        raise NotImplementedError


class Driven:
    """
    A browser that a WebDriver drives.
    """

    def __init__(self, driver):
        self._driver = driver
        self._driver.set_script_timeout(WAIT_SECONDS)
        self._fresh = True

    def window(self):
        """
        Open a window.
        """
        if self._fresh:
            self._fresh = False
        else:
            self._driver.switch_to.new_window("window")
        return DrivenWindow(self._driver, self._driver.current_window_handle)

    def close(self):
        """
        End it.
        """
        self._driver.quit()


class DrivenWindow(Window):
    """
    One of its windows.
    """

    def __init__(self, driver, handle):
        self._driver = driver
        self._handle = handle

    def open(self, url):
        self._on().get(url)

    def type(self, selector, text):
        if text:
            self._find(selector).send_keys(text.replace("\n", "\ue007"))

    def click(self, selector):
        self._find(selector).click()

    def click_at(self, x, y):
        actions = ActionBuilder(self._on())
        actions.pointer_action.move_to_location(x, y).click()
        actions.perform()

    def choose(self, selector, path):
        self._find(selector).send_keys(str(path))

    def screenshot(self, path):
        Path(path).write_bytes(self._on().get_screenshot_as_png())

    def resize(self, width, height):
        self._on().set_window_size(width, height)
        seen = self.run("return [innerWidth, innerHeight]")
        self._on().set_window_size(2 * width - seen[0], 2 * height - seen[1])

    def close(self):
        self._on().close()

    def _on(self):
        self._driver.switch_to.window(self._handle)
        return self._driver

    def _find(self, selector):
        return self._on().find_element(By.CSS_SELECTOR, selector)

    def _evaluate(self, source):
        failed = "(error) => done([`${error}`])"
        answer = self._on().execute_async_script(
            f"const done = arguments[0]; {source}.then(done, {failed})"
        )
        if isinstance(answer, list):
            raise AssertionError(answer[0])
        return answer


class Chromium(Driven):
    """
    Chromium, by ChromeDriver.

    Args:
        arguments: More of its own.
        names: Of hosts that are this machine.
    """

    def __init__(self, folder, *arguments, names=()):
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for argument in (
            "headless",
            "no-sandbox",
            "disable-gpu",
            "disable-quic",
            "no-first-run",
            "disable-background-networking",
            "disable-component-update",
            "disable-sync",
            "ignore-certificate-errors",
            f"user-data-dir={folder / 'chromium'}",
            "host-resolver-rules=" + ",".join(f"MAP {name} 127.0.0.1" for name in names),
            *arguments,
        ):
            options.add_argument(f"--{argument}")
        service = webdriver.ChromeService("/usr/bin/chromedriver")
        super().__init__(webdriver.Chrome(options, service))


class WebKit(Driven):
    """
    WebKitGTK's small browser, on a screen of its own.

    Args:
        names: Of hosts that are this machine.
    """

    def __init__(self, folder, names=()):
        read, write = os.pipe()
        self._screen = subprocess.Popen(
            ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x1024x24"],
            pass_fds=[write],
            stderr=subprocess.DEVNULL,
        )
        os.close(write)
        with os.fdopen(read) as file:
            display = file.readline().strip()
        options = webdriver.WebKitGTKOptions()
        (options.binary_location,) = glob(_MINI_BROWSER)
        options.add_argument("--automation")
        options.set_capability("browserName", "MiniBrowser")
        options.set_capability("acceptInsecureCerts", True)
        # It asks the system, so its system has a list of hosts of its own.
        hosts = folder / "hosts"
        hosts.write_text("127.0.0.1 localhost " + " ".join(names) + "\n")
        driver = folder / "driver"
        driver.write_text(
            "#!/bin/sh\n"
            f'exec unshare -m sh -c \'mount --bind {hosts} /etc/hosts && exec "$0" "$@"\''
            ' /usr/bin/WebKitWebDriver "$@"\n'
        )
        driver.chmod(0o755)
        service = webdriver.WebKitGTKService(
            str(driver),
            env={
                "DISPLAY": f":{display}",
                "HOME": str(folder),
                "PATH": "/usr/bin:/bin",
                # As root, and in a container, it has no sandbox to make.
                "WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS": "1",
                # Without a graphics card, what is drawn by one is not seen.
                "WEBKIT_DISABLE_DMABUF_RENDERER": "1",
            },
        )
        try:
            super().__init__(webdriver.WebKitGTK(options, service=service))
        except BaseException:
            self._screen.terminate()
            raise

    def close(self):
        super().close()
        self._screen.terminate()
        self._screen.wait(START_SECONDS)


class Firefox:
    """
    Firefox, by WebDriver BiDi.

    Args:
        names: Of hosts that are this machine; with any, all are.
        preferences: More of its own.
    """

    def __init__(self, folder, names=(), **preferences):
        profile = folder / "firefox"
        profile.mkdir()
        preferences = {
            "app.update.enabled": False,
            "browser.shell.checkDefaultBrowser": False,
            "browser.startup.page": 0,
            "datareporting.policy.dataSubmissionEnabled": False,
            "toolkit.telemetry.server": "",
            "network.captive-portal-service.enabled": False,
            "network.connectivity-service.enabled": False,
            "services.settings.server": "data:,",
            "remote.active-protocols": 1,
            "network.dns.forceResolve": "127.0.0.1" if names else "",
            **preferences,
        }
        (profile / "user.js").write_text(
            "".join(
                f"user_pref({json.dumps(name)}, {json.dumps(value)});\n"
                for name, value in preferences.items()
            )
        )
        log = folder / "firefox.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    "firefox-esr",
                    "--headless",
                    "--no-remote",
                    "--remote-debugging-port=0",
                    "--profile",
                    profile,
                ],
                stdout=output,
                stderr=output,
                env={"HOME": str(folder), "PATH": "/usr/bin:/bin"},
            )
        deadline = time.monotonic() + START_SECONDS
        while not (found := re.search(r"BiDi listening on (ws://\S+)", log.read_text())):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        self._open = ExitStack()
        self._socket = self._open.enter_context(
            connect(f"{found[1]}/session", max_size=None)
        )
        self._numbers = count()
        capabilities = {"alwaysMatch": {"acceptInsecureCerts": True}}
        self.call("session.new", capabilities=capabilities)

    def call(self, method, **params):
        """
        Call a method of the protocol.
        """
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv(timeout=START_SECONDS))
            if answer.get("id") == number:
                break
        if answer["type"] == "error":
            raise AssertionError(f"{method}: {answer['error']}: {answer['message']}")
        return answer["result"]

    def window(self):
        """
        Open a window.
        """
        created = self.call("browsingContext.create", type="window")
        return FirefoxWindow(self, created["context"])

    def close(self):
        """
        End it.
        """
        self._open.close()
        self._process.terminate()
        self._process.wait(START_SECONDS)


class FirefoxWindow(Window):
    """
    One of its windows.
    """

    def __init__(self, browser, context):
        self._call = browser.call
        self._context = context

    def open(self, url, wait="complete"):
        self._call("browsingContext.navigate", context=self._context, url=url, wait=wait)

    def type(self, selector, text):
        self.run("document.querySelector(args[0]).focus()", selector)
        keys = [
            {"type": kind, "value": key}
            for key in text.replace("\n", "\ue007")
            for kind in ("keyDown", "keyUp")
        ]
        self._act({"type": "key", "id": "keyboard", "actions": keys})

    def click(self, selector):
        x, y = self.run(
            """
            const element = document.querySelector(args[0]);
            element.scrollIntoView({ block: "nearest" });
            const { x, y, width, height } = element.getBoundingClientRect();
            return [x + width / 2, y + height / 2];
            """,
            selector,
        )
        self.click_at(int(x), int(y))

    def click_at(self, x, y):
        steps = [
            {"type": "pointerMove", "x": x, "y": y},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        self._act({"type": "pointer", "id": "mouse", "actions": steps})

    def choose(self, selector, path):
        self._call(
            "input.setFiles",
            context=self._context,
            element=self._find(selector),
            files=[str(path)],
        )

    def screenshot(self, path):
        method = "browsingContext.captureScreenshot"
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                shot = self._call(method, context=self._context)
                break
            except AssertionError as error:
                # Firefox has none of a document that gives way to the next just then.
                if "Unable to capture" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(0.1)
        Path(path).write_bytes(base64.b64decode(shot["data"]))

    def resize(self, width, height):
        self._call(
            "browsingContext.setViewport",
            context=self._context,
            viewport={"width": width, "height": height},
        )

    def close(self):
        self._call("browsingContext.close", context=self._context)

    def _act(self, source):
        self._call("input.performActions", context=self._context, actions=[source])

    def _find(self, selector):
        found = self._script(f"document.querySelector({json.dumps(selector)})")
        return {"sharedId": found["sharedId"]}

    def _evaluate(self, source):
        return self._script(source)["value"]

    def _script(self, source):
        answer = self._call(
            "script.evaluate",
            expression=source,
            target={"context": self._context},
            awaitPromise=True,
        )
        if answer["type"] == "exception":
            raise AssertionError(answer["exceptionDetails"]["text"])
        return answer["result"]
