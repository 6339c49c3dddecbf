use super::*;

#[test]
fn figures_of_every_thread_count() {
    let folder = Folder::new();
    let model = folder.model(&llama().build());
    let sizes = ["--prompt", "12", "--tokens", "5", "--depth", "3", "--rounds", "2"];
    let bench = |flags: &[&str]| {
        let mut args = args!["bench", "-m", &model].to_vec();
        args.extend(sizes.iter().chain(flags).map(Into::into));
        run(&args)
    };
    let report = json(&bench(&["--threads", "1,3", "--json"]).ok());
    assert_eq!((&report["prompt"], &report["tokens"], &report["depth"]), (&12.into(), &5.into(), &3.into()));
    assert_eq!(report["interrupted"], false);
    let bytes = report["bytes_per_token"].as_f64().unwrap();
    for (found, threads) in report["threads"].as_array().unwrap().iter().zip([1, 3]) {
        assert_eq!(found["threads"], threads);
        for name in ["prefill_tokens_per_s", "decode_tokens_per_s", "read_gb_per_s", "roofline"] {
            let [min, median, max] = ["min", "median", "max"].map(|key| found[name][key].as_f64().unwrap());
            assert!(0.0 < min && min <= median && median <= max, "{name}: {found}");
        }
        let decode = |key: &str| found[key]["max"].as_f64().unwrap();
        let from_rate = decode("decode_tokens_per_s") * bytes / 1e9;
        assert!((decode("decode_gb_per_s") / from_rate - 1.0).abs() < 1e-6, "{found}");
    }
    let table = bench(&["--threads", "2"]).ok();
    assert!(table.contains("PREFILL OF 12") && table.contains("OF ROOFLINE"), "{table}");
}

#[test]
fn more_tokens_than_the_context_holds() {
    let folder = Folder::new();
    let model = folder.model(&TinyLlama { context: 32, ..llama() }.build());
    let result = run(args!["bench", "-m", &model, "--prompt", "8", "--tokens", "30", "--depth", "4"]);
    assert_eq!(result.code, Some(2), "{result:#?}");
    assert!(result.stderr.contains("34 tokens do not fit the model's context of 32"), "{result:#?}");
}
