"""A totpd and a browser for each test. Every state of the pages must be accessible, fit the window, and log no error.

Every secret that occurs in a test is remembered, and must not be in the server's log."""
import json, os, re, shutil, subprocess, tempfile, time, urllib.request
from urllib.error import HTTPError

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Error

WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# The second window in which each state is checked: dark, and as small as WCAG 1.4.10 demands.
SMALL = {"width": 320, "height": 640}
AXE = {"resultTypes": ["violations"], "runOnly": WCAG, "rules": {"target-size": {"enabled": True}}}
# All tests, in the order of their files.
TESTS = []
# Console messages about refusals and about a stopped server. Tests cause both on purpose.
EXPECTED = ("Failed to load resource",)
# Every token, link, secret and code that occurred in the current test.
SECRETS = set()
# The members of answers that are secret.
SECRET_MEMBERS = {"token", "secret", "codes", "url", "uri"}


def test(function):
    TESTS.append(function)
    return function


def remember(answer):
    """Remembers the secrets in an answer of the API or of a command, and returns the answer."""
    for name, value in answer.items() if isinstance(answer, dict) else []:
        if isinstance(value, dict):
            remember(value)
        elif name in SECRET_MEMBERS:
            SECRETS.update(part.split("#")[-1] for part in ([value] if isinstance(value, str) else value))
    return answer


def remember_request(request):
    """Remembers the secrets in a request of a page."""
    SECRETS.update(value for name, value in request.headers.items() if name == "totpd-code")
    SECRETS.add(request.headers.get("authorization", "").removeprefix("Bearer "))
    sent = json.loads(request.post_data or "null")
    if request.url.endswith(("/_verify", "/_check")) and isinstance(sent, str):
        SECRETS.add(sent)
    elif request.url.endswith("/redeem"):
        SECRETS.add(sent["code"])


class Server:
    """A totpd with its own directory."""

    def __init__(self, binary):
        self.binary = binary
        self.work = tempfile.mkdtemp(prefix="totpd-browser-")
        self.log = open(f"{self.work}/log", "w")
        SECRETS.clear()
        self.admin = remember(json.loads(self.run("init", "--issuer", "Example", "--json")))["token"]["token"]
        self.start()

    def run(self, *args):
        done = subprocess.run([self.binary, "--data-dir", f"{self.work}/data", *args], capture_output=True, text=True)
        assert done.returncode == 0, (args, done.stderr)
        return done.stdout

    def start(self, listen="127.0.0.1:0"):
        command = [self.binary, "--data-dir", f"{self.work}/data", "serve", "--listen", listen, "--log-level", "debug", "--log-format", "json"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.url = self.process.stdout.readline().split()[-1]

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def tells_no_secret(self):
        """Asserts that the log contains no secret. A code must stand alone, because six digits can be a part of an id."""
        with open(f"{self.work}/log") as log:
            lines = [json.loads(line) | {"time": ""} for line in log]
        assert any(line["message"].startswith("GET /ui/") for line in lines), "the log says nothing of the pages"
        secrets = SECRETS - {"", "totpd_nothing"}
        pattern = re.compile("|".join(rf"(?<![\w.]){it}(?!\w)" if it.isdigit() else re.escape(it) for it in secrets))
        told = [line for line in lines if pattern.search(json.dumps(line, ensure_ascii=False))]
        assert not told, f"secrets in the log: {told}"

    def restart(self):
        """Starts the server again at the same address."""
        self.start(self.url.removeprefix("http://"))

    def close(self):
        self.stop()
        shutil.rmtree(self.work)

    def invite(self, user):
        """Creates a link to the user's own page."""
        status, answer = self.ask("POST", f"users/{user}/_invite")
        assert status == 200, answer
        return answer["url"]

    def link(self, *command):
        """Runs a command and returns the link that it prints."""
        return remember(json.loads(self.run(*command, "--json")))["url"]

    def token(self, *args):
        return remember(json.loads(self.run("token", "create", "--json", *args)))

    def ask(self, method, path, body=None, token=None):
        """Calls the API. Returns the status and the answer."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token or self.admin}"}
        request = urllib.request.Request(f"{self.url}/resources/v3alpha/{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, remember(json.load(answer))
        except HTTPError as refusal:
            return refusal.code, json.load(refusal)

    def user(self, username, **more):
        status, answer = self.ask("POST", "users", {"authenticators": {"usernames": [{"username": username}]}, **more})
        assert status == 201, answer
        return answer["details"]["id"]

    def enrol(self, user, name):
        """Enrols over the API with the previous code, so that the current one stays unused. Returns `(totpId, secret)`."""
        _, begun = self.ask("POST", f"users/{user}/totp", {"name": name})
        status, answer = self.ask("POST", f"users/{user}/totp/{begun['totpId']}/_verify", code(begun["secret"], -1))
        assert status == 200, answer
        return begun["totpId"], begun["secret"]

    def check(self, user, typed):
        return self.ask("POST", f"users/{user}/totp/_check", typed)[0]


def code(secret, steps=0):
    """The code that is `steps` steps from now. An earlier code is accepted until the current step ends, so waits if that is soon."""
    left = 30 - time.time() % 30
    if steps < 0 and left < 5:
        time.sleep(left)
    at = f"@{int(time.time()) + 30 * steps}"
    made = subprocess.run(["oathtool", "--totp", "-b", "-N", at, secret], capture_output=True, text=True, check=True).stdout.strip()
    SECRETS.update([secret, made])
    return made


def wrong(secret):
    """A code that is valid at no step near now."""
    good = {code(secret, steps) for steps in range(-3, 4)}
    return next(it for it in (f"{n:06}" for n in range(1000)) if it not in good)


class Page:
    """A page in its own browser window, and the checks for each of its states."""

    def __init__(self, browser, server, pictures, files, width=1000, height=800, dark=False, touch=False):
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", has_touch=touch, locale="en-GB", timezone_id="Europe/Berlin",
            reduced_motion="reduce", permissions=["clipboard-read", "clipboard-write"])
        self.server, self.pictures, self.window, self.dark = server, pictures, {"width": width, "height": height}, dark
        self.said = []
        self.context.on("request", remember_request)
        if files:
            self.context.route(re.compile(r"/(ui/(\w+\.(js|css))?|docs)$"), lambda it: serve_from(files, it))
        self.new_tab()

    def new_tab(self):
        self.page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.page.on("pageerror", lambda it: self.said.append(str(it)))
        self.page.on("console", lambda it: it.type in ("error", "warning") and not it.text.startswith(EXPECTED) and self.said.append(it.text))
        return self.page

    def look(self, state):
        """Checks the state in the page's window, and again in a small window with the other color scheme."""
        self.judge(state, self.window["width"])
        if self.window != SMALL:
            self.page.set_viewport_size(SMALL)
            self.page.emulate_media(color_scheme="light" if self.dark else "dark")
            self.judge(f"{state}-small", SMALL["width"])
            self.page.set_viewport_size(self.window)
            self.page.emulate_media(color_scheme="dark" if self.dark else "light")

    def judge(self, state, width):
        """Takes a screenshot. Asserts that axe finds no fault, the page fits the window, and the console has no error."""
        page = self.page
        if self.pictures:
            page.screenshot(path=f"{self.pictures}/{state}.png", full_page=True)
        found = Axe().run(page, options=AXE).response["violations"]
        faults = [(it["id"], [node["html"][:200] for node in it["nodes"]], it["nodes"][0].get("failureSummary")) for it in found]
        assert not faults, f"{state}: {json.dumps(faults, indent=1)}"
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{state}: {wide} pixels wide"
        assert not self.said, f"{state}: {self.said}"

    def kept(self):
        """Everything that the browser stores for the page. It must be empty."""
        return self.page.evaluate("""async () => [document.cookie, localStorage.length, sessionStorage.length, (await indexedDB.databases()).length,
            (await caches.keys()).length, (await navigator.serviceWorker.getRegistrations()).length].filter(Boolean)""")

    # The actions of a user. Names are those that a screen reader reads out.
    def button(self, name, exact=True):
        return self.page.get_by_role("button", name=name, exact=exact)

    def link(self, name, exact=True):
        return self.page.get_by_role("link", name=name, exact=exact)

    def heading(self, name):
        return self.page.get_by_role("heading", name=name, exact=True)

    def in_dialog(self, name):
        return self.page.get_by_role("dialog").get_by_role("button", name=name, exact=True)

    def field(self, label):
        return self.page.get_by_label(label, exact=True)

    def told(self, text):
        """Waits until the page shows the text."""
        self.page.get_by_text(text).first.wait_for()

    def paste_token(self, token, user=None, at="/ui/"):
        self.page.goto(self.server.url + at)
        self.field("Token").fill(token)
        self.button("Continue").click()
        if user:
            self.field("User id").fill(user)
            self.button("Continue").click()

    def follow(self, link, is_here=False):
        """Follows a link and redeems it. `is_here` keeps the loaded page of this tab."""
        if is_here:
            self.page.evaluate("(link) => { location.href = link; }", link)
        else:
            self.page.goto(link)
        self.heading("Continue with your link").wait_for()
        self.button("Continue").click()

    def as_user(self, user):
        """Opens a user's own page."""
        made = self.server.token("--role", "self", "--user", user)
        self.paste_token(made["token"], user)
        self.heading("Your authenticators").wait_for()
        self.heading("Recovery codes").wait_for()
        return made["id"]

    def as_admin(self):
        self.paste_token(self.server.admin)
        self.heading("Users").wait_for()

    def begin_enrolment(self, name):
        """Starts an enrolment up to the QR code, and returns the key that is shown."""
        self.link("Add an authenticator").click()
        self.field("Name").fill(name)
        self.button("Continue").click()
        self.field("Code from the app").wait_for()
        secret = self.page.locator("p.key").inner_text().replace(" ", "")
        SECRETS.add(secret)
        return secret

    def scanned(self):
        """The content of the QR code in a screenshot of the window."""
        path = f"{self.server.work}/scan.png"
        self.page.screenshot(path=path)
        done = subprocess.run(["zbarimg", "--quiet", "--raw", path], capture_output=True, text=True)
        assert done.returncode == 0, "no camera reads the picture"
        return done.stdout.strip()

    def confirm(self, typed):
        self.field("Code from the app").fill(typed)
        self.button("Confirm").click()

    def enrol(self, name):
        """Enrols with the previous code, so that the current one stays unused."""
        secret = self.begin_enrolment(name)
        self.confirm(code(secret, -1))
        self.told(f"{name} works now")
        return secret


def serve_from(files, route):
    """Answers with a file of a directory instead of the one in the binary, and with the headers of the binary."""
    name = route.request.url.split("/")[-1] or "index.html"
    if name == "docs":
        name = "docs.html"
    with open(f"{files}/{name}") as file:
        text = file.read()
    try:
        route.fulfill(response=route.fetch(), body=text.replace('"./', '"./ui/') if name == "docs.html" else text)
    except Error:
        route.abort()  # The server is gone.


def secret_of(uri):
    assert uri.startswith("otpauth://totp/Example:"), uri
    return re.search(r"secret=([A-Z2-7]+)", uri).group(1)
