// Shared by all pages: elements, the API, forms, dialogs, and time.
//
// Text never becomes markup: nothing here parses HTML. The token is stored only in a variable of this module.

import { words } from './words.js';

// ---- Elements ----

/** Builds an element. Attributes that begin with `on` are listeners, and null and false ones are omitted. */
export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat(2).filter((it) => it !== undefined && it !== null && it !== false));
  return element;
}

/** A name or other text from a user, which may have another direction. */
export const named = (text) => h('bdi', {}, text);

/** An icon, which screen readers skip. */
export const icon = (name) => h('span', { class: `icon ${name}`, 'aria-hidden': 'true' });

export const button = (label, onclick, attributes = {}) => h('button', { type: 'button', onclick, ...attributes }, label);

const byId = (id) => document.getElementById(id);

/** Shows what was done, also to screen readers. The text stays until the next notice. */
export function notice(text) {
  byId('notice').replaceChildren(...(text ? [h('p', {}, text)] : []));
}

let uniqueNumber = 0;
export const unique = (prefix) => `${prefix}-${(uniqueNumber += 1)}`;

// ---- Time ----

// How far the server's clock is ahead.
let serverAheadMs = 0;

export const serverNow = () => Date.now() + serverAheadMs;

// Dates in the user's locale, if its language is that of the texts.
const locale = navigator.languages.find((it) => it.startsWith(words.locale)) ?? words.locale;
const dateFormat = new Intl.DateTimeFormat(locale, { dateStyle: 'medium' });
const momentFormat = new Intl.DateTimeFormat(locale, { dateStyle: 'medium', timeStyle: 'short' });
const timeFormat = new Intl.DateTimeFormat(locale, { timeStyle: 'short' });
const agoFormat = new Intl.RelativeTimeFormat(locale, { numeric: 'auto' });

export const time = (at) => timeFormat.format(new Date(at));
export const moment = (at) => momentFormat.format(new Date(at));

/** A relative time, such as "2 hours ago". */
export function ago(at) {
  const seconds = Math.min(0, (Date.parse(at) - serverNow()) / 1000);
  const days = seconds / 86_400;
  const [text, unit] =
    seconds > -60 ? [words.justNow] :
    seconds > -3_600 ? [seconds / 60, 'minute'] :
    days > -1 ? [seconds / 3_600, 'hour'] :
    days > -31 ? [days, 'day'] : [dateFormat.format(new Date(at))];
  return h('time', { datetime: at, title: moment(at) }, unit ? agoFormat.format(Math.round(text), unit) : text);
}

const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;

/** While `element` is shown, calls `tick` with the remaining time once a second, and `over` at the end. */
export function countDown(element, seconds, tick, over) {
  const end = performance.now() + seconds * 1000;
  const step = () => {
    if (!element.isConnected) return;
    const left = Math.ceil((end - performance.now()) / 1000);
    if (left <= 0) {
      over();
      return;
    }
    tick(clock(left), left);
    setTimeout(step, 250);
  };
  queueMicrotask(step);
}

// ---- The API ----

const root = new URL('../', import.meta.url);

/** The session: `{ token, role, userId, ends }`, or null. */
let session = null;

/** Events of the session and the server: `ended` and `back`. */
export const happened = new EventTarget();

export const currentSession = () => session;

export function begin(next) {
  session = next;
}

/** Closes dialogs at once: the browser's event comes later, and a secret would stay until then. */
export const closeDialogs = (which = 'dialog') => document.querySelectorAll(which).forEach((it) => it.dispatchEvent(new Event('close')));

/** Ends the session, and forgets the token. `why` is a key of `words.ended`. */
export function end(why) {
  if (!session) return;
  session = null;
  closeDialogs();
  happened.dispatchEvent(new CustomEvent('ended', { detail: why }));
}

/** A refusal. */
export class Refusal extends Error {
  constructor(status, id, message, retryAfterS) {
    super(message);
    Object.assign(this, { status, id, retryAfterS });
  }
}

/** No answer arrived, so a change may have been made. */
export class NoAnswer extends Error {}

/** The text about a failed call. */
export function explain(error) {
  if (error instanceof NoAnswer) return words.noAnswer;
  if (error instanceof Refusal) {
    return words.refusals[error.id] ?? words.statuses[error.status] ?? words.refused(error.message);
  }
  console.error(error);
  return words.broken;
}

async function send(method, path, { body, headers = {} } = {}) {
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  let response;
  let answer;
  try {
    response = await fetch(new URL(path, root), {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: 'no-store',
      redirect: 'error',
      signal: AbortSignal.timeout(20_000),
    });
    answer = await response.text();
  } catch {
    watchOutage();
    throw new NoAnswer();
  }
  const date = Date.parse(response.headers.get('Date') ?? '');
  if (!Number.isNaN(date)) serverAheadMs = date - Date.now();
  let json = {};
  try {
    json = JSON.parse(answer);
  } catch {
    // A proxy's own answer may not be JSON. The status is enough.
  }
  if (response.ok) return json;
  const detail = json.details?.[0] ?? {};
  const retryAfterS = Number(response.headers.get('Retry-After')) || undefined;
  throw new Refusal(response.status, detail.id, detail.message ?? json.message ?? '', retryAfterS);
}

export const redeem = (code) => send('POST', 'ui/redeem', { body: { code } });

/** Makes a call with a token that has no session. */
export const callWith = (token, method, path, body) => send(method, `resources/v3alpha/${path}`, { body, headers: { Authorization: `Bearer ${token}` } });

/** Makes a call in the session. `code` is a current code if the setting `self-removal` needs one. */
export async function call(method, path, { body, code, at = 'resources/v3alpha/' } = {}) {
  const asked = session;
  if (!asked) throw new Refusal(401);
  const headers = { Authorization: `Bearer ${asked.token}` };
  if (code) headers['Totpd-Code'] = code;
  try {
    return await send(method, at + path, { body, headers });
  } catch (error) {
    if (error.status === 401 && session === asked) end('refused');
    throw error;
  }
}

/** A path of the API. An id is any text. */
export const path = (...parts) => parts.map(encodeURIComponent).join('/');

// ---- A server that is gone ----

let watching = false;

async function watchOutage() {
  if (watching) return;
  watching = true;
  byId('outage').replaceChildren(h('p', {}, words.outage));
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    try {
      const response = await fetch(new URL('debug/healthz', root), { cache: 'no-store', signal: AbortSignal.timeout(5_000) });
      if (response.ok) break;
    } catch {
      // Still down.
    }
  }
  watching = false;
  byId('outage').replaceChildren();
  notice(words.outageOver);
  happened.dispatchEvent(new Event('back'));
}

// ---- Forms and dialogs ----

/** A labelled field: `{ row, input }`. */
export function field(label, { hint, ...attributes } = {}) {
  const id = unique('field');
  const hintId = hint && unique('hint');
  const plain = { type: 'text', autocomplete: 'off', autocapitalize: 'off', spellcheck: 'false', dir: 'auto' };
  const input = h('input', { id, ...plain, 'aria-describedby': hintId, ...attributes });
  const row = h('div', { class: 'field' }, h('label', { for: id }, label), hint && h('p', { class: 'hint', id: hintId }, hint), input);
  return { row, input };
}

/**
 * A field for a one-time code, or with all keys for a recovery code. Spaces and hyphens, as apps show and people paste them,
 * are ignored.
 */
export function codeField(label, hint, inputmode = 'numeric') {
  const made = field(label, { hint, class: 'code', autocomplete: 'one-time-code', inputmode });
  return { ...made, code: () => made.input.value.normalize('NFKC').replace(/[\s\p{Pd}]/gu, '') };
}

/** The error of a form. A wait counts down. */
function problemBox() {
  const text = h('p', { role: 'alert' });
  const left = h('p', { class: 'left', role: 'timer' });
  const box = h('div', { class: 'problem', hidden: true }, text, left);
  const clear = () => {
    box.hidden = true;
    text.replaceChildren();
    left.replaceChildren();
  };
  const show = (error) => {
    clear();
    box.hidden = false;
    box.classList.remove('over');
    text.append(typeof error === 'string' ? error : explain(error));
    if (!error.retryAfterS) return;
    const over = () => {
      left.replaceChildren();
      box.classList.add('over');
      text.replaceChildren(words.waitOver);
    };
    countDown(left, error.retryAfterS, (it) => left.replaceChildren(words.waitLeft(it)), over);
  };
  return { box, show, clear };
}

/** A form. It shows what `action` throws, and marks the first visible one of `fields` if the input is refused. */
export function form({ content, fields = [], submit, danger, others = [], action }) {
  const problem = problemBox();
  problem.box.id = unique('problem');
  const send = h('button', { type: 'submit', class: danger ? 'danger' : 'primary' }, submit);
  const mark = (on) => {
    const input = fields.find((it) => it.row.isConnected)?.input;
    if (!input) return;
    const described = new Set((input.getAttribute('aria-describedby') ?? '').split(' ').filter(Boolean));
    described[on ? 'add' : 'delete'](problem.box.id);
    input.setAttribute('aria-describedby', [...described].join(' '));
    input.setAttribute('aria-invalid', String(on));
    if (on) {
      input.focus();
      input.select();
    }
  };
  const onsubmit = async (event) => {
    event.preventDefault();
    if (send.getAttribute('aria-disabled')) return;
    send.setAttribute('aria-disabled', 'true');
    send.replaceChildren(words.working);
    problem.clear();
    mark(false);
    try {
      await action();
    } catch (error) {
      if (currentSession() || !(error.status === 401)) problem.show(error);
      if (error.status === 400 && !/^COMMAND|Limit/.test(error.id)) mark(true);
    } finally {
      send.removeAttribute('aria-disabled');
      send.replaceChildren(submit);
    }
  };
  const element = h('form', { onsubmit, novalidate: true }, content, problem.box, h('div', { class: 'actions' }, send, others));
  return { element, problem };
}

/** Asks in a dialog. Returns the result of `action`, or nothing if cancelled. Without a cancel button Escape is ignored. */
export function ask({ title, content, fields, submit, danger, action, cancel = words.cancel, wide }) {
  return new Promise((resolve) => {
    const titleId = unique('title');
    let result;
    const dialog = h('dialog', { 'aria-labelledby': titleId, class: wide && 'wide' });
    const opener = document.activeElement;
    const finish = () => {
      if (!dialog.isConnected) return;
      dialog.close();
      dialog.remove();
      resolve(result);
      if (opener?.isConnected) opener.focus();
      else focusHeading();
    };
    const others = cancel ? [button(cancel, finish)] : [];
    const act = async () => {
      result = (await action()) ?? true;
      finish();
    };
    const { element } = form({ content, fields, submit, danger, others, action: act });
    dialog.append(h('h2', { id: titleId }, title), element);
    dialog.addEventListener('close', finish);
    dialog.addEventListener('cancel', (event) => {
      event.preventDefault();
      if (cancel) finish();
    });
    document.body.append(dialog);
    dialog.showModal();
    const first = fields?.find((it) => it.row.isConnected)?.input;
    // Enter must not trigger what cannot be undone.
    const buttons = [...dialog.querySelectorAll(':scope > form > .actions button')];
    (first ?? (danger ? buttons.at(-1) : buttons[0])).focus();
  });
}

/** Makes changes that may need a code. If the server asks for one, a field is shown, and the next try sends it. */
export function withProof() {
  const proof = codeField(words.proof, words.proofHint, 'text');
  const place = h('div', {});
  const run = async (change) => {
    const wanted = place.hasChildNodes();
    try {
      return await change(wanted ? proof.code() : undefined);
    } catch (error) {
      if (error.id === 'TOTPD-Code1' && !wanted) {
        place.append(proof.row);
        proof.input.focus();
      }
      throw error;
    }
  };
  return { place, field: proof, run };
}

/** Copies text. Without TLS browsers allow only the old interface. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = h('textarea', { class: 'unseen', readonly: true, 'aria-hidden': 'true' });
    area.value = text;
    (document.querySelector('dialog[open]') ?? document.body).append(area);
    area.select();
    const copied = document.execCommand('copy');
    area.remove();
    if (!copied) throw new Error('no clipboard');
  }
}

/** A button that copies and says so. */
export function copyButton(label, text) {
  const said = h('span', { role: 'status' }, label);
  const made = h('button', {
    type: 'button',
    onclick: async () => {
      said.replaceChildren(await copy(text).then(() => words.copied, () => words.notCopied));
      made.focus();
      setTimeout(() => said.replaceChildren(label), 4_000);
    },
  }, icon('copy'), said);
  return made;
}

// ---- Views ----

let turn = 0;

/** Moves the focus to the heading, so that a screen reader reads it. */
export function focusHeading() {
  const heading = byId('main').querySelector('h1') ?? byId('main');
  heading.tabIndex = -1;
  heading.focus({ preventScroll: true });
}

/**
 * Shows the elements that `load` returns, unless the view was left. If loading fails, shows why and what to do.
 * `quiet` keeps the old view until then, and the focus.
 */
export async function show(title, load, { quiet = false } = {}) {
  const mine = (turn += 1);
  const main = byId('main');
  document.title = words.title(title);
  if (!quiet) {
    main.replaceChildren(h('h1', {}, title), h('p', { class: 'loading', role: 'status' }, words.loading));
    focusHeading();
    window.scrollTo(0, 0);
  }
  let content;
  try {
    content = await load();
  } catch (error) {
    if (mine !== turn || (error.status === 401 && !session)) return;
    if (quiet && error instanceof NoAnswer) return;
    const again = button(words.tryAgain, () => show(title, load), { class: 'primary' });
    const { box, show: tell } = problemBox();
    content = [h('h1', {}, title), box, h('div', { class: 'actions' }, again)];
    queueMicrotask(() => tell(error instanceof NoAnswer ? words.notLoaded : error));
  }
  if (mine !== turn) return;
  const hadFocus = main.contains(document.activeElement);
  const focused = quiet && document.activeElement?.dataset.key;
  main.replaceChildren(...content.flat().filter(Boolean));
  const same = focused && [...main.querySelectorAll('[data-key]')].find((it) => it.dataset.key === focused);
  if (same) same.focus();
  else if (hadFocus || !quiet) focusHeading();
}

/** Whether a view may be reloaded without disturbing input. */
export const isIdle = () => !document.querySelector('dialog[open]') && !document.hidden;
