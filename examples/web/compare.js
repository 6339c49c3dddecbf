import { TextModel } from "./sparse-wasm/index.js";
import { $, count, percent, rate } from "./dom.js";

/** Tokens of a round, and rounds. */
const TOKENS = 96;
const ROUNDS = 5;

/** Measures a model with all neurons and without idle ones, in turn. */
export async function compare(source, info, prompt, signal) {
  const sides = [
    { panel: $("dense"), options: { dense: true } },
    { panel: $("sparse"), options: {} },
  ];
  sides.forEach(({ panel }) => show(panel, undefined, ""));
  $("verdict").textContent = "Loading the model twice";
  const models = [];
  try {
    for (const side of sides) {
      side.model = await TextModel.load(source, { ...side.options, signal });
      side.rates = [];
      side.layers = [];
      models.push(side.model);
    }
    for (let round = 0; round < ROUNDS; round++) {
      $("verdict").textContent = `Round ${round + 1} of ${ROUNDS}`;
      for (const side of sides) await measure(side, prompt, signal);
      const most = Math.max(...sides.map((side) => median(side.rates)));
      for (const side of sides) show(side.panel, side, median(side.rates) / most);
    }
    const [dense, sparse] = sides;
    const gain = median(sparse.rates) / median(dense.rates);
    const ffn = median(dense.layers) / median(sparse.layers);
    $("verdict").textContent = verdict(info, gain, ffn, sparse.stats.density);
    return { gain, ffn };
  } finally {
    models.forEach((model) => model.free());
  }
}

async function measure(side, prompt, signal) {
  const stream = side.model.generate(prompt, { temperature: 0, maxTokens: TOKENS, ignoreEnd: true, signal });
  const text = await stream.text();
  side.stats = await stream.stats;
  side.text = prompt + text;
  side.rates.push(side.stats.tokensPerSecond);
  side.layers.push(side.stats.feedForwardMs);
}

function show(panel, side, share) {
  panel.querySelector(".rate b").textContent = side ? rate(median(side.rates)) : "–";
  panel.querySelector(".bar i").style.setProperty("--share", share || 0);
  panel.querySelector(".sample").textContent = side?.text ?? "";
  panel.querySelector("[data-facts]").textContent = side
    ? `${percent(side.stats.density)} of the neurons, ${median(side.layers).toFixed(2)} ms per token in them, ` +
      `${count(side.stats.bytesPerToken / 1000)} kB read`
    : "\u00a0";
}

function verdict(info, gain, ffn, density) {
  if (info.sparseLayers === 0) {
    return "This model has no neurons that are exactly zero, so both sides compute the same.";
  }
  const whole = `The whole model is ${gain.toFixed(2)} times as fast`;
  return `${whole}, its neurons ${ffn.toFixed(2)} times, with ${percent(density)} of them.`;
}

function median(list) {
  const sorted = [...list].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}
