// Keeps the regions marked data-live current: asks for this page again and replaces what changed.
// The server says how often (<meta name="live" content="1000">); without that line nothing moves any more.
// Without this file the page is as true, only not as fresh.
"use strict";

const state = document.getElementById("live");
const seen = new Map([...document.querySelectorAll("[data-live]")].map((region) => [region.id, region.outerHTML]));
let version = null;
let failures = 0;

const period = (page) => Number(page.querySelector('meta[name="live"]')?.content ?? 0);

function say(word, text) {
  if (!state || state.dataset.state === word) return;
  state.dataset.state = word;
  state.textContent = text;
}

function addressOf(element) {
  if (element.id) return `#${CSS.escape(element.id)}`;
  const home = element.closest("[id]");
  return home ? `#${CSS.escape(home.id)} ${element.localName}` : "";
}

function replace(fresh) {
  const old = document.getElementById(fresh.id);
  if (!old || seen.get(fresh.id) === fresh.outerHTML) return true;
  if (old.querySelector("input:not([type=checkbox]):focus, select:focus, textarea:focus")) return false; // never under a typing hand
  seen.set(fresh.id, fresh.outerHTML);
  const focused = old.contains(document.activeElement) ? addressOf(document.activeElement) : "";
  for (const fold of old.querySelectorAll("details[id]")) {
    fresh.querySelector(`#${CSS.escape(fold.id)}`)?.toggleAttribute("open", fold.open);
  }
  for (const field of old.querySelectorAll("input[id], select[id], textarea[id]")) {
    const twin = fresh.querySelector(`#${CSS.escape(field.id)}`);
    if (twin) [twin.value, twin.checked] = [field.value, field.checked];
  }
  const [was, is] = [old, fresh].map((part) => part.querySelector("h1")?.textContent.trim());
  if (is !== was) document.getElementById("said").textContent = is; // read out once, when the status changed
  old.replaceWith(fresh);
  if (focused) document.querySelector(focused)?.focus();
  return true;
}

async function look(pause) {
  if (document.hidden) return void document.addEventListener("visibilitychange", () => look(pause), { once: true });
  try {
    const headers = { Accept: "text/html", ...(version && { "If-None-Match": version }) };
    const answer = await fetch(location.href, { headers, cache: "no-store", signal: AbortSignal.timeout(10_000) });
    const other = answer.redirected; // to a login, say: what stands there says nothing of this page
    if (other || (!answer.ok && answer.status !== 304)) throw new Error(answer.statusText);
    failures = 0;
    say("on", "Live");
    if (answer.status === 200) {
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const held = [...page.querySelectorAll("[data-live]")].map((fresh) => replace(fresh)).includes(false);
      version = held ? null : answer.headers.get("ETag"); // what a typing hand held up is asked for again
      pause = period(page) || (held ? pause : 0);
    }
  } catch {
    failures += 1;
    say("off", `Not live since ${new Date().toLocaleTimeString()}`);
  }
  if (pause) setTimeout(look, Math.min(pause * 2 ** failures, 30_000), pause);
  else say("ended", "Ended");
}

if (period(document)) {
  state?.removeAttribute("hidden");
  setTimeout(look, period(document), period(document));
}
