// What every page can do: the sidebar, the search, the menu of a conversation, the keyboard.

import { all, ask, attempt, counted, made, one, setHTML, t, toast } from './dom.js';

/** What other scripts let buttons and keys do, by name. */
export const actions = {};

const isNarrow = () => matchMedia('(max-width: 760px)').matches;
const current = () => location.pathname;
const cookie = (name, value) => {
  document.cookie = `${name}=${value}; path=/; max-age=31536000; samesite=strict`;
};

export function closeSidebar() {
  document.body.classList.remove('open');
}

actions.sidebar = () => {
  document.body.classList.toggle(isNarrow() ? 'open' : 'bare');
  if (document.body.classList.contains('open')) one('#sidebar a').focus();
  else if (!isNarrow()) localStorage.setItem('bare', document.body.classList.contains('bare') ? '1' : '');
};

let showsAll = false;
actions.older = () => {
  showsAll = true;
  attempt(refreshList);
};

/** Show the list of conversations as it is now. */
export async function refreshList() {
  const html = await ask(`/page/list?current=${encodeURIComponent(current())}${showsAll ? '&all=1' : ''}`);
  const list = one('#conversations');
  const focused = list.contains(document.activeElement) ? document.activeElement.getAttribute('href') : null;
  const scrolled = list.scrollTop;
  const fresh = setHTML(document.createElement('div'), html).firstElementChild;
  list.replaceWith(fresh);
  fresh.scrollTop = scrolled;
  if (focused) one(`a[href="${CSS.escape(focused)}"]`, fresh)?.focus();
}

// The search: a list that follows what is typed.

let searching = 0;

actions.search = () => {
  one('#search').showModal();
  const field = one('#search input');
  field.select();
  find(field.value);
};

async function find(text) {
  const mine = ++searching;
  const html = await attempt(() => ask(`/page/search?q=${encodeURIComponent(text)}`));
  if (mine === searching && html !== undefined) setHTML(one('#found'), html);
}

one('#search input').addEventListener('input', (event) => find(event.target.value));
one('#search').addEventListener('keydown', (event) => {
  const links = all('#found a');
  const at = links.indexOf(document.activeElement);
  if (event.key === 'ArrowDown' && links.length) {
    links[Math.min(at + 1, links.length - 1)].focus();
  } else if (event.key === 'ArrowUp' && at >= 0) {
    (links[at - 1] ?? one('#search input')).focus();
  } else if (event.key === 'Enter') {
    event.preventDefault();
    (links[Math.max(at, 0)])?.click();
    return;
  } else return;
  event.preventDefault();
});

// The menu of one conversation.

let chosen = null;

actions['row-menu'] = (button) => {
  chosen = button;
  const menu = one('#row-menu');
  const isPinned = 'pinned' in (one(`#conversations [data-id="${CSS.escape(button.dataset.id)}"]`)?.dataset ?? {});
  one('[data-action="pin"]', menu).hidden = isPinned;
  one('[data-action="unpin"]', menu).hidden = !isPinned;
  menu.showPopover();
  const at = button.getBoundingClientRect();
  menu.style.left = `${Math.max(8, Math.min(at.left, innerWidth - menu.offsetWidth - 8))}px`;
  menu.style.top = `${Math.max(8, Math.min(at.bottom + 4, innerHeight - menu.offsetHeight - 8))}px`;
  one('button:not([hidden])', menu).focus();
};

one('#row-menu').addEventListener('keydown', (event) => {
  const entries = all('#row-menu button:not([hidden])');
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  entries[(entries.indexOf(document.activeElement) + step + entries.length) % entries.length].focus();
});

function conversation() {
  one('#row-menu').hidePopover();
  chosen?.focus();
  return chosen?.dataset.id ?? one('#thread')?.dataset.conversation;
}

async function arrange(what, body) {
  await attempt(async () => {
    await ask(`/page/${what}`, body);
    await refreshList();
  });
}

actions.pin = () => arrange('pin', { conversation: conversation(), pinned: true });
actions.unpin = () => arrange('pin', { conversation: conversation(), pinned: false });
for (const format of ['md', 'html', 'jsonl']) {
  actions[`export-${format}`] = () => download(`/c/${encodeURIComponent(conversation())}/export?format=${format}`);
}

function download(address) {
  made('a', { href: address, download: '' }).click();
}

actions.rename = () => {
  const id = conversation();
  const dialog = one('#rename');
  const field = one('input', dialog);
  field.value = one(`#conversations a[href="/c/${CSS.escape(id)}"]`)?.textContent ?? one('#title').textContent;
  dialog.onclose = async () => {
    if (dialog.returnValue !== 'yes' || !field.value.trim()) return;
    await arrange('rename', { conversation: id, title: field.value });
    if (one('#thread')?.dataset.conversation === id) one('#title').textContent = field.value.trim();
  };
  field.onkeydown = (event) => {
    if (event.key !== 'Enter') return;
    event.preventDefault();
    dialog.close('yes');
  };
  dialog.returnValue = '';
  dialog.showModal();
  field.select();
};

actions.delete = () => {
  const id = conversation();
  if (!id) return;
  attempt(async () => {
    await ask('/page/delete', { conversation: id });
    if (one('#thread')?.dataset.conversation === id) {
      sessionStorage.setItem('deleted', id);
      location.assign('/');
    } else {
      await refreshList();
      offerUndo(id);
    }
  });
};

function offerUndo(id) {
  toast(t('js.deleted'), t('js.undo'), () => arrange('undo', { conversation: id }));
}

// Import and export.

actions.import = () => {
  const field = made('input', { type: 'file', accept: '.json,.jsonl' });
  field.onchange = () => attempt(async () => {
    const { count, conversation: last } = await ask('/page/import', { text: await field.files[0].text() });
    toast(counted('js.imported', count));
    if (count === 1) location.assign(`/c/${last}`);
    else await refreshList();
  });
  field.click();
};

// Preferences, and leaving.

for (const name of ['theme', 'lang']) {
  one(`select[name="${name}"]`)?.addEventListener('change', (event) => {
    cookie(name, event.target.value);
    if (name === 'lang') location.reload();
    else if (event.target.value === 'auto') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = event.target.value;
  });
}

actions['sign-out'] = async () => {
  await attempt(() => ask('/page/logout', {}));
  location.assign('/login');
};

actions.keys = () => one('#keys').showModal();
actions.close = (button) => button.closest('dialog').close();
actions.new = () => location.assign('/');

// What is pressed and typed.

document.addEventListener('click', (event) => {
  const button = event.target.closest('[data-action]');
  if (button && actions[button.dataset.action]) {
    actions[button.dataset.action](button);
  } else if (document.body.classList.contains('open') && !event.target.closest('#sidebar')) closeSidebar();
});

const chords = {
  'ctrl+k': 'search',
  'ctrl+shift+o': 'new',
  'ctrl+b': 'sidebar',
  'ctrl+shift+c': 'copy-last',
  'ctrl+shift+backspace': 'delete-current',
  'alt+arrowup': 'message-before',
  'alt+arrowdown': 'message-after',
  'alt+arrowleft': 'branch-before',
  'alt+arrowright': 'branch-after',
  escape: 'escape',
};
const plain = { '?': 'keys', '/': 'write' };

actions['delete-current'] = () => {
  chosen = null;
  actions.delete();
};

document.addEventListener('keydown', (event) => {
  if (event.defaultPrevented || event.isComposing) return;
  const isTyping = event.target.closest('input, textarea, select, dialog');
  const held = [(event.ctrlKey || event.metaKey) && 'ctrl', event.shiftKey && 'shift', event.altKey && 'alt'];
  const chord = [...held.filter(Boolean), event.key.toLowerCase()].join('+');
  const name = chords[chord] ?? (isTyping ? undefined : plain[event.key]);
  // Elsewhere these keys are the browser's own: back and forward.
  if (name?.startsWith('branch-') && !document.activeElement.closest('.message')) return;
  if (event.key === 'Escape' && document.body.classList.contains('open')) closeSidebar();
  if (!name || !actions[name] || (chord === 'escape' && one('dialog[open]'))) return;
  event.preventDefault();
  actions[name]();
});

if (localStorage.getItem('bare') && !isNarrow()) document.body.classList.add('bare');
const deleted = sessionStorage.getItem('deleted');
if (deleted) {
  sessionStorage.removeItem('deleted');
  offerUndo(deleted);
}
one('#conversations [aria-current]')?.scrollIntoView({ block: 'nearest' });
