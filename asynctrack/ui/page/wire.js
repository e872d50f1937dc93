// Wire: curves as the server sends them, block after block, to typed arrays.

/**
 * @typedef {object} Block
 * @property {string} run
 * @property {string} key
 * @property {string} axis
 * @property {"curve" | "group"} kind
 * @property {boolean} exact each row is one value, as it was logged
 * @property {number} rows
 * @property {[number, number] | null} x_range of the whole curve, not only of the window
 * @property {Record<string, Float64Array | Float32Array | Uint32Array>} columns
 */

const ARRAYS = { f8: Float64Array, f4: Float32Array, u4: Uint32Array };

/** Splits a body into blocks as they arrive. @param {ReadableStream<Uint8Array>} body @returns {AsyncGenerator<Block>} */
export async function* readBlocks(body) {
  const reader = body.getReader();
  let rest = new Uint8Array(0);
  let head = null;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    rest = joined(rest, part.value);
    while ((head ??= headOf(rest)) && head.size <= rest.length) {
      yield decodeBlock(rest.slice(0, head.size), head);
      rest = rest.subarray(head.size);
      head = null;
    }
  }
  if (rest.length) throw new Error("The server's answer was cut off.");
}

function joined(rest, more) {
  if (!rest.length) return more;
  const both = new Uint8Array(rest.length + more.length);
  both.set(rest);
  both.set(more, rest.length);
  return both;
}

/** Returns the header of the first block, where its columns begin and where it ends; null while the header has not come. */
function headOf(bytes) {
  const end = headerEnd(bytes);
  if (end > bytes.length || !end) return null;
  const header = headerOf(bytes, end);
  return { header, end, size: header.columns.reduce((size, [, type]) => size + columnBytes(type, header.rows), end) };
}

export function headerEnd(bytes) {
  if (bytes.length < 4) return 0;
  return 4 + new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
}

export const headerOf = (bytes, end) => JSON.parse(new TextDecoder().decode(bytes.subarray(4, end)));

export const columnBytes = (type, rows) => Math.ceil((rows * ARRAYS[type].BYTES_PER_ELEMENT) / 8) * 8;

/** Decodes one block. Its columns are views of `bytes`, which begins at a multiple of 8. @param {Uint8Array} bytes @returns {Block} */
export function decodeBlock(bytes, { header, end } = headOf(bytes)) {
  let at = end;
  const columns = {};
  for (const [name, type] of header.columns) {
    columns[name] = new ARRAYS[type](bytes.buffer, bytes.byteOffset + at, header.rows);
    at += columnBytes(type, header.rows);
  }
  return { ...header, columns };
}
