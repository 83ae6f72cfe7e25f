"""Take the screenshots of docs/deploy.md from a server on this machine: `python -m scripts.server_guide FOLDER`.

FOLDER is the server's, with the names that it has without a domain. The demo should have run on it.
"""

import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page

from scripts.screenshots import PICTURES, chromium

LABELS, LOOP = "https://labels.localhost", "https://loop.localhost"


def passwords(server: Path) -> dict[str, str]:
    """Return the passwords of the server's first accounts, by name."""
    done = subprocess.run([server / "deploy" / "maskloop", "passwords"], check=True, capture_output=True, text=True)
    return dict(line.split(": ", 1) for line in done.stdout.splitlines())


def labels(page: Page, password: str) -> None:
    """Take the login page of labelers, and the page that invites them."""
    page.goto(f"{LABELS}/user/login/")
    page.screenshot(path=PICTURES / "server-login.jpg", type="jpeg", quality=80)
    page.fill("input[name=email]", "admin@maskloop.local")
    page.fill("input[name=password]", password)
    page.click("button[type=submit]")
    page.wait_for_url(lambda url: "/user/login" not in url, wait_until="domcontentloaded")
    page.wait_for_timeout(4000)  # the first page redirects
    page.goto(f"{LABELS}/organization")
    page.locator("button:has-text('Add Members')").click()
    page.wait_for_timeout(2000)
    page.screenshot(path=PICTURES / "server-invite.jpg", type="jpeg", quality=80)


def loop(page: Page, password: str) -> None:
    """Take the first page of engineers, and the page with their accounts."""
    page.goto(f"{LOOP}/auth/login/")
    page.fill("input[name=username]", "admin")
    page.fill("input[name=password]", password)
    page.click("[type=submit]")
    page.wait_for_url(f"{LOOP}/**")
    page.wait_for_timeout(4000)
    page.screenshot(path=PICTURES / "server-airflow.jpg", type="jpeg", quality=80)
    page.goto(f"{LOOP}/auth/users/list/")
    page.wait_for_timeout(2000)
    page.screenshot(path=PICTURES / "server-users.jpg", type="jpeg", quality=80)


def main() -> None:
    """Take all screenshots."""
    known = passwords(Path(sys.argv[1]))
    # The names resolve on this machine only, and the certificate is self-signed.
    with chromium("--host-resolver-rules=MAP *.localhost 127.0.0.1") as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 640}, ignore_https_errors=True)
        labels(page, known["maskloop_label_studio_password"])
        loop(page, known["maskloop_airflow_password"])


if __name__ == "__main__":
    main()
