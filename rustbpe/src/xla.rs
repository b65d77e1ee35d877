//! What XLA hands a function of ours that runs inside a compiled program, and its threads.
//!
//! Layouts are those of `xla/ffi/api/c_api.h`, which jaxlib ships, versions 0.3 (jaxlib 0.10) to
//! 0.5 (0.12): later ones only added fields behind those that are named here.

use std::ffi::{c_char, c_void, CString};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

type Pointer = *mut c_void;
const MINORS: std::ops::RangeInclusive<i32> = 3..=5;
const METADATA: i32 = 1; // the kind of extension by which XLA asks for a function's version
const INVALID_ARGUMENT: i32 = 3;
const S8: i32 = 2;
const S32: i32 = 4;
const F32: i32 = 11;

#[repr(C)]
struct Extension {
    size: usize,
    kind: i32,
    next: *mut Extension,
    metadata: *mut Metadata,
}

#[repr(C)]
struct Version {
    size: usize,
    extension: Pointer,
    major: i32,
    minor: i32,
}

#[repr(C)]
struct Metadata {
    size: usize,
    version: Version,
    traits: u32,
}

/// The table of XLA's own functions, up to the last that is used here.
#[repr(C)]
struct Api {
    size: usize,
    extension: Pointer,
    version: Version,
    internal: Pointer,
    error_create: unsafe extern "C" fn(*mut ErrorCreate) -> Pointer,
    between: [Pointer; 10],
    schedule: unsafe extern "C" fn(*mut Schedule) -> Pointer,
    thread_count: unsafe extern "C" fn(*mut ThreadCount) -> Pointer,
}

#[repr(C)]
struct ErrorCreate {
    size: usize,
    extension: Pointer,
    message: *const c_char,
    code: i32,
}

#[repr(C)]
struct Schedule {
    size: usize,
    extension: Pointer,
    context: Pointer,
    task: unsafe extern "C" fn(Pointer),
    data: Pointer,
}

#[repr(C)]
struct ThreadCount {
    size: usize,
    extension: Pointer,
    context: Pointer,
    count: *mut i64,
}

/// Arguments or results.
#[repr(C)]
struct List {
    size: usize,
    extension: Pointer,
    count: i64,
    types: Pointer,
    items: *const *const Buffer,
}

#[repr(C)]
struct Attributes {
    size: usize,
    extension: Pointer,
    count: i64,
    types: Pointer,
    names: *const *const Name,
    items: *const *const Scalar,
}

#[repr(C)]
struct Name {
    start: *const u8,
    length: usize,
}

#[repr(C)]
struct Scalar {
    dtype: i32,
    value: *const c_void,
}

#[repr(C)]
pub struct Buffer {
    size: usize,
    extension: Pointer,
    dtype: i32,
    data: Pointer,
    rank: i64,
    dims: *const i64,
}

#[repr(C)]
pub struct CallFrame {
    size: usize,
    extension: *const Extension,
    api: *const Api,
    context: Pointer,
    stage: i32,
    arguments: List,
    results: List,
    attributes: Attributes,
}

/// An element type that a buffer may have.
pub trait Element: Copy {
    const DTYPE: i32;
}

impl Element for i8 {
    const DTYPE: i32 = S8;
}
impl Element for i32 {
    const DTYPE: i32 = S32;
}
impl Element for f32 {
    const DTYPE: i32 = F32;
}

impl Buffer {
    pub fn dims(&self) -> Vec<usize> {
        (0..self.rank as usize).map(|i| unsafe { *self.dims.add(i) } as usize).collect()
    }

    /// The elements; None if they are of another type.
    pub fn get<T: Element>(&self) -> Option<Shared<T>> {
        let count = self.dims().iter().product();
        (self.dtype == T::DTYPE).then_some(Shared { start: self.data.cast(), count })
    }
}

/// Elements that several threads write, each its own.
#[derive(Clone, Copy)]
pub struct Shared<T> {
    start: *mut T,
    count: usize,
}

unsafe impl<T> Send for Shared<T> {}
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// # Safety
    /// Nobody writes these elements in the meantime.
    pub unsafe fn read<'a>(self, first: usize, count: usize) -> &'a [T] {
        assert!(first + count <= self.count);
        std::slice::from_raw_parts(self.start.add(first), count)
    }

    /// # Safety
    /// Nobody else reads or writes these elements in the meantime.
    pub unsafe fn write<'a>(self, first: usize, count: usize) -> &'a mut [T] {
        assert!(first + count <= self.count);
        std::slice::from_raw_parts_mut(self.start.add(first), count)
    }
}

impl CallFrame {
    pub fn argument<T: Element>(&self, i: usize) -> Result<(Shared<T>, Vec<usize>), String> {
        unsafe { item(&self.arguments, i) }
            .ok_or(format!("argument {i}: missing, or of another type"))
    }

    pub fn result<T: Element>(&self, i: usize) -> Result<(Shared<T>, Vec<usize>), String> {
        unsafe { item(&self.results, i) }.ok_or(format!("result {i}: missing, or of another type"))
    }

    pub fn attribute<T: Element>(&self, wanted: &str) -> Result<T, String> {
        let all = &self.attributes;
        for i in 0..all.count as usize {
            let (name, scalar) = unsafe { (&**all.names.add(i), &**all.items.add(i)) };
            let name = unsafe { std::slice::from_raw_parts(name.start, name.length) };
            if name == wanted.as_bytes() && scalar.dtype == T::DTYPE {
                return Ok(unsafe { *scalar.value.cast() });
            }
        }
        Err(format!("attribute {wanted}: missing, or of another type"))
    }

    /// Calls `work` with every number below `count`, in pieces, by XLA's threads and this one. An
    /// error is a panic in a piece; it is told once no thread works any more.
    pub fn in_parallel(
        &self,
        count: usize,
        work: impl Fn(std::ops::Range<usize>) + Sync,
    ) -> Result<(), String> {
        let threads = self.thread_count().min(count);
        if threads < 2 {
            work(0..count);
            return Ok(());
        }
        // Several pieces a thread: one that is held up leaves more to the others.
        let piece = count.div_ceil(threads * PIECES);
        let work: &(dyn Fn(std::ops::Range<usize>) + Sync) = &work;
        // The lifetime is hidden: a task that starts after this function returned finds no piece
        // left and does not call `work`.
        let work: &'static (dyn Fn(std::ops::Range<usize>) + Sync) =
            unsafe { std::mem::transmute(work) };
        let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let failed = AtomicBool::new(false);
        let shared = Arc::new(Pieces { work, count, piece, next, done, failed });
        for _ in 1..threads {
            self.schedule(Arc::clone(&shared));
        }
        shared.run();
        let mut turns = 0;
        while shared.done.load(Ordering::Acquire) < count {
            turns += 1;
            if turns < SPINS {
                std::hint::spin_loop()
            } else {
                std::thread::yield_now()
            }
        }
        match shared.failed.load(Ordering::Acquire) {
            true => Err("a thread of it panicked".into()),
            false => Ok(()),
        }
    }

    fn thread_count(&self) -> usize {
        let mut count = 0i64;
        let size = std::mem::size_of::<ThreadCount>();
        let mut asked = ThreadCount {
            size,
            extension: std::ptr::null_mut(),
            context: self.context,
            count: &mut count,
        };
        let error = unsafe { ((*self.api).thread_count)(&mut asked) };
        if error.is_null() {
            count.max(1) as usize
        } else {
            1
        }
    }

    fn schedule(&self, pieces: Arc<Pieces>) {
        let data = Arc::into_raw(pieces) as Pointer;
        let size = std::mem::size_of::<Schedule>();
        let mut asked = Schedule {
            size,
            extension: std::ptr::null_mut(),
            context: self.context,
            task: run,
            data,
        };
        // Refused: this thread does it all, and the pieces leak.
        unsafe { ((*self.api).schedule)(&mut asked) };
    }
}

unsafe fn item<T: Element>(list: &List, i: usize) -> Option<(Shared<T>, Vec<usize>)> {
    let there = i < list.count as usize;
    let buffer = there.then(|| &**list.items.add(i))?;
    Some((buffer.get()?, buffer.dims()))
}

const PIECES: usize = 8;
const SPINS: usize = 2000;

struct Pieces {
    work: &'static (dyn Fn(std::ops::Range<usize>) + Sync),
    count: usize,
    piece: usize,
    next: AtomicUsize,
    done: AtomicUsize,
    failed: AtomicBool,
}

impl Pieces {
    fn run(&self) {
        loop {
            let first = self.next.fetch_add(self.piece, Ordering::Relaxed);
            if first >= self.count {
                return;
            }
            let behind = self.count.min(first + self.piece);
            // A panic must neither leave this frame while others work, nor reach XLA's thread.
            if catch_unwind(AssertUnwindSafe(|| (self.work)(first..behind))).is_err() {
                self.failed.store(true, Ordering::Relaxed);
            }
            self.done.fetch_add(behind - first, Ordering::Release);
        }
    }
}

unsafe extern "C" fn run(data: Pointer) {
    Arc::from_raw(data as *const Pieces).run();
}

/// Runs `work`, or tells XLA the version when that is what it asks; an error's text becomes XLA's.
///
/// # Safety
/// `frame` is what XLA handed over.
pub unsafe fn handle(frame: *mut CallFrame, work: fn(&CallFrame) -> Result<(), String>) -> Pointer {
    let frame = &*frame;
    if let Some(extension) = frame.extension.as_ref().filter(|found| found.kind == METADATA) {
        let metadata = &mut *extension.metadata;
        let (major, minor) = ((*frame.api).version.major, (*frame.api).version.minor);
        // XLA refuses versions outside of its range: so it does where nobody tried its layouts.
        let known = major == 0 && MINORS.contains(&minor);
        (metadata.version.major, metadata.version.minor) =
            if known { (0, minor) } else { (-1, -1) };
        metadata.traits = 0;
        return std::ptr::null_mut();
    }
    let found = catch_unwind(|| work(frame));
    let Err(why) = found.unwrap_or(Err("it panicked".into())) else { return std::ptr::null_mut() };
    let message = CString::new(why).unwrap_or_default();
    let size = std::mem::size_of::<ErrorCreate>();
    let (extension, code) = (std::ptr::null_mut(), INVALID_ARGUMENT);
    let mut asked = ErrorCreate { size, extension, message: message.as_ptr(), code };
    ((*frame.api).error_create)(&mut asked)
}
