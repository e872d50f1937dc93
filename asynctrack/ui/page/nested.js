// Nested: values within values, by one name each.

/**
 * Returns nested values flat, each by its path. What is empty is a value too.
 * @param {object} values @param {string} [prefix] @returns {[string, any][]}
 */
export function flattened(values, prefix = "") {
  return Object.entries(values).flatMap(([name, value]) =>
    isNested(value) ? flattened(value, `${prefix}${name}/`) : [[`${prefix}${name}`, value]],
  );
}

const isNested = (value) => value !== null && typeof value === "object" && !Array.isArray(value) && Object.keys(value).length > 0;
