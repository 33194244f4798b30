"""Rules for every page: use with only the keyboard, small and dark windows, and user text that never becomes markup."""
from urllib.parse import quote

from playwright.sync_api import expect

from harness import SMALL, code, secret_of, test, wrong

HOSTILE = [
    "<script>window.hit=1</script>",
    "<img src=x onerror=\"window.hit=1\">",
    "\"><svg onload=window.hit=1>",
    "javascript:window.hit=1",
    "{{constructor.constructor('window.hit=1')()}}",
]


@test
def everything_is_done_by_keyboard(world):
    alice = world.server.user("alice")
    token = world.server.token("--role", "self", "--user", alice)["token"]
    page = world.page()
    keyboard = page.page.keyboard
    page.page.goto(world.server.url + "/ui/")
    page.heading("Sign in").wait_for()

    def to(name):
        """Presses Tab until the element has the focus, which must be visible."""
        for _ in range(40):
            keyboard.press("Tab")
            found = page.page.evaluate("""() => { const it = document.activeElement; const style = getComputedStyle(it);
                return [it.getAttribute('aria-label') ?? it.labels?.[0]?.innerText ?? it.innerText, style.outlineStyle]; }""")
            if found[0] == name:
                assert found[1] != "none", f"the focus on {name} is not seen"
                return
        raise AssertionError(f"Tab does not lead to {name}")

    to("Token")
    keyboard.insert_text(token)
    keyboard.press("Enter")
    page.field("User id").wait_for()
    keyboard.insert_text(alice)
    keyboard.press("Enter")
    page.told("You have no authenticator yet")
    to("Add an authenticator")
    keyboard.press("Enter")
    page.field("Name").wait_for()
    to("Name")
    keyboard.type("Phone")
    keyboard.press("Enter")
    page.field("Code from the app").wait_for()
    secret = page.page.locator("p.key").inner_text().replace(" ", "")
    to("Code from the app")
    keyboard.type(code(secret))
    keyboard.press("Enter")
    page.told("Phone works now")
    to("Rename Phone")
    keyboard.press("Enter")
    page.heading("Rename this authenticator").wait_for()
    keyboard.press("Escape")
    expect(page.button("Rename Phone")).to_be_focused()
    keyboard.press("Enter")
    page.field("Name").fill("")
    keyboard.type("Tablet")
    keyboard.press("Enter")
    page.told("It is called Tablet now.")
    to("Make recovery codes")
    keyboard.press("Enter")
    keyboard.press("Enter")
    page.heading("Your recovery codes").wait_for()
    to("I have saved them")
    keyboard.press("Enter")
    page.told("10 codes are left.")
    to("Remove Tablet")
    keyboard.press("Enter")
    page.heading("Remove Tablet?").wait_for()
    # Enter does not trigger an action that cannot be undone.
    expect(page.in_dialog("Cancel")).to_be_focused()
    keyboard.press("Shift+Tab")
    keyboard.press("Enter")
    page.told("Tablet was removed")
    to("Sign out")
    keyboard.press("Enter")
    page.heading("You are signed out").wait_for()


@test
def a_small_and_dark_window_shows_everything(world):
    alice = world.server.user("alice" + "withalongname" * 12)
    page = world.page(width=320, height=640, dark=True, touch=True)
    page.page.goto(world.server.url + "/ui/")
    page.heading("Sign in").wait_for()
    page.look("small-sign-in")
    page.as_user(alice)
    page.look("small-empty")
    page.link("Add an authenticator").click()
    page.field("Name").fill("Phone")
    page.button("Continue").click()
    page.field("Code from the app").wait_for()
    page.look("small-scan")
    page.page.locator("img.qr").scroll_into_view_if_needed()
    secret = secret_of(page.scanned())
    page.confirm(wrong(secret))
    page.told("That code is not right")
    page.look("small-wrong")
    page.confirm(code(secret))
    page.told("Phone works now")
    page.look("small-one")
    page.button("Make recovery codes").click()
    page.in_dialog("Make recovery codes").click()
    page.heading("Your recovery codes").wait_for()
    page.look("small-recovery")
    page.in_dialog("I have saved them").click()
    page.as_admin()
    page.look("small-users")
    page.page.get_by_role("listitem").first.get_by_role("link").click()
    page.button("Remove Phone").wait_for()
    page.look("small-user")
    page.link("Events").click()
    page.page.get_by_role("listitem").filter(has_text="Authenticator confirmed").wait_for()
    page.look("small-events")


@test
def a_dark_window_shows_everything(world):
    alice = world.server.user("alice", data={"plan": "free"})
    page = world.page(dark=True)
    page.as_user(alice)
    secret = page.begin_enrolment("Pixel 9")
    page.look("dark-scan")
    assert secret_of(page.scanned()) == secret
    page.confirm(wrong(secret))
    page.told("That code is not right")
    page.look("dark-wrong")
    page.confirm(code(secret))
    page.told("Pixel 9 works now")
    world.server.ask("POST", f"users/{alice}/totp", {"name": "Tablet"})
    page.page.evaluate("location.hash = '#/again'")
    page.told("Not finished")
    page.look("dark-user")
    page.button("Remove Pixel 9").click()
    page.look("dark-remove")
    page.button("Cancel").click()
    page.as_admin()
    page.link("alice").click()
    page.button("Lock").click()
    page.look("dark-lock")
    page.in_dialog("Lock").click()
    page.heading("alice Locked").wait_for()
    page.look("dark-locked")
    page.link("Events").click()
    page.page.get_by_role("listitem").filter(has_text="Wrong code").wait_for()
    page.look("dark-events")


@test
def what_people_fill_in_stays_text(world):
    server = world.server
    page = world.page()
    page.page.add_init_script("window.blocked = []; addEventListener('securitypolicyviolation', (it) => blocked.push(it.violatedDirective))")
    for n, text in enumerate(HOSTILE):
        user = server.user(f"{text}{n}", userId=f"id{n}{text}", data={text: text})
        path = f"users/{quote(user, safe='')}/totp"
        server.ask("POST", path, {"name": text})
        server.run("token", "create", "--role", "admin", "--name", text)
        server.run("org", "create", f"{text} {n}")
    first = server.user(HOSTILE[1])
    server.enrol(first, HOSTILE[0])

    def inert(state):
        hit, made = page.page.evaluate("[window.hit, document.querySelectorAll('main script, main svg, main img:not(.qr), main [onload], main [onerror]').length]")
        assert hit is None and made == 0, (state, hit, made)
        assert page.page.evaluate("window.blocked") == [], state
        assert not page.said, (state, page.said)

    page.as_user(first)
    page.told(HOSTILE[0])
    inert("user")
    page.button(f"Rename {HOSTILE[0]}").click()
    page.field("Name").fill(HOSTILE[2])
    page.in_dialog("Save").click()
    page.told(f"It is called {HOSTILE[2]} now.")
    inert("renamed")
    page.button(f"Remove {HOSTILE[2]}").click()
    page.heading(f"Remove {HOSTILE[2]}?").wait_for()
    inert("remove")
    page.as_admin()
    page.told(HOSTILE[0])
    inert("users")
    for n, text in enumerate(HOSTILE):
        page.page.evaluate("(id) => { location.hash = '#/users/' + encodeURIComponent(id); }", f"id{n}{text}")
        page.heading(f"{text}{n} Active").wait_for()
        page.told(text)
        inert(f"user {n}")
        for act in ["Lock", "Invite"]:
            page.button(act).click()
            page.page.get_by_role("dialog").get_by_text(text).first.wait_for()
            inert(f"{act} {n}")
            page.button("Cancel").click()
    page.link("Events").click()
    page.page.get_by_role("listitem").filter(has_text="Organization made").first.wait_for()
    inert("events")
    page.look("hostile-events")

    # If text became markup nevertheless, the browser's policy would refuse to run it.
    refused = page.page.evaluate("""async () => {
        const tries = { markup: () => { document.body.innerHTML = '<img src=x onerror="window.hit=1">'; },
            script: () => { document.createElement('script').textContent = 'window.hit=1'; },
            attribute: () => { document.body.setAttribute('onclick', 'window.hit=1'); document.body.click(); if (!window.hit) throw 1; },
            image: () => new Promise((done, no) => { const it = new Image(); it.onload = done; it.onerror = no; it.src = 'http://127.0.0.2/x'; }),
            elsewhere: () => fetch('http://127.0.0.2/') };
        const refused = [];
        for (const [name, attempt] of Object.entries(tries)) try { await attempt(); } catch { refused.push(name); }
        return refused;
    }""")
    assert refused == ["markup", "script", "attribute", "image", "elsewhere"], refused
    assert page.page.evaluate("window.hit") is None
    assert {"require-trusted-types-for", "connect-src", "img-src"} <= set(page.page.evaluate("window.blocked")), page.page.evaluate("window.blocked")


@test
def the_description_of_the_api_is_read_in_any_window(world):
    for dark in [False, True]:
        page = world.page(dark=dark)
        name = "dark-docs" if dark else "docs"
        page.page.goto(world.server.url + "/docs#TOTPService_CheckTOTP")
        # The page scrolls to the call in the address once the description is loaded.
        expect(page.page.get_by_role("heading", name="Check a code", exact=True)).to_be_in_viewport()
        expect(page.page.get_by_text("text or text")).to_have_count(0)
        page.look(name)
        page.page.locator("#TOTPService_CheckTOTP summary").click()
        page.page.locator("#TOTPService_CheckTOTP").get_by_text("The code is wrong.").wait_for()
        page.field("Find a call").fill("no such call")
        page.told("0 of 26 calls")
        page.look(f"{name}-none")
    world.server.stop()
    page.page.route("**/openapi.json", lambda it: it.abort())
    world.server.restart()
    page.page.reload()
    page.told("The description could not be read")
    page.look("docs-outage")


@test
def the_description_of_the_api_is_read_by_keyboard(world):
    page = world.page(**SMALL)
    page.page.goto(world.server.url + "/docs")
    page.page.get_by_role("heading", level=2).first.wait_for()
    press = page.page.keyboard.press

    def focused():
        return page.page.evaluate("""() => { const it = document.activeElement; const seen = it.getBoundingClientRect();
            const style = getComputedStyle(it);
            if (it.id !== 'calls' && (style.outlineStyle === 'none' || seen.right < 0 || seen.bottom < 0 || seen.top > innerHeight)) return `${it.outerHTML} is not seen`;
            return it.labels?.[0]?.innerText ?? (it.id || it.innerText); }""")

    def to(name):
        for _ in range(60):
            press("Tab")
            if focused() == name:
                return
        raise AssertionError(f"Tab does not lead to {name}")

    press("Tab")
    assert focused() == "Skip to the calls", focused()
    press("Enter")
    assert focused() == "calls", focused()
    # Content wider than the window can be scrolled with the keyboard.
    to(page.page.locator("#ZITADELUsers_CreateUser pre").first.inner_text())
    before = page.page.evaluate("document.activeElement.scrollWidth - document.activeElement.clientWidth")
    press("ArrowRight")
    page.page.wait_for_function("(wide) => !wide || document.activeElement.scrollLeft > 0", arg=before)
    to("Refusals")
    press("Enter")
    page.told("A field is malformed")
    # In a small window the menu is closed.
    page.page.goto("about:blank")
    page.page.goto(world.server.url + "/docs")
    page.page.get_by_role("heading", level=2).first.wait_for()
    press("Tab")
    press("Tab")
    assert focused() == "Calls", focused()
    press("Enter")
    to("Find a call")
    page.page.keyboard.type("recovery")
    page.told("4 of 26 calls")
    to("Check a recovery code")
    press("Enter")
    expect(page.page.get_by_role("heading", name="Check a recovery code")).to_be_in_viewport()
    # The next Tab moves within that call, not from the start of the page.
    press("Tab")
    assert page.page.evaluate("document.activeElement.closest('article')?.id") == "RecoveryCodeService_CheckRecoveryCode", focused()
    assert not page.said, page.said
