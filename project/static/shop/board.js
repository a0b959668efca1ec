// The page reads /state/ twice a second and draws it. Every control is a plain form that the script sends in place.

const POLL = 500;
const WINDOW = 60_000;
const SVG = "http://www.w3.org/2000/svg";

const $ = (id) => document.getElementById(id);
const bands = [...document.querySelectorAll("#meter .fill")].map((fill) => fill.dataset.band);
const bandClass = (name) => `band-${Math.max(0, bands.indexOf(name))}`;
const moments = [];
let seen = new Set();

// Reading

async function follow() {
  let wait = POLL;
  try {
    const answer = await fetch(document.body.dataset.state, { headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error(answer.statusText);
    draw(await answer.json());
  } catch {
    pill("no connection", "bad");
    wait = 4 * POLL;
  }
  if (document.hidden) await new Promise((shown) => document.addEventListener("visibilitychange", shown, { once: true }));
  setTimeout(follow, wait);
}

// Drawing

function draw(picture) {
  drawQueue(picture.queue, picture.bands, picture.producers.waiting);
  drawHistory(picture.queue, picture.bands);
  drawProducers(picture.producers);
  drawWorkers(picture);
  drawWaits(picture.bands);
  $("overtaking").textContent = overtaking(picture.queue, picture.bands);
  drawStrip(picture.started);
  drawControls(picture.queue);
}

function drawQueue(queue, waits, pushing) {
  const scale = Math.max(queue.maxsize, queue.waiting);
  // Under pressure workers and producers take turns at the last places, so the depth flickers just below the bound.
  const full = queue.waiting >= queue.maxsize || (pushing > 0 && queue.waiting >= 0.9 * queue.maxsize);
  document.querySelector(".hero").classList.toggle("full", full);
  $("depth").textContent = queue.waiting;
  $("maxsize").textContent = queue.maxsize;
  $("meter").setAttribute("aria-valuenow", queue.waiting);
  $("meter").setAttribute("aria-valuemax", queue.maxsize);
  $("meter").setAttribute("aria-valuetext", `${queue.waiting} of ${queue.maxsize}`);
  for (const band of waits) {
    document.querySelector(`#meter [data-band="${band.name}"]`).style.width = `${(100 * band.waiting) / scale}%`;
    document.querySelector(`[data-waiting="${band.name}"]`).textContent = band.waiting;
  }
  $("bound").style.left = `${(100 * queue.maxsize) / scale}%`;
  $("sentence").textContent = sentence(queue, full, pushing);
  if (queue.paused) pill("paused", "warm");
  else if (!queue.processes) pill("no workers", "bad");
  else if (full) pill("full", "bad");
  else pill("running", "good");
}

function sentence(queue, full, pushing) {
  const room = queue.maxsize - queue.waiting;
  const patience = document.body.dataset.patience;
  if (room < 0) return "Above the bound, which was lowered: nothing is dropped, and producers wait until it holds again.";
  if (full && !pushing) return `Full: the next payment waits up to ${patience} s for room.`;
  if (full) return `Full: ${pushing} ${pushing === 1 ? "checkout waits" : "checkouts wait"} for room. A payment that finds none within ${patience} s is refused; a receipt waits on.`;
  if (queue.paused) return `Paused: nothing starts. Producers are served as long as there is room, for ${room} more.`;
  if (!queue.processes) return "No process runs workers for this queue.";
  if (!queue.waiting) return "Nothing waits: the workers keep up.";
  return `Room for ${room} more. The oldest has waited ${duration(queue.oldest_wait)}.`;
}

function drawHistory(queue, waits) {
  const now = Date.now();
  moments.push({ at: now, maxsize: queue.maxsize, depths: bands.map((name) => waits.find((band) => band.name === name)?.waiting ?? 0) });
  while (moments.length > 2 && moments[1].at < now - WINDOW) moments.shift();
  const top = 1.12 * Math.max(...moments.map((moment) => Math.max(moment.maxsize, sum(moment.depths))));
  const x = (moment) => (900 * (moment.at - now + WINDOW)) / WINDOW;
  const y = (value) => 150 - (150 * value) / top;
  const shapes = bands.map((name, index) => {
    // Lowest priority at the bottom: it is the sediment that the others flow over.
    const below = (moment) => sum(moment.depths.slice(index + 1));
    const upper = moments.map((moment) => `${x(moment)},${y(below(moment) + moment.depths[index])}`);
    const lower = moments.map((moment) => `${x(moment)},${y(below(moment))}`).reverse();
    return element("polygon", { class: bandClass(name), points: [...upper, ...lower].join(" ") });
  });
  const bound = moments.map((moment) => `${x(moment)},${y(moment.maxsize)}`);
  shapes.push(element("polyline", { class: "bound-line", points: [`0,${y(moments[0].maxsize)}`, ...bound].join(" ") }));
  $("history").replaceChildren(...shapes);
}

function drawProducers(producers) {
  $("push-p50").textContent = duration(producers.p50);
  $("push-p95").textContent = duration(producers.p95);
  $("pushing").textContent = producers.waiting;
  $("longest").textContent = duration(producers.longest);
  $("refused").textContent = producers.refused;
  $("refused").parentElement.classList.toggle("some", producers.refused > 0);
  $("skipped").textContent = producers.skipped_visits;
  const top = Math.max(0.25, ...producers.latest.map(([, seconds]) => seconds));
  const width = 400 / 80;
  const first = 80 - producers.latest.length;
  $("checkouts").replaceChildren(...producers.latest.map(([, seconds, refused], index) => {
    const height = Math.max(2, (94 * seconds) / top);
    return element("rect", { class: refused ? "refused" : "bar", x: (first + index) * width, y: 96 - height, width: width - 1.2, height });
  }));
  $("checkout-scale").textContent = producers.latest.length ? `latest ${producers.latest.length}, up to ${duration(top)}` : "no checkout yet";
}

function drawWorkers(picture) {
  const { running, workers, processes } = picture.queue;
  const size = workers * processes;
  $("busy").textContent = running;
  $("size").textContent = size;
  $("rate").textContent = Math.round(picture.per_second);
  $("processes").textContent = `${processes} ${processes === 1 ? "process" : "processes"} × ${workers} ${workers === 1 ? "worker" : "workers"}`;
  const slots = Array.from({ length: Math.max(size, picture.running.length) }, (_, index) => {
    const slot = document.createElement("i");
    const job = picture.running[index];
    if (job) slot.className = bandClass(job.band);
    slot.textContent = slot.title = job?.task ?? "idle";
    return slot;
  });
  $("slots").classList.toggle("many", slots.length > 10);
  $("slots").replaceChildren(...slots);
}

function drawWaits(waits) {
  const top = Math.max(0.05, ...waits.map((band) => band.p95 ?? 0));
  for (const band of waits) {
    const row = document.querySelector(`[data-wait="${band.name}"]`);
    row.querySelector(".p50").style.width = `${(100 * (band.p50 ?? 0)) / top}%`;
    row.querySelector(".p95").style.width = `${(100 * (band.p95 ?? 0)) / top}%`;
    const [p50, p95] = row.querySelectorAll(".number");
    p50.textContent = duration(band.p50);
    p95.textContent = duration(band.p95);
  }
}

function overtaking({ order, paused }, waits) {
  if (paused) return "Paused: no job starts, whatever its band.";
  if (order === "fifo") return "In fifo order nobody overtakes: a payment waits behind every page view.";
  if (order === "lifo") return "In lifo order the newest overtakes everybody, whatever its band.";
  const [first, last] = [waits.at(0), waits.at(-1)];
  const longer = Math.max(last.p95, last.oldest);
  if (!first.started || longer < 0.1 || longer < 1.5 * first.p95) return "The higher band starts first. While nothing waits it makes no difference.";
  const overtaking = `${first.name} jobs overtake: 19 of 20 started within ${duration(first.p95)}`;
  if (last.oldest > last.p95) return `${overtaking}, while a ${last.name} one has waited ${duration(last.oldest)}.`;
  return `${overtaking}, and 19 of 20 ${last.name} ones within ${duration(last.p95)}.`;
}

function drawStrip(started) {
  const top = Math.max(0.25, ...started.map((job) => job.waited));
  const fresh = started.filter((job) => !seen.has(job.id)).length;
  const crowded = fresh > started.length / 2; // else the whole strip would blink twice a second
  $("strip").replaceChildren(...started.toReversed().map((job) => {
    const bar = document.createElement("i");
    bar.className = crowded || seen.has(job.id) ? bandClass(job.band) : `${bandClass(job.band)} new`;
    bar.style.height = `${8 + 68 * Math.sqrt(job.waited / top)}px`; // so that short waits differ too
    bar.title = `${job.task}, ${job.band}: waited ${duration(job.waited)}`;
    return bar;
  }));
  seen = new Set(started.map((job) => job.id));
}

function drawControls(queue) {
  settle($("workers"), queue.workers);
  settle($("bound-input"), queue.maxsize);
  for (const radio of document.querySelectorAll('[name="order"]')) radio.checked = radio.value === queue.order;
  const [shown, other] = queue.paused ? [$("resume"), $("pause")] : [$("pause"), $("resume")];
  const focused = other.contains(document.activeElement); // a keyboard must not fall back to the page's top
  shown.hidden = false;
  if (focused) shown.querySelector("button").focus();
  other.hidden = true;
  const { workers, maxsize, order } = queue.settings;
  $("tuned").textContent = queue.tuned
    ? `Tuned, and it stays so after a restart. The settings say ${workers} workers, maxsize ${maxsize}, ${order}.`
    : "As the settings say.";
}

// Sending

for (const form of document.querySelectorAll("form[data-live]")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(form, event.submitter);
  });
}

const tuning = document.querySelector('[data-live="tune"]');
tuning.addEventListener("change", (event) => event.target.reportValidity() && send(tuning, null, event.target));
for (const button of tuning.querySelectorAll("[data-step]")) {
  button.addEventListener("click", () => {
    const input = $(button.dataset.for);
    input.value = Math.min(input.max, Math.max(input.min, Number(input.value) + Number(button.dataset.step)));
    send(tuning, null, input);
  });
}

let tuned = Promise.resolve(); // tunings go one after another: of two at once the server might take the older one last

async function send(form, submitter, only) {
  const data = new FormData(form, submitter);
  if (only) for (const name of ["workers", "maxsize", "order"]) if (name !== only.name) data.delete(name);
  if (only) pending.set(only, data);
  const crowd = data.get("checkouts");
  if (crowd) say(`${crowd} customers are checking out …`);
  try {
    const post = () => fetch(form.action, { method: "POST", body: data, headers: { Accept: "application/json" } });
    const sent = only ? tuned.then(post) : post();
    if (only) tuned = sent.catch(() => {});
    const answer = await sent;
    const body = await answer.json();
    if (!answer.ok) return say(body.error, true);
    if (crowd) tell(crowd, body);
    else draw(body);
  } catch {
    say("The server did not answer.", true);
  } finally {
    if (pending.get(only) === data) pending.delete(only); // not while a later one is on its way
  }
}

function tell(crowd, { through, refused }) {
  const outcome = say("");
  outcome.append(`Of ${crowd} customers `, strong(through), " got through");
  if (refused) outcome.append(" and ", strong(refused, "bad"), " were told to come back.");
  else outcome.append(".");
}

function say(text, bad = false) {
  $("outcome").textContent = text;
  $("outcome").classList.toggle("bad", bad);
  return $("outcome");
}

// Small things

const pending = new Map(); // inputs whose value is on its way: a poll must not put the old one back

function settle(input, value) {
  if (!pending.has(input) && document.activeElement !== input) input.value = value;
}

function pill(text, mood) {
  $("pill").textContent = text;
  $("pill").className = `pill ${mood}`;
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.9995) return `${Math.round(1000 * seconds)}\u00a0ms`;
  return `${seconds.toFixed(seconds < 9.95 ? 1 : 0)}\u00a0s`;
}

function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}

function strong(text, mood = "") {
  const element = document.createElement("b");
  element.textContent = text;
  element.className = mood;
  return element;
}

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

follow();
