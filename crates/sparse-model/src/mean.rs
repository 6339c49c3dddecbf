//! Means and how well they are known.

/// A mean in the making.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RunningMean {
    sum: f64,
    squares: f64,
    count: usize,
}

impl RunningMean {
    /// Takes one more value into account.
    pub fn add(&mut self, value: f64) {
        self.sum += value;
        self.squares += value * value;
        self.count += 1;
    }

    /// Values so far.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Their mean; 0 before the first.
    pub fn mean(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }

    /// The standard error of the mean, if values are independent; 0 before the second.
    pub fn standard_error(&self) -> f64 {
        let (n, mean) = (self.count.max(1) as f64, self.mean());
        let variance = (self.squares / n - mean * mean).max(0.0);
        (variance / (n - 1.0).max(1.0)).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_error_is_that_of_the_mean() {
        let mut mean = RunningMean::default();
        assert_eq!((mean.count(), mean.mean(), mean.standard_error()), (0, 0.0, 0.0));
        // Mean 2, variance 1, 100 samples.
        (0..100).for_each(|i| mean.add(if i % 2 == 0 { 1.0 } else { 3.0 }));
        assert_eq!((mean.count(), mean.mean()), (100, 2.0));
        assert!((mean.standard_error() - 1.0 / 99_f64.sqrt()).abs() < 1e-12);
    }
}
