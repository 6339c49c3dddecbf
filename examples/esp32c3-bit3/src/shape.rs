/// Inputs and outputs of the layer.
const INPUTS: usize = 64;
/// Neurons of the layer.
const NEURONS: usize = 256;
