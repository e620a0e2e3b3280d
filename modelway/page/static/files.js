// Files that go with a message: chosen, dropped or pasted.

import { made, one, t, toast } from './dom.js';

const LARGEST_TEXT = 1_000_000;
const LARGEST_FILE = 12_000_000;
export const LONG_PASTE = 2000;

export class Attachments {
  constructor(list) {
    this.list = list;
    this.files = [];
    this.pastes = 0;
  }

  /** Take files; what is neither text, nor a picture, nor a PDF is refused. */
  async add(files) {
    for (const file of files) {
      const isPicture = /^image\/(png|jpeg|gif|webp)$/.test(file.type);
      const largest = isPicture || file.type === 'application/pdf' ? LARGEST_FILE : LARGEST_TEXT;
      if (file.size > largest) {
        toast(t('js.too_large', { name: file.name, size: largest / 1e6 }));
      } else if (largest === LARGEST_FILE) {
        this.put({ name: file.name, url: await dataURL(file) });
      } else {
        const text = await plainText(file);
        if (text === null) toast(t('js.unreadable', { name: file.name }));
        else this.put({ name: file.name, text });
      }
    }
  }

  /** Take a text that is too long for the field. */
  paste(text) {
    this.pastes += 1;
    this.put({ name: t('js.pasted', { number: this.pastes }), text });
  }

  put(file) {
    this.files.push(file);
    this.show();
  }

  clear() {
    this.files = [];
    this.show();
  }

  show() {
    this.list.hidden = !this.files.length;
    this.list.replaceChildren(...this.files.map((file) => this.chip(file)));
  }

  chip(file) {
    const label = t('js.remove', { name: file.name });
    const remove = made('button', { type: 'button', className: 'ghost', textContent: '×', title: label });
    remove.setAttribute('aria-label', label);
    remove.onclick = () => {
      this.files = this.files.filter((other) => other !== file);
      this.show();
      one('#composer textarea').focus();
    };
    const chip = made('li');
    if (file.url?.startsWith('data:image/')) chip.append(made('img', { src: file.url, alt: '' }));
    chip.append(made('span', { textContent: file.name }), remove);
    return chip;
  }
}

async function plainText(file) {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(await file.arrayBuffer());
    return text.includes('\0') ? null : text;
  } catch {
    return null;
  }
}

function dataURL(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
