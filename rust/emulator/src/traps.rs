//! The signals, and the decision who carries out an instruction.

use crate::registers::{Kept, Registers};
use crate::{general, masks, tiles, vectors};
use iced_x86::{Decoder, DecoderOptions, EncodingKind, Instruction, Mnemonic, OpKind, Register};
use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::{env, ptr};

/// The longest instruction.
const LONGEST: usize = 15;
/// The flag that makes a processor trap after each instruction.
const TRAP_FLAG: i64 = 1 << 8;

thread_local! {
    /// Without a destructor, so that a handler may look at it at any time.
    static KEPT: RefCell<Kept> = const { RefCell::new(Kept::EMPTY) };
}

/// See the crate's [`install`](crate::install).
pub fn install() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    *INSTALLED.get_or_init(|| {
        let wanted = env::var_os("SUBBYTE_EMULATOR").is_none_or(|value| value != "off");
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let possible = !is_x86_feature_detected!("avx512f") || native();
        if !(wanted && avx2 && possible) {
            return false;
        }
        // The decoder builds its tables at its first use; a handler may not allocate.
        decode(&[0x90; LONGEST], 0);
        [libc::SIGILL, libc::SIGTRAP].into_iter().all(catch)
    })
}

/// Whether the processor has the AVX-512 that kernels use.
pub fn native() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

fn catch(signal: libc::c_int) -> bool {
    // SAFETY: all zeros is a valid action: no flags and an empty mask; the handler has the type that SA_SIGINFO asks for.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = handle as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(signal, &action, ptr::null_mut()) == 0
    }
}

/// Carries out instructions from the one at hand on, until one that the processor has.
extern "C" fn handle(signal: libc::c_int, _: *mut libc::siginfo_t, saved: *mut libc::c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO the interrupted thread's registers, which nobody else holds.
    let saved = unsafe { &mut *saved.cast::<libc::ucontext_t>() };
    KEPT.with_borrow_mut(|kept| {
        let mut registers = Registers::new(saved, kept);
        let mut refused = signal == libc::SIGILL;
        loop {
            let at = registers.next();
            // SAFETY: the processor has just read, or is about to read, an instruction from there; what follows the last
            // instruction of a program's code in memory is at least the code that ends the process.
            let code = unsafe { &*ptr::with_exposed_provenance::<[u8; LONGEST]>(at as usize) };
            let instruction = decode(code, at);
            if !(refused || ours(&instruction)) {
                let plain = registers.any_upper().then(|| general::run(&mut registers, &instruction));
                if let Some(next) = plain.flatten() {
                    registers.go_to(next);
                    continue;
                }
                clear(&instruction, &mut registers);
                break;
            }
            let known = tiles::run(&mut registers, &instruction)
                .or_else(|| masks::run(&mut registers, &instruction))
                .or_else(|| vectors::run(&mut registers, &instruction));
            if known.is_none() {
                let bytes = &code[..instruction.len().clamp(1, LONGEST)];
                stop(format_args!("emulator: unknown instruction {:?} ({bytes:02x?})\n", instruction.code()));
            }
            registers.go_to(instruction.next_ip());
            refused = false;
        }
        registers.flag(TRAP_FLAG, registers.any_upper());
    });
}

fn decode(code: &[u8; LONGEST], at: u64) -> Instruction {
    Decoder::with_ip(64, code, at, DecoderOptions::NONE).decode()
}

/// Whether the processor would refuse it.
fn ours(instruction: &Instruction) -> bool {
    let mask = (0..instruction.op_count()).any(|n| instruction.op_register(n).is_k());
    (tiles::knows(instruction) && !tiles::native())
        || (!native() && (instruction.code().encoding() == EncodingKind::EVEX || mask))
}

/// Clears the upper halves that an instruction of AVX will clear.
fn clear(instruction: &Instruction, registers: &mut Registers<'_>) {
    use Mnemonic::{Vcomisd, Vcomiss, Vptest, Vtestpd, Vtestps, Vucomisd, Vucomiss, Vzeroall, Vzeroupper};
    if instruction.code().encoding() != EncodingKind::VEX {
        return;
    }
    let mut clear = |n: u32| {
        let register = instruction.op_register(n);
        if instruction.op_kind(n) == OpKind::Register && (register.is_xmm() || register.is_ymm()) {
            registers.clear_upper(register.number());
        }
    };
    match instruction.mnemonic() {
        Vzeroall | Vzeroupper => (0..16).for_each(|number| registers.clear_upper(number)),
        Vcomisd | Vcomiss | Vptest | Vtestpd | Vtestps | Vucomisd | Vucomiss => {}
        // a gather also writes what chose its elements
        _ if instruction.op_count() == 3 && vector_index(instruction) => [0, 2].into_iter().for_each(clear),
        _ if instruction.op_count() > 0 => clear(0),
        _ => {}
    }
}

fn vector_index(instruction: &Instruction) -> bool {
    let index = instruction.memory_index();
    index != Register::None && index.is_vector_register()
}

/// Ends the process and says why, in the way that a handler may.
fn stop(message: std::fmt::Arguments<'_>) -> ! {
    struct Stderr;
    impl std::fmt::Write for Stderr {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            // SAFETY: the buffer is as long as said.
            unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
            Ok(())
        }
    }
    let _ = std::fmt::Write::write_fmt(&mut Stderr, message);
    // SAFETY: always allowed.
    unsafe { libc::abort() }
}

/// Ends the process where the processor would refuse what the program does, or where the emulator does not know it.
pub fn ensure(holds: bool, otherwise: &str) {
    if !holds {
        stop(format_args!("emulator: {otherwise}\n"));
    }
}
