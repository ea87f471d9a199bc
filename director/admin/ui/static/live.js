// Keeps an open page current. Without this file every page works and reloads by itself.
// Cells (texts by key, see cells.py) come by server-sent events; when a shape that the page was drawn for changes, its
// parts are fetched again. Where there is no stream, parts are fetched at the configured rate.

let { scope } = document.body.dataset;
const { shapes: listed, poll: polled, refresh } = document.body.dataset;
const light = document.getElementById("live");
const shapes = new Map((listed || "").split(" ").filter(Boolean).map((key) => [key, undefined]));
const CALM_MS = 300; // changes that come together are drawn together, and letters typed
let elements = index();
let stream, polling, fetching, again, failures = 0;

function index() {
  const found = new Map();
  for (const element of document.querySelectorAll("[data-live]")) {
    const key = element.dataset.live;
    found.get(key)?.push(element) ?? found.set(key, [element]);
  }
  return found;
}

function show(element, cell) {
  if (element instanceof SVGElement) return element.setAttribute("points", cell);
  const [mark, text] = Array.isArray(cell) ? cell : [null, cell];
  const word = element.querySelector(".word") ?? element;
  if (mark) element.dataset.mark = mark;
  if (word.textContent === text) return;
  word.textContent = text;
  element.classList.remove("news");
  void element.offsetWidth; // lets the same animation begin anew
  element.classList.add("news");
}

function take(cells) {
  let stale = false;
  for (const [key, cell] of Object.entries(cells)) {
    for (const element of elements.get(key) ?? []) show(element, cell);
    if (shapes.has(key)) {
      const before = shapes.get(key);
      shapes.set(key, cell);
      stale ||= before !== undefined && before !== cell;
    }
  }
  if (stale) redrawSoon();
}

function redrawSoon() {
  again ??= setTimeout(() => { again = undefined; redraw(); }, CALM_MS);
}

async function redraw() {
  if (fetching) return redrawSoon();
  fetching = true;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer.redirected) return location.reload(); // signed out
    const drawn = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-part]")) {
      const fresh = drawn.querySelector(`[data-part="${part.dataset.part}"]`);
      if (fresh && fresh.innerHTML !== part.innerHTML) swap(part, fresh);
    }
    elements = index();
    follow(drawn.body.dataset.scope);
  } catch {
    // the director is away; the stream says so and comes back by itself
  } finally {
    fetching = false;
  }
}

function follow(now) {
  if (now === undefined || now === scope) return;
  scope = now;
  if (!stream) return;
  close();
  open();
}

function swap(part, fresh) {
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  if (focused?.matches("input, select, textarea")) return; // somebody is typing
  const place = focused?.getAttribute("href");
  for (const { id } of part.querySelectorAll("details[open]")) {
    fresh.querySelector(`details[id="${CSS.escape(id)}"]`)?.setAttribute("open", "");
  }
  part.replaceWith(document.adoptNode(fresh));
  if (place) fresh.querySelector(`[href="${CSS.escape(place)}"]`)?.focus();
}

function say(state, word) {
  if (!light) return;
  light.hidden = false;
  light.dataset.state = state;
  if (light.textContent !== word) light.textContent = word;
}

function open() {
  if (stream || document.hidden) return;
  stream = new EventSource(`/events?scope=${encodeURIComponent(scope)}`);
  stream.onopen = () => { failures = 0; stopPolling(); say("on", "Live"); };
  stream.onmessage = (event) => take(JSON.parse(event.data));
  stream.onerror = () => {
    say("away", "Reconnecting");
    failures += 1;
    if (stream.readyState === EventSource.CLOSED || failures > 3) { close(); poll(); }
  };
}

function close() {
  stream?.close();
  stream = undefined;
}

function poll() {
  say("away", `Every ${refresh} s`);
  startPolling();
}

function startPolling() {
  polling ??= setInterval(() => { if (!document.hidden) redraw(); }, refresh * 1000);
}

function stopPolling() {
  if (polled !== undefined) return;
  clearInterval(polling);
  polling = undefined;
}

const finding = document.querySelector("form[data-find]");
finding?.addEventListener("input", () => {
  const query = new URLSearchParams(new FormData(finding));
  if (!query.get("find")) query.delete("find");
  history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
  redrawSoon();
});

if (scope !== undefined) {
  // A browser has six connections for one server: only the pages that are seen hold one, and the director lets three of
  // them; the others fetch their parts.
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : (redraw(), open())));
  addEventListener("pagehide", close);
  addEventListener("pageshow", open);
  if (polled !== undefined) startPolling();
  open();
}
