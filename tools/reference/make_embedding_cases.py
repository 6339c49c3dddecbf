"""Writes tiny random embedding models and what the sentence-transformers library makes of them.

    python make_embedding_cases.py --out ../../crates/sparse-model/tests/data/embedding

Each model is a folder. A case puts other files in place of some of a model's, embeds texts, and stores token ids and
embeddings. Needs requirements-embeddings.txt.
"""

import argparse
import base64
import io
import json
import pathlib
import shutil
import tempfile

import safetensors.torch
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
import torch
import transformers
from sentence_transformers import SentenceTransformer

TEXTS = ["a cat", "The CAT sleeps, Café!", "", "漢字 dog", "a b c d e f g h i j k l m n o p q r s t u v w x y z",
         "[SEP] ΑΣ <mask> x"]
WIDTH = 16


def pieces():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", "</s>", "the", "cat", "dog", "sleeps", "The", "CAT",
             "Cat", "café", "Café", "cafe", "query", ":", ".", ",", "!", "漢", "字", "漢字", "α", "σ", "ς", "Α", "Σ"]
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + ["é", "A", "C", "T", "σ", "ς", "字"]
    return list(dict.fromkeys(words + letters + ["##" + c for c in letters]))


def added(content, number, **changes):
    token = {"id": number, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
    return {**token, **changes}


def word_pieces(**normalizer):
    vocabulary = {piece: i for i, piece in enumerate(pieces())}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [added(piece, i) for i, piece in enumerate(pieces()[:5])],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True, **normalizer},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocabulary},
    }


def modules(*names):
    kinds = {"Transformer": ""} | {n: f"{i}_{n}" for i, n in enumerate(names) if i}
    return [{"idx": i, "name": str(i), "path": kinds[n], "type": f"sentence_transformers.models.{n}"}
            for i, n in enumerate(names)]


def spread(model):
    """Weights that make tokens and positions matter."""
    torch.manual_seed(7)
    with torch.no_grad():
        for name, values in model.named_parameters():
            norm = "norm" in name.lower()
            if norm and name.endswith("weight"):
                values.normal_(1.0, 0.1)
            else:
                values.normal_(0.0, 0.4 if "embed" in name.lower() else 0.3)


def write(folder, files):
    for name, value in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")


def save(model, folder, files):
    spread(model)
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("transformers_version", None)
    tensors = {n: t.contiguous().half() for n, t in model.state_dict().items() if "pooler" not in n}
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    # Half precision keeps the files small; the reference computes in single precision from the same values.
    config["dtype"] = "float32"
    write(folder, {"config.json": config, **files})


def dense(folder, name, inputs, outputs, bias=True, residual=False):
    torch.manual_seed(len(name))
    tensors = {"linear.weight": torch.randn(outputs, inputs) * 0.5}
    if bias:
        tensors["linear.bias"] = torch.randn(outputs) * 0.5
    if residual and inputs != outputs:
        tensors["residual.weight"] = torch.randn(outputs, inputs) * 0.5
    (folder / name).mkdir()
    safetensors.torch.save_file(tensors, folder / name / "model.safetensors")


COMMON = {
    "modules.json": modules("Transformer", "Pooling"),
    "sentence_bert_config.json": {"max_seq_length": 24, "do_lower_case": False},
    "1_Pooling/config.json": {"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": True},
}
SPECIAL = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]",
           "mask_token": "[MASK]", "model_max_length": 32}


def bert(folder):
    config = transformers.BertConfig(
        vocab_size=len(pieces()), hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=32)
    save(transformers.BertModel(config), folder, {
        **COMMON, "tokenizer.json": word_pieces(),
        "tokenizer_config.json": {"tokenizer_class": "BertTokenizer", **SPECIAL}})
    dense(folder, "2_Dense", WIDTH, 8)
    dense(folder, "3_Dense", 8, 12, bias=False)
    dense(folder, "4_Dense", WIDTH, 8, bias=False, residual=True)
    torch.manual_seed(3)
    (folder / "2_LayerNorm").mkdir()
    safetensors.torch.save_file({"norm.weight": torch.randn(WIDTH), "norm.bias": torch.randn(WIDTH)},
                                folder / "2_LayerNorm/model.safetensors")
    write(folder, {"2_LayerNorm/config.json": {"dimension": WIDTH}})


def bert_cases():
    def tokenizer(name, *, json_=None, drop=(), **settings):
        config = {k: v for k, v in {"tokenizer_class": "BertTokenizer", **SPECIAL, **settings}.items() if k not in drop}
        files = {"tokenizer_config.json": config}
        if json_ is not None:
            files["tokenizer.json"] = json_
        return {"name": name, "files": files}

    cased = word_pieces(lowercase=False)
    yield {"name": "as saved", "files": {}}
    yield tokenizer("cased file, lower case wanted", json_=cased, do_lower_case=True)
    yield tokenizer("cased file, nothing said", json_=cased)
    yield tokenizer("uncased file, case kept", do_lower_case=False)
    yield tokenizer("accents kept", strip_accents=False)
    yield tokenizer("accents stripped, case kept", strip_accents=True, do_lower_case=False)
    yield tokenizer("Chinese characters together", tokenize_chinese_chars=False)
    yield tokenizer("control characters kept in the file", json_=word_pieces(clean_text=False))
    yield tokenizer("old class name", json_=cased, tokenizer_class="BertTokenizerFast")
    yield tokenizer("DistilBERT's class", json_=cased, tokenizer_class="DistilBertTokenizer")
    yield tokenizer("generic class", json_=cased, tokenizer_class="PreTrainedTokenizerFast", do_lower_case=True)
    yield tokenizer("no class", json_=cased, drop=("tokenizer_class",))
    yield {"name": "no tokenizer configuration", "files": {"tokenizer_config.json": None, "tokenizer.json": cased}}
    yield tokenizer("other special tokens", cls_token="<s>", sep_token="</s>")
    yield tokenizer("a special token as an object", unk_token={
        "__type": "AddedToken", "content": "!", "lstrip": False, "rstrip": False, "normalized": False,
        "single_word": False})
    yield tokenizer("generic class, other special tokens", tokenizer_class="PreTrainedTokenizerFast", cls_token="<s>",
                    sep_token="</s>")
    yield tokenizer("more special tokens", additional_special_tokens=["dog", "caf"[:2] + "t"])
    yield tokenizer("added tokens in the configuration", added_tokens_decoder={
        str(i): {k: v for k, v in added(p, i).items() if k != "id"}
        for i, p in [*enumerate(pieces()[:5]), (9, "dog")]})
    yield tokenizer("added tokens that strip", added_tokens_decoder={
        str(i): {k: v for k, v in added(p, i, lstrip=i == 9, single_word=i == 9).items() if k != "id"}
        for i, p in [*enumerate(pieces()[:5]), (9, "dog")]})
    yield {"name": "special tokens in their own file", "files": {
        "tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "model_max_length": 32},
        "special_tokens_map.json": {"cls_token": "<s>", "sep_token": {"content": "</s>", "lstrip": False, "rstrip": False,
                                                                      "normalized": False, "single_word": False}}}}
    no_limit = {"sentence_bert_config.json": {"do_lower_case": False}}
    case = tokenizer("limit of the tokenizer", model_max_length=9)
    case["files"] |= no_limit
    yield case
    case = tokenizer("limit of the tokenizer, old name", drop=("model_max_length",), max_len=9)
    case["files"] |= no_limit
    yield case
    case = tokenizer("no limit", model_max_length=int(1e30))
    case["files"] |= no_limit
    yield case
    yield tokenizer("cut from the left", truncation_side="left")
    short = word_pieces() | {"truncation": {"direction": "Left", "max_length": 5, "strategy": "LongestFirst", "stride": 0}}
    yield tokenizer("cut from the left, by the file", json_=short)
    lower = {"sentence_bert_config.json": {"max_seq_length": 24, "do_lower_case": True}}
    case = tokenizer("lower case by sentence-transformers", do_lower_case=False)
    case["files"] |= lower
    yield case
    case = tokenizer("lower case by both")
    case["files"] |= lower
    yield case
    yield {"name": "old name of the settings", "files": {
        "sentence_bert_config.json": None, "sentence_roberta_config.json": {"max_seq_length": 7}}}

    def pooling(name, config, **case):
        return {"name": name, "files": {"1_Pooling/config.json": config}, **case}

    for mode in ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]:
        yield pooling(f"pooling {mode}", {"embedding_dimension": WIDTH, "pooling_mode": mode})
        yield pooling(f"pooling {mode} without the prompt",
                      {"embedding_dimension": WIDTH, "pooling_mode": mode, "include_prompt": False}, prompt="query: ")
    yield pooling("pooling of several kinds", {"embedding_dimension": WIDTH, "pooling_mode": ["mean", "cls", "max"]})
    yield pooling("pooling of several kinds, old flags", {
        "word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True,
        "pooling_mode_max_tokens": False, "pooling_mode_lasttoken": True})
    yield pooling("pooling without a kind", {"word_embedding_dimension": WIDTH, "pooling_mode_cls_token": False})
    yield pooling("pooling with all but the prompt cut off", {
        "word_embedding_dimension": WIDTH, "pooling_mode": "mean", "include_prompt": False},
        prompt="a b c d e f g h i j k l m n o p q r s t u v w x y z")
    yield {"name": "no modules", "files": {"modules.json": None}}

    def after(name, *names, **files):
        return {"name": name, "files": {"modules.json": modules("Transformer", "Pooling", *names), **files}}

    linear = {"in_features": WIDTH, "out_features": 8, "bias": True}
    yield after("normalized", "Normalize")
    for path in ["modules.activation.Tanh", "modules.linear.Identity", "modules.activation.ReLU",
                 "modules.activation.GELU", "modules.activation.SiLU", "modules.activation.Sigmoid"]:
        yield after(f"dense {path}", "Dense", **{
            "2_Dense/config.json": linear | {"activation_function": f"torch.nn.{path}"}})
    yield after("dense without an activation", "Dense", **{"2_Dense/config.json": linear})
    yield after("dense with a foreign activation", "Dense", **{
        "2_Dense/config.json": linear | {"activation_function": "my.own.Function"}})
    case = after("dense twice and normalized", "Dense", "Dense", "Normalize", **{
        "2_Dense/config.json": linear | {"activation_function": "torch.nn.modules.linear.Identity"},
        "3_Dense/config.json": {"in_features": 8, "out_features": 12, "bias": False,
                                "activation_function": "torch.nn.modules.activation.Tanh"}})
    for i, path in [(2, "2_Dense"), (3, "3_Dense"), (4, "4_Normalize")]:
        case["files"]["modules.json"][i]["path"] = path
    yield case
    case = after("dense with a residual", "Dense", **{
        "4_Dense/config.json": linear | {"bias": False, "use_residual": True,
                                         "activation_function": "torch.nn.modules.activation.Tanh"}})
    case["files"]["modules.json"][2]["path"] = "4_Dense"
    yield case
    yield after("layer norm and dropout", "LayerNorm", "Dropout", **{"3_Dropout/config.json": {"dropout": 0.1}})
    case = {"name": "paths with a dot", "files": {"modules.json": modules("Transformer", "Pooling")}}
    case["files"]["modules.json"][0]["path"], case["files"]["modules.json"][1]["path"] = "./", "./1_Pooling/"
    yield case
    case = {"name": "new class names", "files": {"modules.json": modules("Transformer", "Pooling")}}
    for i, kind in enumerate(["base.modules.transformer.Transformer", "sentence_transformer.modules.pooling.Pooling"]):
        case["files"]["modules.json"][i]["type"] = f"sentence_transformers.{kind}"
    yield case

    prompts = {"query": "query: ", "document": "the dog. ", "odd": ""}
    settings = {"config_sentence_transformers.json": {"prompts": prompts, "default_prompt_name": "query"}}
    for name, use in [("default", {}), ("named", {"prompt_name": "document"}), ("empty", {"prompt_name": "odd"}),
                      ("given", {"prompt": "dog: "}), ("none", {"prompt": ""}), ("query", {"task": "query"}),
                      ("document", {"task": "document"})]:
        yield {"name": f"prompt {name}", "files": settings, **use}
    settings = {"config_sentence_transformers.json": {"prompts": {"odd": "dog "}, "default_prompt_name": "odd"}}
    for task in ["query", "document"]:
        yield {"name": f"prompt {task}, not in the file", "files": settings, "task": task}
    yield {"name": "no default prompt", "files": {
        "config_sentence_transformers.json": {"prompts": prompts, "default_prompt_name": None}}}


def unigram():
    """A tokenizer.json as the library writes it for XLM-RoBERTa, with a table of characters of its own."""
    text = ["the cat sleeps", "a dog and a cat", "The CAT sleeps, Cafe!", "query: the dog", "a b c d e f g h i j k l m",
            "n o p q r s t u v w x y z", "漢字 dog", "ασς x"] * 20
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        # Full-width letters and an accent, as NFKC and its like have them.
        rules.write("FF21\t41\nFF22\t42\nE9\t65\nC9\t45\n")
        rules.flush()
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(text), model_writer=model, vocab_size=72, model_type="unigram",
            character_coverage=1.0, normalization_rule_tsv=rules.name, hard_vocab_limit=False, minloglevel=2,
            num_threads=1)
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    pieces = [["<s>", 0.0], ["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0]]
    pieces += [[p.piece, p.score] for p in proto.pieces if p.type == 1] + [["<mask>", 0.0]]
    special = [added(p, i, lstrip=p == "<mask>") for i, (p, _) in enumerate(pieces) if p[0] == "<" and len(p) > 1]
    space = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    charsmap = base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode()
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special,
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, space]},
        "post_processor": {"type": "TemplateProcessing",
                           "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                                      {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                           "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                           "special_tokens": {p: {"id": p, "ids": [i], "tokens": [p]} for i, p in ((0, "<s>"), (2, "</s>"))}},
        "decoder": space, "model": {"type": "Unigram", "unk_id": 3, "vocab": pieces, "byte_fallback": False},
    }


ROBERTA = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>", "unk_token": "<unk>",
           "pad_token": "<pad>", "mask_token": "<mask>", "model_max_length": 32}


def xlm_roberta(folder):
    tokenizer = unigram()
    config = transformers.XLMRobertaConfig(
        vocab_size=len(tokenizer["model"]["vocab"]), hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=34, type_vocab_size=1, pad_token_id=1, bos_token_id=0,
        eos_token_id=2, layer_norm_eps=1e-5)
    save(transformers.XLMRobertaModel(config), folder, {
        **COMMON, "tokenizer.json": tokenizer,
        "tokenizer_config.json": {"tokenizer_class": "XLMRobertaTokenizer", **ROBERTA}})


def xlm_roberta_cases():
    yield {"name": "as saved", "files": {}}
    yield {"name": "cls, normalized", "files": {
        "1_Pooling/config.json": {"embedding_dimension": WIDTH, "pooling_mode": "cls"},
        "modules.json": modules("Transformer", "Pooling", "Normalize")}}
    yield {"name": "a prompt", "files": {}, "prompt": "query: "}
    yield {"name": "as many tokens as there are positions", "files": {"sentence_bert_config.json": None}}
    yield {"name": "generic class", "files": {
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", **ROBERTA}}}
    yield {"name": "lower case first", "files": {
        "sentence_bert_config.json": {"max_seq_length": 24, "do_lower_case": True}}}
    yield {"name": "no space before a text", "files": {
        "tokenizer_config.json": {"tokenizer_class": "XLMRobertaTokenizer", "add_prefix_space": False, **ROBERTA}}}


MODELS = {"bert": (bert, bert_cases), "xlm-roberta": (xlm_roberta, xlm_roberta_cases)}


def embed(model, case):
    use = {k: case[k] for k in ("prompt", "prompt_name") if k in case}
    encode = {None: model.encode, "query": model.encode_query, "document": model.encode_document}[case.get("task")]
    # One by one: padding is not what is to be compared.
    return [[round(float(v), 5) for v in encode([text], **use)[0]] for text in TEXTS]


def run(base, case):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name) / "model"
        shutil.copytree(base, folder)
        for file, value in case["files"].items():
            (folder / file).unlink(missing_ok=True)
            if value is not None:
                write(folder, {file: value})
        model = SentenceTransformer(str(folder), device="cpu")
        limit = min(model.max_seq_length, 32)
        ids = [model.tokenizer(text, truncation=True, max_length=limit)["input_ids"] for text in TEXTS]
        return {**case, "ids": ids, "embeddings": embed(model, case)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--only", choices=MODELS, help="this model only")
    args = parser.parse_args()
    for name, (make, cases) in MODELS.items():
        if args.only not in (None, name):
            continue
        folder = args.out / name
        shutil.rmtree(folder, ignore_errors=True)
        make(folder)
        done = [run(folder, case) for case in cases()]
        lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in done)
        texts = json.dumps(TEXTS, ensure_ascii=False)
        (args.out / f"{name}.json").write_text(f'{{"texts": {texts},\n"cases": [\n{lines}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
