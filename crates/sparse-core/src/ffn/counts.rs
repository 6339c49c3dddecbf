//! What computing some tokens took.

use core::ops::AddAssign;

/// What computing some tokens took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FfnCounts {
    /// Tokens.
    pub tokens: u64,
    /// Neurons whose gate was computed, added over tokens.
    pub gate: u64,
    /// Neurons whose `up` was computed.
    pub up: u64,
    /// Neurons whose column of `down` was used.
    pub down: u64,
    /// Bytes of weights read, the predictor's included. For a masked batch: that single tokens would have read.
    pub bytes: u64,
}

/// Shares of a layer's neurons, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Density {
    /// Whose gate is computed; 0 where there is no gate.
    pub gate: f32,
    /// Whose `up` is computed.
    pub up: f32,
    /// Whose column of `down` is used.
    pub down: f32,
}

impl FfnCounts {
    /// The mean shares of a layer of `neurons` neurons.
    pub fn density(&self, neurons: usize) -> Density {
        let all = (self.tokens.max(1) * neurons.max(1) as u64) as f64;
        let share = |n: u64| (n as f64 / all) as f32;
        Density { gate: share(self.gate), up: share(self.up), down: share(self.down) }
    }
}

impl AddAssign for FfnCounts {
    fn add_assign(&mut self, o: Self) {
        self.tokens += o.tokens;
        self.gate += o.gate;
        self.up += o.up;
        self.down += o.down;
        self.bytes += o.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn densities_are_means_over_tokens() {
        let mut counts = FfnCounts { tokens: 1, gate: 100, up: 40, down: 10, bytes: 7 };
        counts += FfnCounts { tokens: 3, gate: 300, up: 80, down: 30, bytes: 9 };
        assert_eq!(counts, FfnCounts { tokens: 4, gate: 400, up: 120, down: 40, bytes: 16 });
        assert_eq!(counts.density(100), Density { gate: 1.0, up: 0.3, down: 0.1 });
        assert_eq!(FfnCounts::default().density(0), Density { gate: 0.0, up: 0.0, down: 0.0 });
    }
}
