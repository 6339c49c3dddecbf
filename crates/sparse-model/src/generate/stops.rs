//! Stop strings in a text that comes in pieces.

/// Finds stop strings, and holds back what may become one.
#[derive(Debug)]
pub(super) struct StopStrings {
    stops: Vec<String>,
    /// The end of the text, as far as a stop string may begin in it.
    held: String,
}

impl StopStrings {
    /// For these texts, none of them empty.
    pub(super) fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    /// Takes the next piece. Returns what can be given out, and which stop string ended the text, if one did: the
    /// first in the text, and of those at the same place the first in the list.
    pub(super) fn push(&mut self, piece: &str) -> (String, Option<usize>) {
        if self.stops.is_empty() {
            return (piece.to_owned(), None);
        }
        self.held.push_str(piece);
        let found = self.stops.iter().enumerate().filter_map(|(i, stop)| Some((self.held.find(stop)?, i)));
        if let Some((at, stop)) = found.min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), Some(stop));
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        (std::mem::replace(&mut self.held, rest), None)
    }

    /// What was held back, when nothing more comes.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length of the longest end of `text` that `stop` begins with, all of `stop` excluded.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    (1..=longest).rev().find(|n| text.as_bytes().ends_with(&stop.as_bytes()[..*n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, Option<usize>) {
        let mut s = StopStrings::new(stops.iter().map(|s| (*s).to_owned()).collect());
        let mut text = String::new();
        for piece in pieces {
            let (out, stop) = s.push(piece);
            text += &out;
            if stop.is_some() {
                return (text, stop);
            }
        }
        (text + &s.finish(), None)
    }

    #[test]
    fn stop_strings_are_found_across_pieces() {
        for (stops, pieces, text, stop) in [
            (&["\n\n"][..], &["one\n", "\ntwo"][..], "one", Some(0)),
            (&["\n\n"], &["one\n", "two\n"], "one\ntwo\n", None),
            (&["END", "STOP"], &["a S", "TO", "P b END"], "a ", Some(1)),
            (&["aab"], &["aa", "a", "b", "c"], "a", Some(0)),
            (&["b", "ab"], &["xab"], "x", Some(1)),
            (&["ab", "abc"], &["xabc"], "x", Some(0)),
            (&["äö"], &["xä", "ö"], "x", Some(0)),
            (&["é"], &["è"], "è", None),
            (&[], &["x", "y"], "xy", None),
        ] {
            assert_eq!(run(stops, pieces), (text.to_owned(), stop), "{stops:?} in {pieces:?}");
        }
    }

    #[test]
    fn only_what_may_become_a_stop_string_is_held_back() {
        let mut s = StopStrings::new(vec!["###".into()]);
        assert_eq!(s.push("a#"), ("a".into(), None));
        assert_eq!(s.push("b"), ("#b".into(), None));
        assert_eq!(s.push("##"), (String::new(), None));
        assert_eq!(s.finish(), "##");
    }

    proptest! {
        /// However a text is cut, the result is that of looking at the whole.
        #[test]
        fn cuts_do_not_matter(
            pieces in prop::collection::vec("[abä]{0,3}", 0..12),
            stops in prop::collection::vec("[abä]{1,4}", 0..3),
        ) {
            let whole = pieces.concat();
            let found = stops.iter().enumerate().filter_map(|(i, s)| Some((whole.find(s.as_str())?, i))).min();
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let (text, stop) = run(&stops, &pieces);
            match found {
                None => prop_assert_eq!((text, stop), (whole, None)),
                // A stop string that is complete ends the text, though one that began before it could still come.
                Some((at, _)) => {
                    prop_assert!(stop.is_some());
                    prop_assert!(whole.starts_with(&text) && text.len() >= at);
                    prop_assert!(whole[text.len()..].starts_with(stops[stop.unwrap_or(0)]));
                }
            }
        }
    }
}
