// What all scripts of the page share: words, requests, safe HTML, notes to the reader.

const words = JSON.parse(document.getElementById('texts').textContent);
const plural = new Intl.PluralRules(document.documentElement.lang);

/** The text of a key, with values put in. */
export function t(key, values = {}) {
  return words[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** The text of a key in the form that the number asks for. */
export function counted(key, count) {
  return t(`${key}.${plural.select(count)}`, { count });
}

export const one = (selector, root = document) => root.querySelector(selector);
export const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// The server has sanitised it already; the browser does so once more.
const sanitizer = 'Sanitizer' in window ? new Sanitizer({ removeElements: ['base', 'link', 'meta', 'style'] }) : null;
const policy = sanitizer ? null : window.trustedTypes?.createPolicy('modelway', { createHTML: (html) => html });

/** Give an element HTML that comes from the server. */
export function setHTML(element, html) {
  if (sanitizer) element.setHTML(html, { sanitizer });
  else element.innerHTML = policy ? policy.createHTML(html) : html;
  return element;
}

/** The first element of a piece of HTML. */
export function parsed(html) {
  return setHTML(document.createElement('div'), html).firstElementChild;
}

/** An element made here; its text is only text. */
export function made(name, properties = {}, ...content) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...content);
  return element;
}

class Failure extends Error {}

/** Ask the server; throws what it says where that is an error. */
export async function ask(address, body) {
  const request = body === undefined ? {} : {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  };
  let reply;
  try {
    reply = await fetch(address, request);
  } catch {
    throw new Failure(t('js.offline'));
  }
  if (reply.redirected && new URL(reply.url).pathname === '/login') location.assign('/login');
  const isJson = reply.headers.get('content-type')?.startsWith('application/json');
  const content = isJson ? await reply.json() : await reply.text();
  if (!reply.ok) throw new Failure(content.error?.message ?? t('js.failed'));
  return content;
}

/** Do something, and tell the reader where it fails. */
export async function attempt(action) {
  try {
    return await action();
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    toast(error.message);
    return undefined;
  }
}

/** Show a note for a while, perhaps with something to press. */
export function toast(text, label = '', pressed = () => {}) {
  const note = made('div', { className: 'toast', role: 'status' }, made('span', { textContent: text }));
  const timer = setTimeout(() => note.remove(), 9000);
  if (label) {
    const press = () => { clearTimeout(timer); note.remove(); pressed(); };
    note.append(made('button', { type: 'button', textContent: label, onclick: press }));
  }
  one('#toasts').append(note);
}

/** Tell screen readers something, once. */
export function say(text) {
  one('#status').textContent = text;
}

export async function copy(text) {
  await navigator.clipboard.writeText(text);
  say(t('js.copied'));
}
