//! Text to ids, by the ranks of byte strings: what tiktoken's `encode_ordinary` computes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rayon::prelude::*;
use rustc_hash::FxHashMap;

use crate::split::Splitter;

pub type Ranks = FxHashMap<Box<[u8]>, u32>;

/// Ranks and pattern; every method takes `&self`, so threads may share one.
pub struct Encoder {
    ranks: Ranks,
    splitter: Splitter,
}

impl Encoder {
    /// Fails unless each of the 256 bytes has a rank: without, some text would have no ids.
    pub fn new(ranks: Ranks, splitter: Splitter) -> Result<Self, String> {
        match (0..=255u8).find(|&byte| !ranks.contains_key(&[byte][..])) {
            Some(byte) => {
                Err(format!("the vocabulary has no token for the single byte {byte:#04x}"))
            }
            None => Ok(Encoder { ranks, splitter }),
        }
    }

    pub fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        self.encode_with(&self.splitter, &mut Scratch::default(), text)
    }

    /// One list of ids for each text, in at most `tasks` pieces side by side.
    pub fn encode_batch<T>(&self, texts: &[T], tasks: usize) -> Result<Vec<Vec<u32>>, String>
    where
        T: AsRef<str> + Sync,
    {
        if tasks <= 1 {
            // Without a clone of the regex, which is slow on its first texts.
            let mut scratch = Scratch::default();
            let ids = |text: &T| self.encode_with(&self.splitter, &mut scratch, text.as_ref());
            return texts.iter().map(ids).collect();
        }
        texts
            .par_iter()
            .with_min_len(texts.len().div_ceil(tasks.max(1)).max(1))
            // A regex shared between threads is a lock shared between threads.
            .map_init(
                || (self.splitter.clone(), Scratch::default()),
                |(splitter, scratch), text| self.encode_with(splitter, scratch, text.as_ref()),
            )
            .collect()
    }

    /// The two tokens that merge into `token`, None for a single byte: what a list of merges needs.
    pub fn halves(&self, token: &[u8]) -> Option<(u32, u32)> {
        let limit = *self.ranks.get(token)?;
        let mut ids = vec![];
        Scratch::default().merge(&self.ranks, token, limit, &mut ids);
        <[u32; 2]>::try_from(ids).ok().map(|[left, right]| (left, right))
    }

    fn encode_with(
        &self,
        splitter: &Splitter,
        scratch: &mut Scratch,
        text: &str,
    ) -> Result<Vec<u32>, String> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        splitter.for_each(text, |chunk| match self.ranks.get(chunk.as_bytes()) {
            Some(&id) => ids.push(id),
            None => scratch.merge(&self.ranks, chunk.as_bytes(), u32::MAX, &mut ids),
        })?;
        Ok(ids)
    }
}

/// Working memory of one merge, kept between chunks. Parts are known by their first byte.
#[derive(Default)]
struct Scratch {
    /// Where the part after this one begins; 0 where no part begins any more.
    next: Vec<u32>,
    prev: Vec<u32>,
    /// (rank, begin, end) of two neighbours that are a token together; lowest rank, then leftmost.
    heap: BinaryHeap<Reverse<(u32, u32, u32)>>,
}

impl Scratch {
    /// Appends the ids of `chunk`, merging only into ranks below `limit`. n log n in its length: a
    /// chunk may be a megabyte of one letter.
    fn merge(&mut self, ranks: &Ranks, chunk: &[u8], limit: u32, ids: &mut Vec<u32>) {
        let n = chunk.len() as u32;
        self.heap.clear();
        self.next.clear();
        self.next.extend(1..=n);
        self.prev.clear();
        self.prev.extend((0..n).map(|i| i.saturating_sub(1)));
        for begin in 0..n.saturating_sub(1) {
            self.offer(ranks, chunk, limit, begin, begin + 2);
        }
        while let Some(Reverse((_, begin, end))) = self.heap.pop() {
            let middle = self.next[begin as usize];
            // Since it was offered, either part may have gone into another merge.
            if middle == 0 || middle >= end || self.next[middle as usize] != end {
                continue;
            }
            self.next[begin as usize] = end;
            self.next[middle as usize] = 0;
            if end < n {
                self.prev[end as usize] = begin;
                self.offer(ranks, chunk, limit, begin, self.next[end as usize]);
            }
            if begin > 0 {
                self.offer(ranks, chunk, limit, self.prev[begin as usize], end);
            }
        }
        let mut begin = 0;
        while begin < n {
            let end = self.next[begin as usize];
            ids.push(ranks[&chunk[begin as usize..end as usize]]);
            begin = end;
        }
    }

    fn offer(&mut self, ranks: &Ranks, chunk: &[u8], limit: u32, begin: u32, end: u32) {
        if let Some(&rank) = ranks.get(&chunk[begin as usize..end as usize]) {
            if rank < limit {
                self.heap.push(Reverse((rank, begin, end)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoder(merges: &[&str]) -> Encoder {
        let bytes = (0..=255u8).map(|b| vec![b]);
        let tokens = bytes.chain(merges.iter().map(|m| m.as_bytes().to_vec()));
        let ranks = tokens.enumerate().map(|(i, t)| (t.into(), i as u32)).collect();
        Encoder::new(ranks, Splitter::new(r"\w+|\s").unwrap()).unwrap()
    }

    #[test]
    fn the_lowest_rank_merges_first_and_of_equals_the_leftmost() {
        let e = encoder(&["bc", "ab", "aa", "xyz"]);
        assert_eq!(e.encode("abcd").unwrap(), [97, 256, 100]);
        assert_eq!(e.encode("aaaaa").unwrap(), [258, 258, 97]);
        assert_eq!(e.encode("xyz").unwrap(), [259]);
        assert!(e.encode("").unwrap().is_empty());
    }

    #[test]
    fn a_batch_is_its_texts_one_by_one() {
        let e = encoder(&["th", "the", "he"]);
        let texts: Vec<String> = (0..100).map(|i| "the theme ".repeat(i)).collect();
        let alone: Vec<_> = texts.iter().map(|t| e.encode(t).unwrap()).collect();
        assert_eq!(e.encode_batch(&texts, 3).unwrap(), alone);
        assert_eq!(e.encode_batch(&texts, 1000).unwrap(), alone);
        assert!(e.encode_batch::<String>(&[], 8).unwrap().is_empty());
    }

    #[test]
    fn halves_are_what_training_merged() {
        let e = encoder(&["ab", "cd", "abcd"]);
        assert_eq!(e.halves(b"abcd"), Some((256, 257)));
        assert_eq!(e.halves(b"a"), None);
        assert_eq!(e.halves(b"zz"), None);
    }

    #[test]
    fn a_megabyte_of_one_letter_takes_no_square() {
        let e = encoder(&["aa", "aaaa"]);
        assert_eq!(e.encode(&"a".repeat(1 << 20)).unwrap().len(), 1 << 18);
    }

    #[test]
    fn a_vocabulary_must_hold_every_byte() {
        let splitter = Splitter::new(".").unwrap();
        assert!(Encoder::new(Ranks::default(), splitter).is_err());
    }
}
