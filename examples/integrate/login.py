#!/usr/bin/env python3
"""An application that uses totpd for second factors, in Python's standard library alone.

`Account` and `Login` are what an application copies. `login.py --self-check` runs the whole story against a server and
ends with status 0 if everything came as this file says. `examples/integrate/try` starts a server for that.
docs/integrate.md explains the program.
"""

import enum
import html
import http.client
import json
import sys
import urllib.parse


class Outcome(enum.Enum):
    """What the application does next. Only ACCEPTED lets a person in."""

    ACCEPTED = "done"
    AGAIN = "ask the person for a code again"
    WAIT = "tell the person how long to wait"
    ENROL = "offer to start an enrolment"
    DONE_BEFORE = "nothing: what was asked for is so already"
    REFUSED = "refuse the login: the user is locked or unknown"
    REMOVE_ONE = "tell the person to remove an authenticator first"
    TAKEN = "go on with the user that exists, or choose another name"
    LATER = "try again later: the server is busy, stopping or out of reach"
    OPERATOR = "tell the operator: this program or its token is wrong"


# Every refusal of docs/errors.md, by HTTP status and id.
OUTCOMES = {
    (400, "EVENT-8isk2"): Outcome.AGAIN,  # the code is wrong
    (400, "TOTPD-Used1"): Outcome.AGAIN,  # the code was used; the person needs the next one
    (400, "TOTPD-Field"): Outcome.AGAIN,  # no code of 6 to 9 digits
    (400, "TOTPD-Recov1"): Outcome.AGAIN,  # the recovery code is wrong or was used
    (429, "TOTPD-Wait1"): Outcome.WAIT,  # too many wrong codes
    (429, "TOTPD-Wait2"): Outcome.WAIT,  # too many changes by `self` tokens
    (400, "COMMAND-3Mif9s"): Outcome.ENROL,  # no confirmed authenticator
    (404, "COMMAND-3Mif9s"): Outcome.ENROL,  # no such authenticator, or its enrolment expired
    (400, "COMMAND-qx4ls"): Outcome.DONE_BEFORE,  # confirmed already
    (404, "COMMAND-Hd9sd"): Outcome.DONE_BEFORE,  # removed already
    (404, "COMMAND-syHyCsGmvM"): Outcome.DONE_BEFORE,  # the user is deleted already
    (404, "COMMAND-G4LOrnjY7q"): Outcome.DONE_BEFORE,  # locked already, or no such user
    (404, "COMMAND-Ob6lR5iFTe"): Outcome.DONE_BEFORE,  # not active, or no such user
    (404, "COMMAND-rQjbBr4J3j"): Outcome.DONE_BEFORE,  # not inactive, or no such user
    (400, "COMMAND-SF3fg"): Outcome.REFUSED,  # the user is locked or inactive
    (404, "COMMAND-6T2xrOHxTx"): Outcome.REFUSED,  # no such user, or not for this token
    (404, "COMMAND-gpBv46Lh9m"): Outcome.REFUSED,  # no such user to unlock
    (400, "TOTPD-Code1"): Outcome.AGAIN,  # a `self` token needs a code beside it
    (400, "TOTPD-Recov2"): Outcome.REFUSED,  # no recovery codes left
    (400, "TOTPD-Limit"): Outcome.REMOVE_ONE,  # ten confirmed authenticators
    (409, "TOTPD-Taken"): Outcome.TAKEN,  # the id or username of a new user
    (503, "TOTPD-Store"): Outcome.LATER,
    (408, "TOTPD-Slow"): Outcome.LATER,
    (504, "TOTPD-Slow"): Outcome.LATER,
    (429, "TOTPD-Search"): Outcome.LATER,
    (401, None): Outcome.OPERATOR,
    (401, "AUTH-7fs1e"): Outcome.OPERATOR,  # the token is unknown, expired or revoked
    (403, "AUTH-AWfge"): Outcome.OPERATOR,  # the token has the wrong role
    (404, "TOTPD-Org01"): Outcome.OPERATOR,
    (413, "TOTPD-Large"): Outcome.OPERATOR,
    (431, "TOTPD-Large"): Outcome.OPERATOR,
    (404, None): Outcome.OPERATOR,
    (405, None): Outcome.OPERATOR,
    (501, None): Outcome.OPERATOR,
    (500, None): Outcome.OPERATOR,
}


class Refused(Exception):
    """totpd refused a call, or gave no answer (`status` 0)."""

    def __init__(self, status, error_id, message, retry_after_s=None):
        super().__init__(f"{status}: {message}")
        self.status = status
        self.id = error_id
        self.retry_after_s = retry_after_s
        # What this table does not know is never a yes.
        unknown = Outcome.LATER if status == 0 or status >= 500 else Outcome.OPERATOR
        self.outcome = OUTCOMES.get((status, error_id), unknown)


class Client:
    """Sends calls with one token. Each call has a connection of its own, so threads can share a client."""

    def __init__(self, url, token, timeout_s=10):
        self._url = urllib.parse.urlsplit(url)
        self._token = token
        self._timeout_s = timeout_s

    def call(self, method, *path, body=None, query=""):
        """Returns the answer of a call, or raises `Refused`. Ids in `path` may be any text."""
        target = "/".join(["/resources/v3alpha", *(urllib.parse.quote(it, safe="") for it in path)])
        if query:
            target += f"?{query}"
        https = self._url.scheme == "https"
        kind = http.client.HTTPSConnection if https else http.client.HTTPConnection
        connection = kind(self._url.hostname, self._url.port, timeout=self._timeout_s)
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        try:
            connection.request(method, target, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            answer = json.loads(response.read() or b"{}")
        except (OSError, http.client.HTTPException, ValueError) as why:
            # Whether the call was carried out is unknown. For a check that is a no.
            raise Refused(0, None, f"no answer: {why}") from why
        finally:
            connection.close()
        if response.status in (200, 201):
            return answer
        details = answer.get("details") or [{}]
        retry_after_s = int(response.headers.get("Retry-After", 0)) or None
        raise Refused(response.status, details[0].get("id"), answer.get("message"), retry_after_s)


class Login:
    """The login form. Its token has the role `checker`: a thief who has it can check codes and recovery codes, and nothing else."""

    def __init__(self, client):
        self._client = client

    def check(self, user, typed):
        """Judges the code that a person typed. Returns the outcome and the seconds to wait, if any."""
        try:
            # Apps show a code as `123 456`; totpd accepts only digits.
            self._client.call("POST", "users", user, "totp", "_check", body="".join(typed.split()))
            return Outcome.ACCEPTED, None
        except Refused as why:
            return why.outcome, why.retry_after_s

    def check_recovery_code(self, user, typed):
        """The same for a recovery code, in the place of a code. Case, hyphens and blanks do not matter."""
        try:
            self._client.call("POST", "users", user, "recovery_codes", "_check", body=typed)
            return Outcome.ACCEPTED, None
        except Refused as why:
            return why.outcome, why.retry_after_s


class Account:
    """The page where a user manages authenticators. Its token has the role `manager` of the application's organization."""

    def __init__(self, client):
        self._client = client

    def authenticators(self, user):
        """Returns the user's confirmed authenticators. A user that totpd does not know has none.

        Every other refusal is raised: an application that took an error for "has none" would let people in without
        a second factor.
        """
        try:
            shown = self._client.call("GET", "users", user)
        except Refused as why:
            if (why.status, why.id) == (404, "COMMAND-6T2xrOHxTx"):
                return []
            raise
        totps = shown["user"].get("authenticators", {}).get("totps", [])
        return [it for it in totps if it.get("isVerified")]

    def has_authenticator(self, user):
        """Whether a login of this user needs a code."""
        return bool(self.authenticators(user))

    def start(self, user, name):
        """Starts an enrolment: `totpId`, `uri`, `secret` and `qr`, the picture. The secret is shown only here."""
        try:
            self._client.call("POST", "users", body={"userId": user})
        except Refused as why:
            if why.outcome is not Outcome.TAKEN:
                raise
        return self._client.call("POST", "users", user, "totp", body={"name": name}, query="qr=svg")

    def confirm(self, user, totp, typed):
        """Confirms an enrolment with the first code, which is used up. Returns the outcome and the seconds to wait."""
        try:
            self._client.call("POST", "users", user, "totp", totp, "_verify", body="".join(typed.split()))
            return Outcome.ACCEPTED, None
        except Refused as why:
            return why.outcome, why.retry_after_s

    def generate_recovery_codes(self, user):
        """Returns ten recovery codes, which replace all earlier ones. They are shown only here."""
        return self._client.call("POST", "users", user, "recovery_codes")["codes"]

    def remove(self, user, totp):
        """Removes a lost phone. When this returns, no code of it is accepted any more."""
        try:
            self._client.call("DELETE", "users", user, "totp", totp)
        except Refused as why:
            if why.outcome is not Outcome.DONE_BEFORE:
                raise


def enrolment_page(started):
    """The page that a person sees: the picture, a link for the same phone, the secret to type, and one field.

    The picture is an <svg> element; it is missing where a very long username makes the URI too long for one. The page must not be
    kept by any cache.
    """
    secret = started["secret"]
    groups = " ".join(secret[it : it + 4] for it in range(0, len(secret), 4))
    return f"""<!doctype html><title>Add an authenticator</title>
{started.get("qr", "")}
<p><a href="{html.escape(started["uri"])}">Open in an app on this phone</a>, or type <code>{groups}</code></p>
<form method="post"><label>Code <input name="code" inputmode="numeric" autocomplete="one-time-code"></label>
<button>Confirm</button></form>"""


if __name__ == "__main__":
    if sys.argv[1:] != ["--self-check"]:
        sys.exit("usage: login.py --self-check")
    import self_check

    self_check.run()
