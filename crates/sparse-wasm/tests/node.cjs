// Run by `cargo xtask cross wasm32 --test`: node node.cjs PACKAGE
const assert = require("node:assert");
const { create_sparse_engine, infer } = require(process.argv[2]);

const engine = create_sparse_engine(64, 256, 0.25);
assert.equal(engine.input_dim, 64);
assert.equal(engine.output_dim, 64);
const input = Float32Array.from({ length: 64 }, (_, i) => Math.sin(i));
const output = infer(engine, input);
assert.ok(output instanceof Float32Array && output.length === 64);
assert.ok(output.every(Number.isFinite) && output.some((x) => x !== 0));
// The same arguments give the same network.
assert.deepEqual(infer(create_sparse_engine(64, 256, 0.25), input), output);
assert.notDeepEqual(infer(create_sparse_engine(64, 256, 1.0), input), new Float32Array(64));

assert.throws(() => infer(engine, new Float32Array(63)), /63/);
assert.throws(() => infer(engine, input.map(() => NaN)), Error);
assert.throws(() => create_sparse_engine(64, 256, 0), Error);
assert.throws(() => create_sparse_engine(64, 256, NaN), Error);
assert.throws(() => create_sparse_engine(0, 256, 0.5), Error);
engine.free();
console.error("sparse-wasm in Node: ok");
