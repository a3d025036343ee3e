//! The registers of an interrupted thread: those that the processor saved, and those that it lacks.

use crate::tiles::Tiles;
use crate::traps::ensure;
use iced_x86::{Instruction, OpKind, Register};
use libc::ucontext_t;
use std::ptr;

/// A vector register.
pub type Vector = [u8; 64];

/// What the processor has no room for.
pub struct Kept {
    /// Bytes 32 to 63 of zmm0 to zmm15.
    upper: [[u8; 32]; 16],
    /// zmm16 to zmm31.
    high: [Vector; 16],
    pub masks: [u64; 8],
    pub tiles: Tiles,
}

impl Kept {
    pub const EMPTY: Self = Self { upper: [[0; 32]; 16], high: [[0; 64]; 16], masks: [0; 8], tiles: Tiles::EMPTY };
}

pub struct Registers<'a> {
    saved: &'a mut ucontext_t,
    /// The vector registers as XSAVE leaves them in memory.
    state: &'a mut [u8; STATE],
    pub kept: &'a mut Kept,
}

// Intel SDM, volume 1, sections 13.4.1 to 13.4.3, and the kernel's `struct _fpx_sw_bytes`.
const XMM: usize = 160;
const MAGIC: usize = 464;
const PRESENT: usize = 512;
const YMM: usize = 576;
const STATE: usize = YMM + 16 * 16;

impl<'a> Registers<'a> {
    pub fn new(saved: &'a mut ucontext_t, kept: &'a mut Kept) -> Self {
        // SAFETY: the kernel points to the floating-point state in the frame of the signal; it lives as long as `saved`, and the
        // magic number, checked below before anything beyond it is read, says that the state is of the extended form.
        let state = unsafe { &mut *saved.uc_mcontext.fpregs.cast::<[u8; STATE]>() };
        ensure(state[MAGIC..MAGIC + 4] == 0x4650_5853_u32.to_le_bytes(), "the kernel saves no AVX registers");
        // Registers in their initial state may be left out: zeros.
        for (bit, size, at) in [(2, 256, XMM), (4, 256, YMM)] {
            if state[PRESENT] & bit == 0 {
                state[PRESENT] |= bit;
                state[at..at + size].fill(0);
            }
        }
        Self { saved, state, kept }
    }

    /// The address of the instruction at hand.
    pub fn next(&self) -> u64 {
        self.saved.uc_mcontext.gregs[libc::REG_RIP as usize].cast_unsigned()
    }

    pub fn go_to(&mut self, address: u64) {
        self.saved.uc_mcontext.gregs[libc::REG_RIP as usize] = address.cast_signed();
    }

    /// Sets or clears a flag.
    pub fn flag(&mut self, flag: i64, set: bool) {
        let flags = &mut self.saved.uc_mcontext.gregs[libc::REG_EFL as usize];
        *flags = if set { *flags | flag } else { *flags & !flag };
    }

    pub fn flags(&self) -> i64 {
        self.saved.uc_mcontext.gregs[libc::REG_EFL as usize]
    }

    pub fn any_upper(&self) -> bool {
        self.kept.upper.iter().flatten().any(|&byte| byte != 0)
    }

    pub fn clear_upper(&mut self, number: usize) {
        self.kept.upper[number] = [0; 32];
    }

    /// A general register, all of its 64 bits.
    pub fn general(&self, register: Register) -> u64 {
        self.saved.uc_mcontext.gregs[place(register)].cast_unsigned()
    }

    /// Writes a register of 32 bits, which clears the rest, or of 64.
    pub fn set_general(&mut self, register: Register, value: u64) {
        self.saved.uc_mcontext.gregs[place(register)] = value.cast_signed();
    }

    pub fn vector(&self, register: Register) -> Vector {
        let number = register.number();
        if number >= 16 {
            return self.kept.high[number - 16];
        }
        let mut vector = [0; 64];
        vector[..16].copy_from_slice(&self.state[XMM + 16 * number..][..16]);
        vector[16..32].copy_from_slice(&self.state[YMM + 16 * number..][..16]);
        vector[32..].copy_from_slice(&self.kept.upper[number]);
        vector
    }

    pub fn set_vector(&mut self, register: Register, vector: &Vector) {
        let number = register.number();
        if number >= 16 {
            self.kept.high[number - 16] = *vector;
            return;
        }
        self.state[XMM + 16 * number..][..16].copy_from_slice(&vector[..16]);
        self.state[YMM + 16 * number..][..16].copy_from_slice(&vector[16..32]);
        self.kept.upper[number].copy_from_slice(&vector[32..]);
    }

    /// Where the memory operand of an instruction lies, its index left out.
    pub fn base(&self, instruction: &Instruction) -> u64 {
        ensure(instruction.segment_prefix() == Register::None, "an address in another segment");
        let base = match instruction.memory_base() {
            Register::None | Register::RIP => 0, // the decoder has added the latter
            base => self.general(base),
        };
        base.wrapping_add(instruction.memory_displacement64())
    }

    /// What is added to it.
    pub fn index(&self, instruction: &Instruction) -> u64 {
        match instruction.memory_index() {
            Register::None => 0,
            index => {
                ensure(index.is_gpr64(), "an index that is a vector");
                self.general(index).wrapping_mul(instruction.memory_index_scale().into())
            }
        }
    }

    /// Where the memory operand of an instruction lies.
    pub fn address(&self, instruction: &Instruction) -> u64 {
        self.base(instruction).wrapping_add(self.index(instruction))
    }
}

/// Whether an operand is in memory.
pub fn in_memory(instruction: &Instruction, operand: u32) -> bool {
    instruction.op_kind(operand) == OpKind::Memory
}

/// Copies from the program's memory, as the instruction at hand would.
pub fn load(address: u64, to: &mut [u8]) {
    // SAFETY: the program reads this memory with the instruction that is carried out for it; if it may not, it fails here as
    // there.
    unsafe { ptr::copy_nonoverlapping(ptr::with_exposed_provenance(address as usize), to.as_mut_ptr(), to.len()) }
}

/// Copies to the program's memory, as the instruction at hand would.
pub fn store(address: u64, from: &[u8]) {
    // SAFETY: as for `load`.
    unsafe { ptr::copy_nonoverlapping(from.as_ptr(), ptr::with_exposed_provenance_mut(address as usize), from.len()) }
}

/// Where the kernel saves a register.
fn place(register: Register) -> usize {
    use libc::{REG_R8, REG_RAX, REG_RBP, REG_RBX, REG_RCX, REG_RDI, REG_RDX, REG_RSI, REG_RSP};
    let first = [REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI];
    ensure(register.is_gpr32() || register.is_gpr64(), "a register of 8 or 16 bits");
    let number = register.number();
    first.get(number).map_or(REG_R8 as usize + number.wrapping_sub(8), |&place| place as usize)
}
