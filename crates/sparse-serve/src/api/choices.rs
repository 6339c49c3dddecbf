//! Texts in the making, whole or as a stream.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Json;
use axum::response::sse::{Event as Sse, KeepAlive};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use sparse_integration::{Error, Event, GenerateOptions, Request, Stop, Token};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::error::ApiError;
use super::options::random;
use crate::{Service, seconds};

/// What chat and completions write differently.
pub(super) trait Form: Send + Sync + 'static {
    /// The `object` of a whole answer, and of a piece of a stream.
    fn object(&self, piece: bool) -> &'static str;
    /// The beginning of the `id`.
    fn prefix(&self) -> &'static str;
    /// A choice of a whole answer.
    fn choice(&self, service: &Service, index: usize, text: &Text) -> Value;
    /// What a stream begins with for each choice, if with anything.
    fn first(&self, index: usize) -> Option<Value>;
    /// A piece of a choice: text, the tokens that were chosen since the last piece, and the end.
    fn piece(&self, service: &Service, index: usize, piece: &Text) -> Value;
}

/// A text, or a piece of one.
#[derive(Debug, Default)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) tokens: Vec<Token>,
    /// Bytes of text before these.
    pub(super) offset: usize,
    pub(super) stop: Option<Stop>,
}

impl Text {
    /// Why it ended, in OpenAI's words.
    pub(super) fn finish_reason(&self) -> Option<&'static str> {
        self.stop.map(|stop| match stop {
            Stop::MaxTokens | Stop::ContextFull => "length",
            _ => "stop",
        })
    }
}

/// Texts that were asked for.
pub(super) struct Choices {
    pub(super) service: Arc<Service>,
    pub(super) form: Box<dyn Form>,
    pub(super) prompt_tokens: usize,
    events: UnboundedReceiver<(usize, Result<Event, Error>)>,
    count: usize,
    id: String,
    created: u64,
}

impl Choices {
    /// Asks for `n` continuations of each prompt, which differ by their seeds.
    ///
    /// A client that reads slowly leaves events in memory; there are no more than the tokens that it asked for.
    pub(super) fn start(
        service: Arc<Service>,
        form: Box<dyn Form>,
        prompts: Vec<Vec<u32>>,
        n: usize,
        options: &GenerateOptions,
    ) -> Result<Self, ApiError> {
        let (sender, events) = unbounded_channel();
        let (prompt_tokens, count) = (prompts.iter().map(Vec::len).sum(), n * prompts.len());
        let all = prompts.iter().flat_map(|prompt| (0..n).map(move |i| (prompt, i)));
        for (index, (prompt, i)) in all.enumerate() {
            let mut options = options.clone();
            options.sampler.seed = options.sampler.seed.wrapping_add(i as u64);
            let sender = sender.clone();
            let sink = move |event| match sender.send((index, event)) {
                Ok(()) => ControlFlow::Continue(()),
                // The client has gone.
                Err(_) => ControlFlow::Break(()),
            };
            service.backend.submit(Request::new(prompt.clone(), options), sink)?;
        }
        let id = format!("{}-{:016x}", form.prefix(), random());
        Ok(Self { service, form, prompt_tokens, events, count, id, created: seconds() })
    }

    /// The answer to `stream`, with usage at the end of a stream if `usage`.
    pub(super) async fn respond(self, stream: bool, usage: bool) -> Result<Response, ApiError> {
        if stream { self.stream(usage).await } else { self.whole().await }
    }

    /// What whole answers and pieces begin with.
    fn head(&self, piece: bool, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": self.form.object(piece),
            "created": self.created,
            "model": self.service.backend.name(),
            "choices": choices,
        })
    }

    fn usage(&self, completion_tokens: usize) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self.prompt_tokens + completion_tokens,
        })
    }

    async fn whole(mut self) -> Result<Response, ApiError> {
        let mut texts: Vec<Text> = std::iter::repeat_with(Text::default).take(self.count).collect();
        let mut generated = 0;
        while texts.iter().any(|text| text.stop.is_none()) {
            let (index, event) = self.events.recv().await.ok_or(Error::Stopped)?;
            let text = &mut texts[index];
            match event? {
                Event::Text(piece) => text.text += &piece,
                Event::Token(token) => text.tokens.push(token),
                Event::End(end) => {
                    generated += end.tokens.len();
                    text.stop = Some(end.stop);
                }
                _ => {}
            }
        }
        let choices =
            texts.iter().enumerate().map(|(i, text)| self.form.choice(&self.service, i, text)).collect();
        let mut answer = self.head(false, choices);
        answer["usage"] = self.usage(generated);
        Ok(Json(answer).into_response())
    }

    async fn stream(mut self, usage: bool) -> Result<Response, ApiError> {
        // What is wrong with the request shows at its first event, when a status can still be sent.
        let first = self.events.recv().await.ok_or(Error::Stopped)?;
        let first = (first.0, Ok(first.1?));
        let mut ready: VecDeque<Value> =
            (0..self.count).filter_map(|i| Some(self.head(true, vec![self.form.first(i)?]))).collect();
        let mut pieces: Vec<Text> = std::iter::repeat_with(Text::default).take(self.count).collect();
        let (mut left, mut generated) = (self.count, 0);
        let done = self.take(first, &mut pieces, &mut ready, &mut generated);
        left -= usize::from(done);
        let state = (self, pieces, ready, left, generated, false);
        let events = stream::unfold(
            state,
            move |(mut s, mut pieces, mut ready, mut left, mut generated, over)| async move {
                loop {
                    if let Some(value) = ready.pop_front() {
                        let event = Sse::default().data(value.to_string());
                        return Some((Ok::<_, Infallible>(event), (s, pieces, ready, left, generated, over)));
                    }
                    if over {
                        return None;
                    }
                    if left == 0 {
                        if usage {
                            let mut last = s.head(true, Vec::new());
                            last["usage"] = s.usage(generated);
                            ready.push_back(last);
                            left = usize::MAX;
                            continue;
                        }
                        return Some((
                            Ok(Sse::default().data("[DONE]")),
                            (s, pieces, ready, left, generated, true),
                        ));
                    }
                    if left == usize::MAX {
                        return Some((
                            Ok(Sse::default().data("[DONE]")),
                            (s, pieces, ready, left, generated, true),
                        ));
                    }
                    match s.events.recv().await {
                        Some((index, Ok(event))) => {
                            let done = s.take((index, Ok(event)), &mut pieces, &mut ready, &mut generated);
                            left -= usize::from(done);
                        }
                        other => {
                            let error = other.and_then(|(_, event)| event.err()).unwrap_or(Error::Stopped);
                            let error = Sse::default().data(ApiError::from(error).json().to_string());
                            return Some((Ok(error), (s, pieces, ready, left, generated, true)));
                        }
                    }
                }
            },
        );
        Ok(axum::response::Sse::new(events).keep_alive(KeepAlive::default()).into_response())
    }

    /// Takes an event of a stream; says whether it was the last of its text.
    fn take(
        &self,
        (index, event): (usize, Result<Event, Error>),
        pieces: &mut [Text],
        ready: &mut VecDeque<Value>,
        generated: &mut usize,
    ) -> bool {
        let piece = &mut pieces[index];
        match event {
            Ok(Event::Token(token)) => {
                piece.tokens.push(token);
                return false;
            }
            Ok(Event::Text(text)) => piece.text = text,
            Ok(Event::End(end)) => {
                *generated += end.tokens.len();
                piece.stop = Some(end.stop);
            }
            _ => return false,
        }
        ready.push_back(self.head(true, vec![self.form.piece(&self.service, index, piece)]));
        let offset = piece.offset + piece.text.chars().count();
        let done = piece.stop.is_some();
        *piece = Text { offset, ..Text::default() };
        done
    }
}

/// A token as logprobs show it: its text and its bytes.
pub(super) fn token_text(service: &Service, id: u32) -> (String, Vec<u8>) {
    let bytes = service.backend.model().tokenizer().token_bytes(id);
    (String::from_utf8_lossy(&bytes).into_owned(), bytes)
}
