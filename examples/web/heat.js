/** A strip with a column per token and a band per layer: bright where neurons fire. */
export class HeatStrip {
  /** Pixels of a column, and between bands. */
  static #COLUMN = 7;
  static #GAP = 3;

  #canvas;
  #columns = [];
  #peaks = [];
  #neurons = [];
  #bins = 1;
  #cursor;
  #drawing = false;
  /** Called with the number of the token that the visitor looks at, or nothing. */
  onPoint = () => {};

  constructor(canvas) {
    this.#canvas = canvas;
    new ResizeObserver(() => this.#draw()).observe(canvas);
    canvas.addEventListener("pointermove", (event) => this.point(this.#at(event)));
    canvas.addEventListener("pointerleave", () => this.point());
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => this.point());
  }

  /** Empties the strip for a model whose layers have so many neurons; `bins` share those of each. */
  reset(neurons, bins) {
    this.#neurons = neurons;
    this.#bins = bins;
    this.#columns = [];
    this.#peaks = neurons.map(() => 0);
    this.#cursor = undefined;
    this.#draw();
  }

  /** Adds a token: number `token`, of which these neurons fired. */
  add(token, { strength, fired }) {
    this.#columns.push({ token, strength, fired });
    this.#peaks = this.#peaks.map((peak, layer) => {
      const bins = strength.subarray(layer * this.#bins, (layer + 1) * this.#bins);
      return Math.max(peak, ...bins);
    });
    this.#draw();
  }

  /** What fired for a token: neurons of all layers together, and how many there are. */
  describe(token) {
    const column = this.#columns.find((c) => c.token === token);
    if (!column) return undefined;
    const sum = (list) => list.reduce((a, b) => a + b, 0);
    return { fired: sum(column.fired), all: sum(this.#neurons) };
  }

  /** Marks a token. */
  point(token) {
    if (token === this.#cursor) return;
    this.#cursor = token;
    this.onPoint(token);
    this.#draw();
  }

  refresh() {
    this.#draw();
  }

  #visible() {
    return this.#columns.slice(-Math.max(1, Math.floor(this.#canvas.clientWidth / HeatStrip.#COLUMN)));
  }

  #at(event) {
    const x = event.clientX - this.#canvas.getBoundingClientRect().left;
    return this.#visible()[Math.floor(x / HeatStrip.#COLUMN)]?.token;
  }

  #key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const shown = this.#visible();
    if (!step || shown.length === 0) return;
    event.preventDefault();
    const now = shown.findIndex((column) => column.token === this.#cursor);
    const next = now < 0 ? shown.length - 1 : Math.min(shown.length - 1, Math.max(0, now + step));
    this.point(shown[next].token);
  }

  /** Draws once for all that changes before the next frame. */
  #draw() {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      this.#paint();
    });
  }

  #paint() {
    const canvas = this.#canvas;
    const scale = devicePixelRatio;
    const [width, height] = [canvas.clientWidth * scale, canvas.clientHeight * scale].map(Math.round);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    const layers = this.#neurons.length;
    if (layers === 0) return;
    const ramp = ["--cold", "--ramp-1", "--ramp-2", "--ramp-3"].map((name) => this.#color(name));
    const gap = layers > 12 ? 1 : HeatStrip.#GAP;
    const band = (canvas.clientHeight - gap * (layers - 1)) / layers;
    const column = HeatStrip.#COLUMN * scale;
    const shown = this.#visible();
    // Blocks of pixels, whole ones: neighbors must not blend.
    const image = context.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    shown.forEach(({ strength }, c) => {
      const [left, right] = [Math.round(c * column), Math.min(width, Math.round((c + 1) * column) - 1)];
      for (let layer = 0; layer < layers; layer++) {
        for (let bin = 0; bin < this.#bins; bin++) {
          const color = shade(ramp, strength[layer * this.#bins + bin] / (this.#peaks[layer] || 1));
          if (!color) continue;
          const y = layer * (band + gap) + (bin * band) / this.#bins;
          const top = Math.round(y * scale);
          const bottom = Math.max(top + 1, Math.round((y + band / this.#bins) * scale));
          for (let row = top; row < Math.min(bottom, height); row++) {
            pixels.fill(color, row * width + left, row * width + right);
          }
        }
      }
    });
    context.putImageData(image, 0, 0);
    this.#label(context, band + gap, scale);
    const marked = shown.findIndex((c) => c.token === this.#cursor);
    if (marked >= 0) {
      context.strokeStyle = this.#css("--ink");
      context.lineWidth = scale;
      context.strokeRect(marked * column - scale / 2, scale / 2, column, height - scale);
    }
  }

  /** Names the layers in the free part at the right, if they are few. */
  #label(context, step, scale) {
    const left = this.#visible().length * HeatStrip.#COLUMN + 8;
    if (this.#neurons.length > 12 || left + 60 > this.#canvas.clientWidth) return;
    context.fillStyle = this.#css("--soft");
    context.font = `${12 * scale}px system-ui, sans-serif`;
    context.textBaseline = "middle";
    this.#neurons.forEach((_, layer) => {
      context.fillText(`layer ${layer + 1}`, left * scale, (layer + 0.5) * step * scale);
    });
  }

  /** A color of the page, as the browser resolves it. */
  #css(name) {
    this.#canvas.style.color = `var(${name})`;
    return getComputedStyle(this.#canvas).color;
  }

  #color(name) {
    const [r, g, b] = this.#css(name).match(/[\d.]+/g).map(Number);
    return [r, g, b];
  }
}

/** A pixel for a share of the strongest output, or 0 for none. Roots, so that weak neurons are seen. */
function shade(ramp, share) {
  if (share <= 0) return 0;
  const place = (0.15 + 0.85 * Math.sqrt(share)) * (ramp.length - 1);
  const low = Math.min(ramp.length - 2, Math.floor(place));
  const [r, g, b] = ramp[low].map((from, i) => Math.round(from + (place - low) * (ramp[low + 1][i] - from)));
  return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
}
