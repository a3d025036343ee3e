//! e8p_encode, e8p_decode: QuIP#'s two-bit codebook of 65536 points of a shifted E8 lattice (docs/layouts.md, "E8P").
//!
//! A value is `v + 1/4` or `v - 1/4` in all eight coordinates, `v` half-integers with an even sum: the magnitudes of `v` are one
//! of 256 vectors, and its signs are free but for one, which the sum decides. So the nearest is found among magnitudes: with all
//! signs those of the point if that makes the sum even, else with one sign wrong, and that at a magnitude of 1/2 (a larger one
//! with the wrong sign is farther than the next smaller one with the right sign, which also makes the sum even).
//! Residual stages stand in `lattice.rs`. Limit: multiplications for encoding, memory for decoding.

use super::lattice::{Decoder, Encoder, Lattice};
use super::search::Search;
use crate::error::expect_shape;
use crate::parts::Rows;
use crate::{Error, Machine, Path, Result};

/// Coordinates of a codeword.
pub(super) const DIM: usize = 8;
/// The places of the three 1/2 in the vectors of norm 12 that complete the table, the rest being 3/2.
const LAST: [[usize; 3]; 29] = [
    [1, 2, 3],
    [0, 2, 3],
    [0, 1, 3],
    [0, 1, 2],
    [3, 6, 7],
    [3, 5, 7],
    [3, 4, 7],
    [3, 5, 6],
    [3, 4, 6],
    [3, 4, 5],
    [2, 6, 7],
    [2, 5, 7],
    [2, 4, 7],
    [2, 5, 6],
    [2, 4, 6],
    [2, 4, 5],
    [1, 6, 7],
    [1, 5, 7],
    [1, 4, 7],
    [1, 5, 6],
    [1, 4, 6],
    [0, 4, 5],
    [0, 6, 7],
    [0, 5, 7],
    [0, 4, 7],
    [0, 5, 6],
    [0, 4, 6],
    [0, 1, 4],
    [2, 3, 7],
];
/// The coordinate whose sign each bit of a code holds.
const SIGNS: [usize; DIM] = [0, 2, 4, 6, 1, 3, 5, 7];
/// Codewords encoded at a time.
const CHUNK: usize = 1024;
/// Codewords worth a thread when decoding.
const GRAIN: usize = 1 << 12;

pub(super) type Vector = [f32; DIM];

/// Twice the magnitudes: vectors of odd numbers with a norm of at most 40, first coordinates first, then those of norm 48.
fn magnitudes() -> Vec<[u8; DIM]> {
    let mut table = vec![];
    for number in 0..3usize.pow(DIM as u32) {
        let vector = std::array::from_fn(|j| 1 + 2 * (number / 3usize.pow((DIM - 1 - j) as u32) % 3) as u8);
        if vector.iter().map(|v| u32::from(v * v)).sum::<u32>() <= 40 {
            table.push(vector);
        }
    }
    table.extend(LAST.map(|places| std::array::from_fn(|j| if places.contains(&j) { 1 } else { 3 })));
    table
}

/// Whether the sum of the magnitudes is odd, so that an odd number of them has to be negative.
fn odd(doubled: &[u8; DIM]) -> bool {
    doubled.iter().map(|v| u32::from(*v)).sum::<u32>() / 2 % 2 == 1
}

/// The integers that hold codes.
pub trait LatticeCode: Copy + Send + Sync {
    /// Bits that they have.
    const BITS: usize;
    /// From the low bits of a number.
    fn of(code: u32) -> Self;
    /// As a number.
    fn get(self) -> u32;
}

impl LatticeCode for u16 {
    const BITS: usize = 16;
    fn of(code: u32) -> Self {
        code as Self
    }
    fn get(self) -> u32 {
        self.into()
    }
}

impl LatticeCode for i32 {
    const BITS: usize = 32;
    fn of(code: u32) -> Self {
        code as Self
    }
    fn get(self) -> u32 {
        self as u32
    }
}

/// The nearest codeword to each eight numbers of `x`: code `256 a + f`, `a` the magnitudes and `f` the signs; with a second stage
/// the nearest to what is left, times its scale, in the bits above.
///
/// Distances are f32: the chosen one may be farther than the nearest by `48 2^-24 (|x| + 4)^2`. The first of equals, as the search
/// orders them (magnitudes in their order, `+ 1/4` last); the same bits on every path.
///
/// Errors: `Range` for numbers beyond 2^60, and for codes too narrow for the lattice; `NotFinite`.
pub fn e8p_encode<C: LatticeCode>(m: &Machine, lattice: Lattice, x: &[f32], codes: &mut [C]) -> Result<()> {
    expect_shape("x", x.len(), &[codes.len(), DIM])?;
    expect_width::<C>(lattice)?;
    if let Some(at) = x.iter().position(|x| x.is_nan() || x.abs() > LARGEST) {
        if !x[at].is_finite() {
            return Err(Error::not_finite("x", format!("{} at {at}", x[at])));
        }
        return Err(Error::range("x", x[at], "numbers up to 2^60"));
    }
    let encoder = Encoder::of(lattice);
    m.split_parts(codes.len(), CHUNK / 4, Rows::new(codes, 1), |range, codes| {
        let x = x[range.start * DIM..range.end * DIM].as_chunks::<DIM>().0;
        let (mut wide, mut values) = (vec![0; CHUNK], vec![[0.0; DIM]; CHUNK]);
        for (x, codes) in x.chunks(CHUNK).zip(codes.all().chunks_mut(CHUNK)) {
            encoder.encode(m.path(), x, &mut wide[..x.len()], &mut values[..x.len()]);
            codes.iter_mut().zip(&wide).for_each(|(code, &wide)| *code = C::of(wide));
        }
    });
    Ok(())
}

fn expect_width<C: LatticeCode>(lattice: Lattice) -> Result<()> {
    if DIM * lattice.bits() <= C::BITS {
        return Ok(());
    }
    Err(Error::range("bits", lattice.bits(), format!("at most {} for codes of {} bits", C::BITS / DIM, C::BITS)))
}

/// Beyond it a square could overflow.
const LARGEST: f32 = (1u64 << 60) as f32;

/// Signed magnitudes that may be nearest to points with an even, or an odd, number of negative coordinates.
struct Side {
    /// Which magnitudes, and which coordinate has the other sign than the point's (8: none).
    entries: Vec<(u8, u8)>,
    search: Search,
}

impl Side {
    fn new(table: &[[u8; DIM]], side: bool) -> Self {
        let mut entries = vec![];
        for (a, doubled) in (0..=255).zip(table) {
            if odd(doubled) == side {
                entries.push((a, DIM as u8));
            } else {
                entries.extend((0..DIM).filter(|&j| doubled[j] == 1).map(|j| (a, j as u8)));
            }
        }
        let value = |k: usize, j: usize| {
            let (a, wrong) = entries[k];
            f32::from(table[usize::from(a)][j]) * if usize::from(wrong) == j { -0.5 } else { 0.5 }
        };
        let half = |k: usize| (0..DIM).map(|j| 0.5 * value(k, j) * value(k, j)).sum();
        let search = Search::new(entries.len(), DIM, half, value);
        Self { search, entries }
    }
}

/// The search for the nearest point.
pub(super) struct E8p {
    table: Vec<[u8; DIM]>,
    /// By whether an odd number of coordinates of the point is negative.
    sides: [Side; 2],
}

impl E8p {
    pub fn new() -> Self {
        let table = magnitudes();
        let sides = [false, true].map(|side| Side::new(&table, side));
        Self { table, sides }
    }

    /// On the caller's thread; `x` and `codes` are of one length.
    pub fn encode(&self, path: Path, x: &[Vector], codes: &mut [u16]) {
        encode(path, &self.table, &self.sides, x, codes);
    }
}

fn encode(path: Path, table: &[[u8; DIM]], sides: &[Side; 2], x: &[Vector], codes: &mut [u16]) {
    let mut best = vec![f32::INFINITY; x.len()];
    // Points moved by each shift, by side; - 1/4 first and only a smaller distance replaces it.
    for (parity, shift) in [(1u16, -0.25), (0, 0.25)] {
        let mut members = [vec![], vec![]];
        for (p, x) in x.iter().enumerate() {
            let negative = x.iter().filter(|&&x| x - shift < 0.0).count();
            members[negative % 2].push(p);
        }
        for (members, side) in members.iter().zip(sides) {
            let mut index = vec![0; members.len()];
            side.search.some(path, &mut index, |p, j| -(x[members[p]][j] - shift).abs());
            for (&p, &k) in members.iter().zip(&index) {
                let (a, wrong) = side.entries[k as usize];
                let signs: [bool; DIM] = std::array::from_fn(|j| (x[p][j] - shift < 0.0) != (usize::from(wrong) == j));
                let doubled = &table[usize::from(a)];
                let mut distance = 0.0;
                for j in 0..DIM {
                    let v = 0.5 * f32::from(doubled[j]);
                    let d = x[p][j] - shift - if signs[j] { -v } else { v };
                    distance += d * d;
                }
                if distance < best[p] || (distance == best[p] && parity == 0) {
                    best[p] = distance;
                    codes[p] = u16::from(a) << 8 | sign_byte(&signs, odd(doubled), parity);
                }
            }
        }
    }
}

/// The byte whose bits are the signs: the last coordinate's counts from that which makes the sum even; bit 0 says twice as much,
/// as the parity of the byte tells the shift.
fn sign_byte(signs: &[bool; DIM], odd: bool, parity: u16) -> u16 {
    let mut byte = 0;
    for (bit, &j) in SIGNS.iter().enumerate() {
        byte |= u16::from(signs[j] != (odd && j == DIM - 1)) << bit;
    }
    byte ^ parity
}

/// The points by their codes.
pub(crate) struct Points {
    /// Magnitudes, the last of them negative where that makes the sum even.
    pub table: Box<[Vector; 256]>,
    /// By the low byte: -0 where the sign flips, else 0; and the shift that follows.
    pub signs: Box<[Vector; 256]>,
    pub shifts: Box<[f32; 256]>,
}

impl Points {
    pub fn new() -> Self {
        let magnitudes = magnitudes();
        let signed = |a: usize| {
            let mut v = magnitudes[a].map(|v| 0.5 * f32::from(v));
            v[DIM - 1] = if odd(&magnitudes[a]) { -v[DIM - 1] } else { v[DIM - 1] };
            v
        };
        let parity = |byte: usize| byte.count_ones() as usize % 2;
        let flips = |byte: usize| {
            let mut flips = [0.0; DIM];
            for (bit, &j) in SIGNS.iter().enumerate() {
                flips[j] = if (byte ^ parity(byte)) >> bit & 1 == 1 { -0.0 } else { 0.0 };
            }
            flips
        };
        Self {
            table: Box::new(std::array::from_fn(signed)),
            signs: Box::new(std::array::from_fn(flips)),
            shifts: Box::new(std::array::from_fn(|byte| if parity(byte) == 1 { -0.25 } else { 0.25 })),
        }
    }

    /// Exactly.
    #[inline(always)]
    pub fn value(&self, code: u16) -> Vector {
        let (v, byte) = (&self.table[usize::from(code >> 8)], usize::from(code & 255));
        let (signs, shift) = (&self.signs[byte], self.shifts[byte]);
        std::array::from_fn(|j| f32::from_bits(v[j].to_bits() ^ signs[j].to_bits()) + shift)
    }
}

/// The values of codes, eight numbers each: exactly, or with a second stage rounded twice (its quotient, and the sum).
pub fn e8p_decode<C: LatticeCode>(m: &Machine, lattice: Lattice, codes: &[C], x: &mut [f32]) -> Result<()> {
    expect_shape("x", x.len(), &[codes.len(), DIM])?;
    expect_width::<C>(lattice)?;
    let decoder = Decoder::of(lattice);
    m.split_parts(codes.len(), GRAIN, Rows::new(x, DIM), |range, x| {
        for (&code, x) in codes[range].iter().zip(x.all().as_chunks_mut::<DIM>().0) {
            *x = decoder.value(code.get());
        }
    });
    Ok(())
}
