//! The targets.

use clap::ValueEnum;

/// A target that the README names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Target {
    /// Linux on x86-64; tests run on CPUs that lack the wider vectors.
    #[value(name = "x86_64-unknown-linux-gnu", alias = "x86_64")]
    X86,
    /// Linux on 64-bit ARM.
    #[value(name = "aarch64-unknown-linux-gnu", alias = "aarch64")]
    Arm,
    /// WebAssembly in a browser or in Node.
    #[value(name = "wasm32-unknown-unknown", alias = "wasm32")]
    Wasm,
    /// Microcontrollers of the ESP32-C3's kind, without an operating system.
    #[value(name = "riscv32imc-unknown-none-elf", alias = "riscv32imc")]
    RiscV,
}

impl Target {
    /// All of them, from the one that needs least.
    pub(super) const ALL: [Self; 4] = [Self::X86, Self::Arm, Self::Wasm, Self::RiscV];

    /// The name that rustc has for it.
    pub(super) fn triple(self) -> &'static str {
        match self {
            Self::X86 => "x86_64-unknown-linux-gnu",
            Self::Arm => "aarch64-unknown-linux-gnu",
            Self::Wasm => "wasm32-unknown-unknown",
            Self::RiscV => "riscv32imc-unknown-none-elf",
        }
    }

    /// The crates that exist there, and their features, as arguments of cargo.
    pub(super) fn crates(self) -> &'static [&'static str] {
        match self {
            Self::X86 | Self::Arm => &[
                "-psparse-simd",
                "-psparse-precision",
                "-psparse-gguf",
                "-psparse-core",
                "-psparse-model",
                "--features=sparse-simd/npu",
            ],
            // No threads and no files.
            Self::Wasm => &[
                "-psparse-simd",
                "-psparse-precision",
                "-psparse-gguf",
                "-psparse-core",
                "-psparse-model",
                "--no-default-features",
                "--features=sparse-simd/std,sparse-precision/std,sparse-core/std,sparse-model/chat,sparse-model/encoder",
            ],
            Self::RiscV => &["-psparse-simd", "-psparse-precision", "-psparse-core", "--no-default-features"],
        }
    }
}
