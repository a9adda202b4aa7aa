"""HTML pages as tests read them: as text, and in a browser where one is installed."""

import shutil
import subprocess
from html.parser import HTMLParser

from tests.conftest import HANGS_AFTER

VOID = {"meta", "link", "img", "br", "hr", "input", "wbr"}
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), ""
)


class Page(HTMLParser):
    """Reads a page and holds every tag against its end."""

    def __init__(self, text):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data + " "

    def count(self, name):
        return sum(tag == name for tag, _ in self.tags)


def browse(page, *flags):
    """Open a page in Chromium with a profile beside it; its console is on standard error."""
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             f"--user-data-dir={page.parent / 'profile'}", "--enable-logging=stderr"]  # fmt: skip
    return subprocess.run(
        [CHROMIUM, *quiet, *flags, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=HANGS_AFTER,
        check=True,
    )
