// Download: gives what the page has made to the user as a file: pictures, and tables as CSV.

/** How a text begins that a spreadsheet takes for a formula; OWASP lists it. */
const FORMULA = /^[=+\-@\t\r]/;

/** Has the browser keep a file. @param {Blob} blob @param {string} name */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name.replace(/[^\w.-]+/g, "_").slice(-120);
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/**
 * Saves a table as CSV, as RFC 4180 has it, with no text that a spreadsheet takes for a formula.
 * @param {string[]} titles @param {any[][]} rows @param {string} name
 */
export function saveTable(titles, rows, name) {
  const lines = [titles, ...rows].map((row) => row.map(cell).join(",") + "\r\n");
  save(new Blob(lines, { type: "text/csv" }), name);
}

/** @param {any} value */
function cell(value) {
  if (value === undefined || value === null) return "";
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  const text = typeof value === "object" ? JSON.stringify(value) : value;
  const safe = FORMULA.test(text) && !/^-?inf$/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
