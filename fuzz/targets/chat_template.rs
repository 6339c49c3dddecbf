//! Chat templates: any source is a template or an error, and renders in bounded time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sparse_model::chat::{ChatTemplate, Message, RenderOptions};

fuzz_target!(|source: &str| {
    let Ok(template) = ChatTemplate::new(source) else { return };
    let messages = [Message::system("be brief"), Message::user("banana"), Message::assistant("a\nb")];
    let _ = template.render(&messages, &RenderOptions::default());
});
