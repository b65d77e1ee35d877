//! Byte-pair encoding, trained: counted chunks in, merges out. No Python here.
//!
//! The result is the textbook procedure's, exactly: again and again the pair with the highest
//! count becomes a new id; of equal counts the smallest (left, right) wins; occurrences are
//! replaced left to right. Only the work is arranged otherwise: a merge visits the chunks that
//! hold its pair and no others, and a heap with late corrections finds the next pair.

use std::cmp::Reverse;
use std::collections::{hash_map::Entry, BinaryHeap};
use std::time::{Duration, Instant};

use rayon::prelude::*;
use rustc_hash::FxHashMap;

use crate::split::Splitter;

pub type Pair = (u32, u32);
pub type Counts = FxHashMap<Box<str>, u64>;

/// How often each chunk occurs in `texts`, split and counted on all cores.
pub fn count<T: AsRef<str> + Sync>(splitter: &Splitter, texts: &[T]) -> Result<Counts, String> {
    let per_task = texts.len().div_ceil(8 * rayon::current_num_threads()).max(1);
    texts
        .par_chunks(per_task)
        // A regex shared between threads is a lock shared between threads.
        .map_init(|| splitter.clone(), |splitter, texts| count_serially(splitter, texts))
        .try_reduce(Counts::default, |a, b| Ok(merged(a, b)))
}

fn count_serially<T: AsRef<str>>(splitter: &Splitter, texts: &[T]) -> Result<Counts, String> {
    let mut seen: FxHashMap<&str, u64> = FxHashMap::default();
    for text in texts {
        splitter.for_each(text.as_ref(), |chunk| *seen.entry(chunk).or_default() += 1)?;
    }
    Ok(seen.into_iter().map(|(chunk, n)| (chunk.into(), n)).collect())
}

/// The sum of both; the smaller is poured into the larger.
pub fn merged(a: Counts, b: Counts) -> Counts {
    let (mut large, small) = if a.len() < b.len() { (b, a) } else { (a, b) };
    for (chunk, n) in small {
        *large.entry(chunk).or_default() += n;
    }
    large
}

/// All chunks as ids, end to end in one allocation. A merge only shortens a chunk in its place.
struct Chunks {
    ids: Vec<u32>,
    spans: Vec<(usize, u32)>,
    counts: Vec<i64>,
}

impl Chunks {
    fn new(counts: Counts) -> Self {
        let bytes = counts.keys().map(|c| c.len()).sum();
        let mut chunks = Chunks { ids: Vec::with_capacity(bytes), spans: vec![], counts: vec![] };
        // A chunk of one byte has no pair.
        for (chunk, n) in counts.into_iter().filter(|(chunk, _)| chunk.len() > 1) {
            chunks.spans.push((chunks.ids.len(), chunk.len() as u32));
            chunks.ids.extend(chunk.bytes().map(u32::from));
            chunks.counts.push(n as i64);
        }
        chunks
    }

    fn get(&mut self, i: u32) -> &mut [u32] {
        let (start, len) = self.spans[i as usize];
        &mut self.ids[start..start + len as usize]
    }

    /// Replaces `pair` by `id` in chunk `i`; `change` hears of each neighbour gained or lost.
    fn replace(&mut self, i: u32, pair: Pair, id: u32, mut change: impl FnMut(Pair, i64)) {
        let ids = self.get(i);
        let (mut read, mut write) = (0, 0);
        while read < ids.len() {
            if read + 1 < ids.len() && (ids[read], ids[read + 1]) == pair {
                if write > 0 {
                    change((ids[write - 1], pair.0), -1);
                    change((ids[write - 1], id), 1);
                }
                change(pair, -1);
                if read + 2 < ids.len() {
                    change((pair.1, ids[read + 2]), -1);
                    change((id, ids[read + 2]), 1);
                }
                ids[write] = id;
                read += 2;
            } else {
                ids[write] = ids[read];
                read += 1;
            }
            write += 1;
        }
        self.spans[i as usize].1 = write as u32;
    }
}

/// Where a pair occurs, and how often in all.
#[derive(Default)]
struct Occurrences {
    count: i64,
    chunks: Vec<u32>,
}

impl Occurrences {
    fn add(&mut self, chunk: u32, count: i64) {
        self.count += count;
        if self.chunks.last() != Some(&chunk) {
            self.chunks.push(chunk);
        }
    }
}

/// Training in progress: `advance` works for a while, so that a caller may look up in between.
pub struct Trainer {
    chunks: Chunks,
    pairs: FxHashMap<Pair, Occurrences>,
    /// Highest count on top, then smallest pair. A count in here may be too high, never too low:
    /// later merges only take occurrences away from a pair that exists.
    heap: BinaryHeap<(i64, Reverse<Pair>)>,
    merges: Vec<Pair>,
    wanted: usize,
}

impl Trainer {
    /// Prepares to learn `vocab_size - 256` merges.
    pub fn new(counts: Counts, vocab_size: u32) -> Self {
        let mut chunks = Chunks::new(counts);
        let mut pairs: FxHashMap<Pair, Occurrences> = FxHashMap::default();
        for i in 0..chunks.spans.len() as u32 {
            let count = chunks.counts[i as usize];
            for two in chunks.get(i).windows(2) {
                pairs.entry((two[0], two[1])).or_default().add(i, count);
            }
        }
        let heap = pairs.iter().map(|(&pair, o)| (o.count, Reverse(pair))).collect();
        let wanted = vocab_size.saturating_sub(256) as usize;
        Trainer { chunks, pairs, heap, merges: vec![], wanted }
    }

    /// Learns merges for about `time`, one at least; true while there is more to do.
    pub fn advance(&mut self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while self.merges.len() < self.wanted {
            match self.next_pair() {
                Some(pair) => self.merge(pair),
                None => return false,
            }
            if Instant::now() >= end {
                return true;
            }
        }
        false
    }

    /// (left, right) of each new id from 256 on; fewer than wanted when the text ran out of pairs.
    pub fn merges(self) -> Vec<Pair> {
        self.merges
    }

    fn next_pair(&mut self) -> Option<Pair> {
        while let Some((count, Reverse(pair))) = self.heap.pop() {
            let now = self.pairs.get(&pair).map_or(0, |o| o.count);
            if now == count && now > 0 {
                return Some(pair);
            }
            if now > 0 {
                self.heap.push((now, Reverse(pair)));
            } else {
                self.pairs.remove(&pair);
            }
        }
        None
    }

    fn merge(&mut self, pair: Pair) {
        let id = 256 + self.merges.len() as u32;
        self.merges.push(pair);
        let holders = self.pairs.remove(&pair).unwrap_or_default().chunks;
        let mut gained: FxHashMap<Pair, Occurrences> = FxHashMap::default();
        let pairs = &mut self.pairs;
        for i in holders {
            let n = self.chunks.counts[i as usize];
            self.chunks.replace(i, pair, id, |changed, sign| {
                if changed.0 == id || changed.1 == id {
                    gained.entry(changed).or_default().add(i, sign * n);
                } else if let Entry::Occupied(mut known) = pairs.entry(changed) {
                    known.get_mut().count += sign * n;
                }
            });
        }
        for (pair, occurrences) in gained {
            if occurrences.count > 0 {
                self.heap.push((occurrences.count, Reverse(pair)));
                self.pairs.insert(pair, occurrences);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn train(words: &[(&str, u64)], vocab_size: u32) -> Vec<Pair> {
        let counts = words.iter().map(|&(w, n)| (w.into(), n)).collect();
        let mut trainer = Trainer::new(counts, vocab_size);
        while trainer.advance(Duration::ZERO) {}
        trainer.merges()
    }

    #[test]
    fn equal_counts_go_to_the_smaller_pair() {
        assert_eq!(
            train(&[("ba", 3), ("ab", 3), ("zz", 4)], 259),
            [(122, 122), (97, 98), (98, 97)]
        );
    }

    #[test]
    fn a_run_of_equal_bytes_counts_overlaps_and_merges_left_to_right() {
        assert_eq!(train(&[("aaaaa", 1)], 300), [(97, 97), (256, 97), (256, 257)]);
    }

    #[test]
    fn training_stops_where_no_pair_is_left() {
        assert_eq!(train(&[("ab", 1)], 1000), [(97, 98)]);
        assert_eq!(train(&[("a", 9)], 1000), []);
        assert_eq!(train(&[], 1000), []);
        assert_eq!(train(&[("ab", 1)], 256), []);
    }

    #[test]
    fn counts_add_up_over_texts_and_cores() {
        let splitter = Splitter::new(r"\w+").unwrap();
        let texts: Vec<String> = (0..1000).map(|i| format!("same {i}")).collect();
        let counts = count(&splitter, &texts).unwrap();
        assert_eq!(counts["same"], 1000);
        assert_eq!(counts.len(), 1001);
    }
}
