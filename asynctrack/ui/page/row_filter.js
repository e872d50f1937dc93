// Row filter: tells plain words, which the page looks for in names, from expressions, which the server evaluates; and keeps the rows that fit.

/** @typedef {import("./columns.js").Row} Row */

const EXPRESSION = /[<>=!()`"']|^\s*not\s|\s(and|or|in)\s/;

/** @param {string} text */
export const isExpression = (text) => EXPRESSION.test(text);

/**
 * Returns the rows that have every word in their name, id, project, group, status or tags, whatever its case.
 * @param {Row[]} rows
 * @param {string} text
 */
export function withWords(rows, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return rows;
  return rows.filter((row) => {
    const said = `${row.name}\n${row.id}\n${row.project}\n${row.group ?? ""}\n${row.status}\n${(row.tags ?? []).join("\n")}`.toLowerCase();
    return words.every((word) => said.includes(word));
  });
}

/**
 * Returns the rows with one of these statuses, if any is asked for, and with all of these tags.
 * @param {Row[]} rows
 * @param {string[]} statuses
 * @param {string[]} tags
 */
export const withChips = (rows, statuses, tags) =>
  rows.filter((row) => (!statuses.length || statuses.includes(row.status)) && tags.every((tag) => row.tags?.includes(tag)));

/** Counts how often each value comes, the most frequent first. @param {Iterable<string>} values @returns {[string, number][]} */
export function counted(values) {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts].sort((one, other) => other[1] - one[1]);
}
