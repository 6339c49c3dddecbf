// Keeps the page's files, so that it works without a network. What the network has is newer, and is preferred.

const KEPT = "sparse-inference";
const FILES = [
  ...["./", "style.css", "icon.svg", "app.js", "compare.js", "dom.js", "heat.js", "search.js"],
  ...["story/index.js", "story/story.gguf"],
  ...["index", "embedding", "errors", "link", "platform", "runtime", "service", "source", "text", "worker"].map(
    (name) => `sparse-wasm/${name}.js`,
  ),
  // The one build that this browser loads.
  ...["bindings.js", `${new URL(location).searchParams.get("simd")}.wasm`].map((name) => `sparse-wasm/wasm/${name}`),
];

self.addEventListener("install", (event) => {
  self.skipWaiting();
  event.waitUntil(caches.open(KEPT).then((cache) => cache.addAll(FILES)));
});

self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const { request } = event;
  // The visitor's own models are large, and their own.
  const ours = request.method === "GET" && !new URL(request.url).pathname.includes("/models/");
  if (ours && request.url.startsWith(self.registration.scope)) event.respondWith(answer(request));
});

async function answer(request) {
  const cache = await caches.open(KEPT);
  try {
    const response = await fetch(request);
    if (response.ok) await cache.put(request, response.clone());
    return response;
  } catch (error) {
    const kept = await cache.match(request, { ignoreSearch: true });
    if (kept) return kept;
    throw error;
  }
}
