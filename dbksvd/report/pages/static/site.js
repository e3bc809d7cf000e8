/* Feature pages: data come as script files (file:// allows no fetch), unpacked when they are shown. */
"use strict";

// ---- data -------------------------------------------------------------------------------------
const DBKSVD = { waiting: {}, loaded: {} };

DBKSVD.put = async (name, packed) => {
  try {
    const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    DBKSVD.waiting[name].resolve(JSON.parse(await new Response(stream).text()));
  } catch (error) { DBKSVD.waiting[name].reject(error); }
};

function load(name) {
  if (!DBKSVD.loaded[name]) {
    DBKSVD.loaded[name] = new Promise((resolve, reject) => {
      DBKSVD.waiting[name] = { resolve, reject };
      const script = document.createElement("script");
      script.src = `${name}.js`;
      script.onerror = () => reject(new Error(`${name}.js is missing beside this page`));
      document.head.append(script);
    });
  }
  return DBKSVD.loaded[name];
}

// Columns back to the list of values that they stand for; dbksvd/report/pages/columns.py says the kinds.
const DIGITS = new Map([..."ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"].map((letter, value) => [letter.charCodeAt(0), value]));
function unfold([kind, ...rest]) {
  const [first, second] = rest;
  if (kind === "j") return first;
  if (kind === "c") return new Array(first).fill(second);
  if (kind === "i") return Array.from(rest[1], (_, n) => first + rest.slice(1).reduce((sum, digits) => sum * 64 + DIGITS.get(digits.charCodeAt(n)), 0));
  if (kind === "f") { const exponents = unfold(second); return unfold(first).map((mantissa, n) => Number(`${mantissa}e${exponents[n]}`)); }
  if (kind === "s") return unfold(second).map((number) => first[number]);
  if (kind === "t") { const columns = first.map(unfold); return columns[0].map((_, n) => columns.map((column) => column[n])); }
  if (kind === "d") {
    const columns = Object.entries(first).map(([key, column]) => [key, unfold(column)]);
    return columns[0][1].map((_, n) => Object.fromEntries(columns.map(([key, column]) => [key, column[n]])));
  }
  const entries = unfold(second);
  let stop = 0;
  return unfold(first).map((length) => entries.slice(stop, stop += length));
}
const unfoldAll = (columns) => Object.fromEntries(Object.entries(columns).map(([key, column]) => [key, unfold(column)]));
function addSteps(steps) {
  let sum = 0;
  return steps.map((step) => (sum += step));
}

// ---- small helpers ----------------------------------------------------------------------------
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "on") for (const [name, action] of Object.entries(value)) element.addEventListener(name, action);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const round = (value, digits = 3) => Number(value).toPrecision(digits).replace(/\.?0+(e|$)/, "$1");
const percent = (value) => (value === 0 ? "0" : value < 0.0001 ? "<.01 %" : `${round(100 * value, 2)} %`);
const count = (value) => Number(value).toLocaleString("en-GB");

// White space and marks that do not show get a name; the rest is the text itself.
function showToken(text) {
  const shown = text.replace(/[\n\r\t\u0000-\u001f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g,
    (letter) => ({ "\n": "↵", "\r": "␍", "\t": "⇥" })[letter] || `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`);
  return shown.replace(/^ /, "␣") || "␣";
}
const token = (text) => make("bdi", { class: "token" }, showToken(text.length > 60 ? `${text.slice(0, 60)}…` : text));

function tip(event, text) {
  const box = document.getElementById("tip");
  if (!text) { box.style.display = "none"; return; }
  box.textContent = text;
  box.style.display = "block";
  const place = event.type === "focusin" ? event.target.getBoundingClientRect() : { left: event.clientX, bottom: event.clientY + 8 };
  box.style.left = `${Math.max(4, Math.min(place.left, innerWidth - box.offsetWidth - 8))}px`;
  box.style.top = `${Math.min(place.bottom + 6, innerHeight - box.offsetHeight - 4)}px`;
}
for (const name of ["mouseover", "focusin"]) document.addEventListener(name, (event) => tip(event, event.target.dataset && event.target.dataset.tip));
document.addEventListener("scroll", () => tip(null, ""), { passive: true });

function bars(rows, { minus = false } = {}) {
  const most = Math.max(...rows.map((row) => Math.abs(row.value)), 1e-30);
  const box = make("div", { class: "bars" });
  for (const row of rows) {
    const bar = make("div", { class: row.value < 0 || minus ? "bar minus" : "bar" });
    bar.style.width = `${(100 * Math.abs(row.value)) / most}%`;
    box.append(make("div", { class: "name" }, row.name), make("div", { "data-tip": row.tip }, bar), make("div", { class: "number" }, row.text));
  }
  return box;
}

function histogram(counts, low, high, unit) {
  const most = Math.max(...counts, 1);
  const box = make("div", { class: "spark", role: "img", "aria-label": `histogram from ${round(low)} to ${round(high)}` });
  const step = (high - low) / counts.length;
  counts.forEach((value, bin) => {
    const bar = make("i", { "data-tip": `${round(low + bin * step)} to ${round(low + (bin + 1) * step)}: ${count(value)}` });
    bar.style.height = `${value ? Math.max(2, (100 * value) / most) : 0}%`;
    box.append(bar);
  });
  return make("div", {}, box, make("div", { class: "ends" }, make("span", {}, round(low)), make("span", {}, unit), make("span", {}, round(high))));
}

// ---- theme, tables ----------------------------------------------------------------------------
function keep(key, value) {
  try { if (value === undefined) return localStorage.getItem(key); localStorage.setItem(key, value); } catch { /* no storage on some file pages */ }
  return null;
}
function setTheme(theme) { if (theme) document.documentElement.dataset.theme = theme; }
setTheme(keep("dbksvd-theme"));
function toggleTheme() {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
  setTheme(dark ? "light" : "dark"); keep("dbksvd-theme", dark ? "light" : "dark");
  document.dispatchEvent(new Event("theme"));
}

function readCell(row, column) {
  const text = row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const number = parseFloat(text);
  return text === "" ? null : Number.isNaN(number) ? text.toLowerCase() : number;
}
function sortTable(table, column, descending) {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row, place) => ({ row, place, value: readCell(row, column) }));
  rows.sort((a, b) => {
    if (a.value === null || b.value === null) return (a.value === null) - (b.value === null) || a.place - b.place;
    const order = typeof a.value === "number" && typeof b.value === "number" ? a.value - b.value : String(a.value).localeCompare(String(b.value));
    return (descending ? -order : order) || a.place - b.place;
  });
  body.append(...rows.map((item) => item.row));
}
function makeSortable(table) {
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    const button = make("button", { type: "button" }, cell.textContent);
    cell.replaceChildren(button);
    button.addEventListener("click", () => {
      const descending = cell.getAttribute("aria-sort") !== "descending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sortTable(table, column, descending);
    });
  });
}

// ---- one dictionary ---------------------------------------------------------------------------
const PAGE_ROWS = 100;
const page = { info: null, list: null, order: [], shown: 0, sort: "frequency", down: true, atom: null, found: null };

const isSigned = () => page.info.signed;
function featureName(feature) {
  const m = page.info.n_atoms;
  return isSigned() ? `${feature % m}${feature < m ? " +" : " −"}` : `${feature}`;
}
const atomOf = (feature) => feature % page.info.n_atoms;

const SORTS = {
  atom: ["number", (atom) => atom],
  frequency: ["frequency", (atom) => page.list.count[atom]],
  maximum: ["largest coefficient", (atom) => page.list.maximum[atom]],
  nearest: ["nearest |cos|", (atom) => Math.abs(page.list.nearest[atom][1])],
  stability: ["stability", (atom) => page.list.stability[atom]],
  probe: ["best probe AUC", (atom) => page.list.probe[atom][1]],
};

function orderAtoms() {
  const key = SORTS[page.sort][1];
  const atoms = page.found ? [...page.found.keys()] : [...page.list.count.keys()];
  if (page.found && page.sort === "match") return atoms;
  atoms.sort((a, b) => (page.down ? key(b) - key(a) : key(a) - key(b)) || a - b);
  return atoms;
}

function listRow(atom) {
  const { list } = page;
  const cells = [make("td", {}, make("a", { href: `#${atom}` }, `${atom}`))];
  const tokens = make("td", { class: "left" });
  for (const text of list.tokens[atom]) tokens.append(token(text), " ");
  cells.push(tokens, make("td", {}, percent(list.count[atom] / page.info.tokens)), make("td", {}, round(list.maximum[atom], 2)));
  const [near, cosine] = list.nearest[atom];
  cells.push(make("td", {}, near < 0 ? "" : make("a", { href: `#${near}` }, `${near}`), near < 0 ? "" : ` (${cosine.toFixed(2)})`));
  if (list.stability) cells.push(make("td", {}, list.stability[atom].toFixed(2)));
  if (list.probe) cells.push(make("td", { class: "left" }, list.probe[atom][0] < 0 ? "" : `${page.info.probes[list.probe[atom][0]]} ${list.probe[atom][1].toFixed(2)}`));
  if (page.found) cells.push(make("td", { class: "left faint" }, page.found.get(atom) || ""));
  return make("tr", { "data-atom": atom, on: { click: (event) => { if (event.target.tagName !== "A") location.hash = atom; } } }, ...cells);
}

function drawList() {
  page.order = orderAtoms();
  page.shown = 0;
  const heads = [["atom", "atom"], [null, "fires most on"], ["frequency", "tokens it fires on"], ["maximum", "largest coefficient"], ["nearest", "nearest atom (cos)"]];
  if (page.list.stability) heads.push(["stability", "stability"]);
  if (page.list.probe) heads.push(["probe", "predicts (AUC)"]);
  if (page.found) heads.push([null, "found"]);
  const row = make("tr");
  for (const [key, name] of heads) {
    const cell = make("th", { scope: "col", class: key === null || key === "probe" ? "left" : null, "aria-sort": key === page.sort ? (page.down ? "descending" : "ascending") : null });
    cell.append(key === null ? name : make("button", { type: "button", on: { click: () => { page.down = page.sort === key ? !page.down : key !== "atom"; page.sort = key; drawList(); } } }, name));
    row.append(cell);
  }
  const table = document.getElementById("atoms");
  table.tHead.replaceChildren(row);
  table.tBodies[0].replaceChildren();
  showMore();
  drawMap();
}
function showMore() {
  const body = document.querySelector("#atoms tbody");
  const next = page.order.slice(page.shown, page.shown + PAGE_ROWS);
  body.append(...next.map(listRow));
  page.shown += next.length;
  document.getElementById("more").hidden = page.shown >= page.order.length;
  document.getElementById("shown").textContent = `${count(page.shown)} of ${count(page.order.length)} atoms${page.found ? " found" : ""}`;
}

// ---- map --------------------------------------------------------------------------------------
const MAP_BUCKETS = 200;
async function drawMap() {
  const canvas = document.getElementById("map");
  if (!canvas || !page.info.has_map) return;
  const places = (page.map ||= unfoldAll(await load("data/map")));
  const style = getComputedStyle(document.documentElement);
  const size = canvas.clientWidth;
  const scale = window.devicePixelRatio || 1;
  canvas.width = canvas.height = size * scale;
  canvas.style.height = `${size}px`;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const colourBy = document.getElementById("colour").value;
  const values = colourBy === "stability" ? page.list.stability : page.list.count.map((value) => Math.log1p(value));
  const [low, high] = values.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
  const radius = page.info.n_atoms > 4000 ? 1.6 : page.info.n_atoms > 1500 ? 2.4 : 3.6;
  const put = (atom) => [8 + (places.x[atom] / 1000) * (size - 16), 8 + (places.y[atom] / 1000) * (size - 16)];
  for (const atom of page.list.count.keys()) {
    const share = high > low ? (values[atom] - low) / (high - low) : 1;
    const inside = !page.found || page.found.has(atom);
    pen.fillStyle = `rgba(${style.getPropertyValue("--map")}, ${inside ? 0.15 + 0.8 * share : 0.06})`;
    pen.beginPath(); pen.arc(...put(atom), radius, 0, 7); pen.fill();
  }
  if (page.atom !== null) {
    pen.strokeStyle = style.getPropertyValue("--chosen"); pen.lineWidth = 2.5;
    pen.beginPath(); pen.arc(...put(page.atom), radius + 4, 0, 7); pen.stroke();
  }
  canvas.nearestAtom = (event) => {
    const box = canvas.getBoundingClientRect();
    let best = null; let distance = 14 ** 2;
    for (const atom of page.list.count.keys()) {
      const [x, y] = put(atom);
      const d = (x - event.clientX + box.left) ** 2 + (y - event.clientY + box.top) ** 2;
      if (d < distance) { best = atom; distance = d; }
    }
    return best;
  };
}
function wireMap() {
  const canvas = document.getElementById("map");
  if (!canvas) return;
  canvas.addEventListener("mousemove", (event) => {
    const atom = canvas.nearestAtom && canvas.nearestAtom(event);
    tip(event, atom === null || atom === undefined ? "" : `atom ${atom}: ${page.list.tokens[atom].map(showToken).join(" ")}`);
  });
  canvas.addEventListener("mouseleave", (event) => tip(event, ""));
  canvas.addEventListener("click", (event) => { const atom = canvas.nearestAtom && canvas.nearestAtom(event); if (atom !== null && atom !== undefined) location.hash = atom; });
  document.getElementById("colour").addEventListener("change", drawMap);
  addEventListener("resize", drawMap);
  document.addEventListener("theme", drawMap);
}

// ---- search -----------------------------------------------------------------------------------
// A bucket holds the words that begin alike, a file some buckets; a word is listed as [word, steps over the
// atoms whose top tokens it is, steps over those that show it].
const MOST_FILES = 12;
const words = {};
function loadWords(file) {
  words[file] ||= load(`data/search-${file}`).then(unfold);
  return words[file];
}
async function search(text) {
  const asked = (text.toLowerCase().match(/[\p{L}\p{N}_]+/gu) || []);
  if (!asked.length) { page.found = null; if (page.sort === "match") page.sort = "frequency"; return drawList(); }
  let found = null;
  for (const [place, word] of asked.entries()) {
    const isLast = place === asked.length - 1;  // what is being typed may be the beginning of a word
    const hits = new Map();
    const holds = (bucket) => word.startsWith(bucket) || (isLast && bucket.startsWith(word));
    const files = [...page.info.buckets.keys()].filter((file) => page.info.buckets[file].some(holds)).slice(0, MOST_FILES);
    for (const listed of await Promise.all(files.map(loadWords))) {
      for (const [known, fires, shows] of listed) {
        if (known !== word && !(isLast && known.startsWith(word))) continue;
        const exact = known === word ? 2 : 1;
        for (const atom of addSteps(fires)) hits.set(atom, Math.max(hits.get(atom) || 0, 10 + exact));
        for (const atom of addSteps(shows)) hits.set(atom, Math.max(hits.get(atom) || 0, exact));
      }
    }
    found = found === null ? hits : new Map([...found].filter(([atom]) => hits.has(atom)).map(([atom, rank]) => [atom, rank + hits.get(atom)]));
  }
  const ranked = [...found].sort((a, b) => b[1] - a[1] || page.list.count[b[0]] - page.list.count[a[0]]);
  page.found = new Map(ranked.map(([atom, rank]) => [atom, rank > 10 ? "fires on it" : "in its examples"]));
  page.sort = "match";
  return drawList();
}
SORTS.match = ["match", () => 0];

// ---- one atom ---------------------------------------------------------------------------------
// What an example leaves out: where its text begins, the text itself where pages share it, its values by place.
function expandExample(example) {
  if (example.i) return example;
  const [before, after] = page.info.window;
  const first = Math.max(0, example.p - before);
  const { contexts } = page;
  const places = addSteps(example.w);
  const shared = example.c === undefined ? {} : {
    d: contexts.documents[example.c], s: contexts.sources[example.c], t: contexts.texts[example.c].slice(first, example.p + after + 1) };
  const values = new Map(places.map((place, n) => [place, example.v[n]]));
  return { ...example, ...shared, p: example.p - first, values, m: values.get(example.p - first) };
}

function drawExample(example, side, most) {
  const text = make("div", { class: "text" });
  const colour = side ? "--minus" : "--plus";
  const style = getComputedStyle(document.documentElement).getPropertyValue(colour);
  example.t.forEach((piece, offset) => {
    const value = example.values.get(offset);
    if (value === undefined) { text.append(piece); return; }
    const span = make("span", { class: offset === example.p ? "on peak-token" : "on", tabindex: offset === example.p ? "0" : null, "data-tip": `${showToken(piece)}  ${side ? "−" : ""}${round(value)}` });
    span.style.background = `rgba(${style}, ${0.12 + (0.78 * value) / most})`;
    span.append(piece);
    text.append(span);
  });
  const from = page.info.sources.length ? `${page.info.sources[example.s]}, document ${example.d}` : `row ${example.d}`;
  return make("div", { class: "example" }, make("div", { class: "peak" }, `${side ? "−" : ""}${round(example.m)}`), make("div", {}, text, make("div", { class: "from" }, from)));
}

function drawTile(example) {
  return make("figure", { class: "tile" }, make("img", { src: example.i, width: 128, height: 128, alt: `${example.n}, tile ${example.tile}`, "data-tip": `${example.n}: ${round(example.m)}` }));
}

function drawSide(side, number) {
  const title = isSigned() ? (number ? "Negative direction" : "Positive direction") : "Where it fires";
  const box = make("section", { class: "card" }, make("h3", {}, title));
  if (!side.count) { box.append(make("p", { class: "faint" }, "It fires nowhere in the text read.")); return box; }
  box.append(make("p", { class: "faint" }, `${count(side.count)} tokens (${percent(side.count / page.info.tokens)}) in ${count(side.contexts)} ${page.info.context_word}s; mean coefficient ${round(side.mean)}, largest ${round(side.maximum)}`));
  const groups = new Map();
  for (const example of side.examples.map(expandExample)) { if (!groups.has(example.g)) groups.set(example.g, []); groups.get(example.g).push(example); }
  for (const [group, examples] of groups) {
    const peaks = examples.map((example) => example.m);
    const name = group === 0 ? `Top ${page.info.context_word}s` : `Quantile group ${group} of ${page.info.groups}: peaks from ${round(Math.min(...peaks))} to ${round(Math.max(...peaks))}`;
    const part = make("details", group === 0 ? { open: "" } : {}, make("summary", {}, name));
    for (const example of examples) part.append(example.i ? drawTile(example) : drawExample(example, number, side.maximum));
    box.append(part);
  }
  return box;
}

function drawSideFacts(side, number) {
  if (!side.count) return [];
  const sign = isSigned() ? (number ? ", negative" : ", positive") : "";
  const cards = [make("section", { class: "card" }, make("h3", {}, `Coefficients${sign}`), histogram(side.histogram, 0, side.top, "coefficients that are not zero"))];
  if (side.tokens.length) {
    const rows = side.tokens.map(([text, times, mean]) => ({ name: token(text), value: times, text: count(times), tip: `mean coefficient ${round(mean)}` }));
    cards.push(make("section", { class: "card" }, make("h3", {}, `Tokens it fires on most${sign}`), bars(rows.slice(0, 12))));
  }
  if (side.coactive.length) {
    const rows = side.coactive.map(([feature, jaccard, times]) => ({
      name: make("a", { href: `#${atomOf(feature)}` }, featureName(feature)), value: jaccard, text: jaccard.toFixed(2),
      tip: `Jaccard index ${round(jaccard)}: ${count(times)} tokens with both; it is on at ${percent(times / side.base)} of this one's tokens` }));
    cards.push(make("section", { class: "card" }, make("h3", {}, `Active at the same tokens (Jaccard)${sign}`), bars(rows)));
  }
  return cards;
}

function drawNearest(atom) {
  const box = make("section", { class: "card" }, make("h3", {}, "Nearest atoms"));
  const rows = atom.nearest.filter(([, found]) => found.length);
  for (const [number, found] of rows) {
    const other = page.info.dictionaries[number];
    box.append(make("div", { class: "faint" }, other.is_this ? "in this dictionary" : other.label));
    const line = make("p");
    for (const [near, cosine] of found) line.append(make("a", { href: other.is_this ? `#${near}` : `../${other.slug}/index.html#${near}` }, `${near}`), ` (${cosine.toFixed(2)}) `);
    box.append(line);
  }
  return box;
}

function drawLogits(logits) {
  const box = make("section", { class: "card" }, make("h3", {}, "Direct effect on the next token's logits"));
  const list = (pairs) => bars(pairs.map(([text, value]) => ({ name: token(text), value, text: round(value, 2) })));
  box.append(make("div", { class: "faint" }, "raises most"), list(logits.up), make("div", { class: "faint" }, "lowers most"), list(logits.down));
  box.append(histogram(logits.histogram, logits.edges[0], logits.edges[1], "effect on all tokens"));
  return box;
}

async function drawAtom(number) {
  const view = document.getElementById("atom-view");
  page.atom = number;
  document.getElementById("list-view").hidden = true;
  view.hidden = false;
  if (page.info.shares_contexts) page.contexts ||= unfoldAll(await load("../contexts"));
  const chunk = await load(`data/atoms-${Math.floor(number / page.info.atoms_per_file)}`);
  if (page.atom !== number) return;
  if (!chunk.unfolded) chunk.unfolded = unfold(chunk.atoms);
  const atom = chunk.unfolded[number - chunk.first];
  const place = page.order.indexOf(number);
  const step = (by) => { const next = place < 0 ? number + by : page.order[place + by]; return next !== undefined && next >= 0 && next < page.info.n_atoms ? next : null; };
  const [before, after] = [step(-1), step(1)];
  const go = (next, text, key) => make("a", { href: next === null ? null : `#${next}`, "aria-disabled": next === null, id: key }, text);
  const nav = make("div", { class: "tools" }, make("a", { href: "#", id: "back" }, "↑ all atoms"), go(before, "← previous", "previous"), go(after, "next →", "next"), make("span", { class: "faint" }, "keys: ← → Esc"));
  const parts = [make("div", { class: "sides" }, ...atom.sides.map(drawSide))];
  const rest = make("div", { class: isSigned() ? "grid" : "grid aside" }, ...atom.sides.flatMap(drawSideFacts));
  if (atom.logits) rest.append(drawLogits(atom.logits));
  rest.append(drawNearest(atom));
  if (atom.neurons) rest.append(make("section", { class: "card" }, make("h3", {}, "Largest entries of the atom"), bars(atom.neurons.map(([index, value]) => ({ name: `coordinate ${index}`, value, text: value.toFixed(2) })))));
  if (atom.truth) rest.append(make("section", { class: "card" }, make("h3", {}, "True features"), make("p", { class: "faint" }, `matched one to one with feature ${atom.truth.match < 0 ? "none" : atom.truth.match}`), bars(atom.truth.features.map(([index, cosine]) => ({ name: `feature ${index}`, value: cosine, text: cosine.toFixed(2) })))));
  if (atom.probes) rest.append(make("section", { class: "card" }, make("h3", {}, "Labels it predicts (AUC)"), bars(atom.probes.map(([label, auc]) => ({ name: page.info.probes[label], value: auc - 0.5, text: auc.toFixed(2) })))));
  view.replaceChildren(nav, make("h2", { id: "atom-title", tabindex: "-1" }, `Atom ${number}`), page.list.stability ? make("p", { class: "faint", id: "stability" }, `stability over seeds ${page.list.stability[number].toFixed(2)}`) : "", make("div", { class: isSigned() ? "" : "beside" }, ...parts, rest));
  document.title = `Atom ${number} · ${page.info.label}`;
  scrollTo(0, 0);
}

function drawRoute() {
  const number = location.hash.length > 1 ? Number(location.hash.slice(1)) : NaN;
  if (Number.isInteger(number) && number >= 0 && number < page.info.n_atoms) return drawAtom(number).catch(fail);
  const seen = page.atom;
  document.getElementById("atom-view").hidden = true;
  document.getElementById("list-view").hidden = false;
  document.title = page.info.label;
  drawMap();
  const row = seen === null ? null : document.querySelector(`tr[data-atom="${seen}"] a`);
  if (row) row.focus();
  return undefined;
}

function fail(error) {
  const box = document.getElementById("problem");
  box.textContent = `This page could not be shown: ${error.message}`;
  box.hidden = false;
}

async function startDictionary(info) {
  page.info = info;
  if (typeof DecompressionStream === "undefined") throw new Error("it needs a browser with DecompressionStream (Chrome 80, Firefox 113, Safari 16.4 or newer)");
  page.list = unfoldAll(await load("data/list"));
  drawList();
  wireMap();
  const field = document.getElementById("search");
  let timer = 0;
  field.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(() => search(field.value).catch(fail), 120); });
  document.getElementById("more").addEventListener("click", showMore);
  addEventListener("hashchange", drawRoute);
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) { if (event.key === "Escape") event.target.blur(); return; }
    if (event.key === "/") { location.hash = ""; field.focus(); event.preventDefault(); }
    const ids = { ArrowLeft: "previous", ArrowRight: "next", k: "previous", j: "next", Escape: "back" };
    const link = ids[event.key] && !document.getElementById("atom-view").hidden && document.getElementById(ids[event.key]);
    if (link && link.hasAttribute("href")) link.click();
  });
  drawRoute();
}

document.addEventListener("DOMContentLoaded", () => {
  document.body.append(make("div", { id: "tip", role: "tooltip" }));
  document.getElementById("theme").addEventListener("click", toggleTheme);
  document.querySelectorAll("table.sortable").forEach(makeSortable);
  const info = document.getElementById("info");
  if (info) startDictionary(JSON.parse(info.textContent)).catch(fail);
});
