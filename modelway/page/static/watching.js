// The pages of providers and figures: tests that are run from here, plots that are kept up to date.

import { actions } from './app.js';
import { all, ask, attempt, made, one, parsed, t } from './dom.js';

const EVERY_MS = 5000;

actions.test = (button) => attempt(async () => {
  const outcome = one('.outcome', button.closest('.provider'));
  button.disabled = true;
  outcome.textContent = t('js.testing');
  try {
    const told = await ask('/page/test', { provider: button.dataset.name });
    const times = told.ok ? t('js.tested', { first: told.first_s.toFixed(2), total: told.total_s.toFixed(2) }) : told.code;
    outcome.className = `outcome ${told.ok ? 'good' : 'bad'}`;
    outcome.replaceChildren(made('strong', { textContent: times }), made('p', { textContent: told.text }));
  } finally {
    button.disabled = false;
  }
});

actions['sign-in'] = (button) => attempt(async () => {
  const card = button.closest('.provider');
  const outcome = one('.outcome', card);
  const { code, address, notice } = await ask('/page/sign-in', { provider: button.dataset.name });
  const link = made('a', { href: address, target: '_blank', rel: 'noopener noreferrer', textContent: address });
  const shown = made('p', { className: 'code-to-enter' }, made('code', { textContent: code }));
  outcome.replaceChildren(made('p', { textContent: notice }), made('p', {}, t('js.enter'), ' ', link), shown);
  await signedIn(button.dataset.name, outcome);
});

async function signedIn(provider, outcome) {
  for (;;) {
    await new Promise((resolve) => { setTimeout(resolve, 1000); });
    const { state, text } = await ask('/page/sign-in/state', { provider });
    if (state === 'done') {
      location.reload();
      return;
    }
    if (state === 'failed') {
      outcome.className = 'outcome bad';
      outcome.replaceChildren(made('p', { textContent: text }));
      return;
    }
  }
}

async function refresh() {
  const plots = one('#figures');
  if (!plots || document.hidden || plots.contains(document.getSelection()?.anchorNode)) return;
  const open = all('details', plots).map((details) => details.open);
  const fresh = parsed(await ask('/page/figures'));
  all('details', fresh).forEach((details, n) => { details.open = open[n]; });
  plots.replaceWith(fresh);
}

if (one('#figures')) setInterval(() => attempt(refresh), EVERY_MS);
