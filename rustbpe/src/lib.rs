//! `nanochat_jax._rustbpe`: conversions between Python and the plain Rust beside this file.

pub mod attend;
pub mod bpe;
pub mod encode;
pub mod lanes;
pub mod product;
pub mod split;
pub mod xla;

use std::collections::HashMap;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyIterator, PyString};

use bpe::{Counts, Pair, Trainer};
use split::Splitter;

/// Texts are pulled until either is reached, then counted while Python is free to run.
const BUFFER_TEXTS: usize = 8192;
const BUFFER_BYTES: usize = 64 << 20;
/// Work between two looks at Python's signals, so that Ctrl-C is heard.
const TURN: Duration = Duration::from_millis(100);
/// Bytes that are encoded before another thread would have got the GIL: with it in hand.
const SHORT: usize = 4096;

/// train(texts: Iterable[str], vocab_size: int, pattern: str) -> list[tuple[int, int]]
///
/// The (left, right) ids of every new id from 256 on, at most `vocab_size - 256` of them; equal
/// counts go to the smaller pair. Raises ValueError if vocab_size < 256, the pattern is not a
/// regular expression or a text not a str. Releases the GIL while it works; Ctrl-C interrupts it.
#[pyfunction]
fn train(
    py: Python<'_>,
    texts: &Bound<'_, PyAny>,
    vocab_size: u32,
    pattern: &str,
) -> PyResult<Vec<Pair>> {
    if vocab_size < 256 {
        let why = format!("vocab_size={vocab_size}: give 256 or more, one for every byte");
        return Err(PyValueError::new_err(why));
    }
    let splitter = splitter(pattern)?;
    let counts = count(py, texts, &splitter)?;
    let mut trainer = py.detach(|| Trainer::new(counts, vocab_size));
    while py.detach(|| trainer.advance(TURN)) {
        py.check_signals()?;
    }
    Ok(trainer.merges())
}

fn count(py: Python<'_>, texts: &Bound<'_, PyAny>, splitter: &Splitter) -> PyResult<Counts> {
    let mut total = Counts::default();
    let mut texts = texts.try_iter()?.enumerate();
    loop {
        let buffer = pull(&mut texts)?;
        if buffer.is_empty() {
            return Ok(total);
        }
        total = py
            .detach(|| bpe::count(splitter, &buffer).map(|counts| bpe::merged(total, counts)))
            .map_err(PyValueError::new_err)?;
        py.check_signals()?;
    }
}

fn pull(texts: &mut std::iter::Enumerate<Bound<'_, PyIterator>>) -> PyResult<Vec<PyBackedStr>> {
    let (mut buffer, mut bytes) = (vec![], 0);
    while buffer.len() < BUFFER_TEXTS && bytes < BUFFER_BYTES {
        let Some((i, item)) = texts.next() else { break };
        let text = text_of(&item?, i)?;
        bytes += text.len();
        buffer.push(text);
    }
    Ok(buffer)
}

/// Encoder(ranks: dict[bytes, int], pattern: str)
///
/// Text to ids as tiktoken's `encode_ordinary`: no special tokens, half a surrogate pair is U+FFFD.
/// Raises ValueError for a pattern that is no regular expression, and if a byte has no rank.
#[pyclass(frozen, module = "nanochat_jax._rustbpe")]
struct Encoder(encode::Encoder);

#[pymethods]
impl Encoder {
    #[new]
    fn new(ranks: HashMap<PyBackedBytes, u32>, pattern: &str) -> PyResult<Self> {
        let ranks = ranks.iter().map(|(token, &rank)| ((**token).into(), rank)).collect();
        let encoder = encode::Encoder::new(ranks, splitter(pattern)?);
        encoder.map(Encoder).map_err(PyValueError::new_err)
    }

    /// encode(text: str) -> list[int]
    fn encode(&self, py: Python<'_>, text: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
        let text = text_of(text, 0)?;
        let ids = || self.0.encode(&text);
        let ids = if text.len() <= SHORT { ids() } else { py.detach(ids) };
        ids.map_err(PyValueError::new_err)
    }

    /// encode_batch(texts: list[str], tasks: int) -> list[list[int]]
    ///
    /// The texts are encoded in at most `tasks` pieces side by side, long ones without the GIL.
    fn encode_batch(
        &self,
        py: Python<'_>,
        texts: Vec<Bound<'_, PyAny>>,
        tasks: usize,
    ) -> PyResult<Vec<Vec<u32>>> {
        let texts = texts.iter().enumerate().map(|(i, text)| text_of(text, i));
        let texts = texts.collect::<PyResult<Vec<_>>>()?;
        let short = tasks <= 1 && texts.iter().map(|text| text.len()).sum::<usize>() <= SHORT;
        let ids = || self.0.encode_batch(&texts, tasks);
        let ids = if short { ids() } else { py.detach(ids) };
        ids.map_err(PyValueError::new_err)
    }

    /// halves(token: bytes) -> tuple[int, int] | None
    ///
    /// The two tokens that merge into this one; None for a single byte, and for what two lesser
    /// tokens cannot make.
    fn halves(&self, token: &[u8]) -> Option<Pair> {
        self.0.halves(token)
    }
}

/// The text, without a copy. Half a surrogate pair has no bytes in UTF-8: it becomes U+FFFD.
fn text_of(item: &Bound<'_, PyAny>, i: usize) -> PyResult<PyBackedStr> {
    let Ok(text) = item.downcast::<PyString>() else {
        let found = item.get_type().name()?;
        return Err(PyValueError::new_err(format!("text {i} is {found}, expected str")));
    };
    if let Ok(text) = text.extract() {
        return Ok(text);
    }
    let utf16 = text.call_method1("encode", ("utf-16-le", "surrogatepass"))?;
    utf16.call_method1("decode", ("utf-16-le", "replace"))?.extract()
}

fn splitter(pattern: &str) -> PyResult<Splitter> {
    Splitter::new(pattern)
        .map_err(|e| PyValueError::new_err(format!("not a regular expression: {pattern}\n{e}")))
}

#[pymodule]
fn _rustbpe(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Encoder>()?;
    m.add_function(wrap_pyfunction!(train, m)?)
}

/// Whether `nanochat_attend` and `nanochat_product` may be called on this machine.
#[no_mangle]
pub extern "C" fn nanochat_fast() -> bool {
    lanes::fast()
}

/// `attend::attend` for XLA.
///
/// # Safety
/// `nanochat_fast()`, and XLA calls it.
#[no_mangle]
pub unsafe extern "C" fn nanochat_attend(frame: *mut xla::CallFrame) -> *mut std::ffi::c_void {
    xla::handle(frame, attend::attend)
}

/// `product::product` for XLA.
///
/// # Safety
/// `nanochat_fast()`, and XLA calls it.
#[no_mangle]
pub unsafe extern "C" fn nanochat_product(frame: *mut xla::CallFrame) -> *mut std::ffi::c_void {
    xla::handle(frame, product::product)
}
