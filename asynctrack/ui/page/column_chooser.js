// Column chooser: the dialog in which columns are shown, hidden and pinned.
import { titleOf } from "./columns.js";
import { html, useState } from "./html.js";
import { CloseButton, Dialog } from "./parts.js";
import { toggled } from "./state.js";

/** @typedef {import("./columns.js").Column} Column */

const ROOMS = { run: "Run", config: "Config", summary: "Summary", last: "Last values" };
/** More than these are found by typing. */
const MOST_LISTED = 120;

/**
 * @param {{columns: Column[], shown: Column[], pinned: string[], onShown: (ids: string[]) => void, onPinned: (ids: string[]) => void, onClose: () => void}} props
 */
export function ColumnChooser({ columns, shown, pinned, onShown, onPinned, onClose }) {
  const [text, setText] = useState("");
  const ids = shown.map((column) => column.id);
  const found = columns.filter((column) => column.id !== "name" && column.id.toLowerCase().includes(text.toLowerCase()));
  const choices = { ids, pinned, onShown: (id) => onShown(toggled(ids, id)), onPinned: (id) => onPinned(toggled(pinned, id)) };
  const list = (room) => html`<${Room} key=${room} title=${ROOMS[room]} columns=${found.filter((column) => column.room === room)} ...${choices} />`;
  return html`<${Dialog} kind="chooser" label="Columns" onClose=${onClose}>
    <header>
      <h2>Columns</h2>
      <input type="search" aria-label="Find a column" placeholder="Find a column" value=${text} onInput=${(event) => setText(event.target.value)} />
      <button onClick=${() => onShown([])}>What differs</button>
      <${CloseButton} />
    </header>
    <div class="rooms">${Object.keys(ROOMS).map(list)}</div>
  <//>`;
}

function Room({ title, columns, ids, pinned, onShown, onPinned }) {
  if (!columns.length) return null;
  return html`<section>
    <h3>${title}</h3>
    <ul>
      ${columns.slice(0, MOST_LISTED).map((column) => html`<li key=${column.id}>
        <label title=${column.id}>
          <input type="checkbox" checked=${ids.includes(column.id)} onChange=${() => onShown(column.id)} /><span>${titleOf(column)}</span>
        </label>
        ${!column.differs && column.room !== "run" && html`<span class="muted">same</span>`}
        <button class="plain" aria-pressed=${pinned.includes(column.id)} title="Keep at the left" aria-label="Keep ${titleOf(column)} at the left"
          onClick=${() => onPinned(column.id)}>⇤</button>
      </li>`)}
    </ul>
    ${columns.length > MOST_LISTED && html`<p class="muted">and ${columns.length - MOST_LISTED} more: type to find them</p>`}
  </section>`;
}
