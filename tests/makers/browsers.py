"""Debian's Chromium without a window, which can reach this machine and nothing else."""

import shutil
import subprocess
from html.parser import HTMLParser

import pytest

CHROMIUM = shutil.which("chromium")


class _Page(HTMLParser):
    """The attributes of the body and of the examples' rows, and the texts of elements with ids."""

    def __init__(self, text):
        super().__init__()
        self.body, self.rows, self.texts, self._id = {}, [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag == "body":
            self.body = found
        if tag == "tr" and "data-key" in found:
            self.rows.append(found)
        self._id = found.get("id", self._id)

    def handle_data(self, data):
        self.texts[self._id] = self.texts.get(self._id, "") + data


def page_after_its_scripts(address, profile):
    """Open an address, wait until the page has nothing left to do, and return what it shows."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    ended = subprocess.run(
        [
            CHROMIUM,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={profile}",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--virtual-time-budget=60000",
            "--dump-dom",
            address,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return _Page(ended.stdout)
