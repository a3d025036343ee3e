//! AVX-512 F, BW, DQ, VL and VNNI on vectors: one line for each instruction, over lanes of 1, 2, 4 or 8 bytes.

use crate::registers::{Registers, Vector, in_memory, load, store};
use crate::traps::ensure;
use half::f16;
use iced_x86::{Instruction, Mnemonic, OpKind, Register, RoundingControl};

/// Carries out an instruction; `None` for an unknown one.
pub fn run(registers: &mut Registers<'_>, instruction: &Instruction) -> Option<()> {
    use Mnemonic::*;
    if instruction.rounding_control() != RoundingControl::None {
        return None;
    }
    let mut step = Step { registers, instruction };
    let immediate = (0..instruction.op_count())
        .find(|&n| instruction.op_kind(n) == OpKind::Immediate8)
        .map_or(0, |_| u64::from(instruction.immediate8()));
    match instruction.mnemonic() {
        Vmovdqu8 => step.lanes(1, |[_, a, _]| a),
        Vmovdqu16 => step.lanes(2, |[_, a, _]| a),
        Vmovdqu32 | Vmovdqa32 | Vmovups | Vmovaps => step.lanes(4, |[_, a, _]| a),
        Vmovdqu64 | Vmovdqa64 | Vmovupd | Vmovapd => step.lanes(8, |[_, a, _]| a),
        Vbroadcastss | Vpbroadcastd => step.broadcast(4),
        Vpbroadcastb => step.broadcast(1),
        Vpbroadcastw => step.broadcast(2),
        Vpbroadcastq | Vbroadcastsd => step.broadcast(8),
        Vbroadcastf32x4 | Vbroadcasti32x4 | Vbroadcastf64x2 | Vbroadcasti64x2 => step.broadcast(16),
        Vbroadcastf64x4 | Vbroadcasti64x4 | Vbroadcastf32x8 | Vbroadcasti32x8 => step.broadcast(32),
        Vextractf32x4 | Vextracti32x4 | Vextractf64x2 | Vextracti64x2 => step.extract(16, immediate),
        Vextractf64x4 | Vextracti64x4 | Vextractf32x8 | Vextracti32x8 => step.extract(32, immediate),
        Vinsertf32x4 | Vinserti32x4 | Vinsertf64x2 | Vinserti64x2 => step.insert(16, immediate),
        Vinsertf64x4 | Vinserti64x4 | Vinsertf32x8 | Vinserti32x8 => step.insert(32, immediate),
        Vpermd | Vpermps => step.permute(4),
        Vpshufb => step.shuffle_bytes(),
        Vcmpps => step.compare(4, floats_compared(immediate)?),
        Vpcmpeqb => step.compare(1, |a, b| a == b),
        Vpcmpud => step.compare(4, numbers_compared(immediate)),
        Vpcmpuq => step.compare(8, numbers_compared(immediate)),
        Vptestmd => step.compare(4, |a, b| a & b != 0),
        Vptestnmd => step.compare(4, |a, b| a & b == 0),
        Vpmovb2m => step.compare(1, |a, _| a >> 7 != 0),
        Vpermt2d | Vpermt2ps => step.permute_two(4, [0, 2], 1),
        Vpermi2d | Vpermi2ps => step.permute_two(4, [1, 2], 0),
        Vshuff64x2 | Vshufi64x2 => step.shuffle(immediate),

        Vpmovzxbw => step.resize(1, 2, |a| a),
        Vpmovzxbd => step.resize(1, 4, |a| a),
        Vpmovzxwd => step.resize(2, 4, |a| a),
        Vpmovsxbw => step.resize(1, 2, |a| a as i8 as u64),
        Vpmovsxbd => step.resize(1, 4, |a| a as i8 as u64),
        Vpmovsxwd => step.resize(2, 4, |a| a as i16 as u64),
        Vpmovwb => step.resize(2, 1, |a| a),
        Vpmovdb => step.resize(4, 1, |a| a),
        Vpmovdw => step.resize(4, 2, |a| a),
        Vcvtph2ps => step.resize(2, 4, |a| f16::from_bits(a as u16).to_f32().to_bits().into()),

        Vaddps => step.lanes(4, floats(|[_, a, b]| a + b)),
        Vsubps => step.lanes(4, floats(|[_, a, b]| a - b)),
        Vmulps => step.lanes(4, floats(|[_, a, b]| a * b)),
        Vdivps => step.lanes(4, floats(|[_, a, b]| a / b)),
        Vminps => step.lanes(4, floats(|[_, a, b]| if a < b { a } else { b })),
        Vmaxps => step.lanes(4, floats(|[_, a, b]| if a > b { a } else { b })),
        Vfmadd132ps => step.lanes(4, floats(|[d, a, b]| d.mul_add(b, a))),
        Vfmadd213ps => step.lanes(4, floats(|[d, a, b]| a.mul_add(d, b))),
        Vfmadd231ps => step.lanes(4, floats(|[d, a, b]| a.mul_add(b, d))),
        Vcvtdq2ps => step.lanes(4, |[_, a, _]| (a as i32 as f32).to_bits().into()),

        // of scalars, where a register is one of the upper sixteen
        Vmovss | Vmovd => step.move_scalar(),
        Vaddss => step.scalar(|a, b| a + b),
        Vsubss => step.scalar(|a, b| a - b),
        Vmulss => step.scalar(|a, b| a * b),

        Vpaddb => step.lanes(1, |[_, a, b]| a.wrapping_add(b)),
        Vpaddw => step.lanes(2, |[_, a, b]| a.wrapping_add(b)),
        Vpaddd => step.lanes(4, |[_, a, b]| a.wrapping_add(b)),
        Vpaddq => step.lanes(8, |[_, a, b]| a.wrapping_add(b)),
        Vpsubb => step.lanes(1, |[_, a, b]| a.wrapping_sub(b)),
        Vpsubw => step.lanes(2, |[_, a, b]| a.wrapping_sub(b)),
        Vpsubd => step.lanes(4, |[_, a, b]| a.wrapping_sub(b)),
        Vpminud => step.lanes(4, |[_, a, b]| a.min(b)),
        Vpmaxud => step.lanes(4, |[_, a, b]| a.max(b)),
        Vpmullw => step.lanes(2, |[_, a, b]| a.wrapping_mul(b)),
        Vpmulld => step.lanes(4, |[_, a, b]| a.wrapping_mul(b)),
        Vpmaddwd => step.lanes(4, |[_, a, b]| pairs(a, b)),
        Vpdpwssd => step.lanes(4, |[d, a, b]| d.wrapping_add(pairs(a, b))),
        Vpdpbusd => step.lanes(4, |[d, a, b]| d.wrapping_add(fours(a, b))),
        Vpslld => step.shift(4, immediate, |a, by| a << by),
        Vpsrld => step.shift(4, immediate, |a, by| a >> by),
        Vpsllw => step.shift(2, immediate, |a, by| a << by),
        Vpsrlw => step.shift(2, immediate, |a, by| a >> by),
        Vpsllvd => step.lanes(4, |[_, a, by]| if by < 32 { a << by } else { 0 }),
        Vpsrlvd => step.lanes(4, |[_, a, by]| if by < 32 { a >> by } else { 0 }),
        Vpsrad => step.shift(4, immediate.min(31), |a, by| (i64::from(a as i32) >> by).cast_unsigned()),
        Vpandd | Vandps => step.lanes(4, |[_, a, b]| a & b),
        Vpandq => step.lanes(8, |[_, a, b]| a & b),
        Vpandnd | Vandnps => step.lanes(4, |[_, a, b]| !a & b),
        Vpandnq => step.lanes(8, |[_, a, b]| !a & b),
        Vpord => step.lanes(4, |[_, a, b]| a | b),
        Vporq => step.lanes(8, |[_, a, b]| a | b),
        Vpxord | Vxorps => step.lanes(4, |[_, a, b]| a ^ b),
        Vpxorq | Vxorpd => step.lanes(8, |[_, a, b]| a ^ b),
        Vpternlogd => step.lanes(4, |x| ternary(immediate, x)),
        Vpternlogq => step.lanes(8, |x| ternary(immediate, x)),
        _ => return None,
    }
    Some(())
}

/// An instruction and what it works on.
struct Step<'a, 'b> {
    registers: &'a mut Registers<'b>,
    instruction: &'a Instruction,
}

impl Step<'_, '_> {
    /// Bytes of the widest operand in a register.
    fn length(&self) -> usize {
        let registers = (0..self.instruction.op_count()).map(|n| self.instruction.op_register(n));
        registers.filter(|register| register.is_vector_register()).map(Register::size).max().unwrap_or(0)
    }

    /// Whether lane `number` takes part.
    fn chosen(&self, number: usize) -> bool {
        let mask = self.instruction.op_mask();
        mask == Register::None || self.registers.kept.masks[mask.number()] >> number & 1 == 1
    }

    /// An operand of lanes of `size` bytes, as many as the result has; what is masked out is not read from memory.
    fn operand(&self, n: u32, size: usize, count: usize) -> Vector {
        if n >= self.instruction.op_count() {
            return [0; 64];
        }
        if !in_memory(self.instruction, n) {
            let register = self.instruction.op_register(n);
            return if register.is_vector_register() { self.registers.vector(register) } else { [0; 64] };
        }
        let mut vector = [0; 64];
        let address = self.registers.address(self.instruction);
        for number in (0..count).filter(|&number| self.chosen(number)) {
            let from = if self.instruction.is_broadcast() { 0 } else { size * number };
            load(address.wrapping_add(from as u64), &mut vector[size * number..][..size]);
        }
        vector
    }

    /// Writes the lanes of the result that the mask chooses; the others stay or become zero, what is behind them becomes zero.
    fn put(&mut self, size: usize, count: usize, result: &Vector) {
        if in_memory(self.instruction, 0) {
            let address = self.registers.address(self.instruction);
            for number in (0..count).filter(|&number| self.chosen(number)) {
                store(address.wrapping_add((size * number) as u64), &result[size * number..][..size]);
            }
            return;
        }
        let to = self.instruction.op0_register();
        let mut vector = [0; 64];
        let before = if self.instruction.zeroing_masking() { [0; 64] } else { self.registers.vector(to) };
        for number in 0..count {
            let lane = size * number..size * (number + 1);
            let from = if self.chosen(number) { result } else { &before };
            vector[lane.clone()].copy_from_slice(&from[lane]);
        }
        self.registers.set_vector(to, &vector);
    }

    /// Each lane of the result from those of the operands: what was in the result, and the sources, zeros where there are fewer.
    fn lanes(&mut self, size: usize, result: impl Fn([u64; 3]) -> u64) {
        let count = self.length() / size;
        let before = if in_memory(self.instruction, 0) { [0; 64] } else { self.operand(0, size, count) };
        let [a, b] = [1, 2].map(|n| self.operand(n, size, count));
        let mut vector = [0; 64];
        for number in 0..count {
            set_lane(&mut vector, size, number, result([before, a, b].map(|x| lane(&x, size, number))));
        }
        self.put(size, count, &vector);
    }

    /// Four bytes from or to memory or a general register, the rest of a vector register becomes zero; of two sources the second's
    /// beside the others of the first.
    fn move_scalar(&mut self) {
        ensure(self.instruction.op_mask() == Register::None, "a scalar under a mask");
        let last = self.instruction.op_count() - 1;
        let four = self.part(last, 4);
        let to = self.instruction.op0_register();
        if in_memory(self.instruction, 0) {
            store(self.registers.address(self.instruction), &four[..4]);
        } else if to.is_vector_register() {
            let mut vector = if last == 2 { self.part(1, 16) } else { [0; 64] };
            vector[..4].copy_from_slice(&four[..4]);
            self.registers.set_vector(to, &vector);
        } else {
            self.registers.set_general(to, lane(&four, 4, 0));
        }
    }

    /// The first float from those of two sources, the others of the first one.
    fn scalar(&mut self, result: impl Fn(f32, f32) -> f32) {
        ensure(self.instruction.op_mask() == Register::None, "a scalar under a mask");
        let (mut vector, other) = (self.part(1, 16), self.part(2, 4));
        let [a, b] = [&vector, &other].map(|x| f32::from_bits(lane(x, 4, 0) as u32));
        set_lane(&mut vector, 4, 0, result(a, b).to_bits().into());
        self.registers.set_vector(self.instruction.op0_register(), &vector);
    }

    /// A mask: what two sources are to each other, lane by lane; 0 where the mask of the instruction says so.
    fn compare(&mut self, size: usize, result: impl Fn(u64, u64) -> bool) {
        let count = self.length() / size;
        let [a, b] = [1, 2].map(|n| self.operand(n, size, count));
        let holds = |&number: &usize| self.chosen(number) && result(lane(&a, size, number), lane(&b, size, number));
        let mask = (0..count).filter(holds).fold(0, |mask, number| mask | 1 << number);
        self.registers.kept.masks[self.instruction.op0_register().number()] = mask;
    }

    /// In each sixteen bytes those that the second source names, zeros where its highest bit is set.
    fn shuffle_bytes(&mut self) {
        let count = self.length();
        let [source, places] = [1, 2].map(|n| self.operand(n, 1, count));
        let mut vector = [0; 64];
        for (number, to) in vector.iter_mut().enumerate().take(count) {
            let place = places[number];
            *to = if place & 0x80 == 0 { source[number & !15 | usize::from(place & 15)] } else { 0 };
        }
        self.put(1, count, &vector);
    }

    /// Each lane, of size `to`, from one of the source, of size `from`.
    fn resize(&mut self, from: usize, to: usize, result: impl Fn(u64) -> u64) {
        let count = self.length() / from.max(to);
        let source = self.operand(1, from, count);
        let mut vector = [0; 64];
        for number in 0..count {
            set_lane(&mut vector, to, number, result(lane(&source, from, number)));
        }
        self.put(to, count, &vector);
    }

    /// Each lane of the first source shifted, by an immediate number or by the low half of the second source.
    fn shift(&mut self, size: usize, by: u64, result: impl Fn(u64, u64) -> u64) {
        ensure(self.instruction.op_kind(2) == OpKind::Immediate8, "a shift by a register");
        self.lanes(size, |[_, a, _]| if by < 8 * size as u64 { result(a, by) } else { 0 });
    }

    /// The first `size` bytes of an operand.
    fn part(&self, n: u32, size: usize) -> Vector {
        let register = self.instruction.op_register(n);
        let mut vector = [0; 64];
        if in_memory(self.instruction, n) {
            load(self.registers.address(self.instruction), &mut vector[..size]);
        } else if register.is_vector_register() {
            vector[..size].copy_from_slice(&self.registers.vector(register)[..size]);
        } else {
            vector[..size].copy_from_slice(&self.registers.general(register).to_le_bytes()[..size]);
        }
        vector
    }

    /// Copies of a part, or of an element, of `size` bytes.
    fn broadcast(&mut self, size: usize) {
        let (part, length) = (self.part(1, size), self.length());
        let mut vector = [0; 64];
        vector[..length].chunks_exact_mut(size).for_each(|to| to.copy_from_slice(&part[..size]));
        self.whole(size, &vector);
    }

    /// Part `number` of the source.
    fn extract(&mut self, size: usize, number: u64) {
        let at = size * (number as usize % (self.length() / size));
        let mut vector = [0; 64];
        vector[..size].copy_from_slice(&self.registers.vector(self.instruction.op1_register())[at..at + size]);
        ensure(self.instruction.op_mask() == Register::None, "a part under a mask");
        self.put(1, size, &vector);
    }

    /// The first source with its part `number` replaced by the second.
    fn insert(&mut self, size: usize, number: u64) {
        let at = size * (number as usize % (self.length() / size));
        let mut vector = self.registers.vector(self.instruction.op1_register());
        vector[at..at + size].copy_from_slice(&self.part(2, size)[..size]);
        self.whole(size, &vector);
    }

    /// Parts of 16 bytes that the immediate number names: half of them of the first source, then half of the second.
    fn shuffle(&mut self, immediate: u64) {
        let parts = self.length() / 16;
        let [a, b] = [1, 2].map(|n| self.operand(n, 8, 2 * parts));
        let mut vector = [0; 64];
        for (number, to) in vector.chunks_exact_mut(16).enumerate().take(parts) {
            let source = if number < parts / 2 { &a } else { &b };
            let at = 16 * ((immediate >> (number as u32 * parts.ilog2())) as usize % parts);
            to.copy_from_slice(&source[at..at + 16]);
        }
        self.whole(16, &vector);
    }

    /// Writes all of a vector of parts that no mask chooses among, or of elements of that size.
    fn whole(&mut self, size: usize, vector: &Vector) {
        ensure(self.instruction.op_mask() == Register::None || size <= 8, "a part under a mask");
        let size = size.min(8);
        self.put(size, self.length() / size, vector);
    }

    /// The lanes of the second source that the first one names.
    fn permute(&mut self, size: usize) {
        let count = self.length() / size;
        let [places, source] = [1, 2].map(|n| self.operand(n, size, count));
        let mut vector = [0; 64];
        for number in 0..count {
            let place = lane(&places, size, number) as usize % count;
            set_lane(&mut vector, size, number, lane(&source, size, place));
        }
        self.put(size, count, &vector);
    }

    /// The lanes of two operands, one behind the other, that a third one names.
    fn permute_two(&mut self, size: usize, from: [u32; 2], places: u32) {
        let count = self.length() / size;
        let ([low, high], places) = (from.map(|n| self.operand(n, size, count)), self.operand(places, size, count));
        let mut vector = [0; 64];
        for number in 0..count {
            let place = lane(&places, size, number) as usize % (2 * count);
            let source = if place < count { &low } else { &high };
            set_lane(&mut vector, size, number, lane(source, size, place % count));
        }
        self.put(size, count, &vector);
    }
}

/// The sum of the products of two pairs of 16-bit numbers.
fn pairs(a: u64, b: u64) -> u64 {
    let product = |at: u32| i32::from((a >> at) as i16).wrapping_mul(i32::from((b >> at) as i16));
    product(0).wrapping_add(product(16)) as u64
}

/// The sum of the products of four unsigned bytes with four signed ones.
fn fours(a: u64, b: u64) -> u64 {
    [0, 8, 16, 24].map(|at| i32::from((a >> at) as u8) * i32::from((b >> at) as i8)).iter().sum::<i32>() as u64
}

fn lane(vector: &Vector, size: usize, number: usize) -> u64 {
    let mut value = [0; 8];
    value[..size].copy_from_slice(&vector[size * number..][..size]);
    u64::from_le_bytes(value)
}

fn set_lane(vector: &mut Vector, size: usize, number: usize, value: u64) {
    vector[size * number..][..size].copy_from_slice(&value.to_le_bytes()[..size]);
}

fn floats(result: impl Fn([f32; 3]) -> f32) -> impl Fn([u64; 3]) -> u64 {
    move |x| result(x.map(|x| f32::from_bits(x as u32))).to_bits().into()
}

/// What the immediate number says of two floats, of those that kernels use; `None` for the others.
fn floats_compared(which: u64) -> Option<fn(u64, u64) -> bool> {
    match which {
        0x01 | 0x11 => Some(|a, b| f32::from_bits(a as u32) < f32::from_bits(b as u32)),
        0x04 | 0x14 => Some(|a, b| f32::from_bits(a as u32) != f32::from_bits(b as u32)),
        _ => None,
    }
}

/// What the immediate number says of two whole numbers.
fn numbers_compared(which: u64) -> fn(u64, u64) -> bool {
    match which & 7 {
        0 => |a, b| a == b,
        1 => |a, b| a < b,
        2 => |a, b| a <= b,
        3 => |_, _| false,
        4 => |a, b| a != b,
        5 => |a, b| a >= b,
        6 => |a, b| a > b,
        _ => |_, _| true,
    }
}

/// Bit by bit what the immediate number says about three bits.
fn ternary(table: u64, [d, a, b]: [u64; 3]) -> u64 {
    (0..64).map(|bit| (table >> ((d >> bit & 1) << 2 | (a >> bit & 1) << 1 | b >> bit & 1) & 1) << bit).sum()
}
