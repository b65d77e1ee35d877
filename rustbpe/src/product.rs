//! x W for a few rows x and weights W, in float32 or int8 with a factor for each output.
//!
//! Decoding reads W once a step and hardly computes with it. So W lies in the order in which it is
//! read, and int8 is widened where it is used. An output is one sum over its inputs in their order:
//! it does not depend on how many other rows there are, nor on the threads.

use std::ops::Range;

use crate::lanes::{self, Lanes, WIDTH};
use crate::vectorised;
use crate::xla::{CallFrame, Element, Shared};

/// Outputs that lie side by side: W is [O / BLOCK, I, BLOCK], filled up with zeros.
const BLOCK: usize = 2 * WIDTH;
/// Rows of x whose sums, with those of a block, fill AVX's registers.
const MOST: usize = 6;
/// Rows of x that stay in a cache while blocks pass by.
const ROWS: usize = 10 * MOST;
const GROUP: usize = 4; // blocks: a single row has sums enough for the processor with so many
const SMALL: usize = 1 << 16; // products of numbers below which waking a thread costs more

/// The weights' type.
pub trait Weight: Element {
    /// The eight weights at `place`.
    unsafe fn load(place: *const Self) -> Lanes;
}

impl Weight for f32 {
    #[inline(always)]
    unsafe fn load(place: *const f32) -> Lanes {
        *place.cast()
    }
}

impl Weight for i8 {
    #[inline(always)]
    unsafe fn load(place: *const i8) -> Lanes {
        (*place.cast::<[i8; WIDTH]>()).map(|weight| weight as f32)
    }
}

#[derive(Clone, Copy)]
struct Product<W> {
    x: Shared<f32>,
    weights: Shared<W>,
    scale: Option<Shared<f32>>,
    y: Shared<f32>,
    rows: usize,
    outputs: usize,
    depth: usize,
}

/// y [N, O] = x [N, I] W; with a scale [O] W is int8.
pub fn product(frame: &CallFrame) -> Result<(), String> {
    match frame.argument::<f32>(1) {
        Ok((weights, dims)) => multiply(frame, weights, dims, None),
        Err(_) => {
            let (weights, dims) = frame.argument::<i8>(1)?;
            let (scale, outputs) = frame.argument(2)?;
            if frame.result::<f32>(0)?.1.get(1..) != Some(&outputs) {
                return Err(format!("factors {outputs:?}: expected one for each output"));
            }
            multiply(frame, weights, dims, Some(scale))
        }
    }
}

fn multiply<W: Weight>(
    frame: &CallFrame,
    weights: Shared<W>,
    dims: Vec<usize>,
    scale: Option<Shared<f32>>,
) -> Result<(), String> {
    let ((x, x_dims), (y, y_dims)) = (frame.argument(0)?, frame.result(0)?);
    let ([rows, depth], [_, outputs]) = (&x_dims[..], &y_dims[..]) else {
        return Err(format!("x {x_dims:?}, y {y_dims:?}: expected two axes"));
    };
    let (rows, depth, outputs) = (*rows, *depth, *outputs);
    if dims != [outputs.div_ceil(BLOCK), depth, BLOCK] || y_dims != [rows, outputs] {
        return Err(format!("x {x_dims:?} times {dims:?} is not {y_dims:?}"));
    }
    let product = Product { x, weights, scale, y, rows, outputs, depth };
    let parts: Vec<_> = (0..rows)
        .step_by(ROWS)
        .map(|first| unsafe { tiles(&product, first..rows.min(first + ROWS)) })
        .collect();
    let run = |groups: Range<usize>| unsafe { some_outputs(product, &parts, groups) };
    let groups = dims[0].div_ceil(GROUP);
    if rows * outputs * depth < SMALL {
        run(0..groups);
        Ok(())
    } else {
        frame.in_parallel(groups, run)
    }
}

vectorised! {
    fn some_outputs<W: Weight>(product: Product<W>, parts: &[Vec<Tile>], groups: Range<usize>)
        = groups_of;
}

#[inline(always)]
unsafe fn groups_of<W: Weight>(p: Product<W>, parts: &[Vec<Tile>], groups: Range<usize>) {
    let last = p.outputs.div_ceil(BLOCK).min(groups.end * GROUP);
    for tiles in parts {
        let mut block = groups.start * GROUP;
        while block < last {
            let whole = p.rows == 1 && block + GROUP <= last;
            for (i, tile) in tiles.iter().enumerate() {
                // The processor itself fetches what lies ahead, but not while the last tile
                // multiplies with the same block again.
                let ahead = if i > 0 && i + 1 == tiles.len() { p.depth * BLOCK } else { 0 };
                let (row, x) = (tile.row, (&tile.x[..], ahead));
                match tile.columns {
                    1 if whole => sums::<W, GROUP, 1>(&p, block, row, x),
                    1 => sums::<W, 1, 1>(&p, block, row, x),
                    2 => sums::<W, 1, 2>(&p, block, row, x),
                    3 => sums::<W, 1, 3>(&p, block, row, x),
                    4 => sums::<W, 1, 4>(&p, block, row, x),
                    5 => sums::<W, 1, 5>(&p, block, row, x),
                    _ => sums::<W, 1, MOST>(&p, block, row, x),
                }
            }
            block += if whole { GROUP } else { 1 };
        }
    }
}

/// Some rows, from `row` on, and their inputs [I, columns].
struct Tile {
    row: usize,
    columns: usize,
    x: Vec<f32>,
}

/// The rows in tiles as even as can be.
unsafe fn tiles<W: Weight>(p: &Product<W>, rows: Range<usize>) -> Vec<Tile> {
    let count = rows.len().div_ceil(MOST);
    let begin = |tile: usize| rows.start + tile * rows.len() / count;
    let tile = |tile: usize| {
        let (row, columns) = (begin(tile), begin(tile + 1) - begin(tile));
        let x = p.x.read(row * p.depth, columns * p.depth);
        let x = match columns {
            1 => x.to_vec(),
            2 => turned::<2>(x),
            3 => turned::<3>(x),
            4 => turned::<4>(x),
            5 => turned::<5>(x),
            _ => turned::<MOST>(x),
        };
        Tile { row, columns, x }
    };
    (0..count).map(tile).collect()
}

/// x [C, I] as [I, C].
fn turned<const C: usize>(x: &[f32]) -> Vec<f32> {
    let depth = x.len() / C;
    let rows: [&[f32]; C] = std::array::from_fn(|c| &x[c * depth..][..depth]);
    let mut out = vec![0.0; x.len()];
    for (i, out) in out.chunks_exact_mut(C).enumerate() {
        for c in 0..C {
            out[c] = rows[c][i];
        }
    }
    out
}

/// `B` blocks of outputs of `C` rows, whose inputs are x [I, C]; weights so far ahead are fetched.
#[inline(always)]
unsafe fn sums<W: Weight, const B: usize, const C: usize>(
    p: &Product<W>,
    block: usize,
    row: usize,
    (x, ahead): (&[f32], usize),
) {
    let size = p.depth * BLOCK;
    let weights = p.weights.read(block * size, B * size).as_ptr();
    let mut sums = [[[[0.0; WIDTH]; C]; 2]; B];
    for (i, x) in x.chunks_exact(C).enumerate() {
        for b in 0..B {
            let place = weights.add(b * size + i * BLOCK);
            fetch(place.wrapping_add(ahead));
            // Both halves before the rows: all that is needed at a time fits into registers.
            let halves = [W::load(place), W::load(place.add(WIDTH))];
            for c in 0..C {
                for half in 0..2 {
                    sums[b][half][c] = lanes::fold(sums[b][half][c], halves[half], [x[c]; WIDTH]);
                }
            }
        }
    }
    for (b, sums) in sums.iter().enumerate() {
        for (half, sums) in sums.iter().enumerate() {
            for (c, sums) in sums.iter().enumerate() {
                store(p, row + c, (block + b) * BLOCK + half * WIDTH, *sums);
            }
        }
    }
}

#[inline(always)]
unsafe fn fetch<T>(_place: *const T) {
    #[cfg(target_arch = "x86_64")]
    std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(_place.cast());
}

/// Writes those of eight outputs that there are.
#[inline(always)]
unsafe fn store<W>(p: &Product<W>, row: usize, first: usize, mut sums: Lanes) {
    let count = WIDTH.min(p.outputs.saturating_sub(first));
    if count == 0 {
        return;
    }
    if let Some(scale) = p.scale {
        for (sum, scale) in sums.iter_mut().zip(scale.read(first, count)) {
            *sum *= scale;
        }
    }
    p.y.write(row * p.outputs + first, count).copy_from_slice(&sums[..count]);
}
