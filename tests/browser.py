"""A real browser, without a window: Debian's chromium, by its chromedriver."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support import expected_conditions
from selenium.webdriver.support.ui import WebDriverWait

WAIT = 20.0


def find_browser() -> tuple[str, str] | None:
    """The paths of chromium and chromedriver, if both are there and run."""
    found = [shutil.which(name) for name in ("chromium", "chromedriver")]
    programs = [path for path in found if path is not None]
    # Ubuntu's packages of these names are empty, and say that there is a snap.
    if len(programs) < 2 or any(not _runs(path) for path in programs):
        return None
    return programs[0], programs[1]


def _runs(path: str) -> bool:
    return subprocess.run([path, "--version"], capture_output=True, check=False, timeout=60).returncode == 0


class Browser:
    """Goes to pages, reads them, fills them in."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        # Between two pages the driver may say that an element belongs to neither.
        self._waiting = WebDriverWait(driver, WAIT, ignored_exceptions=[WebDriverException])

    def find(self, selector: str) -> WebElement:
        """The one element that a CSS selector finds, once it is there."""
        condition = expected_conditions.presence_of_element_located((By.CSS_SELECTOR, selector))
        return self._waiting.until(condition)

    def click(self, words: str) -> None:
        """Press the button with these words, and wait until the page has gone."""
        page = self.find("html")
        self.driver.find_element(By.XPATH, f"//button[normalize-space()='{words}']").click()
        self._waiting.until(expected_conditions.staleness_of(page))

    @property
    def text(self) -> str:
        """What a person reads on the page."""
        return self.find("body").text

    def told(self) -> list[str]:
        """What the browser has told developers: what the page's policy forbids, for one."""
        entries = self.driver.get_log("browser")  # type: ignore[no-untyped-call]  # selenium's own omission
        return [str(entry["message"]) for entry in entries]


@contextmanager
def browser(programs: tuple[str, str], folder: Path) -> Iterator[Browser]:
    """A browser with a profile of its own."""
    chromium, chromedriver = programs
    options = Options()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in (
        "--headless=new",
        "--no-sandbox",  # root, in a container, has no namespaces to give; it sees our page alone
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--no-proxy-server",
        f"--user-data-dir={folder}",
    ):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
