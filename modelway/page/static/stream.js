// Reads along with an answer: puts each piece where it belongs, and comes back after a lost connection.

import { one, parsed, setHTML } from './dom.js';

/**
 * One stream of events for a page. While nobody looks at the page it is closed: browsers allow few connections
 * to one server, and what was missed comes by itself when it is opened again.
 */
export class Stream {
  constructor(listeners) {
    this.listeners = listeners;
    this.source = null;
    this.key = '';
    this.seq = 0;
    this.state = () => '';
    document.addEventListener('visibilitychange', () => (document.hidden ? this.close() : this.open()));
    addEventListener('pagehide', () => this.close());
    addEventListener('pageshow', (event) => event.persisted && this.open());
  }

  /** Follow another conversation, or another answer of it. */
  follow(key, seq = 0) {
    this.close();
    this.key = key;
    this.seq = seq;
    if (!document.hidden) this.open();
  }

  open() {
    if (this.source) return;
    const source = new EventSource(`/page/events?key=${encodeURIComponent(this.key)}&seq=${this.seq}${this.state()}`);
    this.source = source;
    for (const name of ['begin', 'patch', 'over', 'changed', 'list']) {
      source.addEventListener(name, (event) => {
        const news = JSON.parse(event.data);
        if (name === 'patch') this.seq = news.seq;
        if (name === 'over') this.seq = 0;
        this.listeners[name]?.(news);
      });
    }
    source.onerror = () => this.listeners.lost?.();
    source.onopen = () => this.listeners.open?.();
  }

  close() {
    this.source?.close();
    this.source = null;
  }
}

/** Put what is new into the article of the answer under way. */
export function patch(article, news) {
  const place = one('[data-blocks]', article);
  for (const [index, html, added] of news.blocks) {
    while (place.children.length <= index) place.append(document.createElement('div'));
    const block = place.children[index];
    if (html === null) one('code', block).append(added);
    else setHTML(block, html);
  }
  if (news.reasoning) {
    const details = one('[data-reasoning]', article);
    details.hidden = false;
    one('.raw', details).append(news.reasoning);
  }
}

/** Let the messages be those of a new rendering; what is the same stays, with the reader's place in it. */
export function merge(thread, html) {
  const fresh = parsed(html);
  const known = new Map([...thread.children].map((child) => [child.id, child]));
  const kept = [...fresh.children].map((child) => {
    const old = child.id && known.get(child.id);
    return old && old.dataset.source === digest(child) ? old : child;
  });
  for (const child of kept) child.dataset.source ??= digest(child);
  thread.replaceChildren(...kept);
  for (const name of Object.keys(thread.dataset)) delete thread.dataset[name];
  Object.assign(thread.dataset, fresh.dataset);
}

function digest(element) {
  let sum = 0;
  for (const letter of element.outerHTML) sum = (sum * 31 + letter.codePointAt(0)) | 0;
  return String(sum);
}
