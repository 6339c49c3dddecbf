//! Answers in several channels, as gpt-oss gives them (the harmony format).

const CHANNEL: &str = "<|channel|>";
const FINAL: &str = "<|channel|>final";
const MESSAGE: &str = "<|message|>";
const END: &str = "<|end|>";

/// The part of an answer that is for the reader: that in the channel `final`, and all of an answer without channels.
///
/// Templates want no other part of earlier answers in later prompts, and refuse the names of channels in messages.
/// An answer that was cut off before the channel `final` has no such part.
///
/// ```
/// use sparse_model::chat::final_channel;
///
/// let answer = "<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant<|channel|>final<|message|>4";
/// assert_eq!(final_channel(answer), "4");
/// assert_eq!(final_channel("4"), "4");
/// ```
pub fn final_channel(answer: &str) -> &str {
    match answer.rsplit_once(FINAL) {
        // Between the two may be the format of the message.
        Some((_, rest)) => match rest.split_once(MESSAGE) {
            Some((_, message)) => message.strip_suffix(END).unwrap_or(message),
            None => "",
        },
        None if answer.contains(CHANNEL) => "",
        None => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_final_channel_is_the_answer() {
        for (answer, expected) in [
            ("", ""),
            ("Plain <|message|> text.", "Plain <|message|> text."),
            ("<|channel|>analysis<|message|>Still think", ""),
            ("<|channel|>final", ""),
            ("<|channel|>final<|message|>", ""),
            ("<|channel|>final <|constrain|>json<|message|>{\"a\": 1}<|end|>", "{\"a\": 1}"),
            ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b", "b"),
        ] {
            assert_eq!(final_channel(answer), expected, "{answer}");
        }
    }
}
