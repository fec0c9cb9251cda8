// Talking to Kvasir's HTTP API: JSON, errors with a sentence, and streams of events.
import { language, t } from "./i18n.js";

const ROOT = "/api/v1";

/** What went wrong, in one sentence a person may read. */
export class ApiError extends Error {
  /** @param {number} status 0: the server was not reached @param {string} detail @param {{field: string, message: string}[]} [errors] what is wrong with which field */
  constructor(status, detail, errors = []) {
    super(detail);
    this.status = status;
    this.errors = errors;
  }
}

/** The address of `path` below the API. @param {string} path */
export function address(path) {
  return ROOT + path;
}

/** `parts` joined as path segments, each escaped. @param {...string} parts */
export function path(...parts) {
  return parts.map((part) => `/${encodeURIComponent(part)}`).join("");
}

/**
 * @param {string} method @param {string} path @param {unknown} [body] @param {AbortSignal} [signal]
 * @returns {Promise<Response>}
 */
async function request(method, path, body, signal) {
  /** @type {Record<string, string>} */
  const headers = { "Accept-Language": language === "zh" ? "zh-CN" : "en" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(ROOT + path, { method, headers, signal, credentials: "same-origin", body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, t("unreachable"));
  }
  if (!response.ok) throw await failure(response);
  return response;
}

/** @param {Response} response */
async function failure(response) {
  const problem = await response.json().catch(() => ({}));
  return problemOf(response.status, problem);
}

/** The error for a status and its problem document; without a login it leads to the login page. @param {number} status @param {any} problem */
export function problemOf(status, problem) {
  if (status === 401 && !["/login", "/setup"].includes(location.pathname)) {
    location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search + location.hash)}`);
  }
  const detail = typeof problem?.detail === "string" && problem.detail ? problem.detail : t(status === 429 ? "too_many" : status >= 500 ? "server_error" : "refused_request");
  return new ApiError(status, detail, Array.isArray(problem?.errors) ? problem.errors : []);
}

/** @param {string} method @param {string} path @param {unknown} [body] @returns {Promise<any>} its JSON, or null where there is none */
export async function call(method, path, body) {
  const response = await request(method, path, body);
  return response.status === 204 ? null : response.json().catch(() => null);
}

/** @param {string} path */
export const get = (path) => call("GET", path);

/**
 * Events of a `text/event-stream` answer, their data read as JSON; ending the loop or aborting `signal` closes the connection.
 * @param {string} method @param {string} path @param {unknown} [body] @param {AbortSignal} [signal]
 * @returns {AsyncGenerator<{event: string, data: any}>}
 */
export async function* stream(method, path, body, signal) {
  const response = await request(method, path, body, signal);
  if (!response.body) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read().catch((error) => {
        if (signal?.aborted) throw error;
        throw new ApiError(0, t("cut_off"));
      });
      if (done) return;
      const parts = (rest + value).split(/\r\n\r\n|\n\n|\r\r/);
      rest = parts.pop() ?? "";
      for (const part of parts) {
        const event = parse(part);
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => undefined);
  }
}

/** @param {string} block */
function parse(block) {
  let event = "message";
  const data = [];
  for (const line of block.split(/\r\n|\n|\r/)) {
    const colon = line.indexOf(":");
    if (colon <= 0) continue;
    const value = line.slice(colon + 1).replace(/^ /, "");
    if (line.slice(0, colon) === "event") event = value;
    if (line.slice(0, colon) === "data") data.push(value);
  }
  return data.length ? { event, data: JSON.parse(data.join("\n")) } : null;
}

/**
 * Send files with progress; resolves to the answer's JSON.
 * @param {string} path @param {File[]} files @param {(share: number) => void} progress
 * @param {{names?: string[], signal?: AbortSignal}} [more] `names`: other names than the files' own, e.g. with folders
 * @returns {Promise<any>}
 */
export function upload(path, files, progress, { names, signal } = {}) {
  const form = new FormData();
  files.forEach((file, at) => form.append("files", file, names?.[at] ?? file.name));
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest();
    sending.open("POST", ROOT + path);
    sending.setRequestHeader("Accept-Language", language === "zh" ? "zh-CN" : "en");
    sending.responseType = "json";
    sending.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    sending.onerror = () => reject(new ApiError(0, t("unreachable")));
    sending.onabort = () => reject(new DOMException("stopped", "AbortError"));
    sending.onload = () => (sending.status < 300 ? resolve(sending.response) : reject(problemOf(sending.status, sending.response)));
    signal?.addEventListener("abort", () => sending.abort());
    sending.send(form);
  });
}
