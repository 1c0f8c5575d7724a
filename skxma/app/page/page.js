"use strict";

const $ = (selector, inside = document) => inside.querySelector(selector);
const SHOWN_CLASSES = 8;
let labels = new Map();
let asked = null;

/* Ask the server, one thing after the other, so that no older state is shown over a newer one. */
let before = Promise.resolve();
function call(...request) {
  before = before.then(() => send(...request));
  return before;
}

/* An error is shown, and null comes back. */
async function send(method, path, body) {
  const options = { method };
  if (body instanceof FormData) options.body = body;
  else if (body) Object.assign(options, { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    return fail("The server does not answer. Is skxma app still running in its terminal?");
  }
  const content = await answer.json().catch(() => ({ error: `The server answered ${answer.status}.` }));
  return answer.ok ? content : fail(content.error);
}

function fail(message) {
  const shown = $("#error p");
  shown.textContent = $("#error").hidden ? message : `${shown.textContent}\n${message}`;
  $("#error").hidden = false;
  return null;
}

function forgive() {
  $("#error").hidden = true;
}

function make(tag, attributes = {}, ...children) {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children);
  return element;
}

const percent = (p) => `${(100 * p).toFixed(1)} %`;
const signed = (x) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(2);

function show(state) {
  if (!state) return;
  $("#encoder").textContent = state.encoder;
  const doubts = new Map((state.fitted?.doubts ?? []).map((d) => [d.picture, d]));
  const columns = $("#columns");
  labels = new Map(state.columns.flatMap((c) => c.pictures.map((p) => [p.number, { ...p, label: c.name }])));
  for (const old of [...columns.children])
    if (!state.columns.some((c) => String(c.number) === old.dataset.number)) old.remove();
  for (const column of state.columns) {
    const element = $(`[data-number="${column.number}"]`, columns) ?? columns.appendChild(newColumn(column));
    const name = $("input[type=text]", element);
    if (document.activeElement !== name) name.value = column.name;
    $(".pictures", element).replaceChildren(...column.pictures.map((p) => thumbnail(p, doubts.get(p.number))));
  }
  showFit(state);
}

function showFit({ fitted, columns }) {
  $("#save").hidden = !fitted;
  $("#fit").textContent = fitted ? "Fit again" : "Fit";
  const n = columns.reduce((sum, c) => sum + c.pictures.length, 0);
  $("#status").textContent = !fitted
    ? n ? "" : "Drop pictures into the columns first."
    : `${fitted.n_pictures} pictures of ${fitted.n_classes} classes, fitted in ${fitted.seconds.toFixed(2)} s.` +
      (fitted.stale ? " The columns have changed since: fit again." : "");
  $("#answer").classList.toggle("old", Boolean(fitted?.stale));
  const doubts = (fitted?.doubts ?? []).filter((d) => labels.has(d.picture));
  $("#doubts").hidden = !doubts.length;
  $("#doubts").replaceChildren(...doubts.map((d) => make("li", {},
    make("img", { src: `pictures/${d.picture}`, alt: "" }),
    `${labels.get(d.picture).name}: is it really ${labels.get(d.picture).label}? Rather ${d.suggested} ` +
    `(wrong with probability ${d.probability.toFixed(2)}).`)));
}

function thumbnail(picture, doubt) {
  const remove = make("button", { type: "button", className: "remove", textContent: "×" });
  remove.setAttribute("aria-label", `Remove ${picture.name}`);
  remove.onclick = async () => show(await call("DELETE", `pictures/${picture.number}`));
  const title = doubt ? `${picture.name}: rather ${doubt.suggested}?` : picture.name;
  return make("figure", { className: doubt ? "picture doubt" : "picture", title },
    make("img", { src: `pictures/${picture.number}`, alt: picture.name }), remove);
}

function newColumn(column) {
  const element = $("#column").content.firstElementChild.cloneNode(true);
  element.dataset.number = column.number;
  const path = `columns/${column.number}`;
  const name = $("input[type=text]", element);
  name.onchange = async () => show(await call("PUT", path, { name: name.value }));
  $(".remove", element).onclick = async () => show(await call("DELETE", path));
  takeFiles(element, $("input[type=file]", element), async (files, folder) => {
    if (folder && !name.value) {
      name.value = folder.replaceAll("_", " ");
      await call("PUT", path, { name: name.value });
    }
    for (const file of files) show(await call("POST", `${path}/pictures`, form(file)));
  });
  return element;
}

function form(file) {
  const data = new FormData();
  data.append("file", file, file.name);
  return data;
}

/* Give a handler the files that are chosen or dropped, folders opened; one handling after the other. */
function takeFiles(target, input, handle) {
  let handled = Promise.resolve();
  const take = (found) => {
    handled = handled.then(async () => {
      forgive();
      target.setAttribute("aria-busy", "true");
      const { files, folder } = await found;
      if (files.length) await handle(files, folder);
      else fail("There was no picture in what was dropped.");
      target.removeAttribute("aria-busy");
    });
  };
  input.onchange = () => {
    take(Promise.resolve({ files: [...input.files] }));
    input.value = "";
  };
  target.addEventListener("dragover", (event) => {
    event.preventDefault();
    target.classList.add("over");
  });
  target.addEventListener("dragleave", () => target.classList.remove("over"));
  target.addEventListener("drop", (event) => {
    event.preventDefault();
    target.classList.remove("over");
    take(dropped(event.dataTransfer));
  });
}

async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return { files: [...transfer.files] };
  const files = (await Promise.all(entries.map(filesOf))).flat();
  return { files, folder: entries.find((entry) => entry.isDirectory).name };
}

async function filesOf(entry) {
  if (entry.isFile) {
    const file = await new Promise((give, refuse) => entry.file(give, refuse));
    return file.name.startsWith(".") ? [] : [file];
  }
  const reader = entry.createReader();
  const files = [];
  // a folder is read in pieces until one is empty
  for (;;) {
    const piece = await new Promise((give, refuse) => reader.readEntries(give, refuse));
    if (!piece.length) return files;
    files.push(...(await Promise.all(piece.map(filesOf))).flat());
  }
}

async function ask() {
  const answer = await call("POST", "ask", form(asked));
  if (answer) showAnswer(answer);
}

function showAnswer(answer) {
  const best = answer.scores[0];
  const picture = $("#query img");
  picture.src = `data:image/png;base64,${answer.thumbnail}`;
  picture.alt = answer.name;
  picture.hidden = false;
  $("#query span").textContent = "Drop another, or choose one";
  $("#answer .label").replaceChildren(best.label, make("small", { textContent: `  ${percent(best.final)}` }));
  $("#answer .unlike").hidden = !answer.unlike;
  $("#scores tbody").replaceChildren(...answer.scores.slice(0, SHOWN_CLASSES).map((score) => make("tr", {},
    make("td", { textContent: score.label }), bar(score.zero_shot, ""), bar(score.final, "final"))));
  $("#retrieved").replaceChildren(...answer.retrieved.map((found) => make("li", { className: found.label === best.label ? "same" : "" },
    make("img", { src: `pictures/${found.picture}`, alt: found.name }),
    make("b", { textContent: found.label }),
    make("span", { textContent: `image ${signed(found.image_affinity)}` }),
    make("span", { textContent: `text ${signed(found.text_affinity)}` }))));
  $("#answer").classList.remove("old");
  $("#answer").hidden = false;
}

function bar(p, kind) {
  const filled = make("i");
  filled.style.width = `calc((100% - 4.2rem) * ${p})`;
  return make("td", { className: `bar ${kind}` }, make("div", {}, filled, make("span", { textContent: percent(p) })));
}

async function start() {
  $("#error button").onclick = forgive;
  // a picture that misses its column must not replace the page
  for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());
  $("#add").onclick = async () => {
    show(await call("POST", "columns"));
    $("#columns > :last-child input[type=text]")?.focus();
  };
  $("#sample").onclick = async () => {
    forgive();
    show(await call("POST", "sample"));
  };
  $("#fit").onclick = async () => {
    forgive();
    $("#fit").disabled = true;
    $("#status").textContent = "Fitting… (the first time the encoder is loaded too)";
    const state = await call("POST", "fit");
    show(state ?? (await call("GET", "state")));
    if (state && asked) await ask();
    $("#fit").disabled = false;
  };
  takeFiles($("#query"), $("#query input"), async (files) => {
    asked = files[0];
    await ask();
  });
  show(await call("GET", "state"));
}

start();
