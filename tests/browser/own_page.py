"""A user's own page: adding, renaming, replacing and removing authenticators, and making recovery codes."""
from playwright.sync_api import expect

from harness import SECRETS, code, secret_of, test, wrong

@test
def two_are_added_and_the_first_is_removed(world):
    alice = world.server.user("alice")
    page = world.page()
    page.as_user(alice)
    page.told("You have no authenticator yet")
    page.look("user-empty")

    page.link("Add an authenticator").click()
    page.field("Name").fill("Pixel 9")
    page.look("user-add-name")
    page.button("Continue").click()
    page.field("Code from the app").wait_for()
    page.told("9:5")
    page.look("user-add-scan")
    # The QR code for a camera, the key for typing, and the link for a phone contain the same secret.
    first = secret_of(page.scanned())
    assert page.page.locator("p.key").inner_text().replace(" ", "") == first
    link = page.link("Open on this device").get_attribute("href")
    assert secret_of(link) == first
    page.page.get_by_role("button").filter(has_text="Copy key").click()
    page.told("Copied")
    assert page.page.evaluate("navigator.clipboard.readText()") == first

    page.confirm("")
    page.told("Type the code that the app shows.")
    page.confirm(wrong(first))
    page.told("That code is not right")
    page.look("user-add-wrong")
    # Pasted in the form in which apps show it.
    good = code(first)
    page.confirm(f" {good[:3]} {good[3:]} ")
    page.told("Pixel 9 works now")
    page.look("user-one")
    assert world.server.check(alice, code(first, 1)) == 200

    second = page.enrol("Tablet")
    page.look("user-two")
    page.button("Remove Pixel 9").click()
    page.heading("Remove Pixel 9?").wait_for()
    page.look("user-remove")
    page.in_dialog("Remove").click()
    page.told("Pixel 9 was removed")
    expect(page.button("Remove Pixel 9")).to_have_count(0)
    assert world.server.check(alice, code(first, 1)) != 200
    assert world.server.check(alice, code(second)) == 200
    assert page.kept() == []


@test
def one_is_renamed_and_replaced(world):
    alice = world.server.user("alice")
    page = world.page()
    page.as_user(alice)
    old = page.enrol("Phone")
    page.button("Rename Phone").click()
    page.look("user-rename")
    page.field("Name").fill("Old phone")
    page.in_dialog("Save").click()
    page.told("It is called Old phone now.")
    page.button("Replace Old phone").click()
    page.heading("Replace Old phone").wait_for()
    page.look("user-replace")
    page.field("Name").fill("New phone")
    page.button("Continue").click()
    page.field("Code from the app").wait_for()
    new = secret_of(page.scanned())
    # Until the new authenticator is confirmed the old one is accepted.
    assert world.server.check(alice, code(old)) == 200
    page.confirm(code(new))
    page.told("New phone works now, and Old phone was removed.")
    assert world.server.check(alice, code(old, 1)) == 400
    assert world.server.check(alice, code(new, 1)) == 200


@test
def recovery_codes_are_shown_once_and_can_be_kept(world):
    alice = world.server.user("alice")
    page = world.page()
    page.as_user(alice)
    page.told("You can make some when you have an authenticator.")
    page.enrol("Phone")
    page.button("Make recovery codes").click()
    page.look("user-recovery-ask")
    page.in_dialog("Make recovery codes").click()
    page.heading("Your recovery codes").wait_for()
    page.look("user-recovery")
    codes = page.page.get_by_role("listitem").all_inner_texts()
    codes = [it for it in codes if it.count("-") == 3]
    assert len(codes) == 10, codes
    SECRETS.update(codes)
    with page.page.expect_download() as download:
        page.in_dialog("Download").click()
    with open(download.value.path()) as file:
        assert all(it in file.read() or file.seek(0) for it in codes[:1])
    page.page.emulate_media(media="print")
    shown = page.page.evaluate("[...document.body.children].filter((it) => it.checkVisibility()).map((it) => it.tagName)")
    assert shown == ["DIALOG"], shown
    page.page.emulate_media(media="screen")
    # Closing the page asks for confirmation.
    with page.page.expect_event("dialog") as asked:
        page.page.close(run_before_unload=True)
    assert asked.value.type == "beforeunload"
    asked.value.dismiss()
    # Neither Escape nor the back button hides the codes.
    page.page.keyboard.press("Escape")
    page.page.go_back()
    page.page.locator("h1", has_text="Add an authenticator").wait_for(state="attached")
    assert page.page.get_by_role("dialog").get_by_text(codes[0]).is_visible()
    page.in_dialog("I have saved them").click()
    page.told("Your recovery codes are ready.")
    page.told("10 codes are left.")
    for it in codes[:7]:
        assert world.server.ask("POST", f"users/{alice}/recovery_codes/_check", it)[0] == 200
    page.page.evaluate("location.hash = '#/again'")
    page.told("Only 3 codes are left.")
    page.look("user-recovery-few")
    page.button("Make new ones").click()
    page.told("The 3 codes that you have stop working.")
    page.button("Cancel").click()
    page.button("Remove all").click()
    page.in_dialog("Remove all").click()
    page.told("All recovery codes were removed.")


@test
def an_enrolment_that_is_left_is_shown_and_discarded(world):
    alice = world.server.user("alice")
    page = world.page()
    page.as_user(alice)
    page.begin_enrolment("Phone")
    page.page.go_back()
    page.heading("Your authenticators").wait_for()
    page.told("Not finished")
    page.look("user-pending")
    page.button("Discard Phone").click()
    page.told("You have no authenticator yet")
    # A cancelled enrolment is removed at once.
    page.begin_enrolment("Phone")
    page.button("Cancel").click()
    page.told("You have no authenticator yet")
    expect(page.page.get_by_text("Not finished")).to_have_count(0)


@test
def the_time_to_confirm_runs_out(world):
    alice = world.server.user("alice")
    page = world.page()
    page.page.clock.install()
    page.as_user(alice)
    page.begin_enrolment("Phone")
    page.page.clock.run_for(541_000)
    page.told("0:5")
    page.page.clock.run_for(70_000)
    page.heading("The time to confirm is over").wait_for()
    page.look("user-add-over")
    page.button("Start again").click()
    page.heading("Add an authenticator").wait_for()


@test
def wrong_codes_lead_to_a_wait_that_counts_down(world):
    alice = world.server.user("alice")
    page = world.page()
    page.page.clock.install()
    page.as_user(alice)
    secret = page.begin_enrolment("Phone")
    for _ in range(5):
        page.confirm(wrong(secret))
        page.button("Confirm").wait_for()
        page.told("That code is not right")
    page.confirm(code(secret))
    page.told("Too many wrong codes.")
    page.told("You can try again in 0:")
    page.look("user-wait")
    page.page.clock.run_for(31_000)
    page.told("You can try again now.")
    world.server.run("user", "unlock", "alice")
    page.confirm(code(secret))
    page.told("Phone works now")


@test
def a_removal_asks_for_a_code_where_the_setting_wants_one(world):
    world.server.run("settings", "set", "self-removal=code")
    alice = world.server.user("alice")
    page = world.page()
    page.as_user(alice)
    secret = page.enrol("Phone")
    page.link("Add an authenticator").click()
    page.button("Continue").click()
    page.told("This change needs a code.")
    page.look("user-add-proof")
    page.button("Sign out").click()
    page.as_user(alice)
    page.button("Remove Phone").click()
    page.told("It is your only one")
    page.in_dialog("Remove").click()
    page.told("This change needs a code.")
    page.look("user-remove-proof")
    page.field("A current code").fill(wrong(secret))
    page.in_dialog("Remove").click()
    page.told("That code is not right")
    page.field("A current code").fill(code(secret))
    page.in_dialog("Remove").click()
    page.told("Phone was removed")
