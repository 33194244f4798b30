"""Starting and ending a session: links, tokens, expiry, a stopped server, tabs, and the back button."""
import urllib.request

from playwright.sync_api import expect

from harness import test

@test
def a_link_is_good_once_and_leaves_no_trace(world):
    alice = world.server.user("alice")
    page = world.page()
    before = page.page.evaluate("history.length")
    link = world.server.invite(alice)
    assert link.startswith(world.server.url + "/ui/#"), link
    # The code is sent only in the body of the request that redeems it.
    asked = []
    page.page.on("request", lambda it: asked.append((it.url, it.headers.get("referer"))))
    page.follow(link)
    page.heading("Your authenticators").wait_for()
    page.told("You are signed in until")
    page.look("user-by-link")
    secret = link.split("#")[1]
    assert "#" not in page.page.evaluate("location.href")
    assert page.page.evaluate("history.length") == before + 1
    assert not any(secret in url or referrer for url, referrer in asked), asked
    assert page.kept() == []
    with open(f"{world.server.work}/log") as log:
        assert secret not in log.read()
    page.enrol("Phone")

    # The same link in another tab does not work, and does not affect the first tab.
    first = page.page
    page.new_tab()
    page.follow(link)
    page.heading("This link does not work any more").wait_for()
    page.look("link-used")
    page.page = first
    page.button("Rename Phone").click()
    page.field("Name").fill("Tablet")
    page.in_dialog("Save").click()
    page.told("It is called Tablet now.")

    # It does not work in a tab with a session either.
    page.follow(link, is_here=True)
    page.told("This link does not work any more")
    page.button("Rename Tablet").wait_for()

    # A newer link in the same tab starts a new session and ends the old one.
    page.follow(world.server.invite(alice), is_here=True)
    page.told("You are signed in until")
    page.button("Rename Tablet").wait_for()
    page.page.reload()
    page.heading("Sign in").wait_for()


@test
def a_link_that_is_only_looked_at_is_not_used_up(world):
    link = world.server.invite(world.server.user("alice"))
    # Programs that check links in mail: one only loads the page, and one runs its scripts.
    with urllib.request.urlopen(link) as answer:
        assert answer.status == 200
    page = world.page()
    asked = []
    page.page.on("request", lambda it: asked.append(it.method))
    page.page.goto(link)
    page.heading("Continue with your link").wait_for()
    page.page.wait_for_load_state("networkidle")
    page.told("totpd")
    page.look("link")
    assert set(asked) == {"GET"}, asked
    page.page.close()
    page.new_tab()
    page.follow(link)
    page.heading("Your authenticators").wait_for()


@test
def no_other_page_can_put_this_one_in_a_frame_or_hold_its_window(world):
    link = world.server.invite(world.server.user("alice"))
    page = world.page()
    other = f"""<iframe src="{world.server.url}/ui/"></iframe><iframe src="{world.server.url}/docs"></iframe>
        <button onclick="window.opened = window.open('{link}')">Open</button>"""
    page.context.route("http://127.0.0.2/", lambda it: it.fulfill(body=other, content_type="text/html"))
    page.page.goto("http://127.0.0.2/")
    frames = page.page.frames[1:]
    assert len(frames) == 2
    for frame in frames:
        frame.wait_for_load_state()
        assert frame.locator("body").inner_text().count("totpd") == 0 and frame.locator("main").count() == 0, frame.url
    with page.context.expect_page() as opened:
        page.button("Open").click()
    opened.value.get_by_role("heading", name="Continue with your link").wait_for()
    assert opened.value.evaluate("window.opener") is None
    assert page.page.evaluate("opened.closed")


@test
def a_link_waits_for_a_server_that_is_gone(world):
    alice = world.server.user("alice")
    link = world.server.invite(alice)
    page = world.page()
    page.page.goto(world.server.url + "/ui/")
    page.heading("Sign in").wait_for()
    world.server.stop()
    page.follow(link, is_here=True)
    page.button("Try again").wait_for()
    page.look("link-outage")
    world.server.restart()
    page.told("The server answers again.")
    page.button("Try again").click()
    page.heading("Your authenticators").wait_for()


@test
def a_token_that_can_do_nothing_here_is_told_so(world):
    page = world.page()
    page.page.goto(world.server.url + "/")
    page.heading("Sign in").wait_for()
    page.look("sign-in")
    page.page.get_by_text("Where do I get one?").click()
    page.look("sign-in-how")
    page.button("Continue").click()
    page.told("Paste a token first.")
    page.field("Token").fill("totpd_nothing")
    page.button("Continue").click()
    page.told("This token is not known here.")
    page.look("sign-in-unknown")
    page.field("Token").fill(world.server.token("--role", "checker", "--all-orgs")["token"])
    page.button("Continue").click()
    page.told("This token belongs to a login form")
    page.look("sign-in-checker")
    user = world.server.user("alice")
    page.field("Token").fill(world.server.token("--role", "self", "--user", user)["token"])
    page.button("Continue").click()
    page.told("This token belongs to one user.")
    page.field("User id").fill("another")
    page.button("Continue").click()
    page.told("You may not do this.")
    page.field("User id").fill(user)
    page.button("Continue").click()
    page.heading("Your authenticators").wait_for()


@test
def a_token_that_is_revoked_ends_the_page(world):
    alice = world.server.user("alice")
    page = world.page()
    token = page.as_user(alice)
    page.enrol("Phone")
    world.server.run("token", "revoke", token)
    page.button("Remove Phone").click()
    page.in_dialog("Remove").click()
    page.heading("Your access has ended").wait_for()
    expect(page.page.get_by_role("dialog")).to_have_count(0)
    page.look("ended-refused")
    page.button("Sign in with a token").click()
    page.heading("Sign in").wait_for()


@test
def a_page_ends_with_its_token(world):
    page = world.page()
    page.page.clock.install()
    page.follow(world.server.invite(world.server.user("alice")))
    page.heading("Your authenticators").wait_for()
    page.page.clock.run_for(3_470_000)
    expect(page.page.locator("#notice")).to_be_empty()
    page.page.clock.run_for(20_000)
    page.told("You will be signed out in two minutes.")
    page.look("ends-soon")
    page.page.clock.run_for(120_000)
    page.heading("Your time is over").wait_for()
    page.look("ended-expired")


@test
def a_server_that_stops_and_starts_is_waited_for(world):
    alice = world.server.user("alice")
    page = world.page()
    page.as_user(alice)
    page.enrol("Phone")
    page.button("Rename Phone").click()
    page.field("Name").fill("Tablet")
    world.server.stop()
    page.in_dialog("Save").click()
    page.told("The server did not answer, so this may be done or not.")
    page.told("The server does not answer.")
    page.look("outage")
    world.server.restart()
    page.told("The server answers again.")
    page.in_dialog("Save").click()
    page.told("It is called Tablet now.")
    # A view that cannot be loaded says so, and appears when the server is back.
    world.server.stop()
    page.link("Add an authenticator").click()
    page.page.go_back()
    page.told("The server does not answer.")
    page.button("Try again").wait_for()
    page.look("outage-view")
    world.server.restart()
    page.button("Rename Tablet").wait_for()


@test
def whoever_leaves_is_forgotten(world):
    alice = world.server.user("alice")
    page = world.page()
    page.as_user(alice)
    page.link("Add an authenticator").click()
    page.heading("Add an authenticator").wait_for()
    page.page.go_back()
    page.heading("Your authenticators").wait_for()
    # The browser sends this event when it keeps a page for its back button. This browser may not keep any.
    page.page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    page.heading("You left this page").wait_for()
    page.look("ended-left")
    # Codes that were shown once are gone from the page at once, without a notice.
    page.as_user(alice)
    page.enrol("Phone")
    page.button("Make recovery codes").click()
    page.in_dialog("Make recovery codes").click()
    page.heading("Your recovery codes").wait_for()
    first = page.page.get_by_role("dialog").get_by_role("listitem").first.inner_text()
    left = page.page.evaluate("""() => { dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true })); return document.documentElement.outerHTML; }""")
    assert first not in left
    page.heading("You left this page").wait_for()
    expect(page.page.locator("#notice")).to_be_empty()
    assert page.page.title() == "You left this page · totpd"
    page.as_user(alice)
    page.page.goto("about:blank")
    page.page.go_back()
    # The session has ended, whether the browser kept the page or loads it again.
    page.page.get_by_role("heading", level=1).filter(has_text="Sign in").or_(page.heading("You left this page")).wait_for()
    expect(page.page.get_by_text("alice")).to_have_count(0)
    page.as_user(alice)
    page.button("Sign out").click()
    page.heading("You are signed out").wait_for()
    page.look("ended-signed-out")
    page.page.reload()
    page.heading("Sign in").wait_for()


@test
def two_tabs_do_not_disturb_each_other(world):
    alice = world.server.user("alice")
    page = world.page()
    page.as_user(alice)
    page.enrol("Phone")
    first = page.page
    page.new_tab()
    page.as_user(alice)
    page.button("Remove Phone").click()
    page.in_dialog("Remove").click()
    page.told("Phone was removed")
    # The first tab still shows it. Removing it again succeeds.
    page.page = first
    page.button("Rename Phone").click()
    page.in_dialog("Save").click()
    page.told("It is gone already.")
    page.button("Cancel").click()
    page.button("Remove Phone").click()
    page.in_dialog("Remove").click()
    page.told("You have no authenticator yet")
