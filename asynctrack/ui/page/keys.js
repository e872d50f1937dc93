// Keys: what each key does on the page that is open, and the dialog that says so.
import { html, signal, useLayoutEffect, useRef } from "./html.js";
import { CloseButton, Dialog } from "./parts.js";

/** @typedef {Record<string, [what: string, act: (event: KeyboardEvent) => void]>} Keys */

const stacks = signal(/** @type {Keys[]} */ ([]));
const isHelpOpen = signal(false);

/** Has keys do something while a component is there. @param {Keys} keys */
export function useKeys(keys) {
  const current = useRef(keys);
  current.current = keys;
  useLayoutEffect(() => {
    const own = Object.fromEntries(
      Object.entries(keys).map(([key, [what]]) => [key, [what, (event) => current.current[key]?.[1](event)]]),
    );
    stacks.value = [...stacks.peek(), /** @type {Keys} */ (own)];
    return () => void (stacks.value = stacks.peek().filter((one) => one !== own));
  }, [Object.keys(keys).join(" ")]);
}

function press(event) {
  const target = /** @type {HTMLElement} */ (event.target);
  const isTyping = target.matches?.("input:not([type=checkbox], [type=range]), textarea, select, [contenteditable]");
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const isPressed = event.key === "Enter" && target.closest?.("a, button, summary");
  if (isTyping || isPressed || document.querySelector("dialog[open]")) return;
  const found = stacks.peek().findLast((keys) => keys[event.key]);
  if (!found) return;
  event.preventDefault();
  found[event.key][1](event);
}

addEventListener("keydown", press);

/** Opens the dialog that lists the keys. */
export const showHelp = () => (isHelpOpen.value = true);

/** The dialog that lists the keys of this page. */
export function HelpDialog() {
  if (!isHelpOpen.value) return null;
  const all = Object.entries(Object.assign({}, ...stacks.value));
  return html`<${Dialog} kind="help" label="Keys" onClose=${() => (isHelpOpen.value = false)}>
    <h2>Keys</h2>
    <dl>
      ${all.map(([key, [what]]) => html`<dt><kbd>${key}</kbd></dt><dd>${what}</dd>`)}
    </dl>
    <p class="muted">On a chart: drag zooms, the wheel zooms, shift and drag moves along, a double click zooms out.</p>
    <${CloseButton} />
  <//>`;
}
