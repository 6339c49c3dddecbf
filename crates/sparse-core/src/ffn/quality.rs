//! How well a selector chooses.

/// What a selector kept of the neurons that mattered, added over tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SelectorQuality {
    /// Neurons looked at: tokens times neurons.
    pub neurons: u64,
    /// Neurons that were chosen.
    pub chosen: u64,
    /// Neurons that mattered.
    pub mattered: u64,
    /// Neurons that were both.
    pub hits: u64,
    /// Energy of all neurons: the sum of their squared shares in the output.
    pub energy: f64,
    /// Energy of the chosen ones.
    pub chosen_energy: f64,
}

impl SelectorQuality {
    /// Counts one neuron: whether it was chosen, whether it mattered, and its share in the output, `|h|` times the norm
    /// of its column of `down`.
    pub fn add(&mut self, chosen: bool, mattered: bool, share: f32) {
        let energy = f64::from(share) * f64::from(share);
        self.neurons += 1;
        self.chosen += u64::from(chosen);
        self.mattered += u64::from(mattered);
        self.hits += u64::from(chosen && mattered);
        self.energy += energy;
        self.chosen_energy += if chosen { energy } else { 0.0 };
    }

    /// Share of the neurons that were chosen.
    pub fn density(&self) -> f64 {
        ratio(self.chosen as f64, self.neurons as f64)
    }

    /// Share of the neurons that mattered that were chosen.
    pub fn recall(&self) -> f64 {
        ratio(self.hits as f64, self.mattered as f64)
    }

    /// Share of the chosen neurons that mattered.
    pub fn precision(&self) -> f64 {
        ratio(self.hits as f64, self.chosen as f64)
    }

    /// Share of the energy that the chosen neurons have.
    pub fn kept_energy(&self) -> f64 {
        ratio(self.chosen_energy, self.energy)
    }
}

/// Of nothing, everything is kept.
fn ratio(part: f64, all: f64) -> f64 {
    if all > 0.0 { part / all } else { 1.0 }
}
