// Runs the story of login.mjs against a server, and plays the authenticator app.
//
// The environment says where: TOTPD_URL, MANAGER_TOKEN and CHECKER_TOKEN of one organization, SELF_TOKEN of the user
// SELF_USER there.

import assert from "node:assert/strict";
import { createHmac, randomBytes } from "node:crypto";

import { Account, Client, Login, Outcome, Refused, enrolmentPage } from "./login.mjs";

function base32(text) {
  let bits = "";
  for (const letter of text) bits += "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(letter).toString(2).padStart(5, "0");
  return Buffer.from((bits.match(/.{8}/g) ?? []).map((it) => parseInt(it, 2)));
}

/** An authenticator app: RFC 6238 with SHA-1, 6 digits and 30 seconds. */
class Phone {
  #key;

  constructor(started) {
    this.id = started.totpId;
    this.#key = base32(started.secret);
  }

  code(step) {
    const counter = Buffer.alloc(8);
    counter.writeBigUInt64BE(BigInt(step));
    const digest = createHmac("sha1", this.#key).update(counter).digest();
    const number = digest.readUInt32BE(digest[digest.length - 1] & 15) & 0x7fffffff;
    return String(number % 1_000_000).padStart(6, "0");
  }
}

const stepNow = () => Math.floor(Date.now() / 30_000);

/** A code that the phone does not show around now. */
function wrongCode(phone) {
  const shown = new Set();
  for (let step = stepNow() - 3; step < stepNow() + 6; step += 1) shown.add(phone.code(step));
  let number = 0;
  while (shown.has(String(number).padStart(6, "0"))) number += 1;
  return String(number).padStart(6, "0");
}

function expect(what, seen, wanted) {
  assert.deepEqual(seen, wanted, `${what}: expected ${wanted}, and it was ${seen}`);
  console.log(`${what}: ${seen}`);
}

/** The outcome of a call that has to be refused. */
async function refusal(call) {
  try {
    await call;
    return "accepted";
  } catch (why) {
    if (why instanceof Refused) return why.outcome;
    throw why;
  }
}

async function enrol(account, user, name) {
  const phone = new Phone(await account.start(user, name));
  const step = stepNow();
  const { outcome } = await account.confirm(user, phone.id, phone.code(step));
  expect(`confirm ${name}`, outcome, Outcome.ACCEPTED);
  return { phone, step };
}

async function enrolAndLogIn(account, login, user) {
  const check = async (code) => (await login.check(user, code)).outcome;
  expect("has the new user an authenticator", await account.hasAuthenticator(user), false);
  const started = await account.start(user, "Pixel 9");
  const page = enrolmentPage(started);
  expect("the page has the picture and the link", page.includes("<svg") && page.includes("otpauth://totp/"), true);
  const phone = new Phone(started);
  const step = stepNow();
  const confirm = async (code) => (await account.confirm(user, phone.id, code)).outcome;
  const code = phone.code(step);
  expect("check before it is confirmed", await check(code), Outcome.ENROL);
  expect("confirm with a wrong code", await confirm(wrongCode(phone)), Outcome.AGAIN);
  expect("confirm with the right code", await confirm(`${code.slice(0, 3)} ${code.slice(3)}`), Outcome.ACCEPTED);
  expect("confirm once more", await confirm(code), Outcome.DONE_BEFORE);
  expect("has the user an authenticator", await account.hasAuthenticator(user), true);
  expect("log in with the code that confirmed", await check(code), Outcome.AGAIN);
  expect("log in with the next code", await check(phone.code(step + 1)), Outcome.ACCEPTED);
  expect("log in with it again", await check(phone.code(step + 1)), Outcome.AGAIN);
  expect("log in with letters", await check("12345x"), Outcome.AGAIN);
  return phone;
}

async function loseAPhone(account, login, user, lost) {
  const check = async (code) => (await login.check(user, code)).outcome;
  const { phone: kept, step } = await enrol(account, user, "tablet");
  const names = (await account.authenticators(user)).map((it) => it.name);
  expect("authenticators", names, ["Pixel 9", "tablet"]);
  await account.remove(user, lost.id);
  await account.remove(user, lost.id);
  expect("log in with the removed phone", await check(lost.code(stepNow())), Outcome.AGAIN);
  expect("log in with the other one", await check(kept.code(step + 1)), Outcome.ACCEPTED);
  const { outcome } = await account.confirm(user, lost.id, lost.code(stepNow()));
  expect("confirm the removed phone", outcome, Outcome.ENROL);
  return kept;
}

async function recover(account, login, user) {
  const check = async (code) => (await login.checkRecoveryCode(user, code)).outcome;
  const codes = await account.generateRecoveryCodes(user);
  expect("recovery codes", codes.length, 10);
  const typed = codes[0].toUpperCase().replaceAll("-", " ");
  expect("log in with a recovery code", await check(typed), Outcome.ACCEPTED);
  expect("log in with it again", await check(typed), Outcome.AGAIN);
  expect("log in with half of one", await check(typed.slice(0, 9)), Outcome.AGAIN);
  expect("log in with the next one", await check(codes[1]), Outcome.ACCEPTED);
}

async function waitAndLock(manager, login, user, phone) {
  const wrong = wrongCode(phone);
  for (let number = 1; number <= 5; number += 1) {
    expect(`wrong code ${number}`, (await login.check(user, wrong)).outcome, Outcome.AGAIN);
  }
  const sixth = await login.check(user, wrong);
  expect("the sixth", sixth.outcome, Outcome.WAIT);
  expect("how long is told", sixth.retryAfterS > 0 && sixth.retryAfterS <= 60, true);
  await manager.call("POST", ["users", user, "_unlock"]);
  await manager.call("POST", ["users", user, "_lock"]);
  expect("log in while locked", (await login.check(user, wrong)).outcome, Outcome.REFUSED);
  await manager.call("POST", ["users", user, "_unlock"]);
}

async function reachTheLimits(account, own, ownUser, user) {
  const there = (await account.authenticators(user)).length;
  for (let number = there; number < 10; number += 1) await enrol(account, user, `phone ${number}`);
  expect("an eleventh", await refusal(account.start(user, "one more")), Outcome.REMOVE_ONE);
  for (let number = 0; number < 30; number += 1) await own.call("POST", ["users", ownUser, "totp"]);
  expect("a 31st start", await refusal(own.call("POST", ["users", ownUser, "totp"])), Outcome.WAIT);
}

async function useWrongTokens(url, manager, checker, own, user) {
  const enrolment = checker.call("POST", ["users", user, "totp"]);
  expect("a login form enrols", await refusal(enrolment), Outcome.OPERATOR);
  expect("a self token for another user", await refusal(own.call("GET", ["users", user])), Outcome.OPERATOR);
  const check = async (client, id) => (await new Login(client).check(id, "123456")).outcome;
  expect("an unknown token", await check(new Client(url, "totpd_unknown"), user), Outcome.OPERATOR);
  expect("an unknown path", await refusal(manager.call("GET", ["nothing"])), Outcome.OPERATOR);
  expect("an unknown user", await check(checker, "nobody/at all"), Outcome.REFUSED);
  const away = new Client("http://127.0.0.1:9", "totpd_unknown");
  expect("no server", await check(away, user), Outcome.LATER);
  expect("no server, and no wrong no", await refusal(new Account(away).hasAuthenticator(user)), Outcome.LATER);
}

export async function run() {
  const { TOTPD_URL: url, MANAGER_TOKEN, CHECKER_TOKEN, SELF_TOKEN, SELF_USER } = process.env;
  const [manager, checker, own] = [MANAGER_TOKEN, CHECKER_TOKEN, SELF_TOKEN].map((it) => new Client(url, it));
  const [account, login] = [new Account(manager), new Login(checker)];
  const user = `login.mjs/${randomBytes(8).toString("hex")}`;
  const phone = await enrolAndLogIn(account, login, user);
  const kept = await loseAPhone(account, login, user, phone);
  await recover(account, login, user);
  await waitAndLock(manager, login, user, kept);
  await reachTheLimits(account, own, SELF_USER, user);
  await useWrongTokens(url, manager, checker, own, user);
  await manager.call("DELETE", ["users", user]);
  expect("log in once the user is gone", (await login.check(user, "123456")).outcome, Outcome.REFUSED);
  console.log("login.mjs: all came as it says");
}
