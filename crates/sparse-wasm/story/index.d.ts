/** The address of the model, a GGUF file of 7 MB. It leaves out neurons that are exactly zero by itself. */
export const story: URL;

/** The address of its sidecar, for `TextModel.load(story, { sidecar: storySidecar })`: more neurons left out, at a loss. */
export const storySidecar: URL;
