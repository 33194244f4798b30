"""The administrator's page: users, their states and authenticators, invitations, and events."""
from playwright.sync_api import expect

from harness import code, test

@test
def an_administrator_finds_a_user_and_removes_the_lost_phone(world):
    for name in ["bob", "carol", "dave"]:
        world.server.user(name)
    alice = world.server.user("alice@example.org", data={"plan": "free"})
    _, secret = world.server.enrol(alice, "Pixel 9")
    page = world.page()
    page.as_admin()
    page.told("4 users")
    page.look("admin-users")
    page.field("Find a user").fill("EXAMPLE")
    page.told("No user fits this search.")
    page.look("admin-none-found")
    page.field("Find a user").fill("ALICE")
    page.told("1 user")
    page.link("alice@example.org").click()
    page.heading("alice@example.org Active").wait_for()
    page.look("admin-user")
    # Removing takes two clicks.
    page.button("Remove Pixel 9").click()
    page.in_dialog("Remove").click()
    page.told("Pixel 9 was removed")
    page.told("Authenticator removed")
    page.look("admin-removed")
    assert world.server.check(alice, code(secret)) == 400
    page.link("All events of this user").click()
    page.heading("Events").wait_for()
    removed = page.page.get_by_role("listitem").filter(has_text="Authenticator removed")
    expect(removed).to_contain_text("Pixel 9")
    page.look("admin-events")


@test
def an_administrator_invites_a_user(world):
    world.server.user("alice")
    admin = world.page()
    admin.as_admin()
    admin.link("alice").click()
    admin.button("Invite").click()
    admin.look("admin-invite")
    admin.field("It works for").select_option(label="one day")
    admin.in_dialog("Make link").click()
    admin.heading("The link is ready").wait_for()
    admin.look("admin-invited")
    link = admin.field("Link").input_value()
    admin.in_dialog("Close").click()
    # The dialog is removed at once, before the browser reports that it was closed.
    assert admin.page.evaluate("document.querySelectorAll('dialog').length") == 0
    assert link not in admin.page.content()
    page = world.page()
    page.follow(link)
    page.heading("Your authenticators").wait_for()
    page.enrol("Phone")
    # A user who was locked in the meantime is told so.
    world.server.run("user", "lock", "alice")
    page.link("Add an authenticator").click()
    page.button("Continue").click()
    page.told("This user is locked or deactivated.")
    expect(page.field("Name")).not_to_have_attribute("aria-invalid", "true")
    page.look("user-locked")


@test
def an_administrator_comes_by_a_link(world):
    link = world.server.link("open")
    page = world.page()
    page.follow(link)
    page.heading("Users").wait_for()
    page.told("You are signed in until")
    page.look("admin-by-link")
    assert "#" not in page.page.evaluate("location.href")
    page.new_tab()
    page.follow(link)
    page.heading("This link does not work any more").wait_for()


@test
def an_administrator_changes_the_state_of_a_user(world):
    world.server.user("bob")
    page = world.page()
    page.as_admin()
    page.button("New user").click()
    page.look("admin-create")
    page.field("Username").fill("bob")
    page.in_dialog("Make user").click()
    page.told("There is a user with that name or id already.")
    page.field("Username").fill("alice")
    page.in_dialog("Make user").click()
    page.told("alice was made.")
    for act, state, undo in [("Lock", "Locked", "Unlock"), ("Deactivate", "Deactivated", "Activate")]:
        page.button(act).click()
        page.look(f"admin-{act.lower()}")
        page.in_dialog(act).click()
        page.heading(f"alice {state}").wait_for()
        page.look(f"admin-{state.lower()}")
        page.button(undo).click()
        page.heading("alice Active").wait_for()
    page.button("End a wait").click()
    page.told("A wait, if there was one, is over.")


@test
def events_appear_by_themselves_and_are_filtered(world):
    alice = world.server.user("alice")
    page = world.page()
    page.as_admin()
    page.link("Events").click()
    page.page.get_by_role("listitem").filter(has_text="User made").wait_for()
    bob = world.server.user("bob")
    rows = page.page.get_by_role("listitem")
    expect(rows.filter(has_text=bob)).to_have_count(1, timeout=15_000)
    page.field("What").select_option(label="User locked")
    page.told("Nothing fits these filters.")
    page.look("admin-no-events")
    world.server.run("user", "lock", "alice")
    locked = rows.filter(has_text="User locked")
    expect(locked).to_have_count(1, timeout=15_000)
    expect(locked).to_contain_text("by the command line")
    page.field("User id").fill(bob)
    page.told("Nothing fits these filters.")
    page.field("What").select_option(label="Everything")
    expect(rows).to_have_count(1)
    page.field("User id").fill("")
    page.field("When").select_option(label="The last hour")
    expect(rows.filter(has_text=alice).first).to_be_visible()
    # Many users are shown in pages.
    for n in range(60):
        world.server.user(f"user-{n}")
    page.page.evaluate("location.hash = '#/users'")
    page.button("Show more").click()
    expect(page.page.get_by_role("listitem")).to_have_count(62)
    page.link("Events").click()
    page.button("Show older ones").click()
    expect(rows.filter(has_text="Instance made")).to_have_count(1)


@test
def a_manager_sees_one_organization(world):
    org = world.server.run("org", "create", "Shop", "--json").split('"id":"')[1].split('"')[0]
    world.server.user("alice")
    world.server.run("user", "create", "bob", "--org", org)
    page = world.page()
    page.paste_token(world.server.token("--role", "manager", "--org", org)["token"])
    page.told("1 user")
    page.link("bob").wait_for()
    page.button("New user").click()
    page.field("Username").fill("carol")
    page.in_dialog("Make user").click()
    page.told("carol was made.")
    page.page.evaluate("location.hash = '#/users/nobody'")
    page.told("There is no such user.")
    page.look("admin-no-user")
