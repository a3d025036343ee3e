//! Codewords that are stored, as VPTQ has them: what a code of both stages stands for.

use crate::error::expect_shape;
use crate::{Error, Result};

/// Stored codewords: the value of a code is `first[group, low bits]`, plus `second[group, high bits]`.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    /// Numbers of a codeword.
    pub dim: usize,
    /// Groups of neighbouring columns, each with codewords of its own; they divide the columns.
    pub groups: usize,
    /// `[groups, count, dim]`, `count` at least 1.
    pub first: &'a [f32],
    /// The same of the residual stage, of any count; empty: there is none.
    pub second: &'a [f32],
}

impl Table<'_> {
    /// Codewords of both stages in one group; 0: there is no such stage.
    pub fn counts(&self) -> [usize; 2] {
        [self.first, self.second].map(|stage| stage.len().checked_div(self.groups * self.dim).unwrap_or(0))
    }

    /// Bits of the codes of both stages.
    pub fn bits(&self) -> [u32; 2] {
        self.counts().map(|count| count.max(1).next_power_of_two().trailing_zeros())
    }

    /// [`Error::Range`] for no codewords, none with numbers, or codes of more than 32 bits, [`Error::Shape`] for groups that do
    /// not divide `cols` columns, and lengths.
    pub(crate) fn check(&self, cols: usize) -> Result<()> {
        if self.dim == 0 || self.first.is_empty() {
            return Err(Error::range("codebook", "no codewords, or none with numbers", "one or more of each"));
        }
        let [first, second] = self.counts();
        expect_shape("codebook", self.first.len(), &[self.groups, first, self.dim])?;
        expect_shape("residual", self.second.len(), &[self.groups, second, self.dim])?;
        if self.bits().iter().sum::<u32>() > 32 {
            return Err(Error::range("codebook", format!("codes of {:?} bits", self.bits()), "32 in all at most"));
        }
        if !cols.is_multiple_of(self.groups) {
            return Err(Error::shape(
                "codebook",
                format!("{} groups", self.groups),
                format!("a divisor of {cols} columns"),
            ));
        }
        Ok(())
    }
}
