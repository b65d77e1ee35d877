//! Attention of one new token a row, from the projections to the output, in float32.
//!
//! What XLA does in two dozen steps a layer, among them a copy of the cache turned for its products,
//! is one here, over the tokens that a row has. `nanochat_jax/models/attention.py` says what is
//! computed. Letters: B rows, M heads as projected (N queries, K keys, K values), S cached tokens,
//! H head width, h half of it.

use std::ops::Range;

use crate::lanes::{self, Lanes, WIDTH};
use crate::vectorised;
use crate::xla::{CallFrame, Shared};

const SMALL: usize = 1 << 15; // numbers of keys below which waking a thread costs more
const TOGETHER: usize = 4; // keys or values whose sums run side by side

#[derive(Clone, Copy)]
struct Attention {
    heads: Shared<f32>,
    new_values: Shared<f32>,
    tables: [Shared<f32>; 2],
    lengths: Shared<i32>,
    keys: Shared<f32>,
    values: Shared<f32>,
    out: Shared<f32>,
    sizes: Sizes,
    window: usize,
    eps: f32,
    qk_scale: f32,
}

#[derive(Clone, Copy)]
struct Sizes {
    m: usize,
    k: usize,
    s: usize,
    h: usize,
    values_of: usize, // heads a row of `new_values`, and the first of them that counts
    first_value: usize,
}

/// Arguments: heads [B, M, H], new values [B, any, H], cos and sin [B, h], lengths [B], keys and
/// values [B, S, K, H]. Results: output [B, N, H]; keys and values, which are the arguments' memory.
pub fn attend(frame: &CallFrame) -> Result<(), String> {
    let (heads, dims) = frame.argument(0)?;
    let (new_values, value_dims) = frame.argument(1)?;
    let ((cos, cos_dims), (sin, sin_dims)) = (frame.argument(2)?, frame.argument(3)?);
    let (lengths, lengths_dims) = frame.argument(4)?;
    let (keys, cache_dims) = frame.result(1)?;
    let (values, values_dims) = frame.result(2)?;
    let (out, out_dims) = frame.result(0)?;
    let ([b, m, h], [_, values_of, _], [_, s, k, _]) =
        (&dims[..], &value_dims[..], &cache_dims[..])
    else {
        return Err(format!("heads {dims:?}, values {value_dims:?}, cache {cache_dims:?}"));
    };
    if h % (2 * WIDTH) > 0 {
        return Err(format!("heads of {h}: no multiple of 16"));
    }
    let first_value = frame.attribute::<i32>("first_value")? as usize;
    let fits = *m > 2 * k
        && (m - 2 * k) % k == 0
        && cache_dims == [*b, *s, *k, *h]
        && values_dims == cache_dims
        && value_dims == [*b, *values_of, *h]
        && first_value.saturating_add(*k) <= *values_of
        && cos_dims == [*b, h / 2]
        && sin_dims == cos_dims
        && lengths_dims == [*b]
        && out_dims == [*b, m - 2 * k, *h];
    if !fits {
        return Err(format!(
            "heads {dims:?}, values {value_dims:?} from {first_value}, tables {cos_dims:?} and \
             {sin_dims:?}, lengths {lengths_dims:?}, cache {cache_dims:?} and {values_dims:?}, \
             output {out_dims:?} do not fit"
        ));
    }
    let window = frame.attribute::<i32>("window")?;
    let window = if window < 0 { usize::MAX } else { window as usize };
    let (eps, qk_scale) = (frame.attribute("eps")?, frame.attribute("qk_scale")?);
    let sizes = Sizes { m: *m, k: *k, s: *s, h: *h, values_of: *values_of, first_value };
    let all = Attention {
        heads,
        new_values,
        tables: [cos, sin],
        lengths,
        keys,
        values,
        out,
        sizes,
        window,
        eps,
        qk_scale,
    };
    let seen: usize = unsafe { lengths.read(0, *b) }.iter().map(|&n| window.min(n as usize)).sum();
    let run = |pairs: Range<usize>| unsafe { some_heads(all, pairs) };
    if (seen + b) * k * h < SMALL {
        run(0..b * k);
        Ok(())
    } else {
        frame.in_parallel(b * k, run)
    }
}

vectorised! { fn some_heads(all: Attention, pairs: Range<usize>) = heads_of; }

#[inline(always)]
unsafe fn heads_of(all: Attention, pairs: Range<usize>) {
    let k = all.sizes.k;
    let (mut query, mut scores) = (vec![0.0; all.sizes.h], Vec::with_capacity(all.sizes.s));
    for pair in pairs {
        one_head(&all, pair / k, pair % k, &mut query, &mut scores);
    }
}

/// One row, one kv head: its new key and value are written, then its queries attend.
#[inline(always)]
unsafe fn one_head(
    all: &Attention,
    row: usize,
    head: usize,
    query: &mut [f32],
    scores: &mut Vec<f32>,
) {
    let Sizes { m, k, s, h, values_of, first_value } = all.sizes;
    let (queries, length) = (m - 2 * k, all.lengths.read(row, 1)[0] as usize);
    let at = |position: usize| ((row * s + position) * k + head) * h;
    // A row without room must not write over its own last key.
    if length < s {
        rotated(all, row, queries + head, all.keys.write(at(length), h));
        let value = all.new_values.read((row * values_of + first_value + head) * h, h);
        all.values.write(at(length), h).copy_from_slice(value);
    }
    let seen = length.saturating_sub(all.window)..s.min(length + 1);
    let group = queries / k;
    for n in head * group..(head + 1) * group {
        rotated(all, row, n, query);
        score(query, all.keys, seen.clone().map(at), scores);
        let total = softmax(scores);
        let out = all.out.write((row * queries + n) * h, h);
        weigh(scores, all.values, seen.clone().map(at), out);
        for x in out.iter_mut() {
            *x /= total;
        }
    }
}

/// A query or key turned by its position and normed to a root mean square of `qk_scale`.
#[inline(always)]
unsafe fn rotated(all: &Attention, row: usize, head: usize, out: &mut [f32]) {
    let Sizes { m, h, .. } = all.sizes;
    let half = h / 2;
    let (a, b) = all.heads.read((row * m + head) * h, h).split_at(half);
    let [cos, sin] = all.tables.map(|table| table.read(row * half, half));
    let (left, right) = out.split_at_mut(half);
    let mut squares = [0.0; WIDTH];
    for i in (0..half).step_by(WIDTH) {
        for l in i..i + WIDTH {
            left[l] = a[l] * cos[l] + b[l] * sin[l];
            right[l] = b[l] * cos[l] - a[l] * sin[l];
        }
        for part in [&left[i..], &right[i..]].map(lanes::load) {
            squares = lanes::fold(squares, part, part);
        }
    }
    let scale = all.qk_scale / (lanes::sum(squares) / h as f32 + all.eps).sqrt();
    for x in out {
        *x *= scale;
    }
}

/// query . key / sqrt(H) of every key.
#[inline(always)]
unsafe fn score(
    query: &[f32],
    keys: Shared<f32>,
    mut places: impl ExactSizeIterator<Item = usize>,
    scores: &mut Vec<f32>,
) {
    let h = query.len();
    let scale = 1.0 / (h as f32).sqrt();
    scores.clear();
    while places.len() > 0 {
        // Eight keys at a time: their sums are added up together.
        let count = WIDTH.min(places.len());
        let mut sums = [[0.0; WIDTH]; WIDTH];
        for (sum, place) in sums.iter_mut().zip(&mut places) {
            let key = keys.read(place, h);
            let mut halves = [[0.0; WIDTH]; 2];
            for i in (0..h).step_by(2 * WIDTH) {
                for (part, half) in halves.iter_mut().enumerate() {
                    let at = i + part * WIDTH;
                    *half = lanes::fold(*half, lanes::load(&query[at..]), lanes::load(&key[at..]));
                }
            }
            *sum = lanes::add(halves[0], halves[1]);
        }
        scores.extend(lanes::sums(sums).iter().take(count).map(|sum| sum * scale));
    }
}

/// Scores to e^(score - highest); their sum.
#[inline(always)]
fn softmax(scores: &mut [f32]) -> f32 {
    let highest = scores.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let mut total = [0.0; WIDTH];
    for chunk in scores.chunks_mut(WIDTH) {
        let mut x: Lanes = [f32::NEG_INFINITY; WIDTH];
        x[..chunk.len()].copy_from_slice(chunk);
        let mut x = lanes::exp(x.map(|score| score - highest));
        x[chunk.len()..].fill(0.0);
        for (sum, x) in total.iter_mut().zip(x) {
            *sum += x;
        }
        chunk.copy_from_slice(&x[..chunk.len()]);
    }
    lanes::sum(total)
}

/// The sum of the values, each times its weight.
#[inline(always)]
unsafe fn weigh(
    weights: &[f32],
    values: Shared<f32>,
    places: impl ExactSizeIterator<Item = usize> + Clone,
    out: &mut [f32],
) {
    let h = out.len();
    out.fill(0.0);
    let mut places = places;
    for weights in weights.chunks(TOGETHER) {
        let mut some = [&[][..]; TOGETHER];
        for (value, place) in some.iter_mut().zip(&mut places) {
            *value = values.read(place, h);
        }
        for i in (0..h).step_by(WIDTH) {
            let mut sum = lanes::load(&out[i..]);
            for (weight, value) in weights.iter().zip(some) {
                sum = lanes::fold(sum, [*weight; WIDTH], lanes::load(&value[i..]));
            }
            out[i..i + WIDTH].copy_from_slice(&sum);
        }
    }
}
