// The page of a conversation: writes messages, shows answers as they come, changes what was said.

import { actions, refreshList } from './app.js';
import { all, ask, attempt, copy, made, one, parsed, say, t, toast } from './dom.js';
import { Attachments, LONG_PASTE } from './files.js';
import { Stream, merge, patch } from './stream.js';

const thread = one('#thread');
const main = one('#main');
const form = one('#composer');
const field = form.elements.text;
const picker = form.elements.model;
const settings = one('#settings');
const attachments = new Attachments(one('.chips', form));
const isTemporary = 'temporary' in thread.dataset;
const temporary = crypto.randomUUID();
const said = [];
let editing = '';
let isBusy = false;
let lastAsked = 0;
let lastShown = 0;
let offline = null;

const conversation = () => thread.dataset.conversation ?? '';
const live = () => document.getElementById('live');
const key = () => (isTemporary ? `temporary/${temporary}` : conversation());

// Where the reader is: at the end, the page follows the answer.

let sticks = true;
main.addEventListener('scroll', () => {
  sticks = main.scrollHeight - main.scrollTop - main.clientHeight < 80;
}, { passive: true });

function toEnd(force = false) {
  if (force) sticks = true;
  if (sticks) main.scrollTop = main.scrollHeight;
}

// What the server tells.

const stream = new Stream({
  begin: async () => {
    if (!live() || !one('[data-blocks]', live())) await attempt(refresh);
    busy(true);
  },
  patch: (news) => {
    if (!live()) return;
    patch(live(), news);
    decorate(live());
    toEnd();
  },
  over: async (news) => {
    if (news.html === undefined) {
      await attempt(refresh);
      attempt(refreshList);
    } else {
      const article = parsed(news.html);
      live()?.replaceWith(article);
      article.id = news.failed ? 'failed' : `answer-${said.length}`;
      if (!news.failed || news.text) said.push({ role: 'assistant', text: news.text });
      decorate(article);
    }
    busy(false);
    toEnd();
    say(t('js.finished'));
  },
  changed: async () => {
    await attempt(refresh);
    await attempt(refreshList);
  },
  list: () => attempt(refreshList),
  lost: () => {
    offline ??= setTimeout(() => toast(t('js.offline')), 4000);
  },
  open: () => {
    clearTimeout(offline);
    offline = null;
  },
});

// What this page shows: the server tells of whatever has changed since.
stream.state = () => `&version=${thread.dataset.version ?? ''}${live() ? '&live=1' : ''}`;

async function refresh() {
  if (!conversation()) return;
  const mine = ++lastAsked;
  const html = await ask(`/page/thread/${encodeURIComponent(conversation())}`);
  // Replies may overtake each other: an older one must not undo a newer one.
  if (mine < lastShown) return;
  lastShown = mine;
  merge(thread, html);
  stream.seq = Number(thread.dataset.seq);
  if (thread.dataset.title) {
    one('#title').textContent = thread.dataset.title;
    document.title = `${thread.dataset.title} · Modelway`;
  }
  decorate(thread);
  busy(Boolean(live()));
  toEnd();
}

function busy(now) {
  if (now === isBusy) return;
  isBusy = now;
  one('.send', form).hidden = now;
  one('.stop', form).hidden = !now;
  if (now) say(t('js.answering'));
}

// What the reader writes.

function choice() {
  const value = (name) => one(`[name="${name}"]`, settings).value;
  return {
    model: picker.value,
    instructions: value('instructions'),
    temperature: value('temperature'),
    max_tokens: value('max_tokens'),
    effort: value('effort'),
  };
}

async function send(asked) {
  if (isBusy) return false;
  busy(true);
  const sent = await attempt(() => ask('/page/send', { conversation: conversation(), choice: choice(), ...asked }));
  if (!sent) {
    busy(false);
    return false;
  }
  if (sent.conversation && sent.conversation !== conversation()) {
    thread.dataset.conversation = sent.conversation;
    history.replaceState(null, '', `/c/${sent.conversation}`);
    one('.temporary')?.remove();
    const menu = one('.top [data-action="row-menu"]');
    menu.hidden = false;
    menu.dataset.id = sent.conversation;
  }
  if (isTemporary) showTemporary(asked.text, asked.attachments ?? []);
  sticks = true;
  await refresh();
  stream.follow(key(), isTemporary ? 0 : stream.seq);
  if (!isTemporary) attempt(refreshList);
  return true;
}

form.addEventListener('submit', async (event) => {
  event.preventDefault();
  const text = field.value;
  if (!text.trim() && !attachments.files.length) return;
  const asked = { text, attachments: attachments.files };
  if (editing) asked.edits = editing;
  if (isTemporary) Object.assign(asked, { temporary, history: [...said] });
  if (!(await send(asked))) return;
  field.value = '';
  attachments.clear();
  stopEditing();
  keepDraft();
  toEnd(true);
});

/** A chat that is not kept lives on this page alone. */
function showTemporary(text, files) {
  one('.welcome', thread)?.remove();
  document.getElementById('failed')?.remove();
  const shown = made('div', { className: 'prose raw', textContent: text });
  for (const file of files) shown.prepend(made('p', { className: 'chip', textContent: file.name }));
  const blocks = made('div', { className: 'prose' });
  blocks.dataset.blocks = '';
  const thought = made('details', { className: 'aside', hidden: true }, made('div', { className: 'prose raw' }));
  thought.dataset.reasoning = '';
  const dots = made('span', { className: 'dots' }, made('i'), made('i'), made('i'));
  thread.append(
    made('article', { className: 'message user' }, shown),
    made('article', { className: 'message assistant live', id: 'live' }, thought, blocks, dots),
  );
  said.push({ role: 'user', text: [...files.map((file) => file.text ?? ''), text].join('\n\n').trim() });
}

field.addEventListener('keydown', (event) => {
  if (event.isComposing) return;
  if (event.key === 'Enter' && !event.shiftKey) {
    event.preventDefault();
    form.requestSubmit();
  } else if (event.key === 'ArrowUp' && !field.value && !event.altKey) {
    const last = all('.user [data-action="edit"]', thread).at(-1);
    if (last) {
      event.preventDefault();
      last.click();
    }
  }
});

field.addEventListener('paste', (event) => {
  const files = [...event.clipboardData.files];
  const text = event.clipboardData.getData('text/plain');
  if (files.length) attachments.add(files);
  else if (text.length > LONG_PASTE) attachments.paste(text);
  else return;
  event.preventDefault();
});

const card = one('.card', form);
for (const name of ['dragenter', 'dragover', 'dragleave', 'drop']) {
  main.parentElement.addEventListener(name, (event) => {
    if (![...event.dataTransfer.types].includes('Files')) return;
    event.preventDefault();
    card.classList.toggle('over', name === 'dragenter' || name === 'dragover');
    if (name === 'drop') attachments.add(event.dataTransfer.files);
  });
}

one('#files').addEventListener('change', async (event) => {
  await attachments.add(event.target.files);
  event.target.value = '';
  field.focus();
});

const draftKey = () => `draft:${location.pathname}`;
function keepDraft() {
  if (field.value && !isTemporary && !editing) sessionStorage.setItem(draftKey(), field.value);
  else sessionStorage.removeItem(draftKey());
}
field.addEventListener('input', keepDraft);

// What can be done with messages.

const message = (button) => button.closest('.message');
const source = (id) => ask(`/c/${encodeURIComponent(conversation())}/text/${encodeURIComponent(id)}`);

actions.stop = () => attempt(async () => {
  await ask('/page/stop', { conversation: key() });
  say(t('js.stopped'));
});
actions.attach = () => one('#files').click();
actions.settings = () => settings.showModal();
actions.idea = (button) => {
  field.value = `${button.textContent}: `;
  field.focus();
};
actions.copy = (button) => attempt(async () => {
  const article = message(button);
  await copy(isTemporary ? one('.prose', article).innerText : await source(article.id));
  button.classList.add('done');
});
actions.regenerate = (button) => {
  const before = message(button).previousElementSibling?.closest('.user, .continued');
  if (before) send({ again: before.id });
};
actions.retry = () => retry();
actions.continue = () => send({ continues: true });
actions.branch = (button) => attempt(async () => {
  await ask('/page/branch', { conversation: conversation(), message: button.dataset.message });
  await refresh();
  document.getElementById(button.dataset.message)?.focus();
});
actions.edit = (button) => attempt(async () => {
  editing = message(button).id;
  field.value = await source(editing);
  one('.editing', form).hidden = false;
  field.focus();
});
actions['cancel-edit'] = () => {
  field.value = '';
  stopEditing();
  field.focus();
};

function stopEditing() {
  editing = '';
  one('.editing', form).hidden = true;
}

/** Ask once more what could not be answered. */
async function retry() {
  const asked = document.getElementById('failed')?.previousElementSibling;
  if (isTemporary) {
    asked?.remove();
    field.value = said.pop()?.text ?? '';
    form.requestSubmit();
    return;
  }
  if (!asked?.classList.contains('user')) return;
  if (asked.id.startsWith('msg_')) send({ again: asked.id });
  else send({ retries: true });
}

// The keyboard.

actions.write = () => field.focus();
actions.escape = () => {
  if (editing) actions['cancel-edit']();
  else if (isBusy) actions.stop();
};
actions['copy-last'] = () => one('.assistant:last-of-type [data-action="copy"]', thread)?.click();

function step(by) {
  const articles = all('.message', thread);
  const at = articles.indexOf(document.activeElement.closest('.message'));
  const next = articles[at < 0 ? articles.length - 1 : Math.max(0, Math.min(at + by, articles.length - 1))];
  if (!next) return;
  next.tabIndex = -1;
  next.focus();
  next.scrollIntoView({ block: 'nearest' });
}
actions['message-before'] = () => step(-1);
actions['message-after'] = () => step(1);
const turn = (at) => () => {
  const article = document.activeElement.closest('.message') ?? all('.message', thread).at(-1);
  all('.branches button', article)[at]?.click();
};
actions['branch-before'] = turn(0);
actions['branch-after'] = turn(1);

// What the server's HTML cannot bring: buttons on code, models that take time to list.

function decorate(root) {
  for (const block of all('pre:not(.aside pre)', root)) {
    if (block.parentElement.classList.contains('code')) continue;
    const button = made('button', { type: 'button', className: 'small', textContent: t('js.copy_code') });
    button.onclick = () => copy(one('code', block).textContent);
    const around = made('div', { className: 'code' });
    block.replaceWith(around);
    around.append(block, button);
  }
  for (const article of all('.message', root)) article.tabIndex = -1;
}

/** Show the turn that the address names: a search leads to it. */
function seek() {
  const turn = location.hash.slice(1);
  const sought = turn && one(`[data-turn="${CSS.escape(turn)}"]`, thread);
  if (!sought) return;
  one('#search').close();
  sought.scrollIntoView();
  sought.focus();
  sticks = false;
}

async function listModels() {
  const remembered = conversation() ? '' : localStorage.getItem('model') ?? '';
  const chosen = picker.value || remembered;
  const html = await attempt(() => ask(`/page/models?chosen=${encodeURIComponent(chosen)}`));
  if (html === undefined) return;
  picker.replaceChildren(...parsed(html).children);
  picker.value = chosen;
}

async function loadEarlier(link) {
  const before = main.scrollHeight - main.scrollTop;
  const html = await ask(`/page/thread/${encodeURIComponent(conversation())}?before=${link.dataset.before}`);
  const older = parsed(html);
  link.replaceWith(...older.children);
  decorate(thread);
  main.scrollTop = main.scrollHeight - before;
}

thread.addEventListener('click', (event) => {
  const link = event.target.closest('.earlier');
  if (!link) return;
  event.preventDefault();
  attempt(() => loadEarlier(link));
});

picker.addEventListener('change', () => localStorage.setItem('model', picker.value));

decorate(thread);
field.value = sessionStorage.getItem(draftKey()) ?? '';
busy(Boolean(live()));
stream.follow(key(), Number(thread.dataset.seq));
toEnd(true);
seek();
addEventListener('hashchange', seek);
listModels();
