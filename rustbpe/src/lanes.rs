//! Eight float32 side by side: plain arrays, which the compiler turns into vector instructions.
//!
//! `vectorised!` compiles a function a second time for AVX2 and FMA, where the machine has them.

pub const WIDTH: usize = 8;
pub type Lanes = [f32; WIDTH];

/// Whether this machine computes as `vectorised!` promises: 64-bit ARM always does.
pub fn fast() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    return cfg!(target_arch = "aarch64");
}

/// `fn name(arguments) = body;`: a function that calls the inlined `body` with AVX2 and FMA on.
#[macro_export]
macro_rules! vectorised {
    (fn $name:ident $(<$type:ident: $bound:path>)? ($($argument:ident: $kind:ty),* $(,)?)
        = $body:path;) => {
        /// # Safety
        /// `lanes::fast()`.
        #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
        unsafe fn $name $(<$type: $bound>)? ($($argument: $kind),*) {
            $body($($argument),*)
        }
    };
}

#[inline(always)]
pub fn load(x: &[f32]) -> Lanes {
    let mut out = [0.0; WIDTH];
    out.copy_from_slice(&x[..WIDTH]);
    out
}

/// a + x y, rounded once.
#[inline(always)]
pub fn fold(a: Lanes, x: Lanes, y: Lanes) -> Lanes {
    let mut out = a;
    for i in 0..WIDTH {
        out[i] = x[i].mul_add(y[i], a[i]);
    }
    out
}

#[inline(always)]
pub fn add(x: Lanes, y: Lanes) -> Lanes {
    std::array::from_fn(|i| x[i] + y[i])
}

/// The sum of all eight, always in the same order.
#[inline(always)]
pub fn sum(x: Lanes) -> f32 {
    let [a, b, c, d] = [x[0] + x[4], x[1] + x[5], x[2] + x[6], x[3] + x[7]];
    (a + c) + (b + d)
}

/// `sum` of eight at once.
#[inline(always)]
pub fn sums(x: [Lanes; WIDTH]) -> Lanes {
    let mut turned = [[0.0; WIDTH]; WIDTH];
    for (i, x) in x.iter().enumerate() {
        for (turned, x) in turned.iter_mut().zip(x) {
            turned[i] = *x;
        }
    }
    let t = turned;
    let [a, b, c, d] = [add(t[0], t[4]), add(t[1], t[5]), add(t[2], t[6]), add(t[3], t[7])];
    add(add(a, c), add(b, d))
}

/// e^x for x <= 0, within 2e-7 of it; below -87 it is (nearly) 0.
///
/// 2^n times the Taylor series of what is left, at most ln(2) / 2.
#[inline(always)]
pub fn exp(x: Lanes) -> Lanes {
    const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4]; // in two parts: n times the first is exact
    let mut out = x;
    for x in &mut out {
        let bounded = if *x > -87.0 { *x } else { -87.0 };
        let n = (bounded * std::f32::consts::LOG2_E).round_ties_even();
        let r = (-n).mul_add(LN2[1], (-n).mul_add(LN2[0], bounded));
        let mut y = 1.0 / 5040.0;
        for term in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            y = r.mul_add(y, term);
        }
        // A saturating cast would not be a vector instruction; n is in -126 to 0.
        let n: i32 = unsafe { n.to_int_unchecked() };
        *x = y * f32::from_bits(((n + 127) << 23) as u32);
    }
    out
}
