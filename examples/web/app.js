import { TextModel, bestSimd } from "./sparse-wasm/index.js";
import { story } from "./story/index.js";
import { compare } from "./compare.js";
import { $, bytes, complain, count, make, percent, rate } from "./dom.js";
import { HeatStrip } from "./heat.js";
import { load as loadEncoder, startSearch } from "./search.js";

/** Pixels that a bin of neurons has at least. */
const BIN = 3;

const strip = new HeatStrip($("heat"));
let model;
let source = story.href;
let stream;

async function open(next, name) {
  stream?.cancel();
  complain($("problem"));
  ready(false);
  const bar = $("loading");
  bar.hidden = false;
  $("model-name").textContent = name;
  $("model-facts").textContent = "loading";
  try {
    const onProgress = ({ loaded, total }) => (bar.value = loaded / total);
    const loaded = await TextModel.load(next, { onProgress });
    model?.free();
    [model, source] = [loaded, next];
  } catch (error) {
    complain($("problem"), error);
  } finally {
    bar.hidden = true;
  }
  if (model) await describe();
  ready(Boolean(model));
}

async function describe() {
  const { info } = model;
  const neurons = info.neurons.reduce((a, b) => a + b, 0);
  $("model-name").textContent = info.name ?? "A model without a name";
  $("model-facts").textContent =
    `${info.layers} layers, ${count(neurons)} neurons, ${info.activation}, ${bytes(info.bytes)}`;
  $("memory").textContent = bytes(await model.memory());
  strip.reset(info.neurons, bins());
  $("heat-empty").hidden = false;
}

/** Bins per layer that there is room for. */
function bins() {
  const { neurons } = model.info;
  const room = $("heat").clientHeight / neurons.length / BIN;
  return Math.max(2, Math.min(64, Math.floor(room), ...neurons));
}

function ready(yes) {
  $("write").disabled = $("race").disabled = !yes;
}

async function write() {
  if (!model || $("write").disabled) return;
  const prompt = $("prompt").value;
  // A model that was taught to talk is asked; others continue the text.
  const { chat } = model.info;
  complain($("problem"));
  ready(false);
  $("stop").disabled = false;
  const paper = $("text");
  const begin = chat ? `${prompt}\n\n` : prompt;
  paper.replaceChildren(make("span", { className: "given", textContent: begin }));
  strip.reset(model.info.neurons, bins());
  $("heat-empty").hidden = true;
  $("heat-note").textContent = "";
  try {
    stream = model.generate(chat ? [{ role: "user", content: prompt }] : prompt, {
      maxTokens: $("tokens").valueAsNumber || 160,
      temperature: $("temperature").valueAsNumber,
      firing: bins(),
    });
    const start = performance.now();
    let tokens = 0;
    for await (const event of stream.events()) {
      if (event.type === "text") {
        paper.append(piece(event.text, tokens));
        paper.scrollTop = paper.scrollHeight;
        continue;
      }
      tokens++;
      if (event.firing) strip.add(tokens, event.firing);
      $("speed").textContent = rate((1000 * tokens) / (performance.now() - start));
    }
    await report(await stream.stats);
  } catch (error) {
    complain($("problem"), error);
  } finally {
    $("stop").disabled = true;
    ready(true);
  }
}

async function report(stats) {
  if (stats.tokens > 1) $("speed").textContent = rate(stats.tokensPerSecond);
  $("density").textContent = stats.density === null ? "–" : percent(stats.density);
  $("bytes").textContent = bytes(stats.bytesPerToken);
  $("memory").textContent = bytes(await model.memory());
}

/** The text of a token, which points at its column. */
function piece(text, token) {
  const span = make("span", { textContent: text });
  span.dataset.token = token;
  span.addEventListener("pointerenter", () => strip.point(token));
  span.addEventListener("pointerleave", () => strip.point());
  return span;
}

strip.onPoint = (token) => {
  $("text").querySelector(".at")?.classList.remove("at");
  const span = token && $("text").querySelector(`[data-token="${token}"]`);
  span?.classList.add("at");
  const found = token && strip.describe(token);
  const text = span ? `“${span.textContent.trim()}”: ` : "";
  $("heat-note").textContent = found
    ? `${text}${count(found.fired)} of ${count(found.all)} neurons, ${percent(found.fired / found.all)}`
    : "";
};

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  write();
});
$("stop").addEventListener("click", () => stream?.cancel());
$("temperature").addEventListener("input", ({ target }) => ($("temperature-value").value = target.value));
$("file").addEventListener("change", ({ target }) => target.files[0] && open(target.files[0], target.files[0].name));
$("race").addEventListener("click", async () => {
  ready(false);
  complain($("problem"));
  try {
    await compare(source, model.info, $("prompt").value);
  } catch (error) {
    $("verdict").textContent = error.message;
  } finally {
    ready(true);
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stream?.cancel();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) write();
});
// Labels that look like buttons work like buttons.
document.querySelectorAll("label.button").forEach((label) =>
  label.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    label.querySelector("input").click();
  }),
);

/** What was dropped: a file, or the files of a folder. */
async function dropped(items) {
  const entries = [...items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const files = {};
  const walk = async (entry, path) => {
    if (entry.isFile) {
      files[path] = await new Promise((resolve, reject) => entry.file(resolve, reject));
      return;
    }
    const reader = entry.createReader();
    for (let list; (list = await new Promise((resolve, reject) => reader.readEntries(resolve, reject))).length; ) {
      await Promise.all(list.map((inner) => walk(inner, path ? `${path}/${inner.name}` : inner.name)));
    }
  };
  await Promise.all(entries.map((entry) => walk(entry, entry.isFile ? entry.name : "")));
  return files;
}

addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").hidden = false;
});
addEventListener("dragleave", (event) => event.relatedTarget || ($("drop").hidden = true));
addEventListener("drop", async (event) => {
  event.preventDefault();
  $("drop").hidden = true;
  const files = await dropped(event.dataTransfer.items);
  const [first] = Object.values(files);
  if ("config.json" in files) {
    $("search").scrollIntoView();
    await loadEncoder(files);
  } else if (first) {
    await open(first, first.name);
  }
});

const isDark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};
function showTheme() {
  $("theme").textContent = isDark() ? "☀ Light" : "☾ Dark";
  strip.refresh();
}
$("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  showTheme();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);

showTheme();
const vectors = bestSimd();
const VECTORS = { "relaxed-simd": "with relaxed 128-bit vectors", simd128: "with 128-bit vectors", scalar: "without vectors" };
$("engine").textContent = `WebAssembly ${VECTORS[vectors]}, one thread`;
startSearch();
open(story.href, "Story model");
if ("serviceWorker" in navigator) {
  navigator.serviceWorker.register(`offline.js?simd=${vectors}`).then(() => navigator.serviceWorker.ready).then(
    () => ($("offline").textContent = "Works without a network from now on"),
    () => ($("offline").textContent = ""),
  );
}
