"""A check that Schemathesis does not have: what was removed accepts nothing. Its own, `use_after_free`, looks at GET alone.
And what is valid beyond the patterns: a name has no tags (U+E0000 to U+E007F)."""
import json

import schemathesis

removed = set()


@schemathesis.check
def removed_accepts_nothing(ctx, response, case):
    user, totp = (str(case.path_parameters.get(it)) for it in ("id", "totpId"))
    if case.operation.path.endswith("/totp/{totpId}") and case.method == "DELETE" and response.status_code == 200:
        # An authenticator's id is never given again.
        assert totp not in removed, f"{totp} was removed twice"
        removed.add(totp)
    elif "{totpId}" in case.operation.path:
        assert totp not in removed or response.status_code >= 400, f"{totp} of {user} was removed and is answered with {response.status_code}"


@schemathesis.hook
def filter_case(ctx, case):
    """Their patterns leave the tags out, so they would pass for valid. The tests of `src/model/text.rs` try them."""
    sent = json.dumps(case.body, ensure_ascii=False, default=str)
    return not any("\U000e0000" <= it <= "\U000e007f" for it in sent)
