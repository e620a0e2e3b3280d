// Shows a key to the server, which gives the browser a cookie in its place.

import { one, t } from './dom.js';

one('#login').addEventListener('submit', async (event) => {
  event.preventDefault();
  const field = one('#login input');
  const reply = await fetch('/login', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ key: field.value }),
  });
  if (reply.ok) {
    location.assign('/');
    return;
  }
  const problem = one('#problem');
  problem.textContent = t('js.wrong_key');
  problem.hidden = false;
  field.select();
});
