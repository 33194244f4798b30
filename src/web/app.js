// The entry point: the code of a link or a pasted token starts a session, and the address selects the view.
//
// An address is `#/…`, or `#` and the code of a link. The code is removed from the address bar and the history first.

import { words } from './words.js';
import { begin, button, callWith, closeDialogs, currentSession, end, field, form, h, happened, icon, isIdle, notice, redeem, Refusal, serverNow, show, time } from './lib.js';

const byId = (id) => document.getElementById(id);

/** The notice for the next view. */
let nextNotice = '';
/** Reloads the current view without moving the focus. Null if it has nothing to reload. */
let refresh = null;
let endTimer;

// ---- The way in ----

function takeLinkCode() {
  const fragment = location.hash.slice(1);
  if (!fragment || fragment.startsWith('/')) return null;
  history.replaceState(null, '', location.pathname + location.search);
  return fragment;
}

/** Waits for a click, because programs that check links in mail run scripts and would use it up. */
const arrive = (code) => show(words.link, () => message(words.link, words.linkText, button(words.signInButton, () => open(code), { class: 'primary' })));

/** Redeems the code of a link for a session. If no answer arrives, the user may try again. */
function open(code) {
  refresh = null;
  return show(words.opening, async () => {
    try {
      enter(await redeem(code));
      queueMicrotask(route);
      return [];
    } catch (error) {
      if (!(error instanceof Refusal) || ![400, 401, 404].includes(error.status)) throw error;
      if (!currentSession()) return message(words.linkUsed, words.linkUsedText);
      // An open session continues.
      nextNotice = words.linkUsed;
      queueMicrotask(route);
      return [];
    }
  });
}

/** Starts the session that the server granted. */
function enter({ token, role, userId, expires }) {
  begin({ token, role, userId });
  clearTimeout(endTimer);
  byId('foot').replaceChildren();
  if (!expires) return;
  const left = Date.parse(expires) - serverNow();
  const soon = () => {
    notice(words.endsSoon);
    endTimer = setTimeout(() => end('expired'), 120_000);
  };
  endTimer = setTimeout(soon, Math.max(0, Math.min(left - 120_000, 2 ** 31 - 1)));
  byId('foot').append(h('p', {}, words.endsAt(time(Date.now() + left))));
}

/** Finds the role of a pasted token. None of these calls changes anything. */
async function recognize(token, userId) {
  const refusal = (method, path, body) => callWith(token, method, path, body).then(() => null, (error) => {
    if (error instanceof Refusal && [400, 403, 404].includes(error.status)) return error;
    throw error;
  });
  if (!(await refusal('POST', 'users/_search?query.limit=1', []))) return { token, role: 'admin' };
  // It may not search. A checker's empty code is refused as malformed, and others get 403.
  if ((await refusal('POST', 'users/-/totp/_check', '')).status !== 403) throw words.tokenOfChecker;
  if (!userId) return { token, role: 'self' };
  const wrong = await refusal('GET', `users/${encodeURIComponent(userId)}`);
  if (wrong) throw wrong;
  return { token, role: 'self', userId };
}

function signIn() {
  refresh = null;
  const token = field(words.token, { hint: words.tokenHint, class: 'masked' });
  const user = field(words.userId);
  const place = h('div', {});
  const action = async () => {
    const text = token.input.value.trim();
    if (!text) {
      token.input.focus();
      throw words.tokenEmpty;
    }
    let known;
    try {
      known = await recognize(text, user.row.isConnected && user.input.value.trim());
    } catch (error) {
      throw error.status === 401 ? words.tokenUnknown : error;
    }
    if (known.role === 'self' && !known.userId) {
      place.append(user.row);
      user.input.focus();
      throw words.tokenOfUser;
    }
    enter(known);
    route();
  };
  const [run, open, or, create, dot] = words.tokenHowText;
  const { element } = form({ content: [token.row, place], fields: [token], submit: words.signInButton, action });
  return show(words.signIn, () => [
    h('div', { class: 'narrow' }, h('h1', {}, words.signIn), h('p', { class: 'lead' }, words.signInLink), element,
      h('details', {}, h('summary', {}, words.tokenHow), h('p', {}, run, h('code', {}, open), or, h('code', {}, create), dot))),
  ]);
}

// ---- The way out ----

/** A view with only a message. */
function message(title, text, next = button(words.useToken, signIn)) {
  refresh = null;
  return [h('div', { class: 'narrow' }, h('h1', {}, title), h('p', { class: 'lead' }, text), h('div', { class: 'actions' }, next))];
}

happened.addEventListener('ended', ({ detail: why }) => {
  clearTimeout(endTimer);
  byId('foot').replaceChildren();
  notice('');
  history.replaceState(null, '', location.pathname + location.search);
  drawTop();
  const [title, text] = words.ended[why];
  show(title, () => message(title, text));
});

// The session ends when the page is left, because the browser may keep the page for its back button.
addEventListener('pagehide', () => end('left'));

// ---- What is shown ----

/** Goes to a view, and shows a notice there. */
function go(address, text = '') {
  nextNotice = text;
  if (location.hash === address) route();
  else location.hash = address;
}

function drawTop(view) {
  const session = currentSession();
  const isAdmin = session && session.role !== 'self';
  const link = (address, label, names) => h('a', { href: address, 'aria-current': names.includes(view) ? 'page' : null }, label);
  byId('top').replaceChildren(
    h('p', { class: 'brand' }, icon('shield'), h('b', {}, words.brand)),
    isAdmin ? h('nav', { 'aria-label': words.navigation }, link('#/users', words.admin.users, ['users', '']), link('#/events', words.admin.events, ['events'])) : '',
    session ? button(words.leave, () => end('signedOut'), { class: 'quiet' }) : '',
  );
}

/** The parts of the address, decoded. */
function address() {
  try {
    return location.hash.slice(2).split('/').map(decodeURIComponent);
  } catch {
    return [''];
  }
}

async function route() {
  // Going back keeps dialogs that are shown once.
  closeDialogs('dialog:not(.wide)');
  const code = takeLinkCode();
  const session = currentSession();
  const [view, ...rest] = address();
  drawTop(view);
  if (code) return arrive(code);
  if (!session) return signIn();
  const text = nextNotice;
  nextNotice = '';
  notice(text);
  refresh = null;
  if (session.role === 'self') {
    const user = await import('./user.js');
    if (view === 'add') return user.add(go);
    if (view === 'replace') return user.add(go, rest[0]);
    refresh = () => user.home(go, true);
    return user.home(go);
  }
  const admin = await import('./admin.js');
  if (view === 'users' && rest[0]) {
    refresh = () => admin.user(rest[0], go, true);
    return admin.user(rest[0], go);
  }
  if (view === 'events') return (await import('./events.js')).events(rest[0]);
  return admin.users(go);
}

happened.addEventListener('back', () => refresh?.());
document.addEventListener('visibilitychange', () => isIdle() && refresh?.());
addEventListener('hashchange', route);
route();
