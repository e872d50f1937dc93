// Table as CSV: the rows and columns that are shown, as RFC 4180 has them, and no text that a spreadsheet takes for a formula.

/** How a text begins that a spreadsheet takes for a formula; OWASP lists it. */
const FORMULA = /^[=+\-@\t\r]/;

/** Returns a table as a file of CSV. @param {string[]} titles @param {any[][]} rows */
export const tableCsv = (titles, rows) => new Blob([titles, ...rows].map((row) => row.map(cell).join(",") + "\r\n"), { type: "text/csv" });

/** @param {any} value */
function cell(value) {
  if (value === undefined || value === null) return "";
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  const text = typeof value === "object" ? JSON.stringify(value) : value;
  const safe = FORMULA.test(text) && !/^-?inf$/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
