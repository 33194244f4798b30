#!/usr/bin/env node
// An application that uses totpd for second factors, in Node's standard library alone.
//
// `Account` and `Login` are what an application copies. `login.mjs --self-check` runs the whole story against a server
// and ends with status 0 if everything came as this file says. `examples/integrate/try` starts a server for that.
// docs/integrate.md explains the program.

/** What the application does next. Only ACCEPTED lets a person in. */
export const Outcome = Object.freeze({
  ACCEPTED: "done",
  AGAIN: "ask the person for a code again",
  WAIT: "tell the person how long to wait",
  ENROL: "offer to start an enrolment",
  DONE_BEFORE: "nothing: what was asked for is so already",
  REFUSED: "refuse the login: the user is locked or unknown",
  REMOVE_ONE: "tell the person to remove an authenticator first",
  TAKEN: "go on with the user that exists, or choose another name",
  LATER: "try again later: the server is busy, stopping or out of reach",
  OPERATOR: "tell the operator: this program or its token is wrong",
});

// Every refusal of docs/errors.md, by HTTP status and id.
const OUTCOMES = new Map([
  ["400 EVENT-8isk2", Outcome.AGAIN], // the code is wrong
  ["400 TOTPD-Used1", Outcome.AGAIN], // the code was used; the person needs the next one
  ["400 TOTPD-Field", Outcome.AGAIN], // no code of 6 to 9 digits
  ["400 TOTPD-Recov1", Outcome.AGAIN], // the recovery code is wrong or was used
  ["429 TOTPD-Wait1", Outcome.WAIT], // too many wrong codes
  ["429 TOTPD-Wait2", Outcome.WAIT], // too many changes by `self` tokens
  ["400 COMMAND-3Mif9s", Outcome.ENROL], // no confirmed authenticator
  ["404 COMMAND-3Mif9s", Outcome.ENROL], // no such authenticator, or its enrolment expired
  ["400 COMMAND-qx4ls", Outcome.DONE_BEFORE], // confirmed already
  ["404 COMMAND-Hd9sd", Outcome.DONE_BEFORE], // removed already
  ["404 COMMAND-syHyCsGmvM", Outcome.DONE_BEFORE], // the user is deleted already
  ["404 COMMAND-G4LOrnjY7q", Outcome.DONE_BEFORE], // locked already, or no such user
  ["404 COMMAND-Ob6lR5iFTe", Outcome.DONE_BEFORE], // not active, or no such user
  ["404 COMMAND-rQjbBr4J3j", Outcome.DONE_BEFORE], // not inactive, or no such user
  ["400 COMMAND-SF3fg", Outcome.REFUSED], // the user is locked or inactive
  ["404 COMMAND-6T2xrOHxTx", Outcome.REFUSED], // no such user, or not for this token
  ["404 COMMAND-gpBv46Lh9m", Outcome.REFUSED], // no such user to unlock
  ["400 TOTPD-Code1", Outcome.AGAIN], // a `self` token needs a code beside it
  ["400 TOTPD-Recov2", Outcome.REFUSED], // no recovery codes left
  ["400 TOTPD-Limit", Outcome.REMOVE_ONE], // ten confirmed authenticators
  ["409 TOTPD-Taken", Outcome.TAKEN], // the id or username of a new user
  ["503 TOTPD-Store", Outcome.LATER],
  ["408 TOTPD-Slow", Outcome.LATER],
  ["504 TOTPD-Slow", Outcome.LATER],
  ["429 TOTPD-Search", Outcome.LATER],
  ["401", Outcome.OPERATOR],
  ["401 AUTH-7fs1e", Outcome.OPERATOR], // the token is unknown, expired or revoked
  ["403 AUTH-AWfge", Outcome.OPERATOR], // the token has the wrong role
  ["404 TOTPD-Org01", Outcome.OPERATOR],
  ["413 TOTPD-Large", Outcome.OPERATOR],
  ["431 TOTPD-Large", Outcome.OPERATOR],
  ["404", Outcome.OPERATOR],
  ["405", Outcome.OPERATOR],
  ["501", Outcome.OPERATOR],
  ["500", Outcome.OPERATOR],
]);

/** totpd refused a call, or gave no answer (`status` 0). */
export class Refused extends Error {
  constructor(status, id, message, retryAfterS) {
    super(`${status}: ${message}`);
    this.status = status;
    this.id = id;
    this.retryAfterS = retryAfterS;
    // What this table does not know is never a yes.
    const unknown = status === 0 || status >= 500 ? Outcome.LATER : Outcome.OPERATOR;
    this.outcome = OUTCOMES.get(id === undefined ? `${status}` : `${status} ${id}`) ?? unknown;
  }
}

/** Sends calls with one token. */
export class Client {
  #base;
  #token;
  #timeoutMs;

  constructor(url, token, timeoutMs = 10_000) {
    this.#base = `${url}/resources/v3alpha/`;
    this.#token = token;
    this.#timeoutMs = timeoutMs;
  }

  /** Returns the answer of a call, or throws `Refused`. Ids in `path` may be any text. */
  async call(method, path, body, query = "") {
    let response;
    let answer;
    try {
      response = await fetch(this.#base + path.map(encodeURIComponent).join("/") + query, {
        method,
        headers: { Authorization: `Bearer ${this.#token}`, "Content-Type": "application/json" },
        body: body === undefined ? undefined : JSON.stringify(body),
        redirect: "error",
        signal: AbortSignal.timeout(this.#timeoutMs),
      });
      answer = await response.json();
    } catch (why) {
      // Whether the call was carried out is unknown. For a check that is a no.
      throw new Refused(0, undefined, `no answer: ${why.cause ?? why}`);
    }
    if (response.status === 200 || response.status === 201) return answer;
    const retryAfterS = Number(response.headers.get("Retry-After")) || undefined;
    throw new Refused(response.status, answer.details?.[0]?.id, answer.message, retryAfterS);
  }
}

/** The outcome of a call with a code, and the seconds to wait, if any. */
async function judged(call) {
  try {
    await call;
    return { outcome: Outcome.ACCEPTED };
  } catch (why) {
    if (!(why instanceof Refused)) throw why;
    return { outcome: why.outcome, retryAfterS: why.retryAfterS };
  }
}

// Apps show a code as `123 456`; totpd accepts only digits.
const withoutBlanks = (typed) => typed.replace(/\s/g, "");

/** The login form. Its token has the role `checker`: a thief who has it can check codes and recovery codes, and nothing else. */
export class Login {
  #client;

  constructor(client) {
    this.#client = client;
  }

  /** Judges the code that a person typed. */
  check(user, typed) {
    return judged(this.#client.call("POST", ["users", user, "totp", "_check"], withoutBlanks(typed)));
  }

  /** The same for a recovery code, in the place of a code. Case, hyphens and blanks do not matter. */
  checkRecoveryCode(user, typed) {
    return judged(this.#client.call("POST", ["users", user, "recovery_codes", "_check"], typed));
  }
}

/** The page where a user manages authenticators. Its token has the role `manager` of the application's organization. */
export class Account {
  #client;

  constructor(client) {
    this.#client = client;
  }

  /**
   * Returns the user's confirmed authenticators. A user that totpd does not know has none.
   *
   * Every other refusal is thrown: an application that took an error for "has none" would let people in without a
   * second factor.
   */
  async authenticators(user) {
    try {
      const shown = await this.#client.call("GET", ["users", user]);
      return (shown.user.authenticators?.totps ?? []).filter((it) => it.isVerified);
    } catch (why) {
      if (why.status === 404 && why.id === "COMMAND-6T2xrOHxTx") return [];
      throw why;
    }
  }

  /** Whether a login of this user needs a code. */
  async hasAuthenticator(user) {
    return (await this.authenticators(user)).length > 0;
  }

  /** Starts an enrolment: `totpId`, `uri`, `secret` and `qr`, the picture. The secret is shown only here. */
  async start(user, name) {
    try {
      await this.#client.call("POST", ["users"], { userId: user });
    } catch (why) {
      if (why.outcome !== Outcome.TAKEN) throw why;
    }
    return this.#client.call("POST", ["users", user, "totp"], { name }, "?qr=svg");
  }

  /** Confirms an enrolment with the first code, which is used up. */
  confirm(user, totp, typed) {
    return judged(this.#client.call("POST", ["users", user, "totp", totp, "_verify"], withoutBlanks(typed)));
  }

  /** Returns ten recovery codes, which replace all earlier ones. They are shown only here. */
  async generateRecoveryCodes(user) {
    return (await this.#client.call("POST", ["users", user, "recovery_codes"])).codes;
  }

  /** Removes a lost phone. When this returns, no code of it is accepted any more. */
  async remove(user, totp) {
    try {
      await this.#client.call("DELETE", ["users", user, "totp", totp]);
    } catch (why) {
      if (why.outcome !== Outcome.DONE_BEFORE) throw why;
    }
  }
}

const escape = (text) => text.replace(/[&<>"']/g, (it) => `&#${it.charCodeAt(0)};`);

/**
 * The page that a person sees: the picture, a link for the same phone, the secret to type, and one field.
 *
 * The picture is an <svg> element; it is missing where a very long username makes the URI too long for one. The page must not be
 * kept by any cache.
 */
export function enrolmentPage(started) {
  const groups = started.secret.match(/.{1,4}/g).join(" ");
  return `<!doctype html><title>Add an authenticator</title>
${started.qr ?? ""}
<p><a href="${escape(started.uri)}">Open in an app on this phone</a>, or type <code>${groups}</code></p>
<form method="post"><label>Code <input name="code" inputmode="numeric" autocomplete="one-time-code"></label>
<button>Confirm</button></form>`;
}

// Run as a program, and not imported.
if (import.meta.url === new URL(process.argv[1] ?? "", "file:").href) {
  if (process.argv.slice(2).join(" ") !== "--self-check") {
    console.error("usage: login.mjs --self-check");
    process.exit(1);
  }
  // Without `await`: self_check.mjs imports this file, which has to be complete first.
  import("./self_check.mjs").then(({ run }) => run());
}
