"use strict";

const $ = (selector, inside = document) => inside.querySelector(selector);
const SHOWN_CLASSES = 8;
const SHOWN_CHIPS = 40;
/* With more of them, the buttons of classes stand beside an image, not under it. */
const MANY_CLASSES = 6;
const WAITS = [50, 100, 200, 400];
let tab = null;
let state = null;
let asked = null;
let answer = null;
let adding = 0;

/* Each tab has a session of its own on the server, under a token that it makes for itself. */

const pathOf = (path) => `tabs/${tab}${path ? `/${path}` : ""}`;

function newToken() {
  const digits = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  tab = digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  sessionStorage.setItem("tab", tab);
  return hold(tab);
}

/* Hold a token for as long as this page lives. False where another tab holds it: a duplicated tab has its token too. */
function hold(token) {
  if (!navigator.locks) return Promise.resolve(true);
  // a page that is loaded again waits here for itself to let go
  const options = { signal: AbortSignal.timeout(3000) };
  return new Promise((give) => {
    navigator.locks.request(`skxma-${token}`, options, () => {
      give(true);
      return new Promise(() => {});
    }).catch(() => give(false));
  });
}

async function enter() {
  tab = sessionStorage.getItem("tab");
  if (tab && (await hold(tab))) return call("GET", "state");
  if (tab) fail("This tab is a copy of another one. It starts anew: images and models stay in the tab that has them.");
  await newToken();
  return call("PUT", "");
}

/* Ask the server, one thing after the other, so that no older state is shown over a newer one. */
let before = Promise.resolve();
function call(method, path, body) {
  const mine = tab;
  before = before.then(() => (mine === tab ? send(method, path, body) : null));
  return before;
}

/* An error is shown, and null comes back. */
async function send(method, path, body) {
  const options = { method };
  if (body instanceof FormData) options.body = body;
  else if (body) Object.assign(options, { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  let response;
  try {
    response = await fetch(pathOf(path), options);
  } catch {
    return fail("The server does not answer. Is skxma app still running in its terminal?");
  }
  const content = await response.json().catch(() => ({ error: `The server answered ${response.status}.` }));
  if (response.ok) return content;
  fail(content.error);
  // the session is gone; what is still shown of it would only mislead
  if (response.status === 410) await startAnew();
  return null;
}

async function startAnew() {
  asked = answer = null;
  await newToken();
  show(await send("PUT", ""));
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

/* Elements and words */

function make(tag, attributes = {}, ...children) {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children);
  return element;
}

function list(element, items) {
  element.hidden = !items.length;
  element.replaceChildren(...items.map((item) => make("li", {}, ...[item].flat())));
}

/* Make these the children of an element, in this order. One that stays is not moved, which would take its focus. */
function arrange(parent, children) {
  for (const old of [...parent.children]) if (!children.includes(old)) old.remove();
  children.forEach((child, index) => {
    if (parent.children[index] !== child) parent.insertBefore(child, parent.children[index] ?? null);
  });
}

const percent = (p) => `${(100 * p).toFixed(1)} %`;
const signed = (x) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(2);
const short = (name) => (name.length > 40 ? `${name.slice(0, 39)}…` : name);
const count = (n, one, several = `${one}s`) => `${n} ${n === 1 ? one : several}`;

/* The state */

function show(given) {
  if (!given) return;
  const before = state;
  state = given;
  for (const warning of state.warnings) fail(warning);
  $("#encoder").textContent = state.encoder;
  $("#save").href = pathOf("model");
  showColumns();
  showPool();
  showUndo(before);
  showModel();
  showAnswer();
  if (state.job) follow(state.job);
}

function showColumns() {
  const columns = $("#columns");
  const doubts = new Map((state.model?.doubts ?? []).map((d) => [d.image, d]));
  const repeated = new Map(state.repeats.flatMap((r) => r.images.map((number) => [number, r.words])));
  // a class that was put back has its place again
  arrange(columns, state.columns.map((column) => $(`[data-number="${column.number}"]`, columns) ?? newColumn(column)));
  state.columns.forEach((column, index) => {
    const element = columns.children[index];
    const title = column.name || `number ${index + 1}`;
    const name = $("input[type=text]", element);
    if (document.activeElement !== name) name.value = column.name;
    name.setAttribute("aria-label", `Name of class number ${index + 1}`);
    $(".name .remove", element).setAttribute("aria-label", `Remove the class ${title}`);
    $("input[type=file]", element).setAttribute("aria-label", `Images of the class ${title}`);
    $(".images", element).replaceChildren(...column.images.map((image) =>
      thumbnail(image, doubts.has(image.number) ? `rather ${doubts.get(image.number).suggested}?` : repeated.get(image.number))));
  });
  $("#marks").hidden = !$(".image.marked", columns);
  $("#start").hidden = state.columns.some((c) => c.images.length);
  list($("#repeats"), state.repeats.map((r) => [make("img", { src: pathOf(`images/${r.images[0]}`), alt: "" }), r.words]));
}

function thumbnail(image, remark) {
  const remove = make("button", { type: "button", className: "remove", textContent: "×" });
  remove.setAttribute("aria-label", `Remove ${image.name}`);
  remove.onclick = async () => show(await call("DELETE", `images/${image.number}`));
  return make("figure", { className: remark ? "image marked" : "image", title: remark ? `${image.name}: ${remark}` : image.name },
    // a browser gives a tap beside a button to the button, unless what was tapped takes taps itself
    make("img", { src: pathOf(`images/${image.number}`), alt: image.name, onclick: () => {} }),
    make("figcaption", {}, make("span", { textContent: image.name }), remove));
}

/* Images without labels: those that are worth one, with a button for each class and a field for a new one. */
function showPool() {
  const { pool, columns } = state;
  const named = columns.filter((c) => c.name);
  const shown = new Map([...$("#strip ol").children].map((item) => [item.dataset.number, item]));
  $("#strip ol").classList.toggle("many", named.length > MANY_CLASSES);
  $("#strip").hidden = !pool.n_images && !pool.suggested.length;
  $("#strip h3").hidden = !pool.suggested.length;
  arrange($("#strip ol"), pool.suggested.map((image) => {
    const item = shown.get(String(image.number)) ?? newSuggestion(image);
    // what is being typed stays: the field is not made anew
    $("div", item).replaceChildren(...named.map((column) => classButton(image, column)), ...(named.length ? [skipButton(image)] : []));
    return item;
  }));
  $("#strip .words").textContent = poolWords(pool, named);
  $("#suggest").hidden = Boolean(pool.suggested.length);
}

function newSuggestion(image) {
  const name = make("input", { type: "text", placeholder: "new class", autocomplete: "off" });
  name.setAttribute("aria-label", `New class of ${image.name}`);
  const add = make("button", { type: "submit", textContent: "Add" });
  add.setAttribute("aria-label", `Put ${image.name} into the new class`);
  const newClass = make("form", {}, name, add);
  newClass.onsubmit = async (event) => {
    event.preventDefault();
    forgive();
    const given = await call("PUT", `images/${image.number}`, { name: name.value });
    show(given);
    if (given) $("#strip li input")?.focus();
  };
  const item = make("li", {}, make("img", { src: pathOf(`images/${image.number}`), alt: image.name }), make("div"), newClass);
  item.dataset.number = image.number;
  return item;
}

function classButton(image, column) {
  const button = make("button", { type: "button", textContent: short(column.name) });
  button.setAttribute("aria-label", `${image.name} is ${column.name}`);
  button.onclick = () => takeFromStrip("PUT", image, { column: column.number });
  return button;
}

function skipButton(image) {
  const button = make("button", { type: "button", className: "quiet", textContent: "none of these" });
  button.setAttribute("aria-label", `${image.name} is none of these`);
  button.onclick = () => takeFromStrip("DELETE", image);
  return button;
}

/* The focus is lost with the image that had it: move it to the next one, for labeling by the keyboard. */
async function takeFromStrip(method, image, body) {
  show(await call(method, `images/${image.number}`, body));
  if (document.activeElement === document.body) $("#strip li button")?.focus({ preventScroll: true });
}

function poolWords(pool, named) {
  const rest = `${count(pool.n_images, "image")} without a label.`;
  if (pool.suggested.length) return named.length ? rest : `${rest} Name the class of each, or the classes above.`;
  if (adding || following || !state.columns.some((c) => c.images.length)) return rest;
  return `${rest} ${state.model ? "Fit again" : "Fit"}, and the next are chosen by the model.`;
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
    await addEach($(".drop span", element), files, (file) => call("POST", `${path}/images`, form({ file })));
  });
  return element;
}

function showUndo(before) {
  $("#undo p").textContent = state.undo ?? "";
  // what was hidden stays hidden until something else is removed
  if (state.undo !== (before?.undo ?? null)) $("#undo").hidden = !state.undo;
}

function showModel() {
  const { model, columns } = state;
  const isOpened = Boolean(model?.file);
  $("#own").hidden = isOpened;
  $("#opened").hidden = !isOpened;
  $("#fit").hidden = isOpened;
  $("#save").hidden = !model || isOpened;
  $("#fit").textContent = model ? "Fit again" : "Fit";
  $("#teach").lastChild.textContent = isOpened ? " A model that was opened" : " Show it images of each class";
  $("#fitting .title").textContent = isOpened ? "What it knows" : "Fit";
  if (isOpened) {
    $("#opened .file").textContent = model.file;
    $("#opened .encoder").textContent = model.encoder;
  }
  $("#status").textContent = statusOf(model, columns);
  $("#classes").hidden = !model;
  $("#classes").replaceChildren("The model knows: ", ...(model?.classes ?? []).slice(0, SHOWN_CHIPS).map((c) =>
    make("span", { className: "chip", title: c.label }, `${short(c.label)} `, make("small", { textContent: c.n_images ? count(c.n_images, "image") : "by its name" }))),
    (model?.classes.length ?? 0) > SHOWN_CHIPS ? `and ${model.classes.length - SHOWN_CHIPS} more` : "");
  list($("#warnings"), model?.warnings ?? []);
  const inColumns = new Map(columns.flatMap((c) => c.images.map((image) => [image.number, { ...image, label: c.name }])));
  list($("#doubts"), (isOpened ? [] : model?.doubts ?? []).filter((d) => inColumns.has(d.image)).map((d) => {
    const { name, label } = inColumns.get(d.image);
    return [make("img", { src: pathOf(`images/${d.image}`), alt: "" }),
      `${name}: is it really ${short(label)}? By the other images it is rather ${short(d.suggested)}; its label is wrong with probability ${d.probability.toFixed(2)}.`];
  }));
  const canAsk = Boolean(model) && model.change !== "classes";
  $("#query").classList.toggle("off", !canAsk);
  $("#query input").disabled = !canAsk;
  $("#query span").textContent = !model ? "Fit first, then ask" : canAsk ? "Drop an image here, or choose one" : "Fit again, then ask";
  $("#examples").hidden = !canAsk || isOpened || !state.examples.length;
  $("#examples div").replaceChildren(...state.examples.map((name, index) => {
    const button = make("button", { type: "button" }, make("img", { src: pathOf(`example/${index}`), alt: "" }));
    button.setAttribute("aria-label", `Ask about the ${name} of the example`);
    button.onclick = () => ask({ example: index });
    return button;
  }));
}

function statusOf(model, columns) {
  if (model?.file) {
    const unable = model.can_reject ? "" : "This model was fitted without a threshold, so it can't tell what is like none of its classes.";
    return [expectation(model), unable].join(" ").trim();
  }
  if (!model) return columns.some((c) => c.images.length) ? "" : "Drop images into the classes first.";
  const fitted = `${count(model.n_images, "image")} of ${count(model.classes.length, "class", "classes")}, fitted in ${model.seconds.toFixed(2)} s.`;
  const changed = { images: " The images have changed since: fit again.", classes: " The classes have changed since: fit again." };
  return [fitted, expectation(model)].join(" ").trim() + (changed[model.change] ?? "");
}

function expectation({ expected }) {
  if (!expected) return "";
  const [low, high, level] = [expected.low, expected.high, expected.confidence_level].map((p) => Math.round(100 * p));
  return `Of new images of this kind, ${low} to ${high} % should be classified correctly (${level} % sure).`;
}

/* Long work: it is started, followed to its end, and can be stopped. */

let following = null;
function follow(job) {
  following ??= followed(job).finally(() => {
    following = null;
    $("#work").hidden = true;
    showBusy();
  });
  showBusy();
  return following;
}

/* A fit and a suggestion need all images: they wait for those that are being uploaded, and for other work. */
function showBusy() {
  $("#fit").disabled = $("#suggest").disabled = Boolean(following) || adding > 0;
  if (state) showPool();
}

async function followed(job) {
  for (let i = 0; job?.state === "running"; i++) {
    showWork(job);
    await new Promise((resume) => setTimeout(resume, WAITS[Math.min(i, WAITS.length - 1)]));
    job = await call("GET", "job");
  }
  if (job?.state === "failed") fail(job.error);
  if (job?.state === "stopped") fail("Stopped. The images and the model are as they were; weights that are being fetched go on coming.");
  if (job?.answer) answer = job.answer;
  show(await call("GET", "state"));
  return job?.state === "finished";
}

function showWork(job) {
  const bar = $("#work progress");
  $("#work").hidden = false;
  $("#work .words").textContent = `${job.words} …`;
  if (job.total) Object.assign(bar, { value: job.done, max: job.total });
  else bar.removeAttribute("value");
}

/* One after the other: a question that comes during a fit is asked after it. */
let worked = Promise.resolve();
function work(path, body) {
  worked = worked.then(async () => {
    await following;
    const job = await call("POST", path, body?.());
    return job ? follow(job) : false;
  });
  return worked;
}

async function ask(question) {
  forgive();
  asked = question;
  await work("ask", () => form({ ...asked, model: state.model?.number ?? 0 }));
}

async function fit() {
  forgive();
  const isDone = await work("fit");
  if (isDone && state.pool.n_images) await work("suggest");
  if (isDone && asked && state.model?.change !== "classes") await ask(asked);
}

/* Files that are chosen or dropped */

function form(entries) {
  const data = new FormData();
  for (const [name, value] of Object.entries(entries))
    if (value instanceof File) data.append(name, value, value.name);
    else data.append(name, value);
  return data;
}

/* Upload files one after the other, and show which one is on its way. */
async function addEach(words, files, bring) {
  const before = words.textContent;
  adding++;
  showBusy();
  try {
    for (const [i, file] of files.entries()) {
      if (files.length > 1) words.textContent = `Adding image ${i + 1} of ${files.length} …`;
      show(await bring(file));
    }
  } finally {
    adding--;
    words.textContent = before;
    showBusy();
  }
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
      else fail("There was no image in what was dropped.");
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
  const found = (await Promise.all(entries.map(filesOf))).flat();
  // a browser takes the type from the ending, and leaves it empty for endings that it does not know, images too
  const files = found.filter((file) => !file.type || file.type.startsWith("image/"));
  const others = found.filter((file) => !files.includes(file));
  if (files.length && others.length) fail(`Left out, as no images: ${count(others.length, "file")} such as ${others[0].name}.`);
  return { files, folder: entries.find((entry) => entry.isDirectory).name };
}

async function filesOf(entry) {
  if (entry.isFile) {
    const file = await new Promise((give, refuse) => entry.file(give, refuse));
    return isService(file.name) ? [] : [file];
  }
  if (isService(entry.name)) return [];
  const reader = entry.createReader();
  const files = [];
  // a folder is read in pieces until one is empty
  for (;;) {
    const piece = await new Promise((give, refuse) => reader.readEntries(give, refuse));
    if (!piece.length) return files;
    files.push(...(await Promise.all(piece.map(filesOf))).flat());
  }
}

/* What systems leave in folders of images */
const isService = (name) => /^[.@]|^(__MACOSX|Thumbs\.db|desktop\.ini)$/i.test(name);

/* The answer */

function showAnswer() {
  const isCurrent = answer && state.model?.number === answer.model && state.model.change !== "classes";
  const query = $("#query img");
  $("#answer").hidden = query.hidden = !isCurrent;
  if (!isCurrent) return;
  const best = answer.scores[0];
  query.src = `data:image/png;base64,${answer.thumbnail}`;
  query.alt = answer.name;
  $("#query span").textContent = "Drop another, or choose one";
  $("#answer .label").replaceChildren(...answer.is_unknown
    ? ["Like none of these"]
    : [best.label, make("small", { textContent: `  ${percent(best.final)}` })]);
  $("#answer .unknown").hidden = !answer.is_unknown;
  $("#answer .unknown").textContent =
    `The image is less like the classes than their own images are. If it must be one of them: ${best.label}, ${percent(best.final)}.`;
  const isSet = answer.certain !== null && !answer.is_unknown && answer.known_as === null;
  $("#answer .certain").hidden = !isSet;
  $("#answer .certain").textContent = isSet
    ? `${answer.certain.join(" or ")}, ${Math.round(100 * answer.confidence_level)} % sure, for images like yours.`
    : "";
  const notes = [
    answer.known_as === null ? "" : `This image is one of those that the model was fitted on (${answer.known_as}), so the answer proves little.`,
    state.model.change ? "This is the answer of the model from before your changes." : "",
  ].filter(Boolean);
  $("#answer .note").hidden = !notes.length;
  $("#answer .note").textContent = notes.join(" ");
  list($("#answer .warnings"), answer.warnings);
  $("#scores th:nth-child(3) span").textContent = state.model.file ? "with its images" : "with your images";
  $("#scores th:nth-child(2)").hidden = best.zero_shot === null;
  $("#scores tbody").replaceChildren(...answer.scores.slice(0, SHOWN_CLASSES).map((score) => make("tr", {},
    make("td", { textContent: score.label }),
    ...(score.zero_shot === null ? [] : [bar(score.zero_shot, "")]), bar(score.final, "final"))));
  $("#evidence").hidden = !answer.retrieved.length;
  $("#retrieved").replaceChildren(...answer.retrieved.map((found) => retrieved(found, found.label === best.label)));
}

function retrieved(found, isSame) {
  const shown = found.image === null
    ? make("div", { className: "numbered", textContent: found.name })
    : make("img", { src: pathOf(`images/${found.image}`), alt: found.name });
  return make("li", { className: isSame ? "same" : "", title: found.name }, shown,
    make("b", { textContent: found.label }),
    make("span", { textContent: `looks alike ${signed(found.image_affinity)}` }),
    ...(found.text_affinity === null ? [] : [make("span", { textContent: `fits the name ${signed(found.text_affinity)}` })]));
}

function bar(p, kind) {
  const filled = make("i");
  filled.style.width = `calc((100% - 4.2rem) * ${p})`;
  return make("td", { className: `bar ${kind}` }, make("div", {}, filled, make("span", { textContent: percent(p) })));
}

async function start() {
  $("#error button").onclick = forgive;
  $("#undo .close").onclick = () => ($("#undo").hidden = true);
  // an image that misses its class must not replace the page
  for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());
  $("#add").onclick = async () => {
    show(await call("POST", "columns"));
    $("#columns > :last-child input[type=text]")?.focus();
  };
  $("#example").onclick = async () => {
    forgive();
    show(await call("POST", "example"));
  };
  $("#undo-it").onclick = async () => show(await call("POST", "undo"));
  $("#fit").onclick = fit;
  $("#suggest").onclick = () => {
    forgive();
    work("suggest");
  };
  $("#clear").onclick = async () => show(await call("DELETE", "pool"));
  takeFiles($("#pool .drop"), $("#pool input"), async (files) => {
    await addEach($("#pool .drop span"), files, (file) => call("POST", "pool", form({ file })));
    if (state.pool.n_images) await work("suggest");
  });
  $("#stop").onclick = () => call("DELETE", "job");
  $("#close-model").onclick = async () => show(await call("DELETE", "model"));
  takeFiles($("#open"), $("#open input"), async ([file]) => {
    const opened = await call("POST", "model", form({ file }));
    if (opened) asked = null;
    show(opened);
  });
  takeFiles($("#query"), $("#query input"), ([file]) => ask({ file }));
  // the server may forget a tab that was closed sooner than one that lies open
  addEventListener("pagehide", () => navigator.sendBeacon(pathOf("leave")));
  addEventListener("pageshow", async (event) => event.persisted && show(await call("GET", "state")));
  show(await enter());
}

start();
