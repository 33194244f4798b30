"""Runs the story of login.py against a server, and plays the authenticator app.

The environment says where: TOTPD_URL, MANAGER_TOKEN and CHECKER_TOKEN of one organization, SELF_TOKEN of the user
SELF_USER there.
"""

import base64
import hmac
import os
import secrets
import time

from login import Account, Client, Login, Outcome, Refused, enrolment_page


class Phone:
    """An authenticator app: RFC 6238 with SHA-1, 6 digits and 30 seconds."""

    def __init__(self, started):
        self.id = started["totpId"]
        secret = started["secret"]
        self._key = base64.b32decode(secret + "=" * (-len(secret) % 8))

    def code(self, step):
        digest = hmac.digest(self._key, step.to_bytes(8, "big"), "sha1")
        offset = digest[-1] & 15
        number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFFFFFF
        return f"{number % 1_000_000:06}"


def step_now():
    return int(time.time()) // 30


def wrong_code(*phones):
    """A code that none of the phones shows around now."""
    near = range(step_now() - 3, step_now() + 6)
    shown = {phone.code(step) for phone in phones for step in near}
    return next(it for it in (f"{number:06}" for number in range(1000)) if it not in shown)


def expect(what, seen, wanted):
    if seen != wanted:
        raise SystemExit(f"{what}: expected {wanted}, and it was {seen}")
    print(f"{what}: {getattr(seen, 'value', seen)}")


def refusal(call, *arguments):
    """The outcome of a call that has to be refused."""
    try:
        call(*arguments)
    except Refused as why:
        return why.outcome
    return "accepted"


def enrol(account, user, name):
    """Enrols a phone. Returns it with the step whose code confirmed it."""
    started = account.start(user, name)
    phone, step = Phone(started), step_now()
    outcome, _ = account.confirm(user, phone.id, phone.code(step))
    expect(f"confirm {name}", outcome, Outcome.ACCEPTED)
    return phone, step


def enrol_and_log_in(account, login, user):
    expect("has the new user an authenticator", account.has_authenticator(user), False)
    started = account.start(user, "Pixel 9")
    page = enrolment_page(started)
    expect("the page has the picture and the link", "<svg" in page and "otpauth://totp/" in page, True)
    phone, step = Phone(started), step_now()
    expect("check before it is confirmed", login.check(user, phone.code(step))[0], Outcome.ENROL)
    wrong = wrong_code(phone)
    expect("confirm with a wrong code", account.confirm(user, phone.id, wrong)[0], Outcome.AGAIN)
    code = phone.code(step)
    outcome, _ = account.confirm(user, phone.id, f"{code[:3]} {code[3:]}")
    expect("confirm with the right code", outcome, Outcome.ACCEPTED)
    expect("confirm once more", account.confirm(user, phone.id, code)[0], Outcome.DONE_BEFORE)
    expect("has the user an authenticator", account.has_authenticator(user), True)
    expect("log in with the code that confirmed", login.check(user, code)[0], Outcome.AGAIN)
    expect("log in with the next code", login.check(user, phone.code(step + 1))[0], Outcome.ACCEPTED)
    expect("log in with it again", login.check(user, phone.code(step + 1))[0], Outcome.AGAIN)
    expect("log in with letters", login.check(user, "12345x")[0], Outcome.AGAIN)
    return phone


def lose_a_phone(account, login, user, lost):
    kept, step = enrol(account, user, "tablet")
    shown = account.authenticators(user)
    expect("authenticators", [it["name"] for it in shown], ["Pixel 9", "tablet"])
    account.remove(user, lost.id)
    account.remove(user, lost.id)
    expect("log in with the removed phone", login.check(user, lost.code(step_now()))[0], Outcome.AGAIN)
    expect("log in with the other one", login.check(user, kept.code(step + 1))[0], Outcome.ACCEPTED)
    code = lost.code(step_now())
    expect("confirm the removed phone", account.confirm(user, lost.id, code)[0], Outcome.ENROL)
    return kept


def recover(account, login, user):
    codes = account.generate_recovery_codes(user)
    expect("recovery codes", len(codes), 10)
    typed = codes[0].upper().replace("-", " ")
    expect("log in with a recovery code", login.check_recovery_code(user, typed)[0], Outcome.ACCEPTED)
    expect("log in with it again", login.check_recovery_code(user, typed)[0], Outcome.AGAIN)
    expect("log in with half of one", login.check_recovery_code(user, typed[:9])[0], Outcome.AGAIN)
    expect("log in with the next one", login.check_recovery_code(user, codes[1])[0], Outcome.ACCEPTED)


def wait_and_lock(manager, login, user, phone):
    wrong = wrong_code(phone)
    outcomes = [login.check(user, wrong) for _ in range(6)]
    expect("five wrong codes", {it[0] for it in outcomes[:5]}, {Outcome.AGAIN})
    expect("the sixth", outcomes[5][0], Outcome.WAIT)
    expect("how long is told", 0 < outcomes[5][1] <= 60, True)
    manager.call("POST", "users", user, "_unlock")
    manager.call("POST", "users", user, "_lock")
    expect("log in while locked", login.check(user, wrong)[0], Outcome.REFUSED)
    manager.call("POST", "users", user, "_unlock")


def reach_the_limits(account, own, own_user, user):
    for number in range(len(account.authenticators(user)), 10):
        enrol(account, user, f"phone {number}")
    expect("an eleventh", refusal(account.start, user, "one more"), Outcome.REMOVE_ONE)
    for _ in range(30):
        own.call("POST", "users", own_user, "totp")
    expect("a 31st start", refusal(own.call, "POST", "users", own_user, "totp"), Outcome.WAIT)


def use_wrong_tokens(url, manager, checker, own, user):
    expect("a login form enrols", refusal(checker.call, "POST", "users", user, "totp"), Outcome.OPERATOR)
    expect("a self token for another user", refusal(own.call, "GET", "users", user), Outcome.OPERATOR)
    unknown = Client(url, "totpd_unknown")
    expect("an unknown token", Login(unknown).check(user, "123456")[0], Outcome.OPERATOR)
    expect("an unknown path", refusal(manager.call, "GET", "nothing"), Outcome.OPERATOR)
    expect("an unknown user", Login(checker).check("nobody/at all", "123456")[0], Outcome.REFUSED)
    away = Client("http://127.0.0.1:9", "totpd_unknown")
    expect("no server", Login(away).check(user, "123456")[0], Outcome.LATER)
    expect("no server, and no wrong no", refusal(Account(away).has_authenticator, user), Outcome.LATER)


def run():
    said = os.environ
    url, own_user = said["TOTPD_URL"], said["SELF_USER"]
    manager = Client(url, said["MANAGER_TOKEN"])
    checker = Client(url, said["CHECKER_TOKEN"])
    own = Client(url, said["SELF_TOKEN"])
    account, login = Account(manager), Login(checker)
    user = f"login.py/{secrets.token_hex(8)}"
    phone = enrol_and_log_in(account, login, user)
    kept = lose_a_phone(account, login, user, phone)
    recover(account, login, user)
    wait_and_lock(manager, login, user, kept)
    reach_the_limits(account, own, own_user, user)
    use_wrong_tokens(url, manager, checker, own, user)
    manager.call("DELETE", "users", user)
    expect("log in once the user is gone", login.check(user, "123456")[0], Outcome.REFUSED)
    print("login.py: all came as it says")
