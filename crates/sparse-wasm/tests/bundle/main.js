// The README's first program, in a page.
import { TextModel, bestSimd } from "sparse-wasm";
import { story } from "sparse-wasm-story";

const model = await TextModel.load(story);
const text = await model.generate("Once upon a time", { temperature: 0, maxTokens: 40 }).text();
model.free();
document.body.dataset.simd = bestSimd();
document.body.textContent = text;
