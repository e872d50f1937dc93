// Runs table: rows of runs under columns that sort; only those in view are there, and only those that changed are drawn again.
import { cellContent } from "./cells.js";
import { problemOf, titleParts } from "./columns.js";
import { Component, html, useLayoutEffect, useMemo, useRef } from "./html.js";
import { useVirtualRows } from "./virtual_rows.js";

/** @typedef {import("./columns.js").Row} Row @typedef {import("./columns.js").Column} Column */
/** @typedef {{left: Map<string, string>, sum: number}} Layout how far from the left the columns are that stay, and the pixels of all together */

const ROW_PX = 28;
const SELECT_PX = 34;
/** Below this width of the page, only the name stays when the table is scrolled. */
const NARROW_PX = 600;
const NARROW_NAME_PX = 150;

/** @param {Column[]} columns @param {string[]} pinned @returns {Layout} */
function layoutOf(columns, pinned) {
  const left = new Map();
  let sum = SELECT_PX;
  for (const column of columns) {
    if (column.id === "name" || (pinned.includes(column.id) && innerWidth >= NARROW_PX)) left.set(column.id, `${sum}px`);
    sum += widthOf(column);
  }
  return { left, sum };
}

const widthOf = (column) => (column.id === "name" && innerWidth < NARROW_PX ? NARROW_NAME_PX : column.width);

/**
 * @param {{rows: Row[], columns: Column[], pinned: string[], sort: string, onSort: (id: string) => void, selected: Set<string>,
 *   onSelect: (run: string, event: MouseEvent | KeyboardEvent) => void, onSelectAll: () => void, cursor: string | null, onCursor: (run: string) => void,
 *   onOpen: (run: string) => void, theme: string, onView: (rows: Row[]) => void}} props
 */
export function RunsTable(props) {
  const { rows, columns, pinned, selected, cursor } = props;
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const [first, end] = useVirtualRows(box, ROW_PX, rows.length);
  const layout = layoutOf(columns, pinned);
  const actions = useStable({ select: props.onSelect, cursor: props.onCursor, open: props.onOpen });
  const shown = rows.slice(first, end);
  // Rows that scroll out give their elements to those that scroll in.
  const pool = useRef(1);
  pool.current = Math.max(pool.current, shown.length);
  useLayoutEffect(() => props.onView(shown));
  useFollowedCursor(box, rows, cursor);
  return html`<div class="scroller" ref=${box} onScroll=${markAside} onMouseOver=${tellWhole}>
    <table class="runs" role="grid" aria-label="Runs" aria-multiselectable="true" aria-rowcount=${rows.length + 1} aria-colcount=${columns.length + 1}
      style=${{ minWidth: `${layout.sum}px` }}>
      <colgroup>
        <col style=${{ width: `${SELECT_PX}px` }} />
        ${columns.map((column) => html`<col key=${column.id} style=${{ width: `${widthOf(column)}px` }} />`)}
        <col />
      </colgroup>
      <${Head} ...${props} layout=${layout} />
      <tbody>
        <${Space} rows=${first} />
        ${shown.map((row, index) => html`<${TableRow} key=${(first + index) % pool.current} row=${row} at=${first + index}
          columns=${columns} pinned=${pinned} layout=${layout} isSelected=${selected.has(row.run)} isCursor=${row.run === cursor} theme=${props.theme} actions=${actions} />`)}
        <${Space} rows=${rows.length - end} />
      </tbody>
    </table>
  </div>`;
}

/** Columns stay only while the table is scrolled to the side: that costs, also where it is scrolled down. */
function markAside({ currentTarget: box }) {
  if (box.scrollLeft > 0 !== "x" in box.dataset) box.toggleAttribute("data-x", box.scrollLeft > 0);
}

/** A text that is cut off is told in whole where the mouse is. */
function tellWhole({ target }) {
  const cell = target.closest("td:not(.of-status, .of-problem)");
  if (cell) cell.title = cell.scrollWidth > cell.clientWidth ? cell.textContent : "";
}

/** Returns functions that stay the same, and call those that were given last. */
function useStable(functions) {
  const latest = useRef(functions);
  latest.current = functions;
  const stable = useRef(/** @type {Record<string, Function>} */ (null));
  stable.current ??= Object.fromEntries(Object.keys(functions).map((name) => [name, (...given) => latest.current[name](...given)]));
  return stable.current;
}

/** Keeps the row of the cursor in view when it moves, and focused. */
function useFollowedCursor(box, rows, cursor) {
  useLayoutEffect(() => {
    const at = rows.findIndex((row) => row.run === cursor);
    if (at < 0) return;
    const { scrollTop, clientHeight } = box.current;
    const head = box.current.querySelector("thead").offsetHeight;
    if (at * ROW_PX < scrollTop) box.current.scrollTop = at * ROW_PX;
    else if ((at + 1) * ROW_PX + head > scrollTop + clientHeight) box.current.scrollTop = (at + 1) * ROW_PX + head - clientHeight;
    if (!document.activeElement?.matches("input:not([type=checkbox]), select")) box.current.querySelector("tr.cursor")?.focus({ preventScroll: true });
  }, [cursor]);
}

/** The room that rows take which are not there. */
function Space({ rows }) {
  return rows > 0 && html`<tr aria-hidden="true"><td class="space" style=${{ height: `${rows * ROW_PX}px` }}></td></tr>`;
}

function Head({ rows, columns, layout, sort, onSort, selected, onSelectAll }) {
  const count = useMemo(() => rows.reduce((sum, row) => sum + Number(selected.has(row.run)), 0), [rows, selected]);
  const isAll = count > 0 && count === rows.length;
  return html`<thead>
    <tr aria-rowindex="1">
      <th class="stays select" style=${{ left: 0 }}>
        <input type="checkbox" aria-label="Select all runs of the table" checked=${isAll} indeterminate=${count > 0 && !isAll} onChange=${onSelectAll} />
      </th>
      ${columns.map((column, index) => html`<${ColumnHead} key=${column.id} column=${column} sort=${sort} onSort=${onSort}
        isFirst=${column.room !== columns[index - 1]?.room} left=${layout.left.get(column.id)} />`)}
      <th aria-hidden="true"></th>
    </tr>
  </thead>`;
}

const ROOMS = { config: "config", summary: "summary", last: "last value" };
const ARROWS = { ascending: "↑", descending: "↓" };

function ColumnHead({ column, sort, onSort, isFirst, left }) {
  const order = sort.replace(/^-/, "") !== column.id ? undefined : sort.startsWith("-") ? "descending" : "ascending";
  const [prefix, title] = titleParts(column);
  const above = [isFirst && ROOMS[column.room], prefix].filter(Boolean).join(" · ");
  return html`<th class=${classOf(column, left)} style=${{ left }} aria-sort=${order} scope="col">
    ${above && html`<span class="room">${above}</span>`}
    ${column.id === "curve"
      ? html`<span class="title">${title}</span>`
      : html`<button class="title" title=${`${column.id}: sort`} onClick=${() => onSort(column.id)}>
          ${title}<span class="order" aria-hidden="true">${ARROWS[order] ?? ""}</span>
        </button>`}
  </th>`;
}

const classOf = (column, left) =>
  [column.numeric ? "number" : "", column.room === "run" ? `of-${column.key}` : "", left === undefined ? "" : "stays"].filter(Boolean).join(" ") || undefined;

/** One run. It is drawn again only if something that it shows has changed. */
class TableRow extends Component {
  shouldComponentUpdate(next) {
    return NAMES_OF_PROPS.some((name) => next[name] !== this.props[name]);
  }

  /** The element goes on with another run: what was focused is no longer there. */
  componentDidUpdate(before) {
    if (before.isCursor && !this.props.isCursor && document.activeElement === this.base) this.base.blur();
  }

  render() {
    const { row, at, columns, layout, isSelected, isCursor, actions } = this.props;
    const rest = isProblem(row) ? columns.filter((column) => SHOWN_OF_PROBLEM.has(column.id) || layout.left.has(column.id)) : columns;
    return html`<tr aria-rowindex=${at + 2} aria-selected=${isSelected} class=${isCursor ? "cursor" : undefined} tabindex=${isCursor ? 0 : -1}
      onClick=${(event) => clicked(event, row.run, actions)} onDblClick=${() => actions.open(row.run)}>
      <td class="stays select" style=${{ left: 0 }}>
        <input type="checkbox" tabindex="-1" aria-label=${`Select ${row.name || row.id}`} checked=${isSelected} onClick=${(event) => actions.select(row.run, event)} />
      </td>
      ${rest.map((column) => this.cell(column))}
      ${rest !== columns && html`<td class="of-problem" colspan=${columns.length - rest.length} title=${problemOf(row)}>${problemOf(row)}</td>`}
      <td></td>
    </tr>`;
  }

  cell(column) {
    const { row, layout, theme } = this.props;
    const left = layout.left.get(column.id);
    const title = column.id === "status" ? problemOf(row) : undefined;
    return html`<td key=${column.id} class=${classOf(column, left)} style=${left && { left }} title=${title}>${cellContent(column, row, { theme })}</td>`;
  }
}

const NAMES_OF_PROPS = ["row", "at", "columns", "pinned", "isSelected", "isCursor", "theme"];
/** What a run that cannot be read has, before it says why in the room of all other columns. */
const SHOWN_OF_PROBLEM = new Set(["status", "name"]);

/** @param {Row} row */
const isProblem = (row) => row.problem && !row.records;

function clicked(event, run, actions) {
  if (event.target.closest("a, input")) return;
  if (event.shiftKey || event.ctrlKey || event.metaKey) actions.select(run, event);
  actions.cursor(run);
}
