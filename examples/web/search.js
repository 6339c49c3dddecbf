import { EmbeddingModel } from "./sparse-wasm/index.js";
import { $, bytes, complain, make, percent } from "./dom.js";

const LOCAL = "models/all-MiniLM-L6-v2/";
const SAMPLE = `The keys are on the shelf beside the door.
Water the tomatoes in the evening, never at noon.
The bus to the station leaves every twenty minutes.
Grandmother's soup needs leeks, potatoes and patience.
The museum is closed on Mondays.
Bees find their way home by the position of the sun.
A bicycle chain wants oil after every ride in the rain.
The password for the guest network is on the back of the router.`;

let model;
let index;

/** Wires the section up. */
export async function startSearch() {
  $("documents").value = SAMPLE;
  $("documents").addEventListener("input", () => (index = undefined));
  $("query").addEventListener("input", () => debounce(search));
  $("documents").addEventListener("change", search);
  $("folder").addEventListener("change", ({ target }) => target.files.length && load([...target.files]));
  $("local").addEventListener("click", () => load(LOCAL));
  const there = await fetch(`${LOCAL}modules.json`, { method: "HEAD" }).catch(() => undefined);
  $("local").hidden = !there?.ok;
}

/** Loads a model: a folder's address, its files, or a GGUF file. */
export async function load(source) {
  complain($("search-problem"));
  const bar = $("encoder-loading");
  bar.hidden = false;
  try {
    const next = await EmbeddingModel.load(source, {
      onProgress: ({ loaded, total }) => (bar.value = loaded / total),
    });
    model?.free();
    model = next;
    index = undefined;
    const { dimension } = model.info;
    $("encoder-facts").textContent = `${dimension} values per text, ${bytes(model.info.bytes)} of weights`;
    $("query").disabled = false;
    $("query").focus();
    await search();
  } catch (error) {
    complain($("search-problem"), error);
  } finally {
    bar.hidden = true;
  }
}

async function search() {
  const query = $("query").value.trim();
  if (!model || !query) return $("results").replaceChildren();
  try {
    complain($("search-problem"));
    index ??= model.index($("documents").value.split(/\n+/).filter((line) => line.trim()));
    const asked = model;
    const found = await asked.search(query, await index, { top: 5 });
    if ($("query").value.trim() === query) $("results").replaceChildren(...found.map(result));
  } catch (error) {
    complain($("search-problem"), error);
  }
}

function result({ text, score }) {
  const share = make("i");
  share.style.setProperty("--share", Math.max(0, score));
  const bar = make("div", { className: "bar" }, share);
  return make("li", {}, make("p", { textContent: text }), bar, make("b", { textContent: percent(Math.max(0, score)) }));
}

let timer;
function debounce(f) {
  clearTimeout(timer);
  timer = setTimeout(f, 150);
}
