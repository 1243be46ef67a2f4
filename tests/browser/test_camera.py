"""
A camera that ffmpeg publishes, as browsers show it.
"""

import shlex
import subprocess

import pytest
from PIL import Image

from ..integration.test_publishing_programs import MPJPEG
from .test_chat import root

PAGE = """
    <!doctype html>
    <body style="margin: 0; background: white">
    <img src="/msgbus/cam" style="display: block; width: 320px; height: 240px">
"""
FFMPEG = "ffmpeg -loglevel error -re -f lavfi -i testsrc=size=320x240:rate=5"


@pytest.fixture
def camera(start, tmp_path):
    """
    A bus to which ffmpeg publishes a camera, with a page that shows it.
    """
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text(PAGE)
    bus = start("--docroot", str(site))
    ffmpeg = subprocess.Popen(shlex.split(f"{FFMPEG} {MPJPEG} {bus.url}cam"))
    yield bus
    ffmpeg.terminate()
    ffmpeg.wait(30)


def test_camera(camera, window, tmp_path):
    """
    The picture of an `<img>` moves.
    """
    page = window()
    page.open(root(camera))
    page.wait("return document.querySelector('img').naturalWidth === 320")

    def shot(name):
        page.screenshot(tmp_path / name)
        return Image.open(tmp_path / name).convert("RGB").crop((0, 0, 320, 240))

    shots = [shot("first.png")]
    # The test picture has a counter of seconds, and stripes that move in between.
    page.wait("return new Promise((done) => setTimeout(() => done(true), 2000))")
    shots.append(shot("second.png"))
    assert shots[0].tobytes() != shots[1].tobytes()
    # It is that picture, and not a blank or broken one.
    for one in shots:
        assert len(one.getcolors(1 << 24)) > 100
