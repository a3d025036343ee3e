//! Codewords that are stored, as VPTQ has them: what a code of both stages stands for.

use super::nearest_codeword::half_norm;
use super::search::Search;
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

impl<'a> Table<'a> {
    /// Codewords of both stages in one group; 0: there is no such stage.
    pub fn counts(&self) -> [usize; 2] {
        [self.first, self.second].map(|stage| stage.len().checked_div(self.groups * self.dim).unwrap_or(0))
    }

    /// Bits of the codes of both stages.
    pub fn bits(&self) -> [u32; 2] {
        self.counts().map(|count| count.max(1).next_power_of_two().trailing_zeros())
    }

    /// The numbers of both codewords of a code.
    pub(crate) fn parts(&self, code: i32) -> [usize; 2] {
        let (code, low) = (u64::from(code as u32), self.bits()[0]);
        [(code & ((1 << low) - 1)) as usize, (code >> low) as usize]
    }

    /// The codewords `[count, dim]` of a group, of each stage that there is.
    pub(crate) fn stages(&self, group: usize) -> impl Iterator<Item = &'a [f32]> {
        let stages = [self.first, self.second].into_iter().zip(self.counts()).filter(|(_, count)| *count > 0);
        let dim = self.dim;
        stages.map(move |(stage, count)| &stage[group * count * dim..][..count * dim])
    }

    /// For each group, the searches among the codewords of each stage that there is.
    pub(crate) fn searches(&self) -> Vec<Vec<Search>> {
        let search = |words: &[f32]| {
            let (count, dim) = (words.len() / self.dim, self.dim);
            Search::new(count, dim, |k| half_norm(words, dim, k), |k, j| words[k * dim + j])
        };
        (0..self.groups).map(|group| self.stages(group).map(search).collect()).collect()
    }

    /// [`Error::Range`] for a code beyond the codewords.
    pub(crate) fn expect_codes(&self, codes: &[i32]) -> Result<()> {
        let [first, second] = self.counts();
        let beyond = |&code: &i32| {
            let [low, high] = self.parts(code);
            low >= first || high >= second.max(1)
        };
        match codes.iter().position(beyond) {
            None => Ok(()),
            Some(at) => Err(Error::range("codes", codes[at], format!("codes of {:?} codewords", self.counts()))),
        }
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
