//! `nanochat_jax._rustbpe`: conversions between Python and the plain Rust beside this file.

pub mod bpe;
pub mod split;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyString;

use bpe::{Counts, Pair, Trainer};
use split::Splitter;

/// Texts are pulled until either is reached, then counted while Python is free to run.
const BUFFER_TEXTS: usize = 8192;
const BUFFER_BYTES: usize = 64 << 20;
/// Merges learnt between two looks at Python's signals.
const MERGES_PER_TURN: usize = 64;

/// train(texts: Iterable[str], vocab_size: int, pattern: str) -> list[tuple[int, int]]
///
/// The (left, right) ids of every new id from 256 on, at most `vocab_size - 256` of them; equal
/// counts go to the smaller pair. Raises ValueError if vocab_size < 256 or the pattern is not a
/// regular expression. Releases the GIL while it works; Ctrl-C interrupts it.
#[pyfunction]
fn train(
    py: Python<'_>,
    texts: &Bound<'_, PyAny>,
    vocab_size: u32,
    pattern: &str,
) -> PyResult<Vec<Pair>> {
    if vocab_size < 256 {
        return Err(PyValueError::new_err(format!(
            "vocab_size={vocab_size}, but the 256 bytes are always in; give 256 or more"
        )));
    }
    let splitter = splitter(pattern)?;
    let counts = count(py, texts, &splitter)?;
    let mut trainer = py.detach(|| Trainer::new(counts, vocab_size));
    while py.detach(|| trainer.advance(MERGES_PER_TURN)) {
        py.check_signals()?;
    }
    Ok(trainer.merges())
}

fn count(py: Python<'_>, texts: &Bound<'_, PyAny>, splitter: &Splitter) -> PyResult<Counts> {
    let mut total = Counts::default();
    let mut texts = texts.try_iter()?;
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

fn pull(texts: &mut Bound<'_, pyo3::types::PyIterator>) -> PyResult<Vec<String>> {
    let (mut buffer, mut bytes) = (vec![], 0);
    while buffer.len() < BUFFER_TEXTS && bytes < BUFFER_BYTES {
        let Some(item) = texts.next() else { break };
        let text = text_of(item?.downcast::<PyString>()?)?;
        bytes += text.len();
        buffer.push(text);
    }
    Ok(buffer)
}

/// The text as Rust holds it: half a surrogate pair, which UTF-8 has no bytes for, becomes U+FFFD.
fn text_of(text: &Bound<'_, PyString>) -> PyResult<String> {
    if let Ok(text) = text.to_cow() {
        return Ok(text.into_owned());
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
    m.add_function(wrap_pyfunction!(train, m)?)
}
