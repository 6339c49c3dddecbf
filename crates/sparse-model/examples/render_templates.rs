//! Renders chat templates: each line of stdin is a JSON object with `template` and `variables`, each line of stdout
//! the text as JSON, or an object with the `error`.

use std::collections::BTreeMap;
use std::io::{self, BufRead};

use serde::Deserialize;
use serde_json::json;
use sparse_model::chat::{ChatTemplate, Json, RenderOptions};

#[derive(Deserialize)]
struct Case {
    template: String,
    variables: Variables,
}

#[derive(Deserialize)]
struct Variables {
    messages: Vec<Json>,
    tools: Option<Vec<Json>>,
    documents: Option<Vec<Json>>,
    #[serde(flatten)]
    others: BTreeMap<String, Json>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for line in io::stdin().lock().lines() {
        let case: Case = serde_json::from_str(&line?)?;
        let mut options = RenderOptions::default();
        options.tools = case.variables.tools;
        options.documents = case.variables.documents;
        options.variables = case.variables.others;
        let text =
            ChatTemplate::new(&case.template).and_then(|t| t.render(&case.variables.messages, &options));
        println!("{}", text.map_or_else(|e| json!({"error": e.to_string()}), Into::into));
    }
    Ok(())
}
