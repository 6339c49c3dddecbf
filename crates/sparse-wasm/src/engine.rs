//! The networks of the specification.

use sparse_core::SparseInferenceEngine;
use wasm_bindgen::prelude::*;

/// A network of two layers that computes the neurons that matter.
#[wasm_bindgen]
#[derive(Debug)]
pub struct SparseEngineWasm {
    engine: SparseInferenceEngine,
}

#[wasm_bindgen]
impl SparseEngineWasm {
    /// Values of an input.
    #[wasm_bindgen(getter)]
    pub fn input_dim(&self) -> usize {
        self.engine.input_dim()
    }

    /// Values of an output.
    #[wasm_bindgen(getter)]
    pub fn output_dim(&self) -> usize {
        self.engine.output_dim()
    }
}

/// Makes a demonstration network, as `SparseInferenceEngine::new_sparse` does.
///
/// `sparsity` is the share of the neurons that is computed, despite its name: the specification calls the same argument
/// of `new_sparse` so, and gives 0.1 for a tenth.
///
/// # Errors
/// An `Error` of JavaScript if a dimension is zero or too large, or `sparsity` is not above 0 and at most 1.
#[wasm_bindgen]
pub fn create_sparse_engine(
    input_dim: usize,
    hidden_dim: usize,
    sparsity: f32,
) -> Result<SparseEngineWasm, JsError> {
    Ok(SparseEngineWasm { engine: SparseInferenceEngine::new_sparse(input_dim, hidden_dim, sparsity)? })
}

/// The network's output for one input.
///
/// # Errors
/// An `Error` of JavaScript if the input has another length than the network's, or a value that is not finite.
#[wasm_bindgen]
pub fn infer(engine: &SparseEngineWasm, input: &[f32]) -> Result<Vec<f32>, JsError> {
    Ok(engine.engine.infer(input)?)
}
