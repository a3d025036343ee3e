//! AMX: eight tiles of up to sixteen rows of 64 bytes, and what multiplies them (Intel SDM, volume 2, TDPB.. and TDPBF16PS).

use crate::registers::{Registers, load, store};
use crate::traps::ensure;
use iced_x86::{Instruction, Mnemonic, Register};

type Row = [u8; 64];

pub struct Tiles {
    /// Of each tile; none: before LDTILECFG and after TILERELEASE.
    shapes: Option<[Shape; 8]>,
    rows: [[Row; 16]; 8],
}

#[derive(Clone, Copy, PartialEq)]
struct Shape {
    rows: usize,
    /// Bytes of a row.
    width: usize,
}

impl Tiles {
    pub const EMPTY: Self = Self { shapes: None, rows: [[[0; 64]; 16]; 8] };

    fn shape(&self, tile: usize) -> Shape {
        let shape = self.shapes.map(|shapes| shapes[tile]);
        ensure(shape.is_some_and(|shape| shape.rows * shape.width > 0), "a tile that is not configured");
        shape.unwrap_or(Shape { rows: 0, width: 0 })
    }

    fn configure(&mut self, from: &[u8; 64]) {
        let shapes = std::array::from_fn(|tile| Shape {
            rows: from[48 + tile].into(),
            width: u16::from_le_bytes([from[16 + 2 * tile], from[17 + 2 * tile]]).into(),
        });
        let fits = |shape: &Shape| shape.rows <= 16 && shape.width <= 64 && (shape.rows == 0) == (shape.width == 0);
        ensure(from[0] == 1 && from[1] == 0, "tiles of a palette other than 1, or not from the first row on");
        ensure(shapes.iter().all(fits), "a tile of more than 16 rows of 64 bytes, or of no rows or no bytes");
        let unused = from[2..16].iter().chain(&from[32..48]).chain(&from[56..]);
        ensure(unused.copied().all(|byte| byte == 0), "a configuration with bytes in reserved places");
        *self = Self { shapes: Some(shapes), ..Self::EMPTY };
    }

    /// Each number of `to` plus a sum over the fours of bytes, or pairs of halves, that a row of `a` shares with a column of `b`.
    fn multiply(&mut self, [to, a, b]: [usize; 3], sum: impl Fn(u32, &mut dyn Iterator<Item = [[u8; 4]; 2]>) -> u32) {
        let [shape, left, right] = [to, a, b].map(|tile| self.shape(tile));
        ensure(to != a && to != b && a != b, "a product of a tile with itself, or in place");
        let agree = left.rows == shape.rows && right.width == shape.width && left.width == 4 * right.rows;
        ensure(agree && shape.width.is_multiple_of(4), "a product of tiles whose shapes do not agree");
        let mut result = [[0; 64]; 16];
        let four = |tile: usize, row: usize, at: usize| {
            let row = self.rows[tile][row].as_chunks::<4>().0;
            row[at]
        };
        for (m, row) in result.iter_mut().enumerate().take(shape.rows) {
            for (n, number) in row.as_chunks_mut::<4>().0.iter_mut().enumerate().take(shape.width / 4) {
                let before = u32::from_le_bytes(four(to, m, n));
                *number = sum(before, &mut (0..right.rows).map(|k| [four(a, m, k), four(b, k, n)])).to_le_bytes();
            }
        }
        self.rows[to] = result;
    }
}

/// Whether the processor has tiles, and products of bytes and halves of them.
pub fn native() -> bool {
    let leaf = std::arch::x86_64::__cpuid_count(7, 0);
    [22, 24, 25].into_iter().all(|bit| leaf.edx >> bit & 1 == 1)
}

/// Whether it is of AMX.
pub fn knows(instruction: &Instruction) -> bool {
    use Mnemonic::{Ldtilecfg, Sttilecfg, Tilerelease};
    matches!(instruction.mnemonic(), Ldtilecfg | Sttilecfg | Tilerelease)
        || instruction.op0_register().is_tmm()
        || instruction.op1_register().is_tmm()
}

/// Carries out an instruction; `None` for one of others.
pub fn run(registers: &mut Registers<'_>, instruction: &Instruction) -> Option<()> {
    let number = |n: u32| match instruction.op_register(n) {
        register if register.is_tmm() => register.number(),
        _ => 0,
    };
    let operands = [0, 1, 2].map(|n| if n < instruction.op_count() { number(n) } else { 0 });
    // The index of the address of a tile says how far its rows are apart.
    let row = |registers: &Registers<'_>, row: usize| {
        registers.base(instruction).wrapping_add(registers.index(instruction).wrapping_mul(row as u64))
    };
    match instruction.mnemonic() {
        Mnemonic::Ldtilecfg => {
            let mut from = [0; 64];
            load(registers.address(instruction), &mut from);
            registers.kept.tiles.configure(&from);
        }
        Mnemonic::Tilerelease => registers.kept.tiles = Tiles::EMPTY,
        Mnemonic::Tilezero => {
            registers.kept.tiles.shape(operands[0]);
            registers.kept.tiles.rows[operands[0]] = [[0; 64]; 16];
        }
        Mnemonic::Tileloadd | Mnemonic::Tileloaddt1 => {
            ensure(instruction.memory_index() != Register::None, "a tile whose rows lie on each other");
            let shape = registers.kept.tiles.shape(operands[0]);
            let mut rows = [[0; 64]; 16];
            for (number, to) in rows.iter_mut().enumerate().take(shape.rows) {
                load(row(registers, number), &mut to[..shape.width]);
            }
            registers.kept.tiles.rows[operands[0]] = rows;
        }
        Mnemonic::Tilestored => {
            let tile = operands[1];
            let shape = registers.kept.tiles.shape(tile);
            for number in 0..shape.rows {
                store(row(registers, number), &registers.kept.tiles.rows[tile][number][..shape.width]);
            }
        }
        Mnemonic::Tdpbssd => bytes(registers, operands, [true, true]),
        Mnemonic::Tdpbsud => bytes(registers, operands, [true, false]),
        Mnemonic::Tdpbusd => bytes(registers, operands, [false, true]),
        Mnemonic::Tdpbuud => bytes(registers, operands, [false, false]),
        Mnemonic::Tdpbf16ps => registers.kept.tiles.multiply(operands, halves),
        _ => return None,
    }
    Some(())
}

/// Sums of 32 bits of products of bytes, each of the two factors with or without a sign.
fn bytes(registers: &mut Registers<'_>, operands: [usize; 3], signed: [bool; 2]) {
    registers.kept.tiles.multiply(operands, |before, fours| {
        let wide = |byte: u8, signed: bool| if signed { i32::from(byte.cast_signed()) } else { byte.into() };
        fours
            .fold(before.cast_signed(), |sum, [a, b]| {
                let products = a.into_iter().zip(b).map(|(a, b)| wide(a, signed[0]) * wide(b, signed[1]));
                products.fold(sum, i32::wrapping_add)
            })
            .cast_unsigned()
    });
}

/// The sums over the first and over the second of each pair apart, each step rounded once, then both together, then onto what was
/// there; numbers below the normal ones count as zero everywhere.
fn halves(before: u32, pairs: &mut dyn Iterator<Item = [[u8; 4]; 2]>) -> u32 {
    let flushed = |x: f32| if x.is_subnormal() { 0.0f32.copysign(x) } else { x };
    let wide = |four: [u8; 4]| {
        let bits = u32::from_le_bytes(four);
        [bits << 16, bits & 0xffff_0000].map(|bits| flushed(f32::from_bits(bits)))
    };
    let mut sums = [0.0f32; 2];
    for [a, b] in pairs {
        for ((sum, a), b) in sums.iter_mut().zip(wide(a)).zip(wide(b)) {
            *sum = flushed(a.mul_add(b, *sum));
        }
    }
    flushed(flushed(f32::from_bits(before)) + flushed(sums[0] + sums[1])).to_bits()
}
