// Requests -> answers of the service: retries while it is busy, the digest checked, errors in words that help.

// Not 504: what took too long once would most likely take too long again.
const BUSY = new Set([429, 502, 503]);
const ATTEMPTS = 6;
const LONGEST_WAIT_S = 15;

const HINTS = {
  "unsupported-image": "This is not a picture the service reads. Send a PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF with one frame and 8 bits a channel.",
  "corrupt-image": "The picture is damaged or cut short. Save it again and send that.",
  "corrupt-stream": "This .bij file is damaged or cut short. Get it again from where it came.",
  "not-a-stream": "This is not a .bij file of a version this service knows.",
  "unknown-model": "This .bij file was made with a model that is not served here.",
  deadline: "This took longer than the service allows. Try a smaller picture, or a quality instead of a target.",
  "body-too-large": "The file is larger than this service takes.",
};

/** What the service, or the way to it, answered instead of a result; `message` says what to do. */
export class ServiceError extends Error {
  constructor(message, status = 0, slug = "") {
    super(message);
    this.status = status;
    this.slug = slug;
  }
}

let key = "";
export const useKey = (value) => { key = value.trim(); };

/**
 * POST some bytes.
 * @param {string} route encode, decode, re-encode or inspect
 * @param {Blob} body
 * @param {Object} query options; null and false are left out
 * @param {{signal?: AbortSignal, onWait?: (seconds: number) => void}} hooks
 * @returns {Promise<{blob: Blob, headers: Headers}>}
 */
export async function post(route, body, query = {}, hooks = {}) {
  const asked = Object.entries(query).filter(([, value]) => value !== null && value !== false);
  const address = `${route}?${new URLSearchParams(asked)}`;
  const headers = { "Content-Type": "application/octet-stream", ...authorization() };
  for (let attempt = 1; ; attempt++) {
    const answer = await reach(address, { method: "POST", body, headers, signal: hooks.signal });
    if (answer.ok) return checked(answer);
    if (!BUSY.has(answer.status) || attempt === ATTEMPTS) throw await problem(answer);
    const seconds = Math.min(LONGEST_WAIT_S, Number(answer.headers.get("Retry-After")) || attempt);
    hooks.onWait?.(seconds);
    await pause(seconds, hooks.signal);
  }
}

export async function get(route) {
  const answer = await reach(route, { headers: authorization() });
  if (!answer.ok) throw await problem(answer);
  return answer.json();
}

const authorization = () => (key ? { Authorization: `Bearer ${key}` } : {});

async function reach(address, options) {
  try {
    return await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("The service does not answer. Check that it is running and that you are connected, then try again.");
  }
}

async function checked(answer) {
  const blob = await answer.blob();
  const stated = /sha-256=:([^:]+):/.exec(answer.headers.get("Content-Digest") ?? "");
  // Browsers hash only for pages from https or this machine; elsewhere the file's own checksums have to do.
  if (stated && globalThis.crypto?.subtle) {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await blob.arrayBuffer()));
    if (btoa(String.fromCharCode(...digest)) !== stated[1]) {
      throw new ServiceError("The answer was damaged on its way. Try again.");
    }
  }
  return { blob, headers: answer.headers };
}

async function problem(answer) {
  let document = {};
  try {
    document = await answer.json();
  } catch { /* a proxy's page; the status has to do */ }
  const slug = String(document.type ?? "").split(":").pop();
  if (answer.status === 401 || answer.status === 403) {
    return new ServiceError("This service asks for an API key. Enter it under “API key” and try again.", answer.status, slug);
  }
  if (BUSY.has(answer.status)) {
    return new ServiceError("The service is busy or starting. Wait a moment, then try again.", answer.status, slug);
  }
  const said = [document.title, document.detail].filter(Boolean).join(": ") || `HTTP ${answer.status}`;
  return new ServiceError(HINTS[slug] ?? `${said}.`, answer.status, slug);
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
  });
}

/** Server-Timing -> [stage, milliseconds] pairs. */
export function stages(headers) {
  return (headers.get("Server-Timing") ?? "").split(",").flatMap((entry) => {
    const found = /^\s*([\w-]+);dur=([\d.]+)/.exec(entry);
    return found ? [[found[1], Number(found[2])]] : [];
  });
}

export const number = (headers, name) => {
  const value = headers.get(name);
  return value === "inf" ? Infinity : Number.parseFloat(value ?? "");
};
