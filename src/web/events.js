// Events, for administrators: filtered, and updated while they are shown.

import { words } from './words.js';
import { button, explain, field, h, isIdle, show } from './lib.js';
import { choice, eventRow, listEvents } from './admin.js';

const PAGE = 50;
const EVERY_MS = 5_000;

const it = words.admin;

export function events(userId = '') {
  const kind = choice(it.kind, { '': it.anyKind, ...words.events });
  const user = field(it.user, { type: 'search', value: userId });
  const period = choice(it.period, it.periods);
  const place = h('div', {});
  const list = h('ul', { class: 'events' });
  let turn = 0;
  let newest = 0n;

  const request = (more) => ({
    limit: PAGE,
    ...(kind.select.value && { eventTypes: [kind.select.value] }),
    ...(user.input.value.trim() && { aggregateId: user.input.value.trim() }),
    ...more,
  });
  const since = () => Number(period.select.value) && new Date(Date.now() - period.select.value * 1000).toISOString();
  const tell = (act) => act().catch((error) => place.replaceChildren(h('p', { class: 'problem', role: 'alert' }, explain(error))));
  const rows = (events) => events.map((event) => eventRow(event, true));

  const fill = async () => {
    const mine = (turn += 1);
    const { events = [] } = await listEvents(request(since() && { range: { since: since() } }));
    if (mine !== turn) return;
    newest = BigInt(events[0]?.sequence ?? 0);
    list.replaceChildren(...rows(events));
    place.replaceChildren(...(events.length ? older(events) : [h('p', { class: 'hint' }, it.noEventsFound)]));
  };
  const older = (events) => (events.length < PAGE ? [] : [button(it.older, () => tell(async () => {
    const mine = turn;
    const until = events.at(-1).creationDate;
    const range = since() ? { range: { since: since(), until } } : { from: until };
    const next = await listEvents(request(range));
    if (mine !== turn) return;
    const known = new Set([...list.children].map((row) => row.dataset.sequence));
    const fresh = (next.events ?? []).filter((event) => !known.has(event.sequence));
    list.append(...rows(fresh));
    place.replaceChildren(...older(next.events ?? []));
  }))]);

  /** Adds new events at the top while this view is shown. Screen readers are not told: it would never end. */
  const follow = async () => {
    if (!list.isConnected) return;
    const mine = turn;
    if (isIdle()) {
      try {
        const { events = [] } = await listEvents(request({ sequence: String(newest) }));
        if (mine === turn && events.length) {
          newest = BigInt(events[0].sequence);
          list.prepend(...rows(events));
          place.querySelector('.hint')?.remove();
        }
      } catch {
        // Retried later. Another notice reports a server that is gone.
      }
    }
    setTimeout(follow, EVERY_MS);
  };

  let typing;
  user.input.addEventListener('input', () => {
    clearTimeout(typing);
    typing = setTimeout(() => tell(fill), 400);
  });
  kind.select.addEventListener('change', () => tell(fill));
  period.select.addEventListener('change', () => tell(fill));
  return show(it.events, async () => {
    await fill();
    setTimeout(follow, EVERY_MS);
    return [
      h('h1', {}, it.events), h('p', { class: 'lead' }, it.eventsLive),
      h('form', { class: 'filters', role: 'search', onsubmit: (event) => event.preventDefault() }, kind.row, user.row, period.row),
      list, place,
    ];
  });
}
