// Html: htm bound to Preact, and in one place all that components take of both and of signals.
import htm from "./vendor/htm.js";
import { Component, h, render } from "./vendor/preact.js";

export { useEffect, useErrorBoundary, useLayoutEffect, useMemo, useRef, useState } from "./vendor/hooks.js";
export { batch, computed, effect, signal, useComputed, useSignal } from "./vendor/signals.js";
export { Component, render };
export const html = htm.bind(h);
