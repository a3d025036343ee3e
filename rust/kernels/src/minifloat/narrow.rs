//! Numbers in the dtype in which they are given, widened only where a kernel needs them.

use super::{Bf16, F16, decode, decode_some};
use crate::error::expect_len;
use crate::{Machine, Path, Result};
use std::ops::Range;

/// Numbers that are widened at a time: they stay in the first cache until they are used. A multiple of every block.
const PIECE: usize = 2048;

/// An array of f32, or the bits of one of 16-bit floats.
#[derive(Debug, Clone, Copy)]
pub enum Narrow<'a> {
    /// The values.
    F32(&'a [f32]),
    /// Bits of IEEE binary16.
    F16(&'a [u16]),
    /// Bits of bfloat16.
    Bf16(&'a [u16]),
}

impl<'a> Narrow<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(bits) | Self::Bf16(bits) => bits.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them as f32, in `room` of the same length if they are not yet.
    ///
    /// Errors: `Shape` for another length.
    pub fn widen(self, m: &Machine, room: &'a mut [f32]) -> Result<&'a [f32]> {
        if let Self::F32(values) = self {
            return Ok(values);
        }
        self.write(m, room)?;
        Ok(room)
    }

    /// Writes all of them as f32. Errors: `Shape` for another length.
    pub fn write(self, m: &Machine, to: &mut [f32]) -> Result<()> {
        match self {
            Self::F32(values) => {
                expect_len("x", to.len(), values.len())?;
                to.copy_from_slice(values);
                Ok(())
            }
            Self::F16(bits) => decode::<F16>(m, bits, to),
            Self::Bf16(bits) => decode::<Bf16>(m, bits, to),
        }
    }

    /// Writes those of a range as f32, on the caller's thread.
    pub(crate) fn read(self, path: Path, range: Range<usize>, to: &mut [f32]) {
        match self {
            Self::F32(values) => to.copy_from_slice(&values[range]),
            Self::F16(bits) => decode_some::<F16>(path, &bits[range], to),
            Self::Bf16(bits) => decode_some::<Bf16>(path, &bits[range], to),
        }
    }

    /// Hands those of a range over as f32, in pieces of whole blocks, with the place of each in the range.
    pub(crate) fn pieces(self, path: Path, range: Range<usize>, mut work: impl FnMut(usize, &[f32])) {
        if let Self::F32(values) = self {
            return work(0, &values[range]);
        }
        let mut room = [0.0; PIECE];
        for start in range.clone().step_by(PIECE) {
            let end = range.end.min(start + PIECE);
            let piece = &mut room[..end - start];
            self.read(path, start..end, piece);
            work(start - range.start, piece);
        }
    }
}

impl<'a> From<&'a [f32]> for Narrow<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self::F32(values)
    }
}
