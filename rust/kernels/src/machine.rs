//! Which instructions a kernel may use, and on how many threads: detected or forced, always an argument.

use std::ops::Range;

/// A level of instructions. Each includes those before it; a kernel without a body for one uses the next lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// Portable Rust; what every other path is held against.
    Scalar,
    /// AVX2, FMA and F16C: every x86-64 server and desktop since 2013 (Intel) and 2015 (AMD).
    Avx2,
    /// AVX-512 F, BW, DQ, VL and VNNI: Ice Lake, Zen 4 and later.
    Avx512,
    /// AMX for bytes and bf16, on Linux: Sapphire Rapids and later. Not timed on such a processor so far.
    Amx,
}

impl Path {
    /// All levels, lowest first.
    pub const ALL: [Self; 4] = [Self::Scalar, Self::Avx2, Self::Avx512, Self::Amx];

    /// The name used in `SUBBYTE_SIMD` and `kernels.forced`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
        }
    }

    /// The level of that name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|path| path.name() == name)
    }

    /// Whether it can run here: this processor has it or, in the tests of this crate, an emulator stands in.
    pub fn available(self) -> bool {
        #[cfg(test)]
        return self.detected() || subbyte_emulator::install();
        #[cfg(not(test))]
        return self.detected();
    }

    /// Whether this processor has it.
    fn detected(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return match self {
            Self::Scalar => true,
            Self::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            Self::Avx512 => {
                Self::Avx2.detected()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            Self::Amx => Self::Avx512.detected() && crate::simd::amx::lent(),
        };
        #[cfg(not(target_arch = "x86_64"))]
        return matches!(self, Self::Scalar);
    }
}

/// What a kernel runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    path: Path,
    threads: usize,
}

impl Machine {
    /// The best path of this processor on all of its cores.
    pub fn detect() -> Self {
        let path = Path::ALL.into_iter().rev().find(|path| path.detected()).unwrap_or(Path::Scalar);
        Self { path, threads: std::thread::available_parallelism().map_or(1, usize::from) }
    }

    /// A path that this processor has, on `threads` threads (at least one); `None` where it lacks the path.
    ///
    /// This is the only way to a path other than by detection, so holding a `Machine` proves that its instructions exist.
    pub fn forced(path: Path, threads: usize) -> Option<Self> {
        path.available().then_some(Self { path, threads: threads.max(1) })
    }

    /// The instructions to use.
    pub fn path(&self) -> Path {
        self.path
    }

    /// The threads to use.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Cuts `0..items` into at most `threads` contiguous ranges of at least `grain` items and runs `work` on each.
    ///
    /// The cut decides only who computes an item, never how: `work` must give the same result for any cut.
    pub fn split(&self, items: usize, grain: usize, work: impl Fn(Range<usize>) + Sync) {
        let parts = self.threads.min(items / grain.max(1)).max(1);
        if parts == 1 {
            return work(0..items);
        }
        let work = &work;
        rayon::in_place_scope(|scope| {
            for part in 1..parts {
                scope.spawn(move |_| work(items * part / parts..items * (part + 1) / parts));
            }
            // the caller would only wait
            work(0..items / parts);
        });
    }
}
