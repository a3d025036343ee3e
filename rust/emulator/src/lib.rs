//! AVX-512 and AMX on a processor that has neither, so that tests can run every body of a kernel: slow, and for tests alone.
//!
//! After [`install`], an instruction that the processor refuses raises SIGILL, whose handler decodes it, carries it out on the
//! saved registers and goes on behind it. What the processor has no room for is kept for each thread: the upper halves of
//! zmm0 to zmm15, zmm16 to zmm31, the mask registers and the tiles.
//!
//! Instructions that the processor does have clear the upper half of the register they write, if they are of AVX, and
//! compilers count on it (`vpxor xmm0, xmm0, xmm0` makes all of zmm0 zero). So as long as an upper half is not zero, the thread goes
//! on in single steps, and the handler of SIGTRAP sees each instruction before it runs; the plainest ones of loops it carries out
//! itself (`general.rs`), as a trap takes far longer. Hence:
//!
//! - Only what kernels needed so far is known: `vectors.rs`, `masks.rs` and `tiles.rs`. Anything else ends the process and names
//!   the instruction; it is then a line to add, and one in `tests.rs`.
//! - Rounding is to nearest even, and MXCSR is neither read nor written. What a NaN carries may differ.
//! - Nothing is known of an instruction's time.
//! - Debuggers that step, and valgrind, use the same signals: there `SUBBYTE_EMULATOR=off` makes [`install`] decline.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod general;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod masks;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod registers;
#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
mod tests;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod tiles;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod traps;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod vectors;

/// From now on every thread of this process has the AVX-512 and AMX instructions that kernels use: the processor's own where it
/// has them. False, and nothing changed, where that cannot be: on anything but Linux on x86-64 with AVX2, beside an AVX-512
/// without the parts that kernels use, and with `SUBBYTE_EMULATOR=off`.
pub fn install() -> bool {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    return traps::install();
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    return false;
}
