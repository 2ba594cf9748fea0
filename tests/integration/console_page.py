"""The console as a person meets it: `cloudless console` as a process, its page in a headless Chromium of the system.

Driven by playwright's Python package, which talks to the installed browser and downloads none. Where either is missing,
`find_chromium` says so by a skip.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.tree import ROOT
from tests.integration.cluster import LocalCluster

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Root may not use the sandbox, containers have a small /dev/shm; nothing but our own page is loaded.
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
SHOWN_MS = 25_000
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")

# Notes when a coordinator's card first shows that it does not answer, and when another first leads.
OBSERVE = """old => {
  const seen = window.seen = {};
  const look = () => {
    for (const card of document.querySelectorAll('[data-coordinator]')) {
      const {coordinator, state, leads} = card.dataset;
      if (coordinator === old && state === 'no answer') seen.dead ??= Date.now();
      if (coordinator !== old && leads === 'true') seen.next ??= Date.now();
    }
    if (document.querySelector('#link').dataset.phase === 'lost') seen.lost ??= Date.now();
  };
  new MutationObserver(look).observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
  look();
}"""


def find_chromium() -> str:
    """Return the browser's path; skips the test where there is none, or nothing to drive it with."""
    pytest.importorskip("playwright", reason="playwright is not installed: no browser can be driven")
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("there is no Chromium on this machine (Debian: apt-get install chromium)")
    return found


@contextmanager
def chromium() -> Iterator[Any]:
    """Run one browser; its contexts share nothing."""
    path = find_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def console(cluster: LocalCluster, *http: str, **settings: str | Path) -> Iterator[str]:
    """Run `cloudless console`, which asks the coordinators named `http` in this order; yields the address it prints."""
    given = {**cluster.trust.cli_settings(), "COORDINATORS": ",".join(cluster.api_addresses()), **settings}
    environment = {k: v for k, v in os.environ.items() if k in _KEPT_VARIABLES}
    environment |= {f"CLOUDLESS_{name}": str(value) for name, value in given.items()}
    addresses = [word for name in http for word in ("--http", cluster.processes[name].address("http"))]
    command = [sys.executable, "-m", "cloudless.cli.main", "console", "--no-browser", *addresses]
    process = subprocess.Popen(
        command, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("console: http://127.0.0.1:"), line + process.stdout.read()
        yield line.removeprefix("console: ").strip()
    finally:
        process.terminate()
        try:
            assert process.wait(10.0) == 0
        finally:
            process.kill()
            process.communicate()


def open_page(browser: Any, url: str, **options: Any) -> Any:
    """Return a page that is live; what its scripts complain of is kept in `page.complaints`."""
    page = browser.new_context(**options).new_page()
    visit(page, url, "#link[data-phase=live]")
    return page


def visit(page: Any, url: str, selector: str) -> None:
    """Go to the console and wait until there is what a selector says."""
    page.complaints, page.failed = [], []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("console", lambda said: page.complaints.append(said.text) if "Content Security" in said.text else None)
    page.set_default_timeout(SHOWN_MS)
    page.on("requestfailed", lambda asked: page.failed.append(f"{asked.url}: {asked.failure}"))
    page.goto(url)
    try:
        page.wait_for_selector(selector, state="attached")
    except Exception as error:
        said = page.locator("body").inner_text()[:600]
        raise AssertionError(f"{url} has no {selector}: {said}\n{page.complaints} {page.failed[-5:]}") from error


def go(page: Any, route: str) -> None:
    page.evaluate("route => { location.hash = '#/' + route }", route)


def now_ms() -> float:
    return time.time() * 1000


def wait_seen(page: Any, *names: str) -> dict[str, float]:
    """Wait until the observer has noted these; return all it has."""
    page.wait_for_function("names => names.every(name => window.seen[name])", arg=list(names))
    return dict(page.evaluate("window.seen"))
