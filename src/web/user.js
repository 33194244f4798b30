// A user's own page: the authenticators and recovery codes of the session's user.

import { words } from './words.js';
import {
  ago, ask, button, call, codeField, copyButton, countDown, currentSession, explain, field, form, h, icon, moment, named, notice, path, Refusal,
  serverNow, show, withProof,
} from './lib.js';

/** An enrolment expires if unconfirmed by then (SECURITY.md 29). */
const ENROLMENT_S = 600;

const own = () => currentSession().userId;
const totp = (...rest) => path('users', own(), 'totp', ...rest);
const nameOf = (it) => it.name || words.own.unnamed;

/** Runs a change that another tab may have made already, and shows the new state in any case. */
const goneIsDone = async (change) => {
  try {
    await change();
  } catch (error) {
    if (error.id !== 'COMMAND-Hd9sd') throw error;
  }
};

// ---- The list ----

export function home(go, quiet) {
  const again = (text) => {
    notice(text);
    return home(go, true);
  };
  return show(words.own.heading, async () => {
    const [user, { result: totps = [] }, recovery] = await Promise.all([
      call('GET', path('users', own())), call('GET', totp()), call('GET', path('users', own(), 'recovery_codes')),
    ]);
    const username = user.user.authenticators?.usernames?.[0]?.username ?? own();
    const confirmed = totps.filter((it) => it.isVerified);
    const add = (label) => h('a', { class: 'button primary', href: '#/add' }, label);
    const list = h('ul', { class: 'cards' }, totps.map((it) => card(it, confirmed, go, again)));
    return [
      h('p', { class: 'over' }, words.own.of, ' ', h('strong', {}, named(username))),
      h('h1', {}, words.own.heading),
      h('p', { class: 'lead' }, words.own.lead),
      totps.length > 0 && list,
      confirmed.length === 0
        ? h('section', { class: 'empty' }, icon('shield'), h('h2', {}, words.own.none), h('p', {}, words.own.noneText), add(words.own.add))
        : h('div', { class: 'after' }, add(words.own.add), confirmed.length === 1 && h('p', { class: 'hint' }, words.own.oneOnly)),
      recoverySection(recovery.remaining ?? 0, confirmed.length > 0, username, go, again),
    ];
  }, { quiet });
}

function card(it, confirmed, go, again) {
  const name = nameOf(it);
  const act = (label, onclick) => button(label, onclick, { 'aria-label': `${label} ${name}`, 'data-key': `${label} ${it.totpId}`, class: 'quiet' });
  if (!it.isVerified) {
    const discard = async () => {
      await goneIsDone(() => call('DELETE', totp(it.totpId)));
      again('');
    };
    return h('li', { class: 'card pending' }, icon('phone'),
      h('div', { class: 'what' }, h('h2', {}, named(name), ' ', h('span', { class: 'badge' }, words.own.pending)), h('p', { class: 'hint' }, words.own.pendingText)),
      h('div', { class: 'actions' }, act(words.own.discard, () => discard().catch((error) => notice(explain(error))))));
  }
  const isLast = confirmed.length === 1;
  return h('li', { class: 'card' }, icon('phone'),
    h('div', { class: 'what' }, h('h2', {}, named(name)),
      h('p', { class: 'meta' },
        h('span', {}, words.own.added, ' ', ago(it.created)), ' ',
        h('span', {}, words.own.lastUsed, ' ', it.lastUsed ? ago(it.lastUsed) : words.never))),
    h('div', { class: 'actions' },
      act(words.own.rename, () => rename(it, again)),
      act(words.own.replace, () => go(`#/replace/${encodeURIComponent(it.totpId)}`)),
      act(words.own.remove, () => remove(it, isLast, again))));
}

async function rename(it, again) {
  const name = field(words.own.name, { hint: words.own.nameHint, value: it.name ?? '', maxlength: 200 });
  const action = async () => {
    await call('POST', totp(it.totpId, '_rename'), { body: name.input.value.trim() });
    return name.input.value.trim();
  };
  const done = await ask({ title: words.own.renameTitle, content: [name.row], fields: [name], submit: words.own.save, action });
  if (done) again(words.own.renamed(done));
}

async function remove(it, isLast, again) {
  const proof = withProof();
  const content = [h('p', {}, words.own.removeText), isLast && h('p', { class: 'warning' }, words.own.removeLast), proof.place];
  const action = () => proof.run((code) => goneIsDone(() => call('DELETE', totp(it.totpId), { code })));
  const name = nameOf(it);
  const done = await ask({ title: words.own.removeTitle(name), content, fields: [proof.field], submit: words.own.remove, danger: true, action });
  if (done) again(words.own.removed(name));
}

// ---- Adding one ----

/** First the name, and a code if the server needs one. Then the QR code, and the first code of the new one. */
export function add(go, replaced) {
  let title = words.add.heading;
  return show(title, async () => {
    let old;
    if (replaced) {
      const { result = [] } = await call('GET', totp());
      old = result.find((it) => it.totpId === replaced && it.isVerified);
      if (!old) throw new Refusal(404, 'COMMAND-Hd9sd');
      title = words.add.replaceHeading(nameOf(old));
    }
    const name = field(words.own.name, { hint: words.own.nameHint, maxlength: 200 });
    const proof = withProof();
    const query = new URLSearchParams({ qr: 'svg', ...(old && { replaces: old.totpId }) });
    const action = async () => {
      const body = name.input.value.trim() ? { name: name.input.value.trim() } : {};
      const begun = await proof.run((code) => call('POST', `${totp()}?${query}`, { body, code }));
      scan(go, begun, body.name ?? words.own.unnamed, old);
    };
    const cancel = h('a', { class: 'button', href: '#/' }, words.cancel);
    const { element } = form({ content: [name.row, proof.place], fields: [proof.field, name], submit: words.add.next, others: [cancel], action });
    return [
      h('h1', {}, title),
      old && h('p', { class: 'lead' }, words.add.replaceText),
      element,
    ];
  });
}

function scan(go, begun, name, old) {
  const title = old ? words.add.replaceHeading(nameOf(old)) : words.add.heading;
  const start = performance.now();
  // The system opens the link, so only this scheme is allowed.
  const link = begun.uri?.startsWith('otpauth://') && begun.uri;
  const key = begun.secret.replace(/(.{4})(?=.)/g, '$1 ');
  const code = codeField(words.add.code, words.add.codeHint);
  const proof = withProof();
  const left = h('p', { class: 'left', role: 'timer', 'aria-live': 'off' });
  const soon = h('p', { class: 'unseen', role: 'status' });
  const action = async () => {
    if (!code.code()) {
      code.input.focus();
      throw words.add.codeEmpty;
    }
    await proof.run((other) => call('POST', totp(begun.totpId, '_verify'), { body: code.code(), code: other }));
    go('#/', old ? words.add.replaced(name, nameOf(old)) : words.add.done(name));
  };
  const cancel = button(words.cancel, async () => {
    await call('DELETE', totp(begun.totpId)).catch(() => {});
    if (currentSession()) go('#/');
  });
  const { element } = form({ content: [code.row, proof.place], fields: [code], submit: words.add.finish, others: [cancel], action });
  const picture = begun.qr
    ? h('img', { class: 'qr', alt: words.add.picture, src: `data:image/svg+xml,${encodeURIComponent(begun.qr)}`, width: 240, height: 240 })
    : h('p', { class: 'hint' }, words.add.noPicture);
  const over = () => show(words.add.over, () => [
    h('h1', {}, words.add.over),
    h('p', { class: 'lead' }, words.add.overText),
    h('div', { class: 'actions' }, button(words.add.startAgain, () => add(go, old?.totpId), { class: 'primary' }), h('a', { class: 'button', href: '#/' }, words.cancel)),
  ]);
  show(title, () => [
    h('h1', {}, title),
    h('div', { class: 'enrol' },
      h('section', {}, h('h2', {}, h('span', { class: 'step', 'aria-hidden': 'true' }, '1'), words.add.scan),
        h('p', {}, words.add.scanText),
        picture,
        link && h('p', { class: 'here' }, h('a', { class: 'button', href: link }, icon('open'), words.add.open)),
        h('h3', {}, words.add.key),
        h('p', { class: 'key', translate: 'no' }, key),
        copyButton(words.add.copyKey, begun.secret)),
      h('section', {}, h('h2', {}, h('span', { class: 'step', 'aria-hidden': 'true' }, '2'), words.add.confirm), element, left, soon)),
  ]).then(() => countDown(left, ENROLMENT_S - (performance.now() - start) / 1000, (text, seconds) => {
    left.replaceChildren(words.add.left(text));
    if (seconds === 60) soon.replaceChildren(words.add.leftSoon);
  }, over));
}

// ---- Recovery codes ----

function recoverySection(remaining, hasTotp, username, go, again) {
  const state = !hasTotp ? words.recovery.needsTotp :
    remaining === 0 ? words.recovery.none :
    remaining < 4 ? words.recovery.few(remaining) : words.recovery.left(remaining);
  const label = remaining ? words.recovery.makeNew : words.recovery.make;
  return h('section', { class: 'recovery' }, h('h2', {}, icon('key'), words.recovery.heading),
    h('p', {}, words.recovery.text),
    h('p', { class: remaining > 0 && remaining < 4 ? 'warning' : 'state' }, state),
    hasTotp && h('div', { class: 'actions' },
      button(label, () => makeCodes(remaining, username, go), { 'data-key': 'recovery' }),
      remaining > 0 && button(words.recovery.remove, () => removeCodes(again), { 'data-key': 'recovery-remove', class: 'quiet' })));
}

async function makeCodes(remaining, username, go) {
  const proof = withProof();
  const content = [h('p', {}, words.recovery.makeText), remaining > 0 && h('p', { class: 'warning' }, words.recovery.replaces(remaining)), proof.place];
  const action = () => proof.run((code) => call('POST', path('users', own(), 'recovery_codes'), { code }));
  const made = await ask({ title: words.recovery.makeTitle, content, fields: [proof.field], submit: words.recovery.make, action });
  if (!made) return;
  if (await showCodes(made.codes, username)) go('#/', words.recovery.made);
}

/** Shows the codes once. Leaving needs confirmation. */
async function showCodes(codes, username) {
  const text = `${words.recovery.fileText(username, moment(serverNow()))}\n\n${codes.join('\n')}\n`;
  const download = () => {
    const url = URL.createObjectURL(new Blob([text], { type: 'text/plain' }));
    h('a', { href: url, download: words.recovery.file }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  };
  const content = [
    h('p', {}, words.recovery.shownText),
    h('ol', { class: 'codes', 'aria-label': words.recovery.listLabel, translate: 'no' }, codes.map((it) => h('li', {}, it))),
    h('p', { class: 'printed' }, words.recovery.fileText(username, moment(serverNow()))),
    h('div', { class: 'actions' }, copyButton(words.copy, text), button(words.recovery.download, download), button(words.recovery.print, () => print())),
  ];
  const stay = (event) => event.preventDefault();
  addEventListener('beforeunload', stay);
  const saved = await ask({ title: words.recovery.shown, content, submit: words.recovery.saved, cancel: null, wide: true, action: () => true });
  removeEventListener('beforeunload', stay);
  return saved;
}

async function removeCodes(again) {
  const proof = withProof();
  const action = () => proof.run((code) => call('DELETE', path('users', own(), 'recovery_codes'), { code }));
  const content = [h('p', {}, words.recovery.removeText), proof.place];
  if (await ask({ title: words.recovery.removeTitle, content, fields: [proof.field], submit: words.recovery.remove, danger: true, action })) again(words.recovery.removed);
}
