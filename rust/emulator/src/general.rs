//! A few plain instructions, which every processor has: carried out here where the thread would go on in single steps anyway, as a
//! trap takes far longer.

use crate::registers::{Registers, in_memory, load, store};
use iced_x86::{ConditionCode, Instruction, Mnemonic, OpKind, Register};

const CARRY: i64 = 1;
const PARITY: i64 = 1 << 2;
const ADJUST: i64 = 1 << 4;
const ZERO: i64 = 1 << 6;
const SIGN: i64 = 1 << 7;
const OVERFLOW: i64 = 1 << 11;

/// The address of the instruction behind, once this one is carried out; `None`: left to the processor.
///
/// What moves the stack pointer always is, as the stack of the handler lies below it.
pub fn run(registers: &mut Registers<'_>, instruction: &Instruction) -> Option<u64> {
    use Mnemonic::*;
    if instruction.has_lock_prefix() || instruction.segment_prefix() != Register::None {
        return None;
    }
    let condition = instruction.condition_code();
    if condition != ConditionCode::None {
        let jumps = instruction.is_jcc_short_or_near().then(|| holds(registers, condition))?;
        return Some(if jumps { instruction.near_branch_target() } else { instruction.next_ip() });
    }
    match instruction.mnemonic() {
        Jmp if instruction.is_jmp_short_or_near() => return Some(instruction.near_branch_target()),
        Nop => return Some(instruction.next_ip()),
        _ => {}
    }
    let to = instruction.op0_register();
    let size = if in_memory(instruction, 0) { instruction.memory_size().size() } else { to.size() };
    let whole = to == Register::None || ((to.is_gpr32() || to.is_gpr64()) && to.full_register() != Register::RSP);
    if !(whole && matches!(size, 4 | 8)) {
        return None;
    }
    let value = match (instruction.mnemonic(), instruction.op_count()) {
        (Mov, 2) => operand(registers, instruction, 1, size)?,
        (Lea, 2) => registers.address(instruction),
        (Movzx, 2) if in_memory(instruction, 1) => memory(registers, instruction, instruction.memory_size().size()),
        (Movsx | Movsxd, 2) if in_memory(instruction, 1) => {
            let size = instruction.memory_size().size();
            signed(memory(registers, instruction, size), size)
        }
        (Add | Sub | Cmp | And | Or | Xor | Test | Inc | Dec, count) => {
            let a = operand(registers, instruction, 0, size)?;
            let b = if count == 2 { operand(registers, instruction, 1, size)? } else { 1 };
            let value = combined(registers, instruction.mnemonic(), [a, b], size);
            if matches!(instruction.mnemonic(), Cmp | Test) {
                return Some(instruction.next_ip());
            }
            value
        }
        _ => return None,
    };
    if in_memory(instruction, 0) {
        store(registers.address(instruction), &value.to_le_bytes()[..size]);
    } else {
        registers.set_general(to, value & u64::MAX >> (64 - 8 * size));
    }
    Some(instruction.next_ip())
}

/// The value of an operand of `size` bytes.
fn operand(registers: &Registers<'_>, instruction: &Instruction, n: u32, size: usize) -> Option<u64> {
    let register = instruction.op_register(n);
    let value = match instruction.op_kind(n) {
        OpKind::Register if register.is_gpr32() || register.is_gpr64() => registers.general(register),
        OpKind::Memory => memory(registers, instruction, size),
        OpKind::Register => return None,
        _ => instruction.try_immediate(n).ok()?,
    };
    Some(value & u64::MAX >> (64 - 8 * size))
}

fn memory(registers: &Registers<'_>, instruction: &Instruction, size: usize) -> u64 {
    let mut value = [0; 8];
    load(registers.address(instruction), &mut value[..size]);
    u64::from_le_bytes(value)
}

/// With the sign of its `size` bytes in all of the bits above.
fn signed(value: u64, size: usize) -> u64 {
    let above = 64 - 8 * size as u32;
    ((value << above).cast_signed() >> above).cast_unsigned()
}

/// The result of arithmetic on two numbers, which sets the flags.
fn combined(registers: &mut Registers<'_>, mnemonic: Mnemonic, [a, b]: [u64; 2], size: usize) -> u64 {
    use Mnemonic::{Add, And, Cmp, Dec, Inc, Or, Sub, Test};
    let (all, sign) = (u64::MAX >> (64 - 8 * size), 8 * size - 1);
    let (value, carry, overflow) = match mnemonic {
        Add | Inc => {
            let value = a.wrapping_add(b) & all;
            (value, value < a, (a ^ value) & (b ^ value))
        }
        Sub | Cmp | Dec => {
            let value = a.wrapping_sub(b) & all;
            (value, a < b, (a ^ b) & (a ^ value))
        }
        And | Test => (a & b, false, 0),
        Or => (a | b, false, 0),
        _ => (a ^ b, false, 0),
    };
    if !matches!(mnemonic, Inc | Dec) {
        registers.flag(CARRY, carry);
    }
    registers.flag(OVERFLOW, overflow >> sign & 1 == 1);
    registers.flag(SIGN, value >> sign == 1);
    registers.flag(ZERO, value == 0);
    registers.flag(PARITY, (value as u8).count_ones().is_multiple_of(2));
    // of no meaning after logic
    registers.flag(ADJUST, (a ^ b ^ value) >> 4 & 1 == 1);
    value
}

fn holds(registers: &Registers<'_>, condition: ConditionCode) -> bool {
    let set = |flag: i64| registers.flags() & flag != 0;
    let less = set(SIGN) != set(OVERFLOW);
    match condition {
        ConditionCode::o => set(OVERFLOW),
        ConditionCode::no => !set(OVERFLOW),
        ConditionCode::b => set(CARRY),
        ConditionCode::ae => !set(CARRY),
        ConditionCode::e => set(ZERO),
        ConditionCode::ne => !set(ZERO),
        ConditionCode::be => set(CARRY) || set(ZERO),
        ConditionCode::a => !(set(CARRY) || set(ZERO)),
        ConditionCode::s => set(SIGN),
        ConditionCode::ns => !set(SIGN),
        ConditionCode::p => set(PARITY),
        ConditionCode::np => !set(PARITY),
        ConditionCode::l => less,
        ConditionCode::ge => !less,
        ConditionCode::le => less || set(ZERO),
        _ => !(less || set(ZERO)),
    }
}
