// The administrator's page, loaded on demand: users, and one user. The server decides what a token may see or do.

import { words } from './words.js';
import { ago, ask, button, call, copyButton, explain, field, h, icon, moment, named, notice, path, show, unique } from './lib.js';

const PAGE = 50;

const it = words.admin;
const nameOf = (user) => user.authenticators?.usernames?.[0]?.username ?? it.unnamedUser;
const totpName = (totp) => totp.name || words.own.unnamed;
const addressOf = (id) => `#/users/${encodeURIComponent(id)}`;

const badge = (state) => h('span', { class: `badge ${state}` }, it.states[state] ?? state);

/** A field that offers a choice. */
export function choice(label, options, value = '') {
  const id = unique('choice');
  const select = h('select', { id }, Object.entries(options).map(([key, text]) => h('option', { value: key, selected: key === value }, text)));
  return { row: h('div', { class: 'field' }, h('label', { for: id }, label), select), select };
}

// ---- Users ----

// The search is kept while an administrator looks at one user.
let looked = { text: '', state: '' };

function filtersOf({ text, state }, isNarrow) {
  const filters = [];
  if (state) filters.push({ stateFilter: { state } });
  if (text) {
    const username = (method) => ({ usernameFilter: { username: text, method: `TEXT_FILTER_METHOD_${method}` } });
    const ways = [username('STARTS_WITH_IGNORE_CASE'), { userIdFilter: { id: text, method: 'TEXT_FILTER_METHOD_EQUALS' } }];
    if (!isNarrow) ways.push(username('CONTAINS'));
    filters.push({ orFilter: { queries: ways } });
  }
  return filters;
}

async function search(wanted, offset) {
  const page = `users/_search?query.limit=${PAGE}&query.offset=${offset}`;
  try {
    return await call('POST', page, { body: filtersOf(wanted) });
  } catch (error) {
    // Searching inside names is slow if there are many. Their beginnings have an index.
    if (error.id !== 'TOTPD-Search' || !wanted.text) throw error;
    return call('POST', page, { body: filtersOf(wanted, true) });
  }
}

export function users(go) {
  const find = field(it.find, { hint: it.findHint, type: 'search', value: looked.text });
  const state = choice(it.state, { '': it.anyState, ...it.states }, looked.state);
  const total = h('p', { class: 'hint', role: 'status' });
  const list = h('ul', { class: 'rows' });
  const place = h('div', {});
  let turn = 0;

  const fill = async (offset = 0) => {
    const mine = (turn += 1);
    looked = { text: find.input.value.trim(), state: state.select.value };
    const found = await search(looked, offset);
    if (mine !== turn) return;
    const result = found.result ?? [];
    const all = Number(found.details?.totalResult ?? 0);
    if (offset === 0) list.replaceChildren();
    list.append(...result.map(row));
    const shown = list.children.length;
    total.replaceChildren(it.total(all));
    const isFiltered = looked.text || looked.state;
    if (!shown) place.replaceChildren(isFiltered ? h('p', {}, it.noneFound) : h('section', { class: 'empty' }, h('h2', {}, it.noUsers), h('p', {}, it.noUsersText)));
    else if (shown < all) {
      place.replaceChildren(button(it.more, async () => {
        const before = list.children.length;
        await tell(() => fill(before));
        list.children[before]?.querySelector('a').focus();
      }));
    } else place.replaceChildren();
  };
  const tell = (act) => act().catch((error) => place.replaceChildren(h('p', { class: 'problem', role: 'alert' }, explain(error))));

  let typing;
  find.input.addEventListener('input', () => {
    clearTimeout(typing);
    typing = setTimeout(() => tell(fill), 250);
  });
  state.select.addEventListener('change', () => tell(fill));
  return show(it.users, async () => {
    await fill();
    return [
      h('div', { class: 'head' }, h('h1', {}, it.users), button(it.create, () => create(go), { class: 'primary' })),
      h('form', { class: 'filters', role: 'search', onsubmit: (event) => event.preventDefault() }, find.row, state.row),
      total, list, place,
    ];
  });
}

function row(user) {
  const totps = user.authenticators?.totps ?? [];
  return h('li', {}, h('a', { href: addressOf(user.details.id) }, named(nameOf(user))),
    h('span', { class: 'meta' }, it.authenticatorCount(totps.filter((totp) => totp.isVerified).length)),
    h('span', { class: 'meta id' }, user.details.id),
    badge(user.state));
}

async function create(go) {
  const name = field(it.username, { maxlength: 200 });
  const org = field(`${it.organization} (${words.optional})`, { hint: it.organizationHint });
  const action = async () => {
    const username = name.input.value.trim();
    const where = org.input.value.trim() && `?organization.orgId=${encodeURIComponent(org.input.value.trim())}`;
    const { details } = await call('POST', `users${where}`, { body: { authenticators: { usernames: [{ username }] } } });
    return { id: details.id, username };
  };
  const made = await ask({ title: it.create, content: [name.row, org.row], fields: [name, org], submit: it.createButton, action });
  if (made) go(addressOf(made.id), it.created(made.username));
}

// ---- One user ----

export function user(id, go, quiet) {
  const again = (text) => {
    notice(text);
    return user(id, go, true);
  };
  return show(it.users, async () => {
    const optional = (promise) => promise.catch((error) => (error.status === 404 || error.status === 501 ? {} : Promise.reject(error)));
    const [{ user: found }, { result: totps = [] }, recovery, recent] = await Promise.all([
      call('GET', path('users', id)),
      call('GET', path('users', id, 'totp')),
      optional(call('GET', path('users', id, 'recovery_codes'))),
      optional(listEvents({ aggregateId: id, aggregateTypes: ['user'], limit: 10 })),
    ]);
    const name = nameOf(found);
    document.title = words.title(name);
    return [
      h('p', { class: 'over' }, h('a', { href: '#/users' }, `← ${it.back}`)),
      h('div', { class: 'head' }, h('h1', {}, named(name), ' ', badge(found.state)), h('div', { class: 'actions' }, stateActions(found, again), invitation(found))),
      facts(found),
      h('section', {}, h('h2', {}, it.authenticators),
        totps.length ? h('ul', { class: 'cards' }, totps.map((totp) => totpCard(id, totp, again))) : h('p', { class: 'hint' }, it.noTotps),
        h('p', { class: 'meta' }, icon('key'), it.recoveryLeft(recovery.remaining ?? 0))),
      h('section', {}, h('h2', {}, it.recent), recent.events ? h('ul', { class: 'events' }, recent.events.map((event) => eventRow(event))) : h('p', { class: 'hint' }, it.noEvents),
        h('p', {}, h('a', { href: `#/events/${encodeURIComponent(id)}` }, it.allEvents))),
    ];
  }, { quiet });
}

function facts(found) {
  const { details } = found;
  const names = (found.authenticators?.usernames ?? []).map((one) => one.username);
  const entry = (label, value) => value && h('div', {}, h('dt', {}, label), h('dd', {}, value));
  return h('dl', { class: 'facts' },
    entry(it.id, h('code', {}, details.id)),
    names.length > 1 && entry(it.usernames, names.map((one, at) => [at ? ', ' : '', named(one)])),
    entry(it.made, ago(details.created)),
    entry(it.org, h('code', {}, details.owner?.id)),
    found.data && entry(it.data, h('pre', { tabindex: 0 }, JSON.stringify(found.data, null, 2))));
}

function totpCard(id, totp, again) {
  const name = totpName(totp);
  const remove = async () => {
    const action = async () => {
      try {
        await call('DELETE', path('users', id, 'totp', totp.totpId));
      } catch (error) {
        if (error.id !== 'COMMAND-Hd9sd') throw error;
      }
    };
    const done = await ask({ title: words.own.removeTitle(name), content: [h('p', {}, words.own.removeText)], submit: words.own.remove, danger: true, action });
    if (done) again(words.own.removed(name));
  };
  return h('li', { class: totp.isVerified ? 'card' : 'card pending' }, icon('phone'),
    h('div', { class: 'what' }, h('h3', {}, named(name), ' ', !totp.isVerified && h('span', { class: 'badge' }, words.own.pending)),
      h('p', { class: 'meta' }, h('span', {}, words.own.added, ' ', ago(totp.created)), ' ',
        h('span', {}, words.own.lastUsed, ' ', totp.lastUsed ? ago(totp.lastUsed) : words.never))),
    h('div', { class: 'actions' }, button(words.own.remove, remove, { class: 'quiet', 'aria-label': `${words.own.remove} ${name}`, 'data-key': `remove ${totp.totpId}` })));
}

function stateActions(found, again) {
  const { id } = found.details;
  const name = nameOf(found);
  const act = (label, what, title, text) => button(label, async () => {
    const action = () => call('POST', path('users', id, what));
    const done = title
      ? await ask({ title, content: [h('p', {}, text)], submit: label, danger: true, action })
      : await action().catch((error) => void notice(explain(error)));
    if (done) again(it.did[what]);
  }, { 'data-key': what, title: what === '_unlock' && !title ? it.endWaitHint : null });
  const lock = act(it.lock, '_lock', it.lockTitle(name), it.lockText);
  const deactivate = act(it.deactivate, '_deactivate', it.deactivateTitle(name), it.deactivateText);
  if (found.state === 'USER_STATE_LOCKED') return [act(it.unlock, '_unlock')];
  if (found.state === 'USER_STATE_INACTIVE') return [act(it.activate, '_activate'), lock];
  return [act(it.endWait, '_unlock'), lock, deactivate];
}

function invitation(found) {
  if (found.state !== 'USER_STATE_ACTIVE') return null;
  return button(it.invite, async () => {
    const time = choice(it.inviteFor, it.inviteTimes, '1h');
    const action = () => call('POST', path('users', found.details.id, '_invite'), { body: { expires: time.select.value } });
    const made = await ask({ title: it.inviteTitle(nameOf(found)), content: [h('p', {}, it.inviteText), time.row], submit: it.inviteButton, action });
    if (!made) return;
    const link = field(it.link, { value: made.url, readonly: true, class: 'link', onfocus: (event) => event.target.select() });
    const content = [h('p', {}, it.inviteOnce(moment(made.expires))), link.row, h('div', { class: 'actions' }, copyButton(words.copy, made.url))];
    await ask({ title: it.inviteReady, content, fields: [link], submit: words.close, cancel: null, action: () => true });
  }, { class: 'primary', 'data-key': 'invite' });
}

// ---- Events ----

export const listEvents = (body) => call('POST', 'events/_search', { at: 'admin/v1/', body });

export function eventRow({ sequence, type, creationDate, aggregate, editor, payload = {} }, withUser) {
  const isUser = aggregate?.type?.type === 'user';
  const who = editor?.displayName;
  const about = payload.name ?? payload.totpName ?? payload.username;
  return h('li', { 'data-sequence': sequence },
    h('span', { class: type.type.endsWith('failed') ? 'kind failed' : 'kind' }, words.events[type.type] ?? type.type),
    about && h('span', { class: 'about' }, named(String(about))),
    h('span', { class: 'meta' }, withUser && isUser && [it.user, ' ', h('a', { class: 'id', href: addressOf(aggregate.id) }, aggregate.id), ', '],
      it.by[who] ?? it.byToken(who), payload.peer && ` ${it.from(payload.peer)}`),
    ago(creationDate));
}
