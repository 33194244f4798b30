"""Tests of the pages in a real browser. `tests/browser/try` runs them. Each test has its own server and windows."""
import argparse, os, sys, time, traceback

from playwright.sync_api import sync_playwright

import admin_page, everybody, own_page, sessions  # noqa: F401 each adds its tests
from harness import TESTS, Page, Server


class World:
    """The server and the windows of a test."""

    def __init__(self, browser, binary, pictures, files):
        self.browser, self.pictures, self.files = browser, pictures, files
        self.server = Server(binary)
        self.pages = []

    def page(self, **window):
        self.pages.append(Page(self.browser, self.server, self.pictures, self.files, **window))
        return self.pages[-1]

    def close(self):
        for page in self.pages:
            page.context.close()
        self.server.close()


def main():
    parser = argparse.ArgumentParser()
    for flag in ["--chromium", "--pictures", "--only", "--files"]:
        parser.add_argument(flag)
    default = os.path.join(os.path.dirname(__file__), "../../target/release/totpd")
    parser.add_argument("binary", nargs="?", default=default)
    args = parser.parse_args()
    if args.pictures:
        os.makedirs(args.pictures, exist_ok=True)
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    passed, failed = 0, 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=args.chromium, args=flags)
        for function in TESTS:
            name = function.__name__
            if args.only and args.only not in name:
                continue
            begun = time.monotonic()
            world = World(browser, os.path.abspath(args.binary), args.pictures, args.files)
            try:
                function(world)
                world.server.tells_no_secret()
                passed += 1
                print(f"{name}: passed in {time.monotonic() - begun:.1f} s", flush=True)
            except Exception:
                failed += 1
                for number, page in enumerate(world.pages):
                    if args.pictures:
                        page.page.screenshot(path=f"{args.pictures}/failed-{name}-{number}.png")
                traceback.print_exc()
                print(f"{name}: failed", flush=True)
            finally:
                world.close()
        browser.close()
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


main()
