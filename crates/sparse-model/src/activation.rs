//! Which functions a model's feed-forward networks were trained with.
//!
//! Most files of models with ReLU do not say so: converters leave the activation out, and the
//! architecture's own, SiLU, gives wrong text.

use std::fmt;
use std::str::FromStr;

use sparse_core::ActivationType;
use sparse_gguf::Metadata;

/// The functions on the gate and on `up` of a feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FfnActivation {
    /// On the gate, or on `up` where there is no gate.
    pub gate: ActivationType,
    /// On `up` beside a gate: the identity but for dReLU and clamped SwiGLU.
    pub up: ActivationType,
}

impl FfnActivation {
    /// ReLU on gate and up (TurboSparse, arXiv 2406.05955).
    pub const DRELU: Self = Self { gate: ActivationType::Relu, up: ActivationType::Relu };

    /// The clamped SwiGLU of gpt-oss (arXiv 2508.10925): `(up + 1) y sigmoid(1.702 y)` of the gate `y`, the gate
    /// at most 7 and `up` between -7 and 7.
    pub const SWIGLU_OAI: Self = Self {
        gate: ActivationType::ClampedSwish { slope: 1.702, limit: 7.0 },
        up: ActivationType::ClampedPlusOne { limit: 7.0 },
    };

    /// A function on the gate, or on `up` where there is no gate.
    pub fn of(gate: ActivationType) -> Self {
        Self { gate, up: ActivationType::Identity }
    }
}

impl FromStr for FfnActivation {
    type Err = String;

    /// An activation by its name: `relu`, `relu2`, `drelu`, `fatrelu:0.03` (with its threshold), `silu`, `gelu`,
    /// `gelu_tanh`, `swiglu_oai` or `identity`.
    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "drelu" => Ok(Self::DRELU),
            "swiglu_oai" => Ok(Self::SWIGLU_OAI),
            _ => ActivationType::by_name(name).map(Self::of).ok_or_else(|| {
                format!(
                    "there is no activation \"{name}\"; there are relu, relu2, drelu, fatrelu:THRESHOLD, silu, gelu, \
                     gelu_tanh, swiglu_oai, identity"
                )
            }),
        }
    }
}

impl fmt::Display for FfnActivation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.gate {
            _ if *self == Self::DRELU => f.pad("drelu"),
            _ if *self == Self::SWIGLU_OAI => f.pad("swiglu_oai"),
            ActivationType::FatRelu { threshold } => f.pad(&format!("fatrelu:{threshold}")),
            gate => f.pad(gate.name()),
        }
    }
}

/// Where a model's activation comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ActivationSource {
    /// The caller named it.
    Caller,
    /// The file names it, in `ARCHITECTURE.hidden_activation`.
    File,
    /// The file's name for the model is one that is known.
    Known,
    /// It is the architecture's.
    Architecture,
}

/// Models whose files do not name their activation: a part of their name in lower case, without what is neither letter
/// nor digit, and the activation by their published configuration.
const KNOWN: [(&str, &str); 8] = [
    ("sparselm", "relu"),
    ("relullama", "relu"),
    ("sparsinglaw", "relu"),
    ("prosparse", "fatrelu:0.01"),
    ("minicpms1b", "fatrelu:0.03"),
    ("sparseqwen2", "drelu"),
    ("turbosparse", "drelu"),
    ("bamboo", "drelu"),
];

/// The activation of the model that the file's `general.*` keys name, if it is a known one.
pub(crate) fn known(meta: &Metadata) -> Option<FfnActivation> {
    let keys = ["general.name", "general.basename", "general.finetune", "general.base_model.0.name"];
    let names = keys.iter().filter_map(|key| meta.opt_string(key).ok().flatten());
    let names: Vec<String> = names.map(plain).collect();
    let found = KNOWN.iter().find(|(part, _)| names.iter().any(|name| name.contains(part)));
    found.and_then(|(_, activation)| activation.parse().ok())
}

fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in
            ["relu", "relu2", "drelu", "fatrelu:0.03", "silu", "gelu", "gelu_tanh", "swiglu_oai", "identity"]
        {
            assert_eq!(name.parse::<FfnActivation>().unwrap().to_string(), name);
        }
        for wrong in ["", "rely", "fatrelu", "fatrelu:", "fatrelu:-1", "fatrelu:nan", "fatrelu:inf"] {
            let error = wrong.parse::<FfnActivation>().unwrap_err();
            assert!(error.contains("drelu"), "{error}");
        }
    }

    #[test]
    fn known_models_are_found_by_any_of_their_names() {
        let named = |key: &str, name: &str| {
            let mut meta = Metadata::new();
            meta.insert(key, name);
            known(&meta).map(|a| a.to_string())
        };
        for (name, expected) in [
            ("ReluLLaMA-7B", Some("relu")),
            ("prosparse-llama-2-7b", Some("fatrelu:0.01")),
            ("MiniCPM-S-1B-sft-llama-format", Some("fatrelu:0.03")),
            ("MiniCPM-SALA", None),
            ("SparseQwen2-7B", Some("drelu")),
            ("TurboSparse Mistral Instruct", Some("drelu")),
            ("SparseLM 0.5B", Some("relu")),
            ("Llama 3.2 1B", None),
        ] {
            assert_eq!(named("general.name", name).as_deref(), expected, "{name}");
            assert_eq!(named("general.basename", name).as_deref(), expected, "{name}");
        }
        assert_eq!(known(&Metadata::new()), None);
        assert!(KNOWN.iter().all(|(_, a)| a.parse::<FfnActivation>().is_ok()));
    }
}
