/** The model. */
export const story = new URL("./story.gguf", import.meta.url);

/** Which of its neurons can be left out, by calibration. */
export const storySidecar = new URL("./story.sparse.gguf", import.meta.url);
