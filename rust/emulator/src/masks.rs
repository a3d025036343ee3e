//! The mask registers: moves, logic, tests.

use crate::registers::{Registers, in_memory, load, store};
use iced_x86::{Instruction, Mnemonic, Register};

const CARRY: i64 = 1;
const ZERO: i64 = 1 << 6;
/// Parity, adjust, sign and overflow: cleared where zero and carry are set.
const OTHERS: i64 = 1 << 2 | 1 << 4 | 1 << 7 | 1 << 11;

/// Carries out an instruction; `None` for one of others.
pub fn run(registers: &mut Registers<'_>, instruction: &Instruction) -> Option<()> {
    use Mnemonic::*;
    let bits: u32 = match instruction.mnemonic() {
        Kmovb | Knotb | Kandb | Kandnb | Korb | Kxorb | Kxnorb | Kortestb | Kshiftlb | Kshiftrb => 8,
        Kmovw | Knotw | Kandw | Kandnw | Korw | Kxorw | Kxnorw | Kortestw | Kshiftlw | Kshiftrw | Kunpckbw => 16,
        Kmovd | Knotd | Kandd | Kandnd | Kord | Kxord | Kxnord | Kortestd | Kshiftld | Kshiftrd | Kunpckwd => 32,
        Kmovq | Knotq | Kandq | Kandnq | Korq | Kxorq | Kxnorq | Kortestq | Kshiftlq | Kshiftrq | Kunpckdq => 64,
        _ => return None,
    };
    let all = u64::MAX >> (64 - bits);
    let read = |registers: &Registers<'_>, operand: u32| {
        let register = instruction.op_register(operand);
        let value = if in_memory(instruction, operand) {
            let mut value = [0; 8];
            load(registers.address(instruction), &mut value[..bits as usize / 8]);
            u64::from_le_bytes(value)
        } else if register.is_k() {
            registers.kept.masks[register.number()]
        } else {
            registers.general(register)
        };
        value & all
    };
    let a = read(registers, u32::from(instruction.op_count() > 1));
    let last = instruction.op_count() - 1;
    let b = if instruction.op_register(last) == Register::None { 0 } else { read(registers, last) };
    let shift = |shifted: fn(u64, u32) -> Option<u64>| shifted(a, instruction.immediate8().into()).unwrap_or(0);
    let value = match instruction.mnemonic() {
        Kmovb | Kmovw | Kmovd | Kmovq => a,
        Knotb | Knotw | Knotd | Knotq => !a,
        Kandb | Kandw | Kandd | Kandq => a & b,
        Kandnb | Kandnw | Kandnd | Kandnq => !a & b,
        Korb | Korw | Kord | Korq => a | b,
        Kxorb | Kxorw | Kxord | Kxorq => a ^ b,
        Kxnorb | Kxnorw | Kxnord | Kxnorq => !(a ^ b),
        Kshiftlb | Kshiftlw | Kshiftld | Kshiftlq => shift(u64::checked_shl),
        Kshiftrb | Kshiftrw | Kshiftrd | Kshiftrq => shift(u64::checked_shr),
        Kunpckbw | Kunpckwd | Kunpckdq => {
            let half = u64::MAX >> (64 - bits / 2);
            (a & half) << (bits / 2) | (b & half)
        }
        _ => {
            let either = a | read(registers, 0);
            registers.flag(OTHERS, false);
            registers.flag(ZERO, either == 0);
            registers.flag(CARRY, either == all);
            return Some(());
        }
    } & all;
    let to = instruction.op0_register();
    if in_memory(instruction, 0) {
        store(registers.address(instruction), &value.to_le_bytes()[..bits as usize / 8]);
    } else if to.is_k() {
        registers.kept.masks[to.number()] = value;
    } else {
        registers.set_general(to, value);
    }
    Some(())
}
