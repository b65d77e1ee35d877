//! Cuts text into the chunks that merges may not cross.

/// The end of nanochat's pattern (and GPT-4's): a run of blanks leaves its last one to the next word.
const BLANKS: &str = r"|\s*[\r\n]|\s+(?!\S)|\s+";

/// All matches of a pattern, one after the other.
///
/// The look-ahead in nanochat's pattern needs a backtracking engine, which is some ten times slower
/// than an automaton. So the family of that pattern runs on an automaton without it, and a run of
/// blanks is shortened by hand; any other pattern runs as it is.
#[derive(Clone)]
pub enum Splitter {
    Automaton { regex: regex::Regex, gives_back_a_blank: bool },
    Backtracking(fancy_regex::Regex),
}

impl Splitter {
    /// Fails with the engine's message when `pattern` is not a regular expression.
    pub fn new(pattern: &str) -> Result<Self, String> {
        if let Some(plain) = without_lookahead(pattern) {
            let regex = regex::Regex::new(&plain).map_err(|e| e.to_string())?;
            return Ok(Splitter::Automaton { regex, gives_back_a_blank: true });
        }
        match regex::Regex::new(pattern) {
            // `x?+` and `x++` are possessive to the other engine, a repeated repetition to this one.
            Ok(regex) if !has_possessive(pattern) => {
                Ok(Splitter::Automaton { regex, gives_back_a_blank: false })
            }
            _ => Self::backtracking(pattern),
        }
    }

    /// The slow engine whatever the pattern: what the fast way is tested against.
    pub fn backtracking(pattern: &str) -> Result<Self, String> {
        fancy_regex::Regex::new(pattern).map(Splitter::Backtracking).map_err(|e| e.to_string())
    }

    /// Calls `f` with every chunk. Fails only where the backtracking engine gives up.
    pub fn for_each<'t>(&self, text: &'t str, mut f: impl FnMut(&'t str)) -> Result<(), String> {
        match self {
            Splitter::Automaton { regex, gives_back_a_blank } => {
                let mut at = 0;
                while let Some(found) = regex.find_at(text, at) {
                    let chunk = found.as_str();
                    let keep = if *gives_back_a_blank {
                        shortened(chunk, &text[found.end()..])
                    } else {
                        chunk.len()
                    };
                    at = found.start() + keep;
                    if keep == 0 {
                        // An empty match moves on by one character, as every engine does.
                        at += text[at..].chars().next().map_or(1, char::len_utf8);
                        if at > text.len() {
                            break;
                        }
                        continue;
                    }
                    f(&chunk[..keep]);
                }
                Ok(())
            }
            Splitter::Backtracking(regex) => {
                for found in regex.find_iter(text) {
                    let chunk = found.map_err(|e| e.to_string())?.as_str();
                    if !chunk.is_empty() {
                        f(chunk);
                    }
                }
                Ok(())
            }
        }
    }
}

/// What of `chunk` stays when text follows: of blanks without a line end, all but the last.
fn shortened(chunk: &str, rest: &str) -> usize {
    let last = chunk.chars().next_back();
    match last {
        Some(c) if c.is_whitespace() && c != '\r' && c != '\n' && !rest.is_empty() => {
            let keep = chunk.len() - c.len_utf8();
            if keep == 0 {
                chunk.len()
            } else {
                keep
            }
        }
        _ => chunk.len(),
    }
}

/// nanochat's pattern, whatever its digit group and with or without marks in words, in the
/// automaton's words; None for any other.
fn without_lookahead(pattern: &str) -> Option<String> {
    [(r"\p{L}", r"\p{L}+"), (r"\p{L}\p{M}", r"[\p{L}\p{M}]+")]
        .iter()
        .find_map(|(letter, word)| with_words(pattern, letter, word))
}

/// The same of the one pattern whose words are those.
///
/// Its possessive repetitions are followed by what they could never have matched, so the plain
/// ones match the same.
fn with_words(pattern: &str, letter: &str, word: &str) -> Option<String> {
    let words = format!(r"'(?i:[sdmt]|ll|ve|re)|[^\r\n{letter}\p{{N}}]?+{word}|");
    let signs = format!(r"| ?[^\s{letter}\p{{N}}]++[\r\n]*");
    let digits = pattern.strip_prefix(&words)?.strip_suffix(BLANKS)?.strip_suffix(&signs)?;
    let is_digit_group =
        ["", "{1,2}", "{1,3}", "+"].iter().any(|n| digits == format!(r"\p{{N}}{n}"));
    is_digit_group.then(|| {
        let plain = words.replace("?+", "?") + digits + &signs.replace("++", "+");
        plain + r"|\s*[\r\n]|\s+"
    })
}

fn has_possessive(pattern: &str) -> bool {
    ["?+", "*+", "++", "}+"].iter().any(|p| pattern.contains(p))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NANOCHAT: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";
    const MARKS: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{M}\p{N}]?+[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";

    fn chunks(splitter: &Splitter, text: &str) -> Vec<String> {
        let mut out = vec![];
        splitter.for_each(text, |c| out.push(c.to_string())).unwrap();
        out
    }

    #[test]
    fn nanochat_pattern_splits_as_documented() {
        let splitter = Splitter::new(NANOCHAT).unwrap();
        assert!(matches!(splitter, Splitter::Automaton { gives_back_a_blank: true, .. }));
        let got = chunks(&splitter, "It's 2025:  yes!\n\n  indented \t");
        assert_eq!(
            got,
            ["It", "'s", " ", "20", "25", ":", " ", " yes", "!\n\n", " ", " indented", " \t"]
        );
    }

    #[test]
    fn marks_belong_to_words_where_the_pattern_says_so() {
        let text = "नमस्ते दुनिया! cafe\u{301} 12";
        let splitter = Splitter::new(MARKS).unwrap();
        assert_eq!(chunks(&splitter, text), ["नमस्ते", " दुनिया", "!", " cafe\u{301}", " ", "1", "2"]);
        assert!(chunks(&Splitter::new(NANOCHAT).unwrap(), text).contains(&"नमस".to_string()));
    }

    #[test]
    fn the_automaton_splits_as_the_backtracking_engine() {
        let alphabet: Vec<char> =
            "aZ'sSſlLvVeE1٣² \t\n\r\u{a0}\u{2003}\u{85}.,!-_é漢🙂\u{301}क\u{93f}\u{94d}\u{200d}\0"
                .chars()
                .collect();
        for pattern in [NANOCHAT, MARKS] {
            let (fast, slow) = both(pattern);
            let mut state = 1u64;
            for _ in 0..20_000 {
                let mut text = String::new();
                for _ in 0..12 {
                    state =
                        state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    text.push(alphabet[(state >> 33) as usize % alphabet.len()]);
                }
                assert_eq!(chunks(&fast, &text), chunks(&slow, &text), "{text:?}");
            }
        }
    }

    #[test]
    fn every_character_splits_alike_in_both_engines() {
        for pattern in [NANOCHAT, MARKS] {
            let (fast, slow) = both(pattern);
            for c in (0..=0x10ffff).filter_map(char::from_u32).step_by(7) {
                let text = format!("a{c}b {c}{c} 1{c}\n {c}'{c}.");
                assert_eq!(chunks(&fast, &text), chunks(&slow, &text), "{text:?}");
            }
        }
    }

    fn both(pattern: &str) -> (Splitter, Splitter) {
        let fast = Splitter::new(pattern).unwrap();
        assert!(matches!(fast, Splitter::Automaton { gives_back_a_blank: true, .. }));
        (fast, Splitter::backtracking(pattern).unwrap())
    }

    #[test]
    fn other_patterns_work_and_bad_ones_are_named() {
        assert_eq!(chunks(&Splitter::new(r"\w+|\s").unwrap(), "ab c"), ["ab", " ", "c"]);
        assert_eq!(chunks(&Splitter::new(r"x*").unwrap(), "axxb漢"), ["xx"]);
        assert_eq!(chunks(&Splitter::new(r"a(?=b)|.").unwrap(), "abc"), ["a", "b", "c"]);
        assert!(Splitter::new("(").is_err());
    }
}
